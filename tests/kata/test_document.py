"""The command lines of the document that describes `kata-network` and `kata-ipvs`, run as they are printed there.

Only `<container-id>` and the paths of files are filled in. The interface has no `vhostUserSocket` but in one test, as
else its device is a TAP.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Kernel, ip
from tests.ipvs.place import Vm as Table
from tests.kata.container import Container
from tests.vhost.backend import running

IFACE: dict[str, Any] = {
    "device": "tap-test",
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1500,
    "queues": 5,
}
ROUTE = {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"}
ROUTE_ADDED = '[{"dest":"default","gateway":"172.16.0.1","device":"eth-test"}]\n'
CONNECTED = "172.16.0.0/16 dev eth-test proto kernel scope link src 172.16.0.3"
LISTED = '[{"name":"eth-test","mac":"02:42:20:6f:a3:69","ip":["172.16.0.3/16"],"mtu":1500}]\n'
SERVICE = "-A -t 172.17.0.7:80 -s rr -p 3000"
SERVER = "-a -t 172.17.0.7:80 -r 172.17.0.4:80 -m -w 100"
RULES = """\
-A -t 10.10.11.12:100 -s rr -p 3000
-a -t 10.10.11.12:100 -r 172.16.0.1:80 -m
-a -t 10.10.11.12:100 -r 172.16.0.1:81 -m
-a -t 10.10.11.12:100 -r 172.16.0.1:82 -m
"""
NETWORK = "kata-runtime kata-network"
IPVSADM = "kata-runtime kata-ipvs ipvsadm"


@pytest.fixture
def plugged(container: Container, tap: str) -> Container:
    """The container with the interface, and the files of the document."""
    container.json("test-iface.json", IFACE | {"device": tap})
    container.json("test-route.json", ROUTE)
    container.output(f"{NETWORK} add-iface 6ec7a98 test-iface.json")
    return container


def routes(container: Container) -> list[str]:
    return [line.rstrip() for line in container.guest.output("ip", "route").splitlines()]


@pytest.mark.usefixtures("tap")
def test_add_iface_from_standard_input(container: Container) -> None:
    container.json("test-iface.json", IFACE)
    answer = container.output(f"cat ./test-iface.json | {NETWORK} add-iface 6ec7a98 -")
    assert answer == (
        '{"device":"tap-test","name":"eth-test","IPAddresses":[{"Family":2,"Address":"172.16.0.3","Mask":"16"}],'
        '"mtu":1500,"hwAddr":"02:42:20:6f:a3:69","queues":5,"pciAddr":"10.0/00"}\n'
    )
    assert routes(container) == [CONNECTED]


def test_add_iface_of_a_vhost_user_socket(container: Container, kernel: Kernel) -> None:
    socket = container.folder / "vhost-user1"
    _, there = kernel.veth()
    ip("link", "set", "dev", there, "up")
    container.json("test-iface.json", IFACE | {"vhostUserSocket": str(socket), "queues": 2})
    with running(socket, there, 2):
        answer = json.loads(container.output(f"cat ./test-iface.json | {NETWORK} add-iface 6ec7a98 -"))
        assert (answer["vhostUserSocket"], answer["queues"], answer["pciAddr"]) == (str(socket), 2, "10.0/00")
        assert container.output(f"{NETWORK} list-ifaces 6ec7a98") == LISTED
        assert container.output(f"{NETWORK} del-iface 6ec7a98 test-iface.json") == "null\n"


@pytest.mark.usefixtures("tap")
def test_add_iface_from_a_file(container: Container) -> None:
    container.json("net.json", IFACE)
    assert container.output(f"{NETWORK} add-iface 6ec7a98 net.json").startswith('{"device":"tap-test",')
    assert container.output(f"{NETWORK} list-ifaces 6ec7a98") == LISTED


def test_add_iface_that_fails(container: Container) -> None:
    container.json("netbad.json", IFACE | {"device": "tap_none"})
    ran = container.run(f"{NETWORK} add-iface 6ec7a98 netbad.json 2>/dev/null")
    assert (ran.returncode, ran.stdout) == (2, "null\n")


def test_list_ifaces(plugged: Container) -> None:
    assert plugged.output(f"{NETWORK} list-ifaces 6ec7a98") == LISTED


def test_list_ifaces_of_a_container_without_any(container: Container) -> None:
    assert container.output(f"{NETWORK} list-ifaces 6ec7a98") == "null\n"


def test_list_ifaces_that_fails(container: Container) -> None:
    ran = container.run(f"{NETWORK} list-ifaces 7ec7a98")
    assert (ran.returncode, ran.stdout) == (2, "null\n")
    assert "no sandbox has an ID that begins with '7ec7a98'" in ran.stderr


def test_add_route_from_standard_input(plugged: Container) -> None:
    assert plugged.output(f"cat ./test-route.json | {NETWORK} add-route 6ec7a98 -") == ROUTE_ADDED
    assert routes(plugged) == ["default via 172.16.0.1 dev eth-test proto 200", CONNECTED]


def test_add_route_from_a_file(plugged: Container) -> None:
    plugged.json("route.json", {"dest": "177.17.0.0/24", "gateway": "172.16.25.1", "device": "eth-test"})
    expected = '[{"dest":"177.17.0.0/24","gateway":"172.16.25.1","device":"eth-test"}]\n'
    assert plugged.output(f"{NETWORK} add-route 6ec7a98 route.json") == expected
    assert plugged.output(f"{NETWORK} list-routes 6ec7a98") == expected


def test_add_route_that_fails(plugged: Container) -> None:
    plugged.json("routebad.json", {"dest": "177.17.0.0/24", "gateway": "177.17.25.1", "device": "netport_test_1"})
    ran = plugged.run(f"{NETWORK} add-route 6ec7a98 routebad.json 2>/dev/null")
    assert (ran.returncode, ran.stdout) == (2, "null\n")


def test_add_route_of_lo(container: Container) -> None:
    container.guest.output("ip", "link", "set", "lo", "up")
    container.json("route.json", {"dest": "177.17.0.9", "device": "lo"})
    answer = container.output(f"{NETWORK} add-route 6ec7a98 route.json")
    assert answer == '[{"dest":"177.17.0.9/32","gateway":"","device":"lo"}]\n'
    assert container.output(f"{NETWORK} del-route 6ec7a98 route.json") == answer


def test_del_route_from_standard_input(plugged: Container) -> None:
    plugged.output(f"{NETWORK} add-route 6ec7a98 test-route.json")
    assert plugged.output(f"cat ./test-route.json | {NETWORK} del-route 6ec7a98 -") == ROUTE_ADDED
    assert routes(plugged) == [CONNECTED]


def test_del_route_by_destination(plugged: Container) -> None:
    added = {"dest": "172.17.10.10/24", "gateway": "", "device": "eth-test"}
    plugged.json("add.json", added)
    expected = '[{"dest":"172.17.10.0/24","gateway":"","device":"eth-test"}]\n'
    assert plugged.output(f"{NETWORK} add-route 6ec7a98 add.json") == expected
    plugged.json("route.json", {"dest": "172.17.10.10/24"})
    assert plugged.output(f"{NETWORK} del-route 6ec7a98 route.json") == expected


def test_del_route_that_fails(plugged: Container) -> None:
    plugged.json("routebad.json", {"dest": "177.17.0.0/24"})
    ran = plugged.run(f"{NETWORK} del-route 6ec7a98 routebad.json 2>/dev/null")
    assert (ran.returncode, ran.stdout) == (2, "null\n")


def test_del_iface_from_standard_input(plugged: Container) -> None:
    assert plugged.output(f"cat ./test-iface.json | {NETWORK} del-iface 6ec7a98 -") == "null\n"
    assert plugged.output(f"{NETWORK} list-ifaces 6ec7a98") == "null\n"


def test_del_iface_from_a_file(plugged: Container) -> None:
    plugged.json("net.json", {"name": "eth-test"})
    assert plugged.output(f"{NETWORK} del-iface 6ec7a98 net.json") == "null\n"


def test_del_iface_that_fails(container: Container) -> None:
    container.json(
        "net.json",
        {
            "device": "tapname_fun_012",
            "name": "netport_test_1",
            "IPAddresses": [{"address": "177.17.0.1", "mask": "8"}],
            "mtu": 1500,
            "hwAddr": "02:42:20:6e:a2:59",
        },
    )
    ran = container.run(f"{NETWORK} del-iface 6ec7a98 net.json")
    assert ran.returncode == 2
    assert ran.stdout == (
        '{"device":"tapname_fun_012","name":"netport_test_1",'
        '"IPAddresses":[{"Family":0,"Address":"177.17.0.1","Mask":"8"}],'
        '"mtu":1500,"hwAddr":"02:42:20:6e:a2:59","linkType":"tap"}\n'
    )
    assert ran.stderr == "reconciler: there is no interface netport_test_1\n"


def test_add_service(container: Container, table: Table) -> None:
    parameters = "--add-service --tcp-service 172.17.0.7:80 --scheduler rr --persistent 3000"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == [SERVICE]


def test_edit_service(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n{SERVER}\n")
    parameters = "--edit-service --tcp-service 172.17.0.7:80 --scheduler rr --persistent 5000"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == [SERVICE.replace("3000", "5000"), SERVER]


def test_delete_service(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n{SERVER}\n-A -u 172.17.0.7:53 -s rr\n")
    parameters = "--delete-service --tcp-service 172.17.0.7:80"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == ["-A -u 172.17.0.7:53 -s rr"]


def test_add_server(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n")
    parameters = "--add-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80 --weight 100"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == [SERVICE, SERVER]


def test_edit_server(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n{SERVER}\n")
    parameters = "--edit-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80 --weight 200"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == [SERVICE, SERVER.replace("100", "200")]


def test_delete_server(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n{SERVER}\n")
    parameters = "--delete-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80"
    assert container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98') == ""
    assert table.saved() == [SERVICE]


def test_list(container: Container, table: Table) -> None:
    table.load(f"{SERVICE}\n{SERVER}\n")
    listed = container.output(f'{IPVSADM} --parameters "--list" 6ec7a98')
    assert listed == table.output("ipvsadm", "-Ln")
    assert "TCP  172.17.0.7:80 rr persistent 3000\n  -> 172.17.0.4:80                Masq    100    0" in listed


def test_restore(container: Container, table: Table) -> None:
    (container.folder / "rules").write_text(RULES)
    assert container.output(f"{IPVSADM} --restore -  <  rules 6ec7a98") == ""
    expected = [f"{line} -w 1" if line.startswith("-a") else line for line in RULES.splitlines()]
    assert table.saved() == expected
    assert container.output(f"{IPVSADM} --parameters -Sn 6ec7a98").splitlines() == expected


def test_cleanup(container: Container, table: Table) -> None:
    table.shell("modprobe nf_conntrack_netlink; conntrack -F 2>/dev/null")
    ends = "-s 10.1.0.1 --sport 1000 --dport 80 -t 600"
    for entry in (
        "-d 172.17.0.4 -p tcp --state ESTABLISHED",
        "-d 172.17.0.5 -p tcp --state ESTABLISHED",
        "-d 172.17.0.4 -p udp",
    ):
        table.run("conntrack", "-I", *entry.split(), *ends.split())
    parameters = "--orig-dst 172.17.0.4 --protonum tcp"
    assert container.output(f'kata-runtime kata-ipvs cleanup --parameters "{parameters}" 6ec7a98') == ""
    left = [line.split() for line in table.run("conntrack", "-L").stdout.splitlines()]
    assert sorted((words[0], next(word for word in words if word.startswith("dst="))) for words in left) == [
        ("tcp", "dst=172.17.0.5"),
        ("udp", "dst=172.17.0.4"),
    ]
    table.run("conntrack", "-F")


def test_set(container: Container, table: Table) -> None:
    assert container.output(f'{IPVSADM} --parameters "--set 100 100 200" 6ec7a98') == ""
    assert table.output("ipvsadm", "-L", "--timeout") == "Timeout (tcp tcpfin udp): 100 100 200\n"

"""A TAP of the host becomes a NIC of the guest: packets pass, and each change arrives."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vm.vm import Vm, assert_answers, make_tap, reach
from tests.watch.running import until

# The seed's interface.
SEED: dict[str, Any] = {"name": "eth-test", "hwAddr": "02:42:20:6f:a3:69", "mtu": 1500, "addresses": ["172.16.0.3/16"]}
PORT = 7000


def test_packets_pass(vm: Vm, kernel: Kernel) -> None:
    device = make_tap(kernel)
    reach(device, "172.16.0.1", "172.16.0.3")
    vm.apply(interfaces=[SEED | {"device": device}])
    routes = vm.guest.output("ip", "route").splitlines()
    assert [line.rstrip() for line in routes] == ["172.16.0.0/16 dev eth-test proto kernel scope link src 172.16.0.3"]
    assert_answers(device, "172.16.0.3")
    vm.guest.output("sh", "-c", f"echo answer | nc -l -p {PORT} >/tmp/heard 2>&1 &")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        client.settimeout(60)
        deadline = time.monotonic() + 60
        while client.connect_ex(("172.16.0.3", PORT)) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        client.sendall(b"question\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"answer\n"
        # The server leaves once it has heard all.
        assert client.recv(100) == b""
    until(lambda: vm.guest.output("cat", "/tmp/heard") == "question\n", "the server has heard it")


def test_show_gives_the_manifest_back(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    devices = [make_tap(kernel), make_tap(kernel, "multi_queue")]
    addresses = ["172.16.0.3/16", {"address": "fd00:16::3/64", "dad": False}]
    interfaces = [
        SEED | {"device": devices[0], "mtu": 1400, "addresses": addresses},
        nic(devices[1], "eth7", 1, queues=2),
    ]
    vm.apply(interfaces=interfaces)
    capsys.readouterr()
    assert main(["show", "-o", "json", str(vm.file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    shown["interfaces"].sort(key=lambda each: devices.index(each["device"]))
    assert shown["interfaces"] == interfaces
    vm.assert_is(interfaces)


@pytest.mark.usefixtures("quick")
def test_changes_that_leave_the_nic_plugged(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = make_tap(kernel)
    reach(device, "172.16.0.1", "172.16.0.3")
    before = SEED | {"device": device}
    route = {"dest": "10.8.0.0/16", "gateway": "172.16.0.2", "device": "eth-test"}
    vm.apply(interfaces=[before], routes=[route])
    index = vm.index("eth-test")
    changes: list[dict[str, Any]] = [
        {"name": "net0"},
        {"mtu": 1400},
        {"mtu": 1500},
        {"hwAddr": "02:42:20:6f:a3:77"},
        {"addresses": ["172.16.0.3/16", "172.16.0.4/16"]},
        {"addresses": ["172.16.0.3/24"]},
        SEED,
    ]
    for change in changes:
        before |= change
        route["device"] = before["name"]
        vm.apply(interfaces=[before], routes=[route])
        vm.assert_is([before])
        assert vm.index(before["name"]) == index
        assert "10.8.0.0/16 via 172.16.0.2" in vm.guest.output("ip", "route", "show", "proto", "200")
        assert_answers(device, "172.16.0.3")
        capsys.readouterr()
        assert main(["diff", str(vm.file)]) == 0


@pytest.mark.usefixtures("quick")
def test_another_number_of_queues_is_another_nic(vm: Vm, kernel: Kernel) -> None:
    device = make_tap(kernel, "multi_queue")
    reach(device, "172.16.0.1", "172.16.0.3")
    route = {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"}
    for queues in (2, 4, 3):
        interface = SEED | {"device": device, "queues": queues}
        vm.apply(interfaces=[interface], routes=[route])
        vm.assert_is([interface])
        assert "default via 172.16.0.1" in vm.guest.output("ip", "route", "show", "proto", "200")
        assert_answers(device, "172.16.0.3")


@pytest.mark.usefixtures("quick")
def test_a_nic_that_left_the_manifest_is_unplugged_and_its_tap_free_again(vm: Vm, kernel: Kernel) -> None:
    kept, gone = make_tap(kernel), make_tap(kernel)
    vm.apply(interfaces=[nic(kept, "a", 1), nic(gone, "b", 2)])
    vm.apply(interfaces=[nic(kept, "a", 1)])
    vm.assert_is([nic(kept, "a", 1)])
    (link,) = json.loads(ip("-j", "link", "show", "dev", gone))
    assert "LOWER_UP" not in link["flags"]
    # Its name, its addresses, its MAC address and its TAP serve others.
    vm.apply(interfaces=[nic(kept, "a", 1), nic(gone, "b", 2)])
    vm.assert_is([nic(kept, "a", 1), nic(gone, "b", 2)])


@pytest.mark.usefixtures("quick")
def test_names_and_mac_addresses_change_places(vm: Vm, kernel: Kernel) -> None:
    devices = [make_tap(kernel) for _ in range(3)]
    before = [nic(device, name, number) for number, (device, name) in enumerate(zip(devices, "abc", strict=True))]
    vm.apply(interfaces=before)
    after = [nic(device, name, number) for device, name, number in zip(devices, "bca", (1, 2, 0), strict=True)]
    vm.apply(interfaces=after)
    vm.assert_is(after)


@pytest.mark.usefixtures("quick")
def test_names_that_the_guest_gives_by_itself(vm: Vm, kernel: Kernel) -> None:
    devices = [make_tap(kernel) for _ in range(3)]
    one, two = (
        [nic(device, f"eth{(number + first) % 3}", number) for number, device in enumerate(devices)] for first in (1, 2)
    )
    vm.apply(interfaces=one)
    vm.assert_is(one)
    vm.apply(interfaces=two[1:])
    vm.apply(interfaces=two)
    vm.assert_is(two)


@pytest.mark.usefixtures("quick")
def test_mtus_at_the_limits(vm: Vm, kernel: Kernel) -> None:
    device = make_tap(kernel)
    ip("link", "set", "dev", device, "mtu", "9600")
    for mtu in (9600, 68):
        vm.apply(interfaces=[nic(device, mtu=mtu)])
        vm.assert_is([nic(device, mtu=mtu)])

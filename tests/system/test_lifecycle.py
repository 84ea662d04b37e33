"""Namespaces and devices come and go."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers import given
from reconciler.manifest.load import load
from reconciler.model.sandbox import NetnsAddress
from tests.conftest import Kernel, ip
from tests.system.box import Box, errors, nic
from tests.watch.running import until

# linux/if_tun.h.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def test_a_device_goes_back_as_it_was(box: Box, kernel: Kernel) -> None:
    device = kernel.tap()
    ip("link", "set", "dev", device, "mtu", "1234", "alias", "uplink of rack 7", "txqueuelen", "555")
    ip("link", "property", "add", "dev", device, "altname", f"{device}-of-the-host")
    before = ip("-o", "link", "show", "dev", device)
    own = {"alias": "mine", "altnames": ["lan", "other"], "txQueueLen": 7, "gsoMaxSize": 30000, "allmulticast": True}
    box.apply(interfaces=[nic(device) | own])
    assert subprocess.run(["ip", "link", "show", "dev", device], check=False, capture_output=True).returncode == 1
    box.apply(interfaces=[])
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == before.partition(": ")[2]


@contextmanager
def in_use(tun: str) -> Iterator[None]:
    """Open a TUN as a program does that makes a tunnel of it: it has a carrier."""
    with open("/dev/net/tun", "r+b", buffering=0) as file:
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", tun.encode(), IFF_TUN | IFF_NO_PI))
        yield


def test_a_device_without_a_mac_address_is_given_kept_and_returned(box: Box, kernel: Kernel) -> None:
    tun = kernel.tap("mode", "tun")
    ip("link", "set", "dev", tun, "mtu", "1300", "alias", "of the VPN", "txqueuelen", "77")
    before = ip("-d", "-o", "link", "show", "dev", tun)
    addresses = ["10.9.0.1/24", "fd09::1/64", {"address": "10.9.1.1", "peer": "10.9.2.1/32"}]
    wishes: dict[str, Any] = {
        "interfaces": [{"name": "vpn0", "device": tun, "mtu": 1400, "addresses": addresses}],
        "neighbours": [{"address": "10.9.0.8", "device": "vpn0", "proxy": True}],
        "routes": [
            {"dest": "10.20.0.0/16", "device": "vpn0"},
            {"dest": "2001:db8::/32", "gateway": "fd09::9", "device": "vpn0"},
        ],
    }
    lost = [
        "ip -6 route add 2001:db8::/32 via fd09::9 dev vpn0 metric 1024 proto 200",
        "ip address add fd09::1/64 dev vpn0",
        "ip link set dev vpn0 up",
        "ip neigh replace proxy 10.9.0.8 dev vpn0 protocol 200",
        "ip route add 10.20.0.0/16 dev vpn0 proto 200",
    ]
    broken = {
        "link set vpn0 name vpn1": ["ip link set dev vpn1 name vpn0"],
        "link set vpn0 mtu 1290": ["ip link set dev vpn0 mtu 1400"],
        "link set vpn0 down": lost,
        "address del 10.9.1.1 peer 10.9.2.1/32 dev vpn0": ["ip address add 10.9.1.1 peer 10.9.2.1/32 dev vpn0"],
        "route del multicast ff00::/8 dev vpn0 table local": [
            "ip -6 route add multicast ff00::/8 dev vpn0 table local metric 256 proto kernel"
        ],
    }
    with in_use(tun):
        box.apply(**wishes)
        (link,) = json.loads(box.ip("-d", "-j", "address", "show", "dev", "vpn0"))
        assert [link[key] for key in ("link_type", "mtu", "ifalias")] == [
            "none",
            1400,
            f"reconciler: device={tun} mtu=1300 alias=of the VPN",
        ]
        found = {(each["local"], each.get("address"), each["prefixlen"]) for each in link["addr_info"]}
        assert found >= {("10.9.0.1", None, 24), ("fd09::1", None, 64), ("10.9.1.1", "10.9.2.1", 32)}
        # The kernel has made it of a secret.
        assert [each["stable-privacy"] for each in link["addr_info"] if each["scope"] == "link"] == [True]
        state = box.state()
        for command, expected in broken.items():
            box.ip(*command.split())
            assert sorted(box.diff(**wishes)) == expected, command
            box.apply(**wishes)
            assert box.state() == state, command
    box.apply("--allow-delete", "all", interfaces=[], neighbours=[], routes=[])
    assert ip("-d", "-o", "link", "show", "dev", tun).partition(": ")[2] == before.partition(": ")[2]


ALIASES = ["uplink", "", "reconciler: device=tap-of-others hwaddr=02:00:00:00:00:09 mtu=1400", "é" * 100]


@pytest.mark.parametrize("alias", ALIASES)
def test_a_device_is_recognised_and_returns_whatever_is_done_to_its_name_and_alias(
    box: Box, kernel: Kernel, alias: str
) -> None:
    device, _ = kernel.veth()
    ip("link", "set", "dev", device, "alias", "uplink of rack 7", "up")
    before = ip("-o", "link", "show", "dev", device)
    box.apply(interfaces=[nic(device)])
    box.ip("link", "set", "eth0", "alias", alias)
    # An alias is for people: another one is no difference.
    assert box.diff(interfaces=[nic(device)]) == []
    box.ip("link", "set", "eth0", "name", "net7")
    assert box.diff(interfaces=[nic(device)]) == ["ip link set dev net7 name eth0"]
    box.apply(interfaces=[nic(device)])
    box.ip("link", "set", "eth0", "name", "net7", "down")
    box.apply(interfaces=[])
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == before.partition(": ")[2]
    assert set(box.state()["links"]) == {"lo"}


def test_a_copy_of_an_alias_proves_nothing(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device, stolen = kernel.tap(), kernel.tap()
    box.apply(interfaces=[nic(device)])
    alias = json.loads(box.ip("-j", "link", "show", "eth0"))[0]["ifalias"]
    box.ip("link", "add", "lure", "type", "veth", "peer", "name", "lure1")
    box.ip("link", "set", "lure", "alias", alias.replace(device, stolen))
    capsys.readouterr()
    within = f"nsenter --net=/run/netns/{box.namespace}"
    (mac, mtu) = (alias.split("hwaddr=")[1].split()[0], 1500)
    wishes: list[list[dict[str, Any]]] = [[nic(device)], [], [nic(stolen)]]
    for interfaces in wishes:
        for command in ("diff", "apply"):
            assert main([command, box.write(interfaces=interfaces)]) == 3
            assert errors(capsys) == (
                f"box: refused: the alias of lure says that reconciler moved {stolen} of this host here, but no record "
                "proves that: it was lost, or another program wrote the alias. If it is that device, return it by hand "
                f"and apply again: {within} ip link set dev lure netns $$ name {stolen} address {mac} mtu {mtu} "
                f"alias ''\nIf it is not, clear its alias: {within} ip link set dev lure alias ''\n"
            )
    # What does not concern interfaces goes on.
    box.apply(routes=[])
    assert set(box.state()["links"]) >= {"lure", "eth0"}
    subprocess.run(["sh", "-c", f"{within} ip link set dev lure alias ''"], check=True)
    box.apply(interfaces=[])
    assert ip("link", "show", "dev", device)


def test_without_its_record_a_device_is_refused_and_can_be_returned_by_hand(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device = kernel.tap()
    before = ip("-o", "link", "show", "dev", device)
    box.apply(interfaces=[nic(device)])
    record_of(box).unlink()
    capsys.readouterr()
    assert main(["apply", box.write(interfaces=[])]) == 3
    command = capsys.readouterr().err.partition("apply again: ")[2].partition("\n")[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == before.partition(": ")[2]
    box.apply(interfaces=[nic(device)])
    box.apply(interfaces=[])


def test_the_record_of_a_dead_namespace_says_nothing_of_a_new_one_with_its_number(box: Box, kernel: Kernel) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    old = record_of(box)
    text, index = old.read_text(), json.loads(box.ip("-j", "link", "show", "eth0"))[0]["ifindex"]
    ip("netns", "del", box.namespace)
    ip("netns", "add", box.namespace)
    # The kernel may have given the number to another namespace meanwhile.
    record_of(box).write_text(text)
    other = kernel.tap()
    box.ip("link", "add", "eth0", "index", str(index), "type", "veth", "peer", "name", "eth1")
    box.apply(interfaces=[nic(other, "eth7")])
    box.apply(interfaces=[])
    assert set(box.state()["links"]) == {"lo", "eth0", "eth1"}
    assert not record_of(box).exists()


def record_of(box: Box) -> Path:
    found = os.stat(f"/run/netns/{box.namespace}")
    return Path(given.FOLDER, f"{found.st_dev}-{found.st_ino}.json")


def test_a_device_that_came_home_under_another_name_is_found_by_its_record(box: Box, kernel: Kernel) -> None:
    """As the kernel does it with a physical device whose namespace died while its name was taken."""
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    ip("link", "set", "dev", "eth0", "netns", str(os.getpid()), "name", f"{device}x", namespace=box.namespace)
    (command, *_) = box.diff(interfaces=[nic(device)])
    assert command.startswith(
        f"ip link set dev {device}x netns {box.namespace} name eth0 alias 'reconciler: device={device} "
    )
    box.apply(interfaces=[nic(device)])
    assert main(["apply", "--allow-delete", "all", box.write(interfaces=[])]) == 0
    assert device in ip("link", "show", "dev", device)


def test_a_device_that_died_with_its_namespace_is_reported(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    ip("netns", "del", box.namespace)
    capsys.readouterr()
    assert main(["apply", str(box.file)]) == 2
    assert errors(capsys) == (
        f"box: {box.file}:4:3: driver: netns {box.namespace} does not exist (/run/netns/{box.namespace}); "
        f"`ip netns add {box.namespace}` makes it\n"
    )
    ip("netns", "add", box.namespace)
    assert main(["apply", str(box.file)]) == 2
    assert errors(capsys) == (
        f"box: {box.file}:7:11: interfaces[0].device: "
        f"{device}: no such device on this host, which interface eth0 needs; create it first\n"
    )


def test_many_namespaces_are_let_go(kernel: Kernel, repeats: Callable[[int], int]) -> None:
    """Nothing keeps a namespace alive after a run: its number is free again when its name is."""
    before = sorted(os.listdir("/proc/self/fd"))
    for number in range(repeats(400)):
        name = f"{kernel.prefix}d{number}"
        ip("netns", "add", name)
        try:
            text = f"apiVersion: reconciler/v1\nsandbox: box\ndriver: {{netns: {{name: {name}}}}}\nroutes: []\n"
            file = f"/tmp/{name}.yaml"
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(text)
            assert main(["diff", file]) == 0
            os.unlink(file)
        finally:
            ip("netns", "del", name)
    # What the kernel takes long to close is closed by a thread.
    until(lambda: sorted(os.listdir("/proc/self/fd")) == before)


def test_named_by_path_and_by_pid(box: Box, kernel: Kernel) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    with subprocess.Popen(["ip", "netns", "exec", box.namespace, "sleep", "60"]) as process:
        try:
            # `ip` becomes the command once it is in the namespace.
            while os.stat(f"/proc/{process.pid}/ns/net").st_ino != os.stat(f"/run/netns/{box.namespace}").st_ino:
                pass
            for driver in ({"path": f"/run/netns/{box.namespace}"}, {"pid": process.pid}):
                (manifest,) = load([box.write(driver={"netns": driver}, interfaces=[nic(device)])])
                assert main(["diff", str(box.file)]) == 0
                address = manifest.sandbox.driver
                assert isinstance(address, NetnsAddress)
                assert address.file == driver.get("path", f"/proc/{process.pid}/ns/net")
        finally:
            process.kill()


def test_what_is_no_namespace(box: Box, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main(["diff", box.write(driver={"netns": {"path": str(file)}})]) == 2
    assert errors(capsys) == (
        f"box: {box.file}:4:3: driver: {file} is not a network namespace; `ip netns` lists those that are\n"
    )


@pytest.mark.parametrize(("name", "mtu"), [("04-routes", 9000), ("06-policy-routing", 1500), ("07-neighbours", 1500)])
def test_show_then_apply_is_a_no_op(
    box: Box, kernel: Kernel, repository: Path, name: str, mtu: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (repository / "examples" / f"{name}.yaml").read_text()
    mac = re.findall(r"hwAddr: (\S+)", text)[0]
    device, *others = [(each, kernel.tap()) for each in dict.fromkeys(re.findall(r"device: (veth-\S+)", text))]
    for named, made in (device, *others):
        text = text.replace(f"device: {named}\n", f"device: {made}\n")
    text = re.sub(r"netns: \{.*\}", f"netns: {{name: {box.namespace}}}", text)
    box.file.write_text(text)
    assert main(["apply", str(box.file)]) == 0
    before = box.state()
    capsys.readouterr()
    assert main(["show", str(box.file)]) == 0
    shown = capsys.readouterr().out
    box.file.write_text(shown)
    assert main(["diff", str(box.file)]) == 0
    assert main(["apply", str(box.file)]) == 0
    assert capsys.readouterr().out.endswith(f"{name[3:]}: in sync\n")
    assert box.state() == before
    assert main(["diff", "--observed", str(box.file), str(box.file)]) == 0
    for form in ("json", "text"):
        assert main(["show", "-o", form, str(box.file)]) == 0
    assert f"eth0 (host {device[1]}): {mac} mtu {mtu} up" in capsys.readouterr().out

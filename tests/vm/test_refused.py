"""What cannot work is refused before anything is plugged, in words that name what does not fit."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.manifest.dump import dump
from tests.conftest import Kernel, ip
from tests.system.box import MACS, nic
from tests.vm.vm import Vm, make_tap

# linux/if_tun.h.
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000

Refuse = Callable[..., str]

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def refuse(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Apply interfaces beside one that is plugged and one that would fit; give what is said. Nothing may change."""
    plugged, fitting = make_tap(kernel), make_tap(kernel)
    vm.apply(interfaces=[nic(plugged, "first", 1)])

    def refuse(interface: dict[str, Any], code: int = 2) -> str:
        interfaces = [nic(plugged, "first", 1), nic(fitting, "second", 2), interface]
        before = vm.human("info network"), vm.links()
        capsys.readouterr()
        assert vm.run(interfaces=interfaces) == code
        assert (vm.human("info network"), vm.links()) == before
        said = capsys.readouterr().err
        assert "failed at operation" not in said
        return said

    return refuse


@contextmanager
def held(device: str) -> Iterator[None]:
    """Hold a TAP as another machine would."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TAP | IFF_NO_PI))
        yield
    finally:
        os.close(tap)


def test_a_tap_that_does_not_exist_and_is_not_made_either(refuse: Refuse) -> None:
    device = f"r{os.getpid()}none"
    assert f"{device}: no such device on this host, which interface third needs" in refuse(nic(device, "third", 3))
    assert subprocess.run(["ip", "link", "show", "dev", device], check=False, capture_output=True).returncode


def test_a_tap_that_is_in_another_sandbox(refuse: Refuse, kernel: Kernel, tmp_path: Path) -> None:
    device, namespace, file = make_tap(kernel), kernel.namespace(), tmp_path / "other.yaml"
    data = {"apiVersion": "reconciler/v1", "sandbox": "other", "driver": {"netns": {"name": namespace}}}
    file.write_text(dump([data | {"interfaces": [nic(device, "eth7", 7)]}]))
    assert main(["apply", str(file)]) == 0
    said = refuse(nic(device, "third", 3))
    assert f"interfaces[2].device: {device} is in another sandbox, netns {namespace} (eth7 there); remove it" in said


def test_a_namespace_gets_no_tap_of_a_machine(
    vm: Vm, kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, namespace, file = make_tap(kernel), kernel.namespace(), tmp_path / "other.yaml"
    vm.apply(interfaces=[nic(device)])
    data = {"apiVersion": "reconciler/v1", "sandbox": "other", "driver": {"netns": {"name": namespace}}}
    file.write_text(dump([data | {"interfaces": [nic(device, "eth7", 7)]}]))
    capsys.readouterr()
    assert main(["apply", str(file)]) == 2
    assert f"interfaces[0].device: {device} is in another sandbox, vm {vm.name}; remove it" in capsys.readouterr().err
    vm.assert_is([nic(device)])


def test_a_device_that_is_no_tap(refuse: Refuse, kernel: Kernel) -> None:
    device, _ = kernel.veth()
    assert f"{device} is no TAP" in refuse(nic(device, "third", 3))


def test_a_tap_that_another_process_holds(refuse: Refuse, kernel: Kernel) -> None:
    device = make_tap(kernel)
    with held(device):
        assert f"{device} is in use by another process" in refuse(nic(device, "third", 3))


def test_a_tap_that_is_down_and_held_fails_and_leaves_nothing_of_itself(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device, other = kernel.tap(), nic(make_tap(kernel), "a", 1)
    with held(device):
        for options, left in ((["--all-or-nothing"], []), ([], [other])):
            assert vm.run(*options, interfaces=[nic(device, "b", 2), other]) == 2
            said = capsys.readouterr().err
            assert re.search("in use by another process|Device or resource busy", said)
            vm.assert_is(left)
    vm.apply(interfaces=[nic(device, "b", 2)])


def test_queues_of_a_tap_that_has_a_single_one(refuse: Refuse, kernel: Kernel) -> None:
    device = make_tap(kernel)
    said = refuse(nic(device, "third", 3, queues=5))
    assert f"{device} is single-queue; interface third asks for 5 queues" in said


@pytest.mark.parametrize("queues", [0, 1])
def test_a_single_queue_of_a_tap_that_has_several(refuse: Refuse, kernel: Kernel, queues: int) -> None:
    device = make_tap(kernel, "multi_queue")
    said = refuse(nic(device, "third", 3, queues=queues))
    assert f"{device} is multi-queue; interface third asks for a single queue" in said


def test_other_queues_of_what_is_plugged(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = make_tap(kernel, "multi_queue")
    interface = nic(device, queues=2)
    vm.apply(interfaces=[interface])
    assert vm.run(interfaces=[nic(device)]) == 2
    assert f"{device} is multi-queue; interface eth0 asks for a single queue" in capsys.readouterr().err
    vm.assert_is([interface])


def test_an_mtu_above_that_of_the_tap(refuse: Refuse, kernel: Kernel) -> None:
    device = make_tap(kernel)
    ip("link", "set", "dev", device, "mtu", "1400")
    said = refuse(nic(device, "third", 3))
    assert f"third: its MTU of 1500 is above the MTU of {device} on the host, 1400" in said


def test_an_mtu_that_rises_above_that_of_the_tap(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device)])
    assert vm.run(interfaces=[nic(device, mtu=1501)]) == 2
    assert f"eth0: its MTU of 1501 is above the MTU of {device} on the host, 1500" in capsys.readouterr().err
    vm.assert_is([nic(device)])


@contextmanager
def foreign_nic(vm: Vm, hw_addr: str) -> Iterator[None]:
    """Plug in a NIC that is not ours, and leads nowhere."""
    vm.order("netdev_add", type="hubport", id="foreign", hubid=7)
    vm.order("device_add", driver="virtio-net-pci", id="foreign", netdev="foreign", mac=hw_addr, bus="port15", addr="0")
    wait_until(lambda: any(link["mac"] == hw_addr for link in vm.links().values()))
    try:
        yield
    finally:
        vm.order("device_del", id="foreign")
        wait_until(lambda: not any(link["mac"] == hw_addr for link in vm.links().values()))
        wait_until(lambda: "foreign" not in str(vm.order("qom-list", path="/machine/peripheral")))
        vm.order("netdev_del", id="foreign")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_mac_address_that_another_nic_of_the_guest_has(refuse: Refuse, vm: Vm, kernel: Kernel) -> None:
    with foreign_nic(vm, MACS[9]):
        said = refuse(nic(make_tap(kernel), "third", 9))
        assert f"third: another NIC in the guest has the MAC address {MACS[9]}" in said


def test_a_name_that_is_in_the_guest(refuse: Refuse, vm: Vm, kernel: Kernel) -> None:
    vm.guest.output("ip", "link", "add", "third", "type", "veth")
    try:
        said = refuse(nic(make_tap(kernel), "third", 3), code=3)
        assert "the name third is taken in the sandbox by an interface that is not ours" in said
    finally:
        vm.guest.output("ip", "link", "del", "third")


def test_a_socket_path_that_no_socket_can_have(vm: Vm, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/run/" + "x" * 103
    assert main(["validate", vm.write(interfaces=[nic("vhost0", vhostUserSocket=path)])]) == 2
    assert "(108 characters) is not valid; expected the absolute path of a vhost-user socket" in capsys.readouterr().err
    assert main(["validate", vm.write(interfaces=[nic("vhost0", vhostUserSocket=path[:-1])])]) == 0


def test_a_vhost_user_socket_without_a_backend(refuse: Refuse, tmp_path: Path) -> None:
    path = str(tmp_path / "vhost.sock")
    interface = nic("vhost0", "third", 3, vhostUserSocket=path)
    assert f"third: {path}: No such file or directory; is its backend running?" in refuse(interface)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert f"third: {path}: Connection refused; is its backend running?" in refuse(interface)

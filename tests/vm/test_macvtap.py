"""A macvtap of the host: QEMU gets its open file, and packets pass."""

from __future__ import annotations

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm.outside import taps
from tests.conftest import Kernel, ip
from tests.system.box import MACS, nic
from tests.vm.vm import Vm, assert_answers, reach

pytestmark = pytest.mark.usefixtures("quick")


def make(device: str, below: str, hw_addr: str) -> None:
    ip("link", "add", "link", below, "name", device, "address", hw_addr, "type", "macvtap", "mode", "bridge")
    ip("link", "set", "dev", device, "up")


def test_a_macvtap_is_plugged_and_plugged_again(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    below, far = kernel.veth()
    for end in (below, far):
        ip("link", "set", "dev", end, "up")
    device = f"{below}m"
    make(device, below, MACS[5])
    interfaces = [nic(device, "a", 1)]
    assert vm.run(interfaces=interfaces) == 2
    words = (
        f"gets only frames to its own MAC address on the host, {MACS[5]}; give both the same: ip link set dev {device}"
    )
    assert words in capsys.readouterr().err
    assert vm.run(interfaces=[interfaces[0] | {"hwAddr": MACS[5], "queues": 2}]) == 2
    assert f"{device} is a macvtap, which has a single queue" in capsys.readouterr().err
    ip("link", "set", "dev", device, "address", interfaces[0]["hwAddr"])
    reach(far, "10.1.0.1", "10.1.0.2")
    vm.apply(interfaces=interfaces)
    vm.assert_is(interfaces)
    assert taps([device])[device].busy
    assert_answers(far, "10.1.0.2")
    assert main(["diff", str(vm.file)]) == 0
    # QEMU has the file of one that is gone.
    ip("link", "del", device)
    make(device, below, interfaces[0]["hwAddr"])
    assert main(["diff", str(vm.file)]) == 1
    vm.apply(interfaces=interfaces)
    vm.assert_is(interfaces)
    assert_answers(far, "10.1.0.2")
    vm.apply(interfaces=[])
    assert not taps([device])[device].busy

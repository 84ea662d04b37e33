"""BUG: copy to tests/vm/ to run."""

from __future__ import annotations

import pytest

from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vm.vm import Vm, make_tap


def test_an_mtu_that_rises_with_that_of_the_tap(vm: Vm, kernel: Kernel) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device)])
    ip("link", "set", "dev", device, "mtu", "2000")
    vm.apply(interfaces=[nic(device, mtu=2000)])
    vm.assert_is([nic(device, mtu=2000)])


def test_a_tap_whose_mtu_falls_below_that_of_the_guest(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device)])
    ip("link", "set", "dev", device, "mtu", "1400")
    assert vm.run(interfaces=[nic(device)]) == 2
    assert f"eth0: its MTU of 1500 is above the MTU of {device} on the host, 1400" in capsys.readouterr().err

"""BUG 1. Copy to tests/vm/ to run; belongs into test_heal.py."""

from __future__ import annotations

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vm.test_heal import make_again
from tests.vm.vm import Vm, assert_answers, make_tap, reach

pytestmark = pytest.mark.usefixtures("quick")


def test_a_tap_that_was_made_again_is_plugged_again(vm: Vm, kernel: Kernel) -> None:
    device, other = make_tap(kernel), make_tap(kernel)
    interfaces = [nic(device, "a", 1), nic(other, "b", 2)]
    route = {"dest": "10.8.0.0/16", "gateway": "10.1.0.1", "device": "a"}
    vm.apply(interfaces=interfaces, routes=[route])
    kept = vm.index("b")
    ip("link", "del", device)
    make_again(device)
    assert main(["diff", str(vm.file)]) == 1
    vm.apply(interfaces=interfaces, routes=[route])
    vm.assert_is(interfaces)
    assert vm.index("b") == kept
    assert "10.8.0.0/16 via 10.1.0.1 dev a" in vm.guest.output("ip", "route")
    reach(device, "10.1.0.1", "10.1.0.2")
    assert_answers(device, "10.1.0.2")


def test_a_tap_that_was_deleted_is_said_to_be_missing(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device, other = make_tap(kernel), make_tap(kernel)
    vm.apply(interfaces=[nic(device, "a", 1), nic(other, "b", 2)])
    ip("link", "del", device)
    assert vm.run(interfaces=[nic(device, "a", 1), nic(other, "b", 2)]) == 2
    assert f"{device}: no such device on this host, which interface a needs" in capsys.readouterr().err
    # Nobody needs a TAP for what leaves.
    vm.apply(interfaces=[nic(other, "b", 2)])
    vm.assert_is([nic(other, "b", 2)])


def test_a_tap_that_went_to_another_namespace(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device)])
    namespace = kernel.namespace()
    ip("link", "set", "dev", device, "netns", namespace)
    assert vm.run(interfaces=[nic(device)]) == 2
    assert "no such device on this host" in capsys.readouterr().err

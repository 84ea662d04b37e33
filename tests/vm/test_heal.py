"""What changes outside of our hands: a TAP that is deleted under QEMU, a guest that does not do its part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from reconciler.drivers.vm import driver
from reconciler.drivers.vm import execute as vm_execute
from reconciler.drivers.vm import monitor as machine
from reconciler.guest.client import AgentClient
from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vm.steps import watched
from tests.vm.vm import Vm, make_tap

pytestmark = pytest.mark.usefixtures("quick")


def make_again(device: str, *options: str) -> None:
    ip("tuntap", "add", "dev", device, "mode", "tap", *options)
    ip("link", "set", "dev", device, "up")


def test_a_tap_that_was_made_again_with_several_queues(vm: Vm, kernel: Kernel) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device, "a", 1)])
    ip("link", "del", device)
    make_again(device, "multi_queue")
    vm.apply(interfaces=[nic(device, "a", 1, queues=2)])
    vm.assert_is([nic(device, "a", 1, queues=2)])


@contextmanager
def deaf(vm: Vm) -> Iterator[None]:
    """Keep the guest from hearing of what is plugged and unplugged (ACPI's event 1) until afterwards."""
    event = "/sys/firmware/acpi/interrupts/gpe01"
    vm.guest.output("sh", "-c", f"echo disable >{event}")
    try:
        yield
    finally:
        vm.guest.output("sh", "-c", f"echo enable >{event}")


@contextmanager
def impatient() -> Iterator[None]:
    """Wait for a guest for a second or two. Where it does its part, a busy host takes it longer."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(machine, "UNPLUG_TIMEOUT", 1.5)
        patched.setattr(machine, "_ASK_AGAIN", 0.5)
        patched.setattr(vm_execute, "PLUG_TIMEOUT", 1.0)
        yield


def test_a_guest_that_does_not_let_go(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kept, gone = nic(make_tap(kernel), "a", 1), nic(make_tap(kernel), "b", 2)
    vm.apply(interfaces=[kept, gone])
    with deaf(vm), impatient():
        assert vm.run(interfaces=[kept]) == 2
        said = capsys.readouterr().err
        assert f"the guest did not release reconciler-{gone['device']} within 2 s" in said
        assert "0 done and kept; 1 not tried; 2 left to do." in said
        vm.assert_is([kept, gone])
    vm.apply(interfaces=[kept])
    vm.assert_is([kept])


def test_a_guest_that_does_not_find_what_is_plugged(vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kept, new = nic(make_tap(kernel), "a", 1), nic(make_tap(kernel), "b", 2)
    vm.apply(interfaces=[kept])
    with deaf(vm), impatient():
        assert vm.run(interfaces=[kept, new]) == 2
        said = capsys.readouterr().err
        assert f"QEMU has plugged {new['device']}, but the guest did not detect it within 1 s" in said
    # It was told once, and is not told again; but it can be told that the NIC goes.
    vm.apply(interfaces=[kept])
    vm.assert_is([kept])
    vm.apply(interfaces=[kept, new])
    vm.assert_is([kept, new])


def test_a_machine_that_is_paused_does_not_let_go(
    vm: Vm, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, gone = nic(make_tap(kernel), "a", 1), nic(make_tap(kernel), "b", 2)
    vm.apply(interfaces=[kept, gone])
    with monkeypatch.context() as patched, impatient():
        patched.setattr(driver, "AgentClient", partial(AgentClient, timeout=5.0))
        # Once only: the undo is not watched.
        paused: list[str] = []

        def pause(what: str) -> None:
            if what == "before device_del" and not paused:
                paused.append(what)
                vm.order("stop")

        with watched(pause):
            assert vm.run(interfaces=[kept]) == 2
        assert f"the guest did not release reconciler-{gone['device']} within 2 s" in capsys.readouterr().err
        assert vm.run(interfaces=[kept]) == 2
        assert "the guest did not answer in time" in capsys.readouterr().err
    vm.order("cont")
    vm.apply(interfaces=[kept])
    vm.assert_is([kept])

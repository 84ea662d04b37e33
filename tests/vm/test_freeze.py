"""A machine that hangs, at any step, or is dead: an error in time, and the next apply finishes the work."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from functools import partial
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm import driver
from reconciler.guest.client import AgentClient
from reconciler.guest.qmp import Monitor
from tests import machine, resumed
from tests.conftest import Kernel
from tests.system.box import nic
from tests.vm.steps import watched
from tests.vm.vm import Vm, make_tap

ROUTE = {"dest": "10.8.0.0/16", "gateway": "10.1.0.1", "device": "a"}
# Everything is told to QEMU once. How often the guest is asked for its links is a matter of its speed; the second batch
# of changes follows that of the new name. With it, how many operations have no answer.
STEPS = [
    ("before device_del", 1, 1),
    ("during DEVICE_DELETED", 1, 1),
    ("before netdev_del", 1, 1),
    ("before netdev_add", 1, 1),
    ("before device_add", 1, 1),
    ("before a request to the guest", 1, 1),
    ("before a batch for the guest", 1, 1),
    ("before a batch for the guest", 2, 3),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for one second where it would be five or ten."""
    monkeypatch.setattr(driver, "Monitor", partial(Monitor, timeout=1.0))
    monkeypatch.setattr(driver, "AgentClient", partial(AgentClient, timeout=1.0))


def replugged(kernel: Kernel) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    device = make_tap(kernel, "multi_queue")
    return [nic(device, "a", 1, queues=2)], [nic(device, "a", 1, queues=3)]


class Freeze:
    """Stop QEMU when a step is reached for the n-th time; let it go on after some seconds, if any are given."""

    def __init__(self, pid: int, step: str, at: int = 1, seconds: float | None = None) -> None:
        self.pid, self.step, self.left, self.seconds = pid, step, at, seconds

    def __call__(self, what: str) -> None:
        if what == self.step:
            self.left -= 1
            if self.left == 0:
                machine.freeze(self.pid)
                if self.seconds:
                    threading.Timer(self.seconds, self.end).start()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@pytest.mark.usefixtures("quick", "impatient")
@pytest.mark.parametrize(("step", "at", "unknown"), STEPS)
def test_stopped_at_a_step(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str], step: str, at: int, unknown: int
) -> None:
    before, after = replugged(kernel)
    vm.apply(interfaces=before, routes=[ROUTE])
    freeze = Freeze(vm.pid(), step, at)
    started = time.monotonic()
    with watched(freeze):
        assert vm.run(interfaces=after, routes=[ROUTE]) == 2
    assert freeze.left == 0
    assert time.monotonic() - started < 30
    freeze.end()
    said = capsys.readouterr().err
    assert f"0 of 8 operations failed, and to {unknown} there was no answer: " in said
    vm.apply(interfaces=after, routes=[ROUTE])
    vm.assert_is(after)
    assert main(["diff", str(vm.file)]) == 0


@pytest.mark.usefixtures("quick", "impatient")
def test_answers_that_come_late_are_not_taken_for_those_of_the_undo(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [nic(make_tap(kernel), "a", 1)]
    after = [*before, nic(make_tap(kernel), "b", 2)]
    vm.apply(interfaces=before, routes=[ROUTE])
    # The command is given up after one second; its answer comes while the undo waits for another one.
    with watched(Freeze(vm.pid(), "before device_add", seconds=1.5)):
        assert vm.run("--all-or-nothing", interfaces=after, routes=[ROUTE]) == 2
    said = capsys.readouterr().err
    assert "QEMU did not answer device_add within 1 s" in said
    assert f"1 done and undone; 1 unknown, settled by looking again; 3 not begun. {vm.name} is as it was before" in said
    vm.assert_is(before)


def test_a_machine_that_hangs_is_given_up_in_time(vm: Vm, kernel: Kernel) -> None:
    """The longest way: an operation in the guest is given up, then the undo."""
    interfaces = [nic(make_tap(kernel), "a", 1)]
    freeze = Freeze(vm.pid(), "before a batch for the guest", 1)
    started = time.monotonic()
    with watched(freeze):
        assert vm.run(interfaces=interfaces) == 2
    assert time.monotonic() - started < 60
    freeze.end()
    vm.apply(interfaces=interfaces)
    vm.assert_is(interfaces)


def test_one_that_hangs_does_not_keep_another_from_being_applied(
    vm: Vm, old_vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = [nic(make_tap(kernel), "a", 1)], [nic(make_tap(kernel), "a", 2)]
    files = [old_vm.write(interfaces=there), vm.write(interfaces=here)]
    started = time.monotonic()
    with old_vm.stopped():
        assert main(["apply", *files]) == 2
        assert time.monotonic() - started < 45
        assert capsys.readouterr().err.startswith(f"{old_vm.name}: QEMU does not answer on ")
        vm.assert_is(here)
    assert main(["apply", *files]) == 0
    old_vm.assert_is(there)
    vm.assert_is(here)


def test_one_that_was_killed_and_started_again_is_restored_by_one_apply(
    mortal: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = [make_tap(kernel), make_tap(kernel, "multi_queue"), make_tap(kernel)]
    interfaces = [nic(devices[0], "a", 1), nic(devices[1], "b", 2, queues=2)]
    sections: dict[str, Any] = {
        "interfaces": interfaces,
        "routes": [ROUTE],
        "ipvs": {"services": [{"tcp": "10.1.0.2:80", "servers": [{"address": "10.8.0.7:8080"}]}]},
    }
    mortal.apply(**sections)
    rules = mortal.guest.output("ipvsadm", "-Sn")
    routes = mortal.guest.output("ip", "route")

    pid = mortal.pid()
    with watched(lambda what: os.kill(pid, signal.SIGKILL) if what == "before device_add" else None):
        started = time.monotonic()
        assert mortal.run(**sections | {"interfaces": [*interfaces, nic(devices[2], "c", 3)]}) == 2
        assert time.monotonic() - started < 20
    said = capsys.readouterr().err
    # By chance, QEMU is gone before the command is sent or after it.
    fate = "(1 of 5 operations failed|0 of 5 operations failed, and to 1 there was no answer)"
    assert re.search(f"^{mortal.name}: {fate}: device_add", said, re.MULTILINE)
    assert "QEMU is gone" in said
    mortal.guest.await_end()
    started = time.monotonic()
    assert mortal.run(**sections) == 2
    assert time.monotonic() - started < 20
    assert "the sandbox is not running" in capsys.readouterr().err

    resumed.start(mortal.name)
    mortal.assert_is([])
    mortal.apply(**sections)
    mortal.assert_is(interfaces)
    assert mortal.guest.output("ipvsadm", "-Sn") == rules
    assert mortal.guest.output("ip", "route") == routes
    assert main(["diff", str(mortal.file)]) == 0

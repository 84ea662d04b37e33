"""A machine that hangs, at any step, or is dead: an error in time, and the next apply finishes the work."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm import driver
from reconciler.errors import ChannelError
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


class Patience:
    """For how long QEMU and the guest are waited for: as usual, or one second where it would be five or ten."""

    def __init__(self) -> None:
        self._made: list[tuple[Monitor | AgentClient, float]] = []
        self._is_short = False

    def made(self, kind: type[Any], *words: Any, **options: Any) -> Any:
        """Connect as the driver does."""
        found = kind(*words, **options)
        self._made.append((found, found._timeout))
        if self._is_short:
            found._timeout = 1.0
        return found

    def set(self, *, short: bool) -> None:
        """Change it, of all connections."""
        self._is_short = short
        for each, usual in self._made:
            each._timeout = 1.0 if short else usual


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Return that of all connections: a busy machine that runs may take longer than one that stands still is given."""
    found = Patience()
    monkeypatch.setattr(driver, "Monitor", partial(found.made, Monitor))
    monkeypatch.setattr(driver, "AgentClient", partial(found.made, AgentClient))
    return found


def replugged(kernel: Kernel) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    device = make_tap(kernel, "multi_queue")
    return [nic(device, "a", 1, queues=2)], [nic(device, "a", 1, queues=3)]


class Freeze:
    """Stop QEMU when a step is reached for the n-th time; from then on it is waited for with less patience."""

    def __init__(self, pid: int, step: str, at: int = 1, patience: Patience | None = None) -> None:
        self.pid, self.step, self.left, self.patience = pid, step, at, patience

    def __call__(self, what: str) -> None:
        if what == self.step:
            self.left -= 1
            if self.left == 0:
                machine.freeze(self.pid)
                if self.patience:
                    self.patience.set(short=True)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        if self.patience:
            self.patience.set(short=False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("step", "at", "unknown"), STEPS)
def test_stopped_at_a_step(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str], patience: Patience, step: str, at: int, unknown: int
) -> None:
    before, after = replugged(kernel)
    vm.apply(interfaces=before, routes=[ROUTE])
    freeze = Freeze(vm.pid(), step, at, patience)
    started = time.monotonic()
    with watched(freeze):
        assert vm.run(interfaces=after, routes=[ROUTE]) == 2
    assert freeze.left == 0
    assert time.monotonic() - started < 90
    freeze.end()
    said = capsys.readouterr().err
    assert f"0 of 8 operations failed, and to {unknown} there was no answer: " in said
    vm.apply(interfaces=after, routes=[ROUTE])
    vm.assert_is(after)
    assert main(["diff", str(vm.file)]) == 0


@pytest.mark.usefixtures("quick")
def test_answers_that_come_late_are_not_taken_for_those_of_the_undo(
    vm: Vm,
    kernel: Kernel,
    capsys: pytest.CaptureFixture[str],
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [nic(make_tap(kernel), "a", 1)]
    after = [*before, nic(make_tap(kernel), "b", 2)]
    vm.apply(interfaces=before, routes=[ROUTE])
    # The command is given up after one second; then its answer comes, while the undo waits for another one.
    freeze, order = Freeze(vm.pid(), "before device_add", patience=patience), Monitor.execute

    def late(self: Monitor, command: str, **arguments: Any) -> Any:
        try:
            return order(self, command, **arguments)
        except ChannelError:
            freeze.end()
            raise

    monkeypatch.setattr(Monitor, "execute", late)
    with watched(freeze):
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
    assert time.monotonic() - started < 120
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
        assert time.monotonic() - started < 90
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
        assert time.monotonic() - started < 60
    said = capsys.readouterr().err
    # By chance, QEMU is gone before the command is sent or after it.
    fate = "(1 of 5 operations failed|0 of 5 operations failed, and to 1 there was no answer)"
    assert re.search(f"^{mortal.name}: {fate}: device_add", said, re.MULTILINE)
    assert "QEMU is gone" in said
    mortal.guest.await_end()
    started = time.monotonic()
    assert mortal.run(**sections) == 2
    assert time.monotonic() - started < 60
    assert "the sandbox is not running" in capsys.readouterr().err

    resumed.start(mortal.name)
    mortal.assert_is([])
    mortal.apply(**sections)
    mortal.assert_is(interfaces)
    assert mortal.guest.output("ipvsadm", "-Sn") == rules
    assert mortal.guest.output("ip", "route") == routes
    assert main(["diff", str(mortal.file)]) == 0

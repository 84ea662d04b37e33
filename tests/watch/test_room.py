"""The process that keeps the machines of a watch: who ends it, what that costs, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers.claims import Claims
from reconciler.history.writer import Writer
from reconciler.manifest.dump import dump
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import Sandbox, VmAddress
from reconciler.watch.authority import Authority
from reconciler.watch.machines import process as module
from reconciler.watch.machines.machine import Machine
from reconciler.watch.machines.room import Room
from reconciler.watch.meter import Meter
from reconciler.watch.revision import Revision
from reconciler.watch.settings import Settings
from reconciler.watch.state import SandboxState
from reconciler.watch.worker import Common
from tests.machine import Guest, freeze
from tests.processes import of_machines
from tests.watch.hostile import Honest, monitor, serve
from tests.watch.running import Keep, Kept, Running, put, until, watching

DEST = "10.8.0.0/16"
BLACKHOLE = {"dest": DEST, "type": "blackhole"}


def machine(folder: Path, guest: Guest, **sections: Any) -> Path:
    """Write the manifest of a real machine; return the file."""
    return write(folder, {"vm": {"agent": guest.sandbox.agent, "qmp": guest.sandbox.qmp}}, **sections)


def write(folder: Path, driver: dict[str, Any], **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    head = {"apiVersion": "reconciler/v1", "sandbox": "machine", "driver": driver}
    put(folder / "machine.yaml", dump([head | sections]))
    return folder / "machine.yaml"


def has(guest: Guest) -> bool:
    return DEST in guest.output("ip", "route", "show", "type", "blackhole")


def room_of(running: Running) -> int:
    """Return the ID of the process of the machines, which is awaited."""
    until(lambda: of_machines(running.process.pid), "a process of machines", more=running._tail)
    (found,) = of_machines(running.process.pid)
    return found


def has_ended(pid: int) -> bool:
    """Return whether a process has ended; whoever inherits it may not have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def clean(guest: Guest) -> Iterator[Guest]:
    yield guest
    guest.run("ip", "route", "del", "blackhole", DEST)


def check_restart(running: Running, kept: Kept, guest: Guest, number: int) -> None:
    """Kill the process of the machines for the `number`th time, from 0."""
    before = room_of(running)
    os.kill(before, signal.SIGKILL)
    running.until(lambda: len(running.events("alarm")) == number + 1, "an alarm")
    assert "SIGKILL ended it" in running.events("alarm")[-1]["machines"]
    # The namespace does not wait for that.
    kept.ip("route", "del", DEST)
    running.until(kept.has, "the repair of a namespace")
    running.until(lambda: of_machines(running.process.pid) not in ([], [before]), "another process")
    running.await_good()
    # The counters go on, and what changes is repaired.
    assert running.about("machine")["repairs"] == 1 + number
    guest.output("ip", "route", "del", "blackhole", DEST)
    running.until(lambda: has(guest) and running.about("machine")["repairs"] == 2 + number, "the repair of a machine")


def test_a_killed_process_is_started_again_and_all_is_well(
    folder: Path, keep: Keep, clean: Guest, repeats: Callable[[int], int]
) -> None:
    kept = keep()
    machine(folder, clean, routes=[BLACKHOLE])
    with watching(folder, "--look", "1s", "--metrics", "0") as running:
        running.await_good()
        clean.output("ip", "route", "del", "blackhole", DEST)
        until(lambda: running.about("machine")["repairs"] == 1, "a repair", more=running._tail)
        drifted = running.about("machine")["drifted"]
        for number in range(repeats(1)):
            check_restart(running, kept, clean, number)
        assert running.about("machine")["drift_1h"] == 1 + repeats(1)
        assert running.about("machine")["drifted"] > drifted
        assert running.metric("repairs_total", "machine") == 1 + repeats(1)
        assert running.metric("machines_process_resident_memory_bytes") > 1 << 20
        assert not running.events("defect")
        room = room_of(running)
        # They are for the watcher, which says what becomes of its machines.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(room, number)
        clean.output("ip", "route", "del", "blackhole", DEST)
        until(lambda: has(clean), "another repair", more=running._tail)
        assert (room_of(running), running.stop()) == (room, 0)
    assert has_ended(room)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["running", "frozen"])
def test_a_watcher_that_is_killed_leaves_no_process(folder: Path, clean: Guest, *, is_frozen: bool) -> None:
    machine(folder, clean, routes=[BLACKHOLE])
    with watching(folder) as running:
        running.await_good()
        room = room_of(running)
        if is_frozen:
            freeze(room)
        running.kill()
        until(lambda: has_ended(room), "the end of the process of machines", longest=0.05)
    with watching(folder) as running:
        running.await_good()
        assert not running.events("failed")
        assert running.stop() == 0


def test_there_is_a_process_only_while_there_are_machines(folder: Path, keep: Keep, clean: Guest) -> None:
    kept = keep()
    with watching(folder, "--prune") as running:
        running.await_good()
        assert of_machines(running.process.pid) == []
        machine(folder, clean, routes=[BLACKHOLE])
        running.await_state("converged", "machine")
        room = room_of(running)
        # The sandbox moves to a namespace, and back.
        kept.file.unlink()
        running.await_event("pruned", sandbox=kept.name)
        write(folder, {"netns": {"name": kept.name}}, routes=[BLACKHOLE])
        running.until(lambda: DEST in kept.ip("route", "show", "type", "blackhole"), "a route in a namespace")
        running.await_state("converged", "machine")
        until(lambda: has_ended(room), "no process without machines", more=running._tail)
        assert has(clean)
        file = machine(folder, clean, routes=[BLACKHOLE])
        running.until(lambda: "vm" in running.about("machine")["driver"], "a machine again")
        running.await_state("converged", "machine")
        keep()
        running.await_good()
        file.unlink()
        running.await_event("pruned", sandbox="machine")
        until(lambda: not has(clean), "what was owned is gone", more=running._tail)
        until(lambda: of_machines(running.process.pid) == [], "no process without machines", more=running._tail)
        assert running.await_good().alarms == []


class Here:
    """The machines of a watch, without the rest of it."""

    def __init__(self, folder: Path) -> None:
        self.ends: list[str] = []
        self.done: list[tuple[str, bool]] = []
        self.folder = folder
        common = Common(Settings(1.0, 600.0), Claims(), Authority(None, [str(folder)]), Meter(), Writer())
        self.room = Room(common, lambda *each: self.done.append(each), self.ends.append)
        serve(folder / "agent.sock", lambda channel: Honest(channel).serve())
        serve(folder / "qmp.sock", lambda channel: monitor(channel, b""))

    def watch(self) -> Machine:
        place = VmAddress(agent=str(self.folder / "agent.sock"), qmp=str(self.folder / "qmp.sock"))
        manifest = Manifest("m.yaml", "", 0, Sandbox(id="m", driver=place, routes=()))
        return self.room.watch(manifest, Revision("abc", "def"))

    def is_replaced(self, pid: int) -> bool:
        """Return whether another process runs than this one, after a tick."""
        self.room.tick()
        return self.room.pid not in {0, pid}

    def until(self, machine: Machine, state: SandboxState) -> None:
        until(lambda: machine.status.state is state, f"{state}", more=lambda: str(machine.status))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(Path(tmp_path))
    yield made
    made.room.close()


def test_a_process_that_is_silent_is_replaced(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT", 3)
    machine = here.watch()
    here.until(machine, SandboxState.CONVERGED)
    assert (machine.is_applying, machine.is_alive, here.done) == (False, True, [("m", True)])
    assert machine.status.revision == Revision("abc", "def")
    pid = here.room.pid
    freeze(pid)
    for _ in range(4):
        here.room.tick()
    here.until(machine, SandboxState.FAILED)
    until(lambda: here.ends, "the end")
    assert "it did not answer 3 times in turn" in machine.status.detail
    assert here.room.problems == [machine.status.detail] == here.ends
    # Nothing was being applied, so nothing of that has failed.
    assert here.done == [("m", True)]
    until(lambda: here.is_replaced(pid), "another process")
    here.until(machine, SandboxState.CONVERGED)
    assert here.room.problems == []


def test_a_process_that_ends_again_and_again_is_started_less_often(here: Here) -> None:
    machine = here.watch()
    begun = []
    for _ in range(3):
        kill(here, machine)
        process = here.room._process
        assert process
        begun.append(process.begun)
    # After 1, 2 and 4 s.
    assert begun[1] - begun[0] > 1.9
    assert begun[2] - begun[1] > 3.9
    here.until(machine, SandboxState.CONVERGED)


def kill(here: Here, machine: Machine) -> None:
    """Kill the process, and wait until there is another one."""
    pid = here.room.pid
    os.kill(pid, signal.SIGKILL)
    here.until(machine, SandboxState.FAILED)
    until(lambda: here.is_replaced(pid), "another process", longest=0.1)


def test_a_process_that_cannot_be_started(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", str(here.folder / "none"))
        with pytest.raises(FileNotFoundError):
            here.watch()
        assert (here.room.pid, here.room._machines) == (0, {})
    machine = here.watch()
    here.until(machine, SandboxState.CONVERGED)
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", "/bin/false")
        kill(here, machine)
        until(lambda: "it exited with status 1" in here.ends[-1], "a program that fails")
    # One that is to be watched or stopped meanwhile is not waited for.
    other = here.watch()
    other.stop()
    until(lambda: other.join(0), "no machine to wait for")
    pid = here.room.pid
    until(lambda: here.is_replaced(pid), "another process")
    here.until(machine, SandboxState.CONVERGED)


@pytest.mark.parametrize("said", [b"\0\0\0\2[]", b'\0\0\0\7["Setup"', b"\xff\xff\xff\xff", b'\0\0\0\x0b["Done",1,2]'])
def test_a_process_that_says_what_it_must_not_is_ended(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has become by reading what guests say is no matter."""
    ours, its = socket.socketpair()
    ends: list[str] = []
    monkeypatch.setattr(socket, "socketpair", lambda: (ours, its.dup()))
    monkeypatch.setattr(module, "_COMMAND", "import time; time.sleep(1000)")
    process = module.Process([], lambda report: pytest.fail(str(report)), lambda _, reason: ends.append(reason))
    with its, suppress(OSError):
        its.sendall(said + bytes(1 << 20))
    until(lambda: ends, "its end")
    assert "could not be read" in ends[0]
    assert has_ended(process.pid)

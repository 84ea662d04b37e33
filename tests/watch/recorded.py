"""A namespace that a watch keeps, and two recorders beside it: `ip monitor` of its routes, and git of its manifest.

The watch has its own /var/lib/reconciler, so that its disk can be filled.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.history import folder as files
from reconciler.history.reader import read
from reconciler.history.record import CHANGE, Record
from reconciler.manifest.dump import dump
from tests.conftest import Kernel
from tests.watch.running import Running, put, until, watching

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com")
# Of a route: whether it was added or deleted, and its destination.
Event = tuple[str, str]
_MONITORED = re.compile(r"(Deleted )?blackhole (10\.\d+\.0\.0/16)\b")
_COMMAND = re.compile(r"ip route (add|del) blackhole (10\.\d+\.0\.0/16)\b")
_ACTIONS = {"add": "add", "del": "delete"}
# Routes of a manifest, less than.
MOST_ROUTES = 9
# Bytes of the disk, which a file and its successor do not fill.
DISK = 2 << 20


class Seen(NamedTuple):
    """What was done to the routes by the watch, by the recorder, and by the history.

    `unsure`: by the history, what a change had to do that was interrupted.
    """

    kernel: Counter[Event]
    history: Counter[Event]
    unsure: Counter[Event]


class Recorded:
    """The namespace, its manifest in a work tree of git, and all that was done to it beside the watch."""

    def __init__(self, name: str, folder: Path, disk: int) -> None:
        self.folder, self._disk, self.name = folder / "manifests", disk, name
        # Of each edit, the commit and the text in it.
        self.commits: list[str] = []
        self.blobs: list[str] = []
        self.own: Counter[Event] = Counter()
        self.wanted: tuple[int, ...] = ()
        self.folder.mkdir()
        self._git("init", "-q")
        self.edit(1, 2, 3)
        self.log, self._syncs = folder / "monitor", 0

    def sync(self) -> None:
        """Wait until the monitor has written all that happened until now: it hears of a foreign route, too."""
        self._syncs += 1
        words = [
            "ip",
            "-n",
            self.name,
            "route",
            "replace",
            "blackhole",
            f"192.0.2.{self._syncs % 250}",
            "proto",
            "static",
        ]
        mark = self.log.stat().st_size

        def is_heard() -> bool:
            subprocess.run([*words, "realm", str(random.randrange(1, 200))], check=True)
            return f"blackhole {words[6]} ".encode() in self.log.read_bytes()[mark:]

        until(is_heard, "the monitor")

    @property
    def within(self) -> tuple[str, ...]:
        return ("nsenter", "--mount", f"--target={self._disk}")

    @property
    def var(self) -> Path:
        """Return the folder of the watch's disk, as other processes reach it."""
        return Path(f"/proc/{self._disk}/root{files.STATE}")

    def _git(self, *words: str) -> str:
        return subprocess.run(
            [*GIT, "-C", str(self.folder), *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    def _route(self, action: str, number: int) -> bool:
        words = ["ip", "-n", self.name, "route", action, "blackhole", f"10.{number}.0.0/16", "proto", "200"]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def edit(self, *numbers: int) -> None:
        """Commit a manifest with these routes, unless it has them."""
        if numbers == self.wanted:
            return
        self.wanted = numbers
        routes = [{"dest": f"10.{each}.0.0/16", "type": "blackhole"} for each in numbers]
        head = {"apiVersion": "reconciler/v1", "sandbox": self.name, "driver": {"netns": {"name": self.name}}}
        put(self.folder / "a.yaml", dump([head | {"routes": routes}]))
        self._git("add", ".")
        self._git("commit", "-q", "-m", "edit")
        self.commits.append(self._git("rev-parse", "--short", "HEAD"))
        self.blobs.append(self._git("rev-parse", "HEAD:a.yaml"))

    def drift(self, random_: random.Random) -> None:
        """Delete a route that is wanted, or add one that is not, behind the back of the watch."""
        action, number = random_.choice([("del", random_.choice(self.wanted)), ("add", random_.randrange(100, 200))])
        if self._route(action, number):
            self.own[(_ACTIONS[action], f"10.{number}.0.0/16")] += 1

    def is_as_wanted(self) -> bool:
        shown = subprocess.run(["ip", "-n", self.name, "route"], check=True, capture_output=True, text=True).stdout
        found = {int(each) for each in re.findall(r"blackhole 10\.(\d+)\.0\.0/16", shown)}
        return found == set(self.wanted)

    def _monitored(self) -> Counter[Event]:
        found = (_MONITORED.match(line) for line in self.log.read_text().splitlines())
        return Counter(("delete" if each[1] else "add", each[2]) for each in found if each)

    def records(self) -> list[Record]:
        """Return the history of the sandbox."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "FOLDER", str(self.var / "history"))
            return read([self.name])

    def seen(self) -> Seen:
        self.sync()
        history: Counter[Event] = Counter()
        unsure: Counter[Event] = Counter()
        for each in self.records():
            if each.event == CHANGE:
                assert each.count == len(each.steps)
                target = history if each.result == "verified" else unsure
                target.update(event(step.command) for step in each.steps)
        return Seen(self._monitored() - self.own, history, unsure)

    def forget(self) -> None:
        """Begin anew, with nothing recorded."""
        for each in (self.var / "history").iterdir():
            each.unlink()
        self.sync()
        self.own = self._monitored()

    def fill(self) -> None:
        """Fill the disk to the last byte."""
        with (self.var / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096) == 4096:
                pass
        found = os.statvfs(self.var)
        assert found.f_bavail == 0

    def empty(self) -> None:
        (self.var / "filler").unlink()


def event(command: str) -> Event:
    found = _COMMAND.match(command)
    assert found, command
    return _ACTIONS[found[1]], found[2]


@contextmanager
def recorded(kernel: Kernel, folder: Path) -> Iterator[Recorded]:
    """Make a namespace with its recorders, and a disk for the history of its watch."""
    # First the namespace: what is mounted later does not reach the other mounts everywhere.
    name = kernel.namespace()
    script = (
        f"mkdir -p {files.STATE} && mount -t tmpfs -o size={DISK},mode=0700 tmpfs {files.STATE} && echo && exec cat"
    )
    with ExitStack() as stack:
        pipe = subprocess.PIPE
        disk = stack.enter_context(
            subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=pipe, stdout=pipe)
        )
        assert disk.stdout
        assert disk.stdout.read(1)
        found = Recorded(name, folder, disk.pid)
        log = stack.enter_context(found.log.open("wb"))
        words = ["ip", "-n", name, "monitor", "route"]
        # It asks about all namespaces of the host first, and reports those that are gone.
        monitor = stack.enter_context(subprocess.Popen(words, stdout=log, stderr=subprocess.DEVNULL))
        stack.callback(monitor.terminate)
        found.sync()
        yield found


@contextmanager
def kept(found: Recorded) -> Iterator[Running]:
    """Watch the namespace."""
    with watching(found.folder, within=found.within) as running:
        yield running


def disturb(found: Recorded, running: Running, random_: random.Random, until_: float) -> None:
    """Edit and drift until a moment; wait for each edit, so that the watch sees each commit."""
    while time.monotonic() < until_:
        if random_.random() < 0.3:
            await_wanted(found, running)
            found.edit(*random_.sample(range(1, 90), random_.randrange(1, MOST_ROUTES)))
            await_wanted(found, running)
        else:
            found.drift(random_)
            time.sleep(random_.random() * 0.1)
    await_wanted(found, running)


def check(found: Recorded) -> Seen:
    """Check that the history has what the recorders saw, neither more nor less. What is missing is said there."""
    seen = found.seen()
    assert not seen.history - seen.kernel, "the history has what never happened"
    lacking = (seen.kernel - seen.history) - seen.unsure
    said = sum(each.more["lines"] for each in found.records() if each.event == "missing")
    assert lacking.total() <= said * MOST_ROUTES / 2, "the history lacks what happened"
    assert not lacking or said
    in_force = [each for each in found.records() if each.event == "in force"]
    count = len(in_force)
    assert said or [each.blob for each in in_force] == found.blobs[-count:]
    # On a busy host, the watch may read a file before git has committed it.
    for each, before, commit in zip(in_force, ["", *found.commits][-count - 1 :], found.commits[-count:], strict=False):
        assert said or each.revision in {commit, f"{before}-dirty"}, (each, commit)
    return seen


def await_wanted(found: Recorded, running: Running) -> None:
    """Wait until the namespace is as its manifest says, and the watch knows."""
    # Drift of the same object again and again looks like a fight, whose repair waits: this forgets it.
    running.signal(signal.SIGHUP)
    commit = found.commits[-1]

    def is_well() -> bool:
        each = running.status().sandboxes.get(found.name, {})
        return found.is_as_wanted() and (each.get("state"), each.get("revision")) == ("converged", commit)

    running.until(is_well, f"{found.name} is as {commit} says")


def main() -> int:
    """Edit, drift and kill for an hour, or so many minutes; fill the disk now and then. Compare after each minute."""
    minutes = float(sys.argv[1] if sys.argv[1:] else 60)
    random_, end = random.Random(), time.monotonic() + minutes * 60
    kernel = Kernel()
    with ExitStack() as stack:
        stack.callback(kernel.remove)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = stack.enter_context(recorded(kernel, folder))
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            with kept(found) as running:
                await_wanted(found, running)
                disturb(found, running, random_, min(end, time.monotonic() + 30))
                if is_full := random_.random() < 0.2:
                    found.fill()
                disturb(found, running, random_, min(end, time.monotonic() + 30))
                if is_full:
                    found.empty()
                    running.until(lambda: not running.status().alarms, "the history is complete again")
                found.drift(random_)
                running.kill()
            if not is_full:
                seen = check(found)
                words = f"{seen.kernel.total():,} changes of routes seen, {seen.history.total():,} recorded"
                print(f"round {rounds}: {words}, {len(found.commits):,} commits", flush=True)
            # The files are full after some time: begin anew, as what made room is compared no more.
            found.forget()
    return 0


if __name__ == "__main__":
    sys.exit(main())

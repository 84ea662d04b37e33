"""What one sandbox may take of the watcher: of its time, and of its log. All others are served from the rest.

Both are as a bucket: so much at once, and then so much a second. What a sandbox does is decided by whoever has rights
in it: it can change without end, and never twice the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from reconciler.model.sandbox import Sandbox
from reconciler.watch import log

# Seconds of computing, at once and for each second; and what each object of the manifest adds to them: with 20,000 IPVS
# rules, a full look takes half a second, and their repair 1.5.
WORK, WORK_SHARE = 1.0, 0.03
OBJECT_WORK, OBJECT_SHARE = 1e-4, 2e-6
# Bytes of log lines, at once and for each second.
LINES, LINES_SHARE = 64 << 10, 512.0
# Bytes for each object of the manifest, at once: a flush of all IPVS rules is logged as a whole.
OBJECT_LINES = 200
# Bytes of a line besides the values of its fields.
_LINE = 120

Clock = Callable[[], float]


class Bucket:
    """So much at once, and then so much a second. More can be taken than is there; then it is empty for longer."""

    def __init__(self, most: float, rate: float, clock: Clock) -> None:
        self._most, self._rate, self._clock = most, rate, clock
        self._left, self._at = most, clock()

    def take(self, amount: float) -> float:
        """Take an amount; return in how many seconds something is there again, 0 if something is left."""
        now = self._clock()
        self._left = min(self._most, self._left + self._rate * (now - self._at)) - amount
        self._at = now
        return max(0.0, -self._left / self._rate)

    def fill(self, most: float, rate: float) -> None:
        """Fill it, to a new size."""
        self._most = self._left = most
        self._rate = rate


def objects_of(sandbox: Sandbox) -> int:
    """Return how many objects the manifest of a sandbox has."""
    services = (sandbox.ipvs.services if sandbox.ipvs else None) or ()
    sections = (sandbox.interfaces, sandbox.routes, sandbox.rules, sandbox.neighbours, services)
    return sum(map(len, filter(None, sections))) + sum(len(each.servers) for each in services)


class WorkShare:
    """The time that the threads of one sandbox compute, of which there is one at a time."""

    def __init__(self, clock: Clock = time.monotonic, work: Clock = time.thread_time) -> None:
        self._bucket = Bucket(WORK, WORK_SHARE, clock)
        self._work = work
        self._seen = 0.0

    def begin(self) -> None:
        """Count what the calling thread computes from now on."""
        self._seen = self._work()

    def rest(self) -> float:
        """Return for how many seconds the sandbox has to rest, after all that the thread has computed since."""
        seen, self._seen = self._seen, self._work()
        return self._bucket.take(self._seen - seen)

    def fill(self, objects: int) -> None:
        """Begin anew, with a manifest of so many objects: what was computed was for an edit of it by the operator."""
        self._seen = self._work()
        self._bucket.fill(WORK + OBJECT_WORK * objects, WORK_SHARE + OBJECT_SHARE * objects)


class _Named(Protocol):
    @property
    def command(self) -> str: ...


class LogShare:
    """The log lines about one sandbox."""

    def __init__(self, sandbox: str, clock: Clock = time.monotonic) -> None:
        self._sandbox = sandbox
        self._bucket = Bucket(LINES, LINES_SHARE, clock)
        self._suppressed = 0

    def fill(self, objects: int) -> None:
        """Begin anew, with a manifest of so many objects."""
        self._bucket.fill(LINES + OBJECT_LINES * objects, LINES_SHARE)

    def emit(self, event: str, *, level: int = log.INFO, **fields: object) -> None:
        """Log an event of the sandbox, or count it as suppressed."""
        if self._is_admitted(_LINE + sum(len(str(value)) for value in fields.values())):
            log.emit(event, level=level, sandbox=self._sandbox, **fields)

    def emit_operations(self, operations: Iterable[_Named], *, counted: bool) -> None:
        """Log operations by their commands. `counted`: they are no edit of the manifest."""
        commands = (each.command for each in operations)
        admitted = (each for each in commands if not counted or self._is_admitted(_LINE + len(each)))
        log.emit_operations(self._sandbox, admitted)

    def _is_admitted(self, size: int) -> bool:
        if self._bucket.take(0) > 0:
            self._suppressed += 1
            return False
        self._bucket.take(size)
        if self._suppressed:
            count, self._suppressed = self._suppressed, 0
            log.emit("suppressed", level=log.WARNING, sandbox=self._sandbox, lines=count)
        return True

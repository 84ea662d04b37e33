"""What one sandbox may cost: its kernel and its QEMU may report as much as they like, and are read up to these bounds.

A budget is for a look as a whole, or for another step that a driver does at a time: the answers of all its requests
together have these bytes, objects and seconds. So neither many answers nor slow ones add up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError, ChannelError, ProtocolError

# 20,000 IPVS rules and 10,000 routes have 7 MB and 45,000 objects (messages, lines and frames).
BYTES = 16 << 20
OBJECTS = 100_000
# Objects that something counts that nobody asked for, and each line of QEMU: few of them come, and each takes long.
UNASKED = 10
# Seconds, as for a look; what a plan of IPVS may take more, it says itself (ipvs_execute.more_seconds).
SECONDS = 60.0
# Above so many bytes or objects, a look is large. A process has one large look at a time, for at most so many seconds:
# the objects of each take up to 100 MB.
LARGE_BYTES, LARGE_OBJECTS, LARGE_SECONDS = 4 << 20, 50_000, 30.0

_large = threading.Lock()


class Budget:
    """What is left of the bytes, objects and seconds for one sandbox. For one thread."""

    def __init__(self) -> None:
        self._bytes = self._objects = 0
        # Its seconds, and when the step ends, by time.monotonic(); None while there is none.
        self._seconds = SECONDS
        self._ends: float | None = None
        self._is_large = False

    @contextmanager
    def step(self, more: float = 0.0) -> Iterator[None]:
        """Count the block as one step of SECONDS, and `more`. A step within another one is part of that."""
        if self._ends is not None:
            yield
            return
        self._bytes = self._objects = 0
        self._seconds = SECONDS + more
        self._ends = time.monotonic() + self._seconds
        try:
            yield
        finally:
            self._ends = None
            if self._is_large:
                self._is_large = False
                _large.release()

    def deadline(self, timeout: float) -> float:
        """Return when a request of `timeout` seconds has to be answered. ChannelError if no time is left."""
        now = time.monotonic()
        if self._ends is None:
            return now + timeout
        if now > self._ends:
            raise ChannelError(f"the sandbox took longer than {self._seconds:.0f} s for all answers to one look")
        return min(now + timeout, self._ends)

    def spend(self, size: int, objects: int = 1) -> None:
        """Count what was received. ProtocolError if it is too much, BusyError if others are read for too long."""
        self._bytes += size
        self._objects += objects
        if self._bytes > BYTES:
            raise ProtocolError(f"the sandbox sent more than {BYTES >> 20} MiB in answer to one look")
        if self._objects > OBJECTS:
            raise ProtocolError(f"the sandbox sent more than {OBJECTS:,} objects in answer to one look")
        large = self._bytes > LARGE_BYTES or self._objects > LARGE_OBJECTS
        if large and not self._is_large and self._ends is not None:
            self._await_turn(self._ends)

    def _await_turn(self, ends: float) -> None:
        if not _large.acquire(timeout=max(0.0, ends - time.monotonic())):
            raise BusyError("other sandboxes with as much to read are being read; try again")
        self._is_large = True
        # To wait for its turn costs a sandbox none of its time.
        self._ends = time.monotonic() + LARGE_SECONDS

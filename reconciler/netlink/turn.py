"""Lets threads take turns: few of them compute at a time, and one that waits for something gives its turn up meanwhile.

The threads of a Python process compute one at a time, and each that would like to wakes up 200 times a second to ask
for it. If thousands begin at once, these wakes take more of a processor than all of the work.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

# Seconds of computing, and of any time, after which a turn does not count any more: whoever takes so long goes on
# beside the others. Seconds between two looks at that.
HEAVY, LONG, PERIOD = 0.05, 1.0, 0.05

_of_thread = threading.local()


class Flag(Protocol):
    """What one thread waits for. It is no lock: the kernel would look at thousands of those with each that is freed."""

    def set(self) -> None:
        """Set the flag."""

    def wait(self, seconds: float) -> None:
        """Wait until the flag is set, but no longer than so many seconds; then clear it."""


class Turns:
    """At most `count` turns at a time. Any thread may use it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        # The turns that count, the oldest first; and those that are waited for, the next one first.
        self._taken: dict[Turn, None] = {}
        self._waiting: list[tuple[float, int, Turn]] = []
        self._numbers = itertools.count()
        self._contended = threading.Event()
        self._usher: threading.Thread | None = None

    def take(self, turn: Turn, rank: float) -> None:
        """Wait for a turn. Those of the least rank are next, in the order in which they came."""
        with self._lock:
            if len(self._taken) < self._count:
                self._taken[turn] = None
                return
            heapq.heappush(self._waiting, (rank, next(self._numbers), turn))
            self._contended.set()
            if self._usher is None:
                self._usher = threading.Thread(target=self._ush, name="turns", daemon=True)
                self._usher.start()
        while not turn.granted:
            turn.flag.wait(math.inf)
        turn.granted = False

    def give(self, turn: Turn) -> None:
        """End a turn."""
        with self._lock:
            self._taken.pop(turn, None)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and len(self._taken) < self._count:
            _, _, turn = heapq.heappop(self._waiting)
            self._taken[turn] = None
            turn.granted = True
            turn.flag.set()

    def _ush(self) -> None:
        """End turns that take long, as long as anybody waits: all that are heavy, and one that is stuck."""
        while self._contended.wait():
            time.sleep(PERIOD)
            with self._lock:
                stuck = next((each for each in self._taken if each.is_long), None)
                # A thread that has a turn has not ended, so it has a clock.
                for each in [each for each in self._taken if each is stuck or each.is_heavy]:
                    del self._taken[each]
                self._grant()
                if not self._waiting:
                    self._contended.clear()


class Turn:
    """What a thread computes in, again and again: `with turn:`. Who has gone without one for the longest is next.

    `flag`: what the thread waits for; others may set it as well. `granted`: whether it has a turn that it waited for.
    """

    def __init__(self, turns: Turns, flag: Flag) -> None:
        self._turns, self.flag = turns, flag
        self.granted = False
        self._ended = 0.0
        # When the present turn began, and how much its thread had computed before, by a clock of that thread.
        self._begun, self._computed, self._clock = math.inf, math.inf, 0

    def __enter__(self) -> None:
        self._take(self._ended)
        _of_thread.turn = self

    def __exit__(self, *_: object) -> None:
        _of_thread.turn = None
        self._turns.give(self)
        self._ended = time.monotonic()

    def _take(self, rank: float) -> None:
        self._begun = self._computed = math.inf
        self._turns.take(self, rank)
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._computed, self._begun = time.clock_gettime(self._clock), time.monotonic()

    @property
    def is_heavy(self) -> bool:
        """Return whether the thread has computed for long in this turn, which it still has."""
        return self._computed < math.inf and time.clock_gettime(self._clock) - self._computed > HEAVY

    @property
    def is_long(self) -> bool:
        """Return whether the turn has lasted for long."""
        return time.monotonic() - self._begun > LONG

    @contextmanager
    def released(self) -> Iterator[None]:
        """Give the turn up during the block; then it is the next one."""
        self._turns.give(self)
        try:
            yield
        finally:
            self._take(-math.inf)


@contextmanager
def waiting() -> Iterator[None]:
    """Let other threads compute during the block, in which this one waits for something."""
    turn: Turn | None = getattr(_of_thread, "turn", None)
    if turn is None:
        yield
        return
    with turn.released():
        yield


def sleep(seconds: float) -> None:
    """Sleep, and let other threads compute meanwhile."""
    with waiting():
        time.sleep(seconds)

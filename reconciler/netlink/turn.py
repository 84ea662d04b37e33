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
from enum import Enum, auto
from typing import Protocol

from reconciler.values import NamedTuple

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


class Claim(Enum):
    """Why somebody waits for a turn: to go on after a wait, because of an event, or for anything else."""

    BEGUN = auto()
    EVENT = auto()
    OTHER = auto()


class _Place(NamedTuple):
    """A place in the line. The least rank is first; of equal ranks, who came first."""

    rank: float
    number: int
    turn: Turn
    claim: Claim


class Line:
    """Those that wait for a turn. What has begun is next, so that it ends; then events.

    While others wait as well, every second turn is one of theirs: events without end hold up nobody for good.
    """

    def __init__(self) -> None:
        self._heaps: dict[Claim, list[_Place]] = {claim: [] for claim in Claim}
        # The only place that counts of each.
        self._places: dict[Turn, _Place] = {}
        self._numbers = itertools.count()
        self._last = Claim.OTHER

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._places)

    def add(self, turn: Turn, claim: Claim, rank: float) -> None:
        """Let a turn wait, in its place among those of the same claim."""
        place = self._places[turn] = _Place(rank, next(self._numbers), turn, claim)
        heapq.heappush(self._heaps[claim], place)

    def hurry(self, turn: Turn) -> None:
        """Let a turn wait among the events, if it waits for anything else."""
        place = self._places.get(turn)
        if place and place.claim is Claim.OTHER:
            self.add(turn, Claim.EVENT, place.rank)

    def next(self) -> Turn | None:
        """Take the next one out of the line; None if nobody waits."""
        first, second = (Claim.OTHER, Claim.EVENT) if self._last is Claim.EVENT else (Claim.EVENT, Claim.OTHER)
        for claim in (Claim.BEGUN, first, second):
            heap = self._heaps[claim]
            while heap:
                place = heapq.heappop(heap)
                if self._places.get(place.turn) is place:
                    del self._places[place.turn]
                    self._last = self._last if claim is Claim.BEGUN else claim
                    return place.turn
        return None


class Turns:
    """At most `count` turns at a time. Any thread may use it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        # The turns that count, the oldest first; and those that are waited for.
        self._taken: dict[Turn, None] = {}
        self._waiting = Line()
        self._contended = threading.Event()
        self._usher: threading.Thread | None = None

    def take(self, turn: Turn, claim: Claim, rank: float) -> None:
        """Wait for a turn, in the order of `Line`."""
        with self._lock:
            if len(self._taken) < self._count:
                self._taken[turn] = None
                return
            self._waiting.add(turn, Claim.EVENT if turn.hurried and claim is Claim.OTHER else claim, rank)
            self._contended.set()
            if self._usher is None:
                self._usher = threading.Thread(target=self._ush, name="turns", daemon=True)
                self._usher.start()
        while not turn.granted:
            turn.flag.wait(math.inf)
        turn.granted = False

    def hurry(self, turn: Turn) -> None:
        """Let a turn be that of an event, whether it is waited for already or not yet."""
        with self._lock:
            turn.hurried = True
            self._waiting.hurry(turn)

    def give(self, turn: Turn) -> None:
        """End a turn."""
        with self._lock:
            self._taken.pop(turn, None)
            self._grant()

    def _grant(self) -> None:
        while len(self._taken) < self._count and (turn := self._waiting.next()):
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
    `hurried`: whether the next turn is that of an event.
    """

    def __init__(self, turns: Turns, flag: Flag) -> None:
        self._turns, self.flag = turns, flag
        self.granted = self.hurried = False
        self._ended = 0.0
        # When the present turn began, and how much its thread had computed before, by a clock of that thread.
        self._begun, self._computed, self._clock = math.inf, math.inf, 0

    def __enter__(self) -> None:
        self._take(Claim.OTHER, self._ended)
        self.hurried = False
        _of_thread.turn = self

    def __exit__(self, *_: object) -> None:
        _of_thread.turn = None
        self._turns.give(self)
        self._ended = time.monotonic()

    def hurry(self) -> None:
        """Let the next turn come before those that no event asks for. Any thread may call this."""
        self._turns.hurry(self)

    def _take(self, claim: Claim, rank: float) -> None:
        self._begun = self._computed = math.inf
        self._turns.take(self, claim, rank)
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
            self._take(Claim.BEGUN, self._ended)


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

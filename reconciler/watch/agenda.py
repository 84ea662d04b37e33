"""When to look at a sandbox, and at how much of it. Any thread may ask for a look."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic

# Seconds between two looks that changes ask for; no less than a look takes, or a storm of them would take all the time.
GAP = 0.05
# Seconds until the next try after a failure: twice as long each time, up to the most, give or take a quarter.
FIRST, MOST = 1.0, 60.0


class Agenda:
    """The next look of one sandbox. `full_look`: seconds between two looks at everything."""

    def __init__(self, full_look: float, clock: Callable[[], float] = monotonic) -> None:
        self._full_look, self._clock = full_look, clock
        self._lock = threading.Lock()
        self._asked, self._urgent = False, True
        self._not_before = self._at = self._full_at = 0.0
        self._failures = 0

    def poke(self) -> None:
        """Ask for a look: something has changed. Not sooner than the last look or failure allows."""
        with self._lock:
            self._asked = True

    def urge(self) -> None:
        """Ask for a full look now: all may be different."""
        with self._lock:
            self._urgent, self._full_at = True, 0.0

    def wait(self) -> float:
        """Give the seconds until the next look."""
        with self._lock:
            return self._wait()

    def _wait(self) -> float:
        if self._urgent:
            return 0.0
        at = 0.0 if self._asked else min(self._at, self._full_at)
        return max(0.0, max(at, self._not_before) - self._clock())

    def take(self) -> bool | None:
        """Begin a look if it is time: tell whether it is a full one. None: it is not time."""
        with self._lock:
            if self._wait() > 0:
                return None
            self._asked = self._urgent = False
            return self._full_at <= self._clock()

    def settle(self, wait: float, *, took: float, full: bool) -> float:
        """Take note of a look that took so long; the next one is due after `wait` seconds. Give how long it will be."""
        with self._lock:
            now = self._clock()
            self._failures = 0
            self._not_before, self._at = now + max(GAP, took), now + wait
            if full and not self._urgent:
                # Not all that began together at the same moment, over and over.
                self._full_at = now + self._full_look * _jitter()
            return min(self._at, self._full_at) - now

    def fail(self, wait: float | None = None) -> float:
        """Take note of a failure; give the seconds until the next try, which is a full look: `wait`, or as they mount up."""
        with self._lock:
            if wait is None:
                wait = min(FIRST * 2.0 ** min(self._failures, 30), MOST) * _jitter()
                self._failures += 1
            self._not_before = self._at = self._clock() + wait
            self._full_at = 0.0
            return wait


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311 it keeps sandboxes apart, not secrets

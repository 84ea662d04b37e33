"""Decides when the next look at a sandbox is due, and whether it is a full look. Any thread may ask for a look."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from time import monotonic

# The least seconds between two looks that changes cause. It is never less than the last look took, or a storm of
# changes would use all the time for looks.
GAP = 0.05
# Seconds to the next try after a failure: twice as long each time, up to MOST, and randomly up to a quarter less.
FIRST, MOST = 1.0, 60.0


class Agenda:
    """The next look at one sandbox. `full_look`: seconds between two full looks.

    A look consumes the requests for it when it begins, whatever it ends with, and each end sets when the next one is
    due. So nothing that a look can end with makes the next one begin at once.
    """

    def __init__(self, full_look: float, clock: Callable[[], float] = monotonic) -> None:
        self._full_look, self._clock = full_look, clock
        self._lock = threading.Lock()
        # Requests by other threads: for any look, and for a full look at once.
        self._requested, self._urgent = False, True
        # Times of the clock: the earliest of a requested look, the next periodic look, the next full look.
        self._not_before = self._at = self._full_at = 0.0
        self._failures = 0

    def request_look(self, *, full: bool = False) -> None:
        """Ask for a look because something changed. The gap after a look and the pause after a failure still apply.

        `full`: it must be a full look, because events were lost.
        """
        with self._lock:
            self._requested = True
            if full:
                self._full_at = 0.0

    def request_full_look(self) -> None:
        """Ask for a full look at once, because everything may be different."""
        with self._lock:
            self._urgent, self._full_at = True, 0.0

    def seconds_to_next(self) -> float:
        """Return the seconds until the next look is due; 0 if it is due now."""
        with self._lock:
            return self._seconds_to_next()

    def _seconds_to_next(self) -> float:
        if self._urgent:
            return 0.0
        at = 0.0 if self._requested else min(self._at, self._full_at)
        return max(0.0, max(at, self._not_before) - self._clock())

    def begin_look(self) -> bool | None:
        """Begin a look if one is due; return whether it is a full one, or None if none is due."""
        with self._lock:
            if self._seconds_to_next() > 0:
                return None
            self._requested = self._urgent = False
            full = self._full_at <= self._clock()
            if full:
                # Whoever asks for a full look from now on means another one.
                self._full_at = math.inf
            return full

    def end_look(self, wait: float, *, took: float, full: bool) -> float:
        """Record that a look succeeded, and that none may be requested for `took` seconds: it took so long itself.

        The next one is due in `wait` seconds at the latest. Return the seconds until the look that nobody requests.
        """
        with self._lock:
            now = self._clock()
            self._failures = 0
            self._not_before, self._at = now + max(GAP, took), now + wait
            if full and self._full_at == math.inf:
                # Jitter: sandboxes that started together must not be looked at together.
                self._full_at = now + self._full_look * _jitter()
            return max(0.0, min(self._at, self._full_at) - now)

    def end_failed_look(self, wait: float | None = None, *, least: float = 0.0) -> float:
        """Record that a look failed. The next is a full look in `wait` seconds; by default, the wait doubles each time.

        It is in `least` seconds at the earliest. Return the seconds until that look.
        """
        with self._lock:
            if wait is None:
                wait = backoff(self._failures) * _shortened()
                self._failures += 1
            wait = max(wait, least)
            self._not_before = self._at = self._clock() + wait
            self._full_at = 0.0
            return wait


def backoff(failures: int) -> float:
    """Return the seconds to the next try after a failure that `failures` others came before."""
    return min(FIRST * 2.0 ** min(failures, 30), MOST)


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311 it spreads load, it protects nothing


def _shortened() -> float:
    return random.uniform(0.75, 1.0)  # noqa: S311

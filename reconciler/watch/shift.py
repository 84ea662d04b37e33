"""A thread for each sandbox only while there is something to do: of thousands that rest, none takes a stack."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic

# Seconds to the next try if there can be no thread; the longest single wait, in seconds; and how many times that are
# not asked for any more are kept at least.
AGAIN, _LONGEST, _SLACK = 1.0, 3600.0, 64


class Alarm:
    """Calls each function once, by the earliest time that was set for it. Any thread may use it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        # When each call is due, and all times that were ever set and have not come yet, the next one first.
        self._due: dict[Callable[[], object], float] = {}
        self._times: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._runs = False

    def begin(self) -> None:
        """Start the thread, unless it runs. RuntimeError if this process may have no more threads."""
        with self._condition:
            if not self._runs:
                threading.Thread(target=self._run, name="alarm", daemon=True).start()
                self._runs = True

    def set(self, call: Callable[[], object], seconds: float) -> None:
        """Call a function in so many seconds, unless it is called earlier anyway."""
        at = monotonic() + seconds
        with self._condition:
            if self._due.get(call, at + 1) <= at:
                return
            self._due[call] = at
            if len(self._times) > 2 * len(self._due) + _SLACK:
                self._times = [each for each in self._times if self._due.get(each[2]) == each[0]]
                heapq.heapify(self._times)
            heapq.heappush(self._times, (at, next(self._numbers), call))
            if self._times[0][0] == at:
                self._condition.notify()

    def _run(self) -> None:
        while True:
            call = self._await()
            try:
                call()
            except Exception:
                # A defect that shows in one sandbox must not end the watch of the others.
                logging.getLogger(__name__).exception("defect")

    def _await(self) -> Callable[[], object]:
        """Wait for the next call."""
        with self._condition:
            while True:
                left = self._times[0][0] - monotonic() if self._times else _LONGEST
                if left > 0:
                    self._condition.wait(min(left, _LONGEST))
                    continue
                at, _, call = heapq.heappop(self._times)
                if self._due.get(call) == at:
                    del self._due[call]
                    return call


class _State(Enum):
    """Whether there is a thread; OVER also before the beginning."""

    OVER = auto()
    RESTING = auto()
    AT_WORK = auto()


class Shift:
    """Works in a thread of its own whenever something is due, one after the other. Any thread may call all methods.

    `wait` returns the seconds until something is due, `work` does it, and returns whether there can be more. `hinder`
    is called with the reason if something is due and there can be no thread. `on_end` is called as the last thing.
    """

    def __init__(
        self,
        name: str,
        wait: Callable[[], float],
        work: Callable[[], bool],
        hinder: Callable[[RuntimeError], None],
        on_end: Callable[[], object],
    ) -> None:
        self._name, self._wait, self._work, self._hinder, self._on_end = name, wait, work, hinder, on_end
        self._lock = threading.Lock()
        self._state = _State.OVER
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Return whether it has begun, and goes on."""
        thread = self._thread
        return self._state is _State.RESTING or (self._state is _State.AT_WORK and bool(thread and thread.is_alive()))

    def begin(self) -> None:
        """Begin with the first work. RuntimeError if this process may have no more threads."""
        with self._lock:
            _alarm.begin()
            self._start()

    def rouse(self) -> None:
        """Work if something is due by now, and set the alarm if it is due later."""
        with self._lock:
            if self._state is not _State.RESTING:
                return
            wait = self._wait()
            if wait <= 0:
                try:
                    self._start()
                except RuntimeError as error:
                    self._hinder(error)
                    wait = max(self._wait(), AGAIN)
                else:
                    return
            _alarm.set(self.rouse, wait)

    def join(self, seconds: float) -> bool:
        """Wait for the end, if something leads to it; return whether it has come."""
        self.rouse()
        if self._state is _State.AT_WORK and (thread := self._thread):
            thread.join(max(0.0, seconds))
        return not self.is_alive

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        before, self._state, self._thread = self._state, _State.AT_WORK, thread
        try:
            thread.start()
        except RuntimeError:
            self._state, self._thread = before, None
            raise

    def _run(self) -> None:
        rests = False
        try:
            while not rests and self._work():
                rests = self._rest()
        finally:
            if not rests:
                self._on_end()
                self._state = _State.OVER

    def _rest(self) -> bool:
        """End the thread until something is due again; return False if that is so by now."""
        with self._lock:
            if (wait := self._wait()) <= 0:
                return False
            _alarm.set(self.rouse, wait)
            self._state, self._thread = _State.RESTING, None
            return True


_alarm = Alarm()

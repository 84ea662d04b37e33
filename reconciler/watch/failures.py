"""The objects of one sandbox that could not be changed: each is tried again later and later, and nothing else waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from reconciler.model.identity import Subject
from reconciler.operations import Operation
from reconciler.values import dataclass
from reconciler.watch.agenda import backoff


@dataclass(frozen=True, slots=True)
class _Failed:
    """How often an object could not be changed, and the time of the clock at which it is tried again."""

    count: int
    due: float


class Failures:
    """Which objects could not be changed at their last try."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[Subject, _Failed] = {}

    def reset(self) -> None:
        """Forget all failures, as after an edit of the manifest."""
        self._failed.clear()

    def postpones(self, operation: Operation) -> bool:
        """Return whether an operation has to wait, because one on the same object failed a short time ago."""
        each = self._failed.get(operation.subject)
        return each is not None and self._clock() < each.due

    def record(self, failing: Collection[Subject], postponed: Iterable[Operation]) -> None:
        """Record a repair: these objects could not be changed, and these operations wait. All others are as desired."""
        now = self._clock()
        waiting = {each.subject for each in postponed}.difference(failing)
        kept = {subject: each for subject, each in self._failed.items() if subject in waiting}
        for subject in failing:
            count = self._failed[subject].count if subject in self._failed else 0
            kept[subject] = _Failed(count + 1, now + backoff(count))
        self._failed = kept

    def next_due(self) -> float | None:
        """Return the seconds until the first object is tried again; None if there is none."""
        now = self._clock()
        return min((max(0.0, each.due - now) for each in self._failed.values()), default=None)

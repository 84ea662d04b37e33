"""Finds repairs that another program reverts again and again, and makes them back off.

Each repair of the same object waits longer than the one before; all other objects are still repaired at once. An object
is known by its identity. If one repair has very many operations of a kind, the kind stands for their objects.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from reconciler.model.identity import Subject
from reconciler.operations import Operation
from reconciler.values import dataclass

# What was repaired: an object by its identity, or all operations of a kind by its name.
_Key = Subject | str
# The pause in seconds between the first two repairs of an object, the factor for each further pause, and the longest.
FIRST, FACTOR, MOST = 1.0, 3.0, 120.0
# Seconds after which a repair is forgotten. The other program may revert it only from time to time.
MEMORY = 300.0
# After so many repairs of the same object, not long apart, it is a fight.
FIGHT = 4
# Above this many operations of a kind, back off per kind instead of per object: a flush of many rules is one event.
_MOST_OBJECTS = 200


@dataclass(slots=True)
class _Repairs:
    """How often an object was repaired, when last (time of the clock), and by which command."""

    count: int
    last: float
    command: str

    @property
    def pause(self) -> float:
        """Return the seconds to the next repair that is allowed."""
        return min(FIRST * FACTOR ** min(self.count - 1, 30), MOST)


class Fights:
    """The repairs of one sandbox: what was repaired, how often, and what has to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._repairs: dict[_Key, _Repairs] = {}

    def reset(self) -> None:
        """Forget all repairs, as after an edit of the manifest."""
        self._repairs.clear()

    def postpones(self, operation: Operation) -> bool:
        """Return whether an operation has to wait, because the same object was repaired a short time ago."""
        if not self._repairs:
            return False
        now = self._clock()
        keys: tuple[_Key, ...] = (operation.subject, operation.kind)
        return any(now < each.last + each.pause for each in map(self._repairs.get, keys) if each)

    def record(self, repaired: Sequence[Operation]) -> None:
        """Record the operations of a repair; forget the repairs that are older than MEMORY."""
        now = self._clock()
        for key in [key for key, each in self._repairs.items() if now > each.last + MEMORY]:
            del self._repairs[key]
        counts = Counter(each.kind for each in repaired)
        shown = {_key(each, counts): _words(each, counts) for each in repaired}
        for key, command in shown.items():
            repairs = self._repairs.setdefault(key, _Repairs(0, now, command))
            repairs.count, repairs.last, repairs.command = repairs.count + 1, now, command

    def next_due(self) -> float | None:
        """Return the seconds until the next postponed operation is allowed; None if none is postponed."""
        now = self._clock()
        left = [each.last + each.pause - now for each in self._repairs.values()]
        return min((each for each in left if each > 0), default=None)

    def current(self) -> list[tuple[str, int]]:
        """Return the fights of this moment: the command of each, and how often it was executed."""
        now = self._clock()
        return [
            (each.command, each.count)
            for each in list(self._repairs.values())
            if each.count >= FIGHT and now <= each.last + 2 * each.pause
        ]


def _key(operation: Operation, counts: Counter[str]) -> _Key:
    return operation.subject if counts[operation.kind] <= _MOST_OBJECTS else operation.kind


def _words(operation: Operation, counts: Counter[str]) -> str:
    """Return the command of an operation, or the beginning that all of its kind have."""
    if counts[operation.kind] <= _MOST_OBJECTS:
        return operation.command
    return f"{' '.join(operation.command.split()[:2])} …"

"""Repairs that are undone again and again: those of the object in question back off, all others go on at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.operations import Operation

# Seconds to the second repair of the same object; by how much each further one takes longer, up to the most.
FIRST, FACTOR, MOST = 1.0, 3.0, 120.0
# Seconds after which a repair is forgotten: who undoes it may look only now and then.
MEMORY = 300.0
# So many repairs of an object, not long apart, are a fight.
FIGHT = 4
# Like operations of one repair that are told apart; a flush of thousands of rules is one event.
_TOLD_APART = 200


@dataclass(slots=True)
class _Record:
    repairs: int
    last: float
    command: str

    @property
    def pause(self) -> float:
        return min(FIRST * FACTOR ** min(self.repairs - 1, 30), MOST)


class Fights:
    """What has been repaired of one sandbox, and how often lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def reset(self) -> None:
        """Begin anew, as after an edit of the manifest."""
        self._records.clear()

    def holds(self, operation: Operation) -> bool:
        """Tell whether an operation has to wait."""
        if not self._records:
            return False
        now = self._clock()
        records = filter(None, map(self._records.get, (operation.command, _many(operation))))
        return any(now < each.last + each.pause for each in records)

    def note(self, repaired: Sequence[Operation]) -> None:
        """Note what was repaired; forget what has been quiet for long."""
        now = self._clock()
        for command in [key for key, each in self._records.items() if now > each.last + MEMORY]:
            del self._records[command]
        counts = Counter(map(_many, repaired))
        keys = [each.command if counts[_many(each)] <= _TOLD_APART else _many(each) for each in repaired]
        for command in dict.fromkeys(keys):
            record = self._records.setdefault(command, _Record(0, now, command))
            record.repairs, record.last = record.repairs + 1, now

    def next_due(self) -> float | None:
        """Give the seconds until the next operation that was held may be done."""
        now = self._clock()
        left = [each.last + each.pause - now for each in self._records.values()]
        return min((each for each in left if each > 0), default=None)

    def named(self) -> list[tuple[str, int]]:
        """Give the commands that are undone again and again, and how often they were given."""
        now = self._clock()
        return [
            (each.command, each.repairs)
            for each in list(self._records.values())
            if each.repairs >= FIGHT and now <= each.last + 2 * each.pause
        ]


def _many(operation: Operation) -> str:
    """Name all operations of a kind."""
    return f"{' '.join(operation.command.split()[:2])} …"

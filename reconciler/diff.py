"""(desired, observed) → changes by key. Generic: it knows `key` and `==`, and no kind of object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from reconciler.model.identity import Keyed

T = TypeVar("T", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object before and after: None before is an addition, None after a deletion."""

    before: T | None
    after: T | None


def diff(desired: Iterable[T], observed: Iterable[T]) -> list[Change[T]]:
    """Give what has to change, in the order of `desired`, deletions last.

    Keys are unique in `desired`; an observed key that appears again is a deletion of its own.
    """
    desired, observed = list(desired), list(observed)
    # A decoder hands out the desired object itself where the bytes say so: then there is nothing to compare.
    same = set(map(id, observed)).intersection(map(id, desired))
    rest: dict[Hashable, list[T]] = defaultdict(list)
    for found in observed:
        if id(found) not in same:
            rest[found.key].append(found)
    changes: list[Change[T]] = []
    for wish in desired:
        if id(wish) in same:
            continue
        candidates = rest.get(wish.key)
        if not candidates:
            changes.append(Change(None, wish))
        elif wish in candidates:
            candidates.remove(wish)
        else:
            changes.append(Change(candidates.pop(0), wish))
    changes += [Change(left, None) for lefts in rest.values() for left in lefts]
    return changes

"""(desired, observed) → changes by key. Generic: it needs only `key` and `==`, and knows no kind of object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from reconciler.model.identity import Keyed
from reconciler.values import dataclass

T = TypeVar("T", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object before and after. `before` None: an addition; `after` None: a deletion."""

    before: T | None
    after: T | None


def diff(desired: Iterable[T], observed: Iterable[T]) -> list[Change[T]]:
    """Return the changes in the order of `desired`, deletions last.

    Keys are unique in `desired`. If an observed key is repeated, each further object is a deletion.
    """
    desired, observed = list(desired), list(observed)
    # If the bytes are equal, a decoder returns the desired object itself: then there is nothing to compare.
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

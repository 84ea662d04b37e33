"""What a kernel reports of one object, whoever made it: by comparison before and after, an undo is proven."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from reconciler.model.identity import Subject
from reconciler.values import NamedTuple


class Fact(NamedTuple):
    """An object by its name for people, and its settings, of which none changes by itself: (field, value).

    `subject`: its identity, if operations name it by one. `comes_late`: the kernel made it by itself, a moment after
    its NIC had a carrier; so it is no deviation if only the second reading has it.
    """

    name: str
    subject: Subject | None
    values: tuple[tuple[str, str], ...]
    comes_late: bool = False


class Deviation(NamedTuple):
    """What differs of one object, in words for people."""

    words: str
    subject: Subject | None


def deviations(before: Iterable[Fact], after: Iterable[Fact]) -> list[Deviation]:
    """Return what differs between two readings."""
    was, is_ = Counter(before), Counter(after)
    return list(_paired(was - is_, is_ - was))


def _paired(lost: Counter[Fact], found: Counter[Fact]) -> Iterator[Deviation]:
    new: dict[str, list[Fact]] = defaultdict(list)
    for fact in found.elements():
        new[fact.name].append(fact)
    for fact in lost.elements():
        if new[fact.name]:
            yield Deviation(f"{fact.name}: {_changes(fact, new[fact.name].pop())}", fact.subject)
        else:
            yield Deviation(f"{fact.name} is missing", fact.subject)
    for facts in new.values():
        for fact in facts:
            if not fact.comes_late:
                yield Deviation(f"{fact.name} was not there", fact.subject)


def _changes(before: Fact, after: Fact) -> str:
    was, is_ = dict(before.values), dict(after.values)
    names = [name for name in {**was, **is_} if was.get(name) != is_.get(name)]
    return ", ".join(f"{name} is {is_.get(name) or 'none'}, was {was.get(name) or 'none'}" for name in names)

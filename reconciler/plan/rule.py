"""The order in which rules come and go.

The kernel tells two rules of one priority apart by less than all of their fields. It refuses a rule if another one is
alike but for what the new one does not select by (`from`, `to`, `tos`), `invert` and `goto`. It deletes the first rule
that has what the request names (net/core/fib_rules.c: rule_exists, rule_find). So broad rules come before narrow ones
and go after them, and a rule that is in the way is deleted for a moment.

The kernel cannot change the protocol of a rule. So the rule of another owner is adopted by one of ours beside it, which
the kernel takes as they differ in the protocol; then the other one is deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from reconciler.model.rule import Rule
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation
from reconciler.plan.item import ItemPlan
from reconciler.values import fields

_NO_SELECTORS = {"invert", "goto", "protocol", "opaque"}
# What a rule selects by, and the value by which it does not. A request is never compared by the fields left out.
_SELECTORS = {each.name: each.default for each in fields(Rule) if each.name not in _NO_SELECTORS}
_LOOSE = {"from_", "to", "tos"}


def order_rules(planned: ItemPlan, found: Iterable[Rule]) -> ItemPlan:
    """Return the plan with its operations in an order that the kernel takes.

    `found`: our rules, in the kernel's order, and those to adopt.
    """
    coming = [each.item for each in planned.coming if isinstance(each.item, Rule)]
    going = [each.item for each in planned.going if isinstance(each.item, Rule)]
    ordered = ItemPlan(deleted=planned.deleted, total=planned.total)
    if not coming and not going:
        return ordered
    found = list(found)
    kernel = _Kernel(found)
    # Each comes behind all others of its priority: so those to adopt keep the order that they have.
    places = {each: place for place, each in enumerate(found)}
    adopted = sorted((each for each in coming if each in places), key=lambda each: places[each])
    new = sorted((each for each in coming if each not in places), key=lambda each: (each.priority, _narrowness(each)))
    for rule in (*adopted, *new):
        ordered.coming += kernel.add(rule, going)
    for rule in sorted(going, key=lambda each: (each.priority, -_narrowness(each))):
        ordered.going += kernel.delete(rule)
    return ordered


class _Kernel:
    """The kernel's list of our rules, as far as the plan has come."""

    def __init__(self, found: Iterable[Rule]) -> None:
        self._lists: dict[object, list[Rule]] = defaultdict(list)
        for rule in found:
            self._list(rule).append(rule)

    def add(self, rule: Rule, going: Sequence[Rule]) -> Iterator[ItemOperation]:
        """Yield what adds a rule. What is in its way is deleted, and added again unless it is one of those `going`."""
        in_the_way = [each for each in self._list(rule) if _is_refused(rule, each)]
        for each in in_the_way:
            yield from self.delete(each)
        yield from self._append([rule, *(each for each in in_the_way if not _has(going, each))])

    def delete(self, rule: Rule) -> Iterator[ItemOperation]:
        """Yield what deletes a rule, if it is still there. Rules that would be deleted in its place are added again."""
        listed = self._list(rule)
        if not _has(listed, rule):
            return
        places = {id(each): place for place, each in enumerate(listed)}
        place = next(place for place, each in enumerate(listed) if _is_same(each, rule))
        alike = [each for each in listed if each != rule and is_deleted(rule, each)]
        hidden = alike if any(places[id(each)] < place for each in alike) else []
        for each in (*sorted(hidden, key=_narrowness, reverse=True), rule):
            listed[:] = [other for other in listed if not _is_same(other, each)]
            yield DeleteItem(item=each)
        yield from self._append(hidden)

    def _append(self, rules: Iterable[Rule]) -> Iterator[ItemOperation]:
        for each in sorted(rules, key=_narrowness):
            self._list(each).append(each)
            yield AddItem(item=each)

    def _list(self, rule: Rule) -> list[Rule]:
        """Return the rules that the kernel may mistake for this one."""
        return self._lists[rule.family, rule.priority, rule.action, rule.table]


def _is_refused(new: Rule, other: Rule) -> bool:
    """Return whether the kernel refuses a new rule because of another one."""
    return (new.protocol, _distinguishing(new)) == (other.protocol, _distinguishing(other)) and all(
        getattr(new, name) == getattr(other, name) or (name in _LOOSE and getattr(new, name) == unset)
        for name, unset in _SELECTORS.items()
    )


def _distinguishing(rule: Rule) -> list[str]:
    """Return what no manifest can express and the kernel tells rules apart by; older kernels ignore realms."""
    return [words for words in rule.opaque if not words.startswith("realms ")]


def is_deleted(request: Rule, other: Rule) -> bool:
    """Return whether a request to delete a rule is met by another one."""
    if request.protocol not in (0, other.protocol):
        return False
    return all(getattr(request, name) in (unset, getattr(other, name)) for name, unset in _SELECTORS.items())


def _is_same(first: Rule, second: Rule) -> bool:
    return first == second and first.protocol == second.protocol


def _has(rules: Iterable[Rule], rule: Rule) -> bool:
    return any(_is_same(each, rule) for each in rules)


def _narrowness(rule: Rule) -> int:
    return sum(getattr(rule, name) != unset for name, unset in _SELECTORS.items())

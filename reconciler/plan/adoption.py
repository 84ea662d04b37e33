"""Adoption: what of other owners equals a desired object counts as ours, and the plan marks it.

Nothing is changed by that but the mark. So only what is equal is adopted: what differs and is not ours stays in the
way, as without adoption. What the kernel makes by itself, and makes again, is never adopted.

IPVS is different: the whole table is taken over, so a foreign service that is not desired is deleted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.model.neighbour import Neighbour
from reconciler.model.route import PROTOCOL_KERNEL, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import LibvirtAddress, Observed, Sandbox
from reconciler.operations import Operation
from reconciler.operations.interface import AdoptInterfaces
from reconciler.operations.segment import Moves, Plugs, Segment
from reconciler.plan.rule import is_deleted
from reconciler.values import replace

if TYPE_CHECKING:
    from reconciler.model.ipvs import Service, ServiceKey

# RTPROT_* of linux/rtnetlink.h: what the kernel makes of an ICMP redirect, of an address, of a router advertisement.
KERNEL_PROTOCOLS = frozenset({1, PROTOCOL_KERNEL, 9})


def adopted(desired: Sandbox, observed: Observed, adopt: bool | frozenset[ServiceKey]) -> Observed:
    """Return the observation with what is adopted among our objects. Of interfaces, `Driver.adopt` does that.

    `adopt`: True, or the keys of the IPVS services that alone are adopted.
    """
    if adopt is True:
        observed = _with_equals(desired, observed)
    return _with_services(observed, adopt)


def records(desired: Sandbox, observed: Observed) -> tuple[Segment, ...]:
    """Return what records NICs to adopt. It comes last: until then, a run that is killed leaves them to their owner."""
    around = observed.around
    adopted = [wish for wish in desired.interfaces or () if wish.device in around.unrecorded]
    if not adopted:
        return ()
    if not around.machine:
        nics = tuple((wish.name, around.origins[wish.device]) for wish in adopted)
        return (Moves((AdoptInterfaces(nics=nics),)),)
    plugged = around.machine.plugged
    others = tuple((wish.device, wish.name, other) for wish in adopted if (other := plugged[wish.device].other))
    if isinstance(desired.driver, LibvirtAddress):
        from reconciler.operations.domain import AdoptNics

        ours = plugged.keys() - around.unrecorded
        kept = tuple((device, other) for device in sorted(ours) if (other := plugged[device].other))
        return (Plugs((AdoptNics(domain=desired.driver, nics=others, kept=kept),)),)
    from reconciler.operations.machine import AdoptDevices

    return (Plugs((AdoptDevices(nics=others),)),)


def taken_back(operations: Iterable[Operation]) -> tuple[Segment, ...]:
    """Return what takes back the records that are among these operations: an undo detaches whatever is ours by record.

    If they were not executed, it does nothing.
    """
    from reconciler.operations.domain import AdoptNics
    from reconciler.operations.machine import AdoptDevices

    found: list[Segment] = []
    for each in operations:
        if isinstance(each, AdoptInterfaces):
            found.append(Moves((replace(each, marked=False),)))
        elif isinstance(each, AdoptDevices | AdoptNics):
            found.append(Plugs((replace(each, marked=False),)))
    return tuple(found)


def _with_equals(desired: Sandbox, observed: Observed) -> Observed:
    ours, around = observed.sandbox, observed.around
    routes = list(_routes(desired.routes or (), ours.routes or (), around.routes))
    rules = list(_rules(desired.rules or (), ours.rules or (), around.rules))
    neighbours = list(_neighbours(desired.neighbours or (), around.neighbours))
    if not (routes or rules or neighbours):
        return observed
    taken = set(map(id, (*routes, *rules, *neighbours)))
    return Observed(
        sandbox=replace(
            ours,
            routes=(*(ours.routes or ()), *routes) if routes else ours.routes,
            rules=(*(ours.rules or ()), *rules) if rules else ours.rules,
            neighbours=(*(ours.neighbours or ()), *neighbours) if neighbours else ours.neighbours,
        ),
        around=replace(
            around,
            routes=tuple(each for each in around.routes if id(each) not in taken),
            rules=tuple(each for each in around.rules if id(each) not in taken),
            neighbours=tuple(each for each in around.neighbours if id(each) not in taken),
        ),
    )


def _routes(wishes: Iterable[Route], ours: Iterable[Route], foreign: Sequence[Route]) -> Iterator[Route]:
    """Yield the foreign routes to adopt. Of several with one key, the kernel would replace any: none is adopted."""
    wanted = {wish.key: wish for wish in wishes}
    counts = Counter(each.key for each in (*ours, *foreign))
    for each in foreign:
        if each.protocol not in KERNEL_PROTOCOLS and counts[each.key] == 1 and wanted.get(each.key) == each:
            yield each


def _rules(wishes: Iterable[Rule], ours: Iterable[Rule], foreign: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the foreign rules to adopt.

    A rule of ours comes behind all others of its priority, and then the foreign one goes. So a rule stays foreign if
    that would change which of several rules applies first, or if the kernel might delete another one in its place.
    """
    wanted = set(wishes)
    had = _by_priority(ours)
    for place, group in _by_priority(foreign).items():
        alike = [each for each in group if each in wanted and each.protocol != PROTOCOL_KERNEL]
        others = [each for each in group if not (each in wanted and each.protocol != PROTOCOL_KERNEL)]
        safe = [each for each in alike if not any(is_deleted(each, other) for other in others)]
        fixed = [each for each in group if each not in safe]
        fixed += [each for each in had[place] if each not in safe]
        results = set(map(_result, fixed))
        for each in safe:
            # One that is ours as well was left by a run that was killed: it only has to go.
            if each in had[place] or results <= {_result(each)}:
                yield each


def _by_priority(rules: Iterable[Rule]) -> defaultdict[tuple[str, int], list[Rule]]:
    found: defaultdict[tuple[str, int], list[Rule]] = defaultdict(list)
    for each in rules:
        found[each.family, each.priority].append(each)
    return found


def _result(rule: Rule) -> tuple[object, ...]:
    """Return what becomes of the packets that a rule selects."""
    return rule.action, rule.table, rule.goto, rule.l3mdev, rule.suppress_prefixlength


def _neighbours(wishes: Iterable[Neighbour], foreign: Iterable[Neighbour]) -> Iterator[Neighbour]:
    wanted = {wish.key: wish for wish in wishes}
    return (each for each in foreign if wanted.get(each.key) == each)


def _with_services(observed: Observed, adopt: bool | frozenset[ServiceKey]) -> Observed:
    ipvs = observed.sandbox.ipvs
    if ipvs is None:
        return observed
    others: list[Service] = []
    taken = list(ipvs.services or ())
    for each in observed.around.services:
        named = adopt is True or (isinstance(adopt, frozenset) and each.key in adopt)
        (taken if named and not ipvs.excludes(each.key) else others).append(each)
    return Observed(
        sandbox=replace(observed.sandbox, ipvs=replace(ipvs, services=tuple(taken))),
        around=replace(observed.around, services=tuple(others)),
    )

"""Changes → ordered operations. Pure: the only place that knows the order, and the side effects in the kernel.

The order, and why:
 0. Sysctls of the sandbox are set, as they change those of NICs; those of a NIC are set before it goes up.
 1. NICs whose name is needed are removed, NICs are renamed, NICs are added, links are set: everything else names them.
 2. Addresses are added. One is deleted before, where its later deletion would delete others too (see `plan.address`).
 3. Neighbours are added: a gateway is known before the first packet to it. Then routes are added and replaced: first
    what the kernel has derived from addresses and lost (see `plan.derived`), then those without a gateway, through
    which the gateways of the others are reached. Then rules are added: their tables have their routes by then.
 4. The IPVS table changes: the kernel accepts a server only if there is a route to it.
 5. Rules are deleted, then routes, neighbours, addresses, NICs: a replacement exists before what it replaces is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from reconciler.model.address import is_ipv6
from reconciler.model.interface import Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.sandbox import KataAddress, Observed, Sandbox
from reconciler.operations import Operation
from reconciler.operations.address import AwaitAddress
from reconciler.operations.route import AddRoute, ReplaceRoute
from reconciler.operations.segment import Network, Segment, Settings, Table, flat, joined
from reconciler.plan import aftermath, made
from reconciler.plan.address import AddressPlan, plan_addresses
from reconciler.plan.derived import Derived, plan_derived
from reconciler.plan.interface import LinkPlan, plan_links
from reconciler.plan.item import ItemPlan, plan_items, readdressed
from reconciler.plan.route import plan_marks, plan_routes
from reconciler.plan.rule import order_rules
from reconciler.plan.sysctl import plan_sysctls
from reconciler.values import NamedTuple, dataclass, replace

if TYPE_CHECKING:
    from reconciler.plan.ipvs import IpvsPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How many objects of a kind a plan removes for good, of how many that are ours.

    `never_all`: all of them are too many.
    """

    kind: str
    count: int
    total: int
    never_all: bool = False


class Plan(NamedTuple):
    """The operations in order, what they delete for good, and the families that lose their last default route.

    `segments`: runs of operations that are executed alike. `draining`: how many IPVS servers stay until their
    connections end or a deadline has passed.
    """

    segments: tuple[Segment, ...]
    deletions: tuple[Deletion, ...] = ()
    lost_defaults: tuple[str, ...] = ()
    draining: int = 0

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return all operations in order."""
        return flat(self.segments)


def plan(desired: Sandbox, observed: Observed) -> Plan:
    """Return the plan with the fewest operations that turn `observed` into `desired`.

    HostError for a device that the host lacks, RefusedError if a foreign object is in the way.
    """
    if isinstance(desired.driver, KataAddress):
        return _plan_kata(desired, observed)
    around = observed.around
    derived = Derived(desired.routes or (), observed)
    had = tuple(derived.marked(each) for each in observed.sandbox.interfaces or ())
    wanted = had if desired.interfaces is None else desired.interfaces
    routes = observed.sandbox.routes or ()
    wishes = desired.routes
    # Without a section `routes`, the observed routes are kept: some may have to be restored.
    claims = routes if wishes is None else wishes
    sysctls = plan_sysctls(desired, observed)
    if desired.interfaces is None and sysctls.ipv6_off:
        wanted = tuple(_without_ipv6(each) if each.name in sysctls.ipv6_off else each for each in had)
    links = plan_links(wanted, had, claims, desired.driver, around, sysctls, managed=desired.interfaces is not None)
    addresses = plan_addresses(wanted, had, claims, links, around)

    if wishes is None:
        wishes = tuple(aftermath.kept_routes(routes, links, addresses, had, wanted))
    others = (*around.routes, *around.local_table)
    aftermath.doubt_local(addresses, chain(routes, others))
    sure, doubtful = aftermath.route_changes(wishes, routes, links, addresses)
    foreign = aftermath.foreign_routes(others, links, addresses, had, wanted) if sure or doubtful else []
    coming, going = plan_routes(sure, doubtful, foreign)
    changed = {each.route.key for each in coming}
    coming += [each for each in plan_marks(wishes, routes) if each.route.key not in changed]
    lacking = plan_derived(derived, desired.interfaces or (), had, links, addresses)

    neighbours, rules = _plan_items(desired, observed, wanted, links, addresses)
    table = _plan_ipvs(desired, observed)
    telling = _telling(desired, observed, links)
    segments = joined(
        (
            *telling.early,
            Settings(tuple(sysctls.early)),
            *links.early,
            Settings(tuple(sysctls.late)),
            Network((*addresses.early, *lacking.addresses, *neighbours.coming)),
            Network((*lacking.routes, *_awaits(coming, addresses, links, observed), *coming, *rules.coming)),
            *((Table(tuple(table.operations)),) if table else ()),
            Network((*rules.going, *going, *neighbours.going, *addresses.late)),
            *links.late,
            *telling.late,
            *made.marks(desired.interfaces or (), observed.sandbox.interfaces or ()),
            *(_records(desired, observed) if observed.around.unrecorded else ()),
        )
    )
    if not segments:
        return Plan((), draining=table.draining if table else 0)
    deletions = [
        *_count_deletions(wishes, routes, addresses, links, observed.sandbox),
        *_count_item_deletions({"neighbour": neighbours, "rule": rules}),
        *(_count_ipvs_deletions(table) if table else ()),
    ]
    return Plan(
        segments=segments,
        deletions=tuple(deletions),
        lost_defaults=_lost_defaults(wishes, routes),
        draining=table.draining if table else 0,
    )


class _Telling(NamedTuple):
    early: tuple[Segment, ...] = ()
    late: tuple[Segment, ...] = ()


def _telling(desired: Sandbox, observed: Observed, links: LinkPlan) -> _Telling:
    """Return what tells the guest's network managers of our NICs: before any is plugged, or after the last has gone."""
    machine = observed.around.machine
    if machine is None or not machine.managers.told or desired.interfaces is None:
        return _Telling()
    from reconciler.plan.machine import telling

    segments = telling(desired.interfaces, machine, [*links.early, *links.late])
    return _Telling(early=segments) if desired.interfaces else _Telling(late=segments)


def _records(desired: Sandbox, observed: Observed) -> tuple[Segment, ...]:
    # Few commands adopt.
    from reconciler.plan.adoption import records

    return records(desired, observed)


def _without_ipv6(interface: Interface) -> Interface:
    return replace(interface, addresses=tuple(each for each in interface.addresses if not is_ipv6(each.address)))


def _plan_kata(desired: Sandbox, observed: Observed) -> Plan:
    from reconciler.plan.kata import plan_kata

    table = _plan_ipvs(desired, observed)
    changes = plan_kata(desired, observed.sandbox, table.operations if table else ())
    had, routes = observed.sandbox.interfaces or (), observed.sandbox.routes or ()
    kept = {route.key for route in changes.routes}
    counts = (
        ("interface", len(changes.removed), len(had)),
        ("route", sum(route.key not in kept for route in routes), len(routes)),
    )
    deletions = [Deletion(kind=kind, count=count, total=total) for kind, count, total in counts if count]
    return Plan(
        segments=changes.segments,
        deletions=(*deletions, *(_count_ipvs_deletions(table) if table else ())),
        lost_defaults=_lost_defaults(changes.routes, routes),
    )


def _plan_ipvs(desired: Sandbox, observed: Observed) -> IpvsPlan | None:
    if desired.ipvs is None or observed.sandbox.ipvs is None:
        return None
    # Most manifests have no IPVS section.
    from reconciler.plan.ipvs import plan_ipvs

    return plan_ipvs(desired.ipvs, observed.sandbox.ipvs, observed.around)


def _awaits(
    coming: list[AddRoute | ReplaceRoute], addresses: AddressPlan, links: LinkPlan, observed: Observed
) -> list[AwaitAddress]:
    sources = {op.route.source for op in coming if op.route.source and op.route.is_ipv6}
    if not sources:
        return []
    tentative = {(links.renames.get(name, name), address) for name, address in observed.around.tentative}
    return [
        AwaitAddress(device=device, address=address)
        for device, address, added in addresses.ipv6
        if address.host in sources and address.dad and (added or (device, address.key) in tentative)
    ]


def _count_deletions(
    wishes: tuple[Route, ...], routes: tuple[Route, ...], addresses: AddressPlan, links: LinkPlan, had: Sandbox
) -> tuple[Deletion, ...]:
    keys = {wish.key for wish in wishes} if routes else set()
    interfaces = had.interfaces or ()
    counts = (
        ("interface", len(links.removed), len(interfaces)),
        ("address", addresses.deletions, sum(len(interface.addresses) for interface in interfaces)),
        ("route", sum(route.key not in keys for route in routes), len(routes)),
    )
    return tuple(Deletion(kind=kind, count=count, total=total) for kind, count, total in counts if count)


def _plan_items(
    desired: Sandbox, observed: Observed, wanted: Sequence[Interface], links: LinkPlan, addresses: AddressPlan
) -> tuple[ItemPlan, ItemPlan]:
    """Plan the neighbours and the rules."""
    had, around = observed.sandbox, observed.around
    down = links.downed | links.gone_early
    moved = readdressed(had.interfaces or (), wanted)

    def lost(neighbour: Neighbour) -> bool:
        nic = neighbour.device
        off = links.ipv6_off | links.ipv6_cut if neighbour.is_ipv6 else addresses.ipv4_off
        return nic in down or nic in off or (nic in moved and not neighbour.proxy)

    def doubtful(neighbour: Neighbour) -> bool:
        return not neighbour.is_ipv6 and neighbour.device in addresses.ipv4_doubtful

    rules = plan_items(desired.rules, had.rules or (), around.rules, links)
    return (
        plan_items(desired.neighbours, had.neighbours or (), around.neighbours, links, lost, doubtful),
        order_rules(rules, had.rules or ()),
    )


def _count_item_deletions(plans: Mapping[str, ItemPlan]) -> Iterator[Deletion]:
    for kind, each in plans.items():
        if each.deleted:
            yield Deletion(kind=kind, count=each.deleted, total=each.total)


def _count_ipvs_deletions(table: IpvsPlan) -> Iterator[Deletion]:
    for kind, (count, total) in (("IPVS service", table.services), ("IPVS server", table.servers)):
        if count:
            yield Deletion(kind=kind, count=count, total=total, never_all=kind == "IPVS service")


def _lost_defaults(wishes: tuple[Route, ...], routes: tuple[Route, ...]) -> tuple[str, ...]:
    had = {route.is_ipv6 for route in routes if route.is_default}
    if not had:
        return ()
    has = {route.is_ipv6 for route in wishes if route.is_default}
    return tuple("IPv6" if family else "IPv4" for family in sorted(had - has))

"""What a sandbox becomes if some of its objects cannot be changed: these stay as they were, and the others are changed.

What needs such an object stays as well: routes through a NIC, from an address, over a gateway. What it would have
replaced is not deleted: deletions come after additions, so that a replacement exists before what it replaces is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from reconciler.model.address import contains, is_ipv6, network
from reconciler.model.identity import HostDevice, Listed, Nic, NicAddress, Subject, Sysctl
from reconciler.model.interface import Address, Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import OnLink, Route
from reconciler.model.rule import KERNEL_TABLES, Rule
from reconciler.model.sandbox import Sandbox
from reconciler.model.sysctl import full_name
from reconciler.plan.aftermath import with_names
from reconciler.values import dataclass, field, replace


@dataclass(slots=True)
class _Nics:
    """The NICs as they can be. `gone`: names that nothing desired can use.

    `frozen`: NICs, by their names before, on which everything stays as it was. `renames`: old → new name of the others.
    """

    interfaces: tuple[Interface, ...] | None = None
    gone: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    renames: dict[str, str] = field(default_factory=dict)


def hold(desired: Sandbox, before: Sandbox, stuck: Collection[Subject]) -> Sandbox:
    """Return the desired sandbox, with objects that are `stuck`, and what depends on them, as they were before."""
    nics = _hold_nics(desired.interfaces, before.interfaces or (), stuck)
    held = replace(desired, interfaces=nics.interfaces, sysctls=_free_sysctls(desired.sysctls, stuck))
    if desired.routes is None and desired.rules is None:
        return replace(held, neighbours=_hold_neighbours(desired.neighbours, before.neighbours or (), nics, stuck))
    had = tuple(with_names(route, nics.renames) for route in before.routes or ())
    missing = _missing_routes(desired, held, nics, stuck)
    rules, unused = _hold_rules(desired.rules, before.rules or (), missing, stuck)
    routes = _hold_routes(desired.routes, had, missing, unused, nics)
    more = _needed(routes or (), had, held, before, nics) - set(stuck)
    if more:
        return hold(desired, before, {*stuck, *more})
    neighbours = _hold_neighbours(desired.neighbours, before.neighbours or (), nics, stuck)
    return replace(held, routes=routes, rules=rules, neighbours=neighbours)


def _hold_nics(wishes: tuple[Interface, ...] | None, had: tuple[Interface, ...], stuck: Collection[Subject]) -> _Nics:
    if wishes is None:
        return _Nics()
    nics = _Nics()
    stay = _stuck_devices(wishes, had, stuck)
    before = {each.device: each for each in had}
    found: list[Interface] = []
    for wish in wishes:
        old = before.get(wish.device)
        if wish.device not in stay:
            found.append(_with_what_is_free(wish, wish, old, stuck))
        elif old is None:
            nics.gone.add(wish.name)
        elif old.name != wish.name or not old.up:
            nics.gone.add(wish.name)
            nics.frozen.add(old.name)
            found.append(old)
        else:
            found.append(_with_what_is_free(old, wish, old, stuck))
    wanted = {wish.device for wish in wishes}
    staying = [each for each in had if each.device in stay - wanted]
    nics.frozen |= {each.name for each in staying}
    nics.interfaces = (*found, *staying)
    nics.renames = {
        before[each.device].name: each.name for each in found if each.device in before and each.device not in stay
    }
    return nics


def _stuck_devices(wishes: Sequence[Interface], had: Sequence[Interface], stuck: Collection[Subject]) -> set[str]:
    """Return the devices that stay as they are: those that are stuck, and those whose place these have."""
    before = {each.device: each for each in had}
    wanted = {each.device for each in wishes}
    stay = {each.device for each in (*wishes, *had) if Nic(each.name) in stuck or HostDevice(each.device) in stuck}
    while True:
        there = [before[device] for device in stay if device in before]
        missing = [each for each in wishes if each.device in stay]
        more = {each.device for each in wishes if any(_is_in_place(old, each) for old in there)}
        more |= {each.device for each in had if each.device not in wanted and _is_replaced(each, missing)}
        more |= _held_along(wishes, had, there, missing)
        if more <= stay:
            return stay
        stay |= more


def _held_along(
    wishes: Sequence[Interface], had: Sequence[Interface], there: Sequence[Interface], missing: Sequence[Interface]
) -> set[str]:
    """Return what lies on NICs that cannot be had (`missing`), and what those lie on that stay (`there`)."""
    present = {each.name for each in there}
    lacking = {each.name for each in missing} - present
    beneath = {name for each in there for name in each.beneath}
    found = {each.device for each in wishes if each.beneath & lacking}
    return found | {each.device for each in had if each.name in beneath}


def _is_in_place(old: Interface, wish: Interface) -> bool:
    """Return whether a NIC that stays has the name or the MAC address that another one should get."""
    return old.device != wish.device and (old.name == wish.name or (bool(old.hw_addr) and old.hw_addr == wish.hw_addr))


def _is_replaced(old: Interface, wishes: Iterable[Interface]) -> bool:
    """Return whether one of these NICs should take the place of another: its name, or an address in its networks."""
    networks = {dest for each in old.addresses for dest in each.networks}
    return any(
        old.name == wish.name or not networks.isdisjoint(dest for each in wish.addresses for dest in each.networks)
        for wish in wishes
    )


def _with_what_is_free(
    link: Interface, wish: Interface, old: Interface | None, stuck: Collection[Subject]
) -> Interface:
    """Return a NIC with the settings of `link`, and with what `wish` has on it."""
    sysctls = tuple(each for each in wish.sysctls if Sysctl(full_name(wish.name, each[0]), wish.name) not in stuck)
    return replace(link, addresses=_hold_addresses(wish, old, stuck), sysctls=sysctls)


def _free_sysctls(
    wishes: tuple[tuple[str, int], ...] | None, stuck: Collection[Subject]
) -> tuple[tuple[str, int], ...] | None:
    """Return the sysctls of the sandbox without those that are stuck: a manifest leaves alone what it does not name."""
    return None if wishes is None else tuple(each for each in wishes if Sysctl(each[0]) not in stuck)


def _hold_addresses(wish: Interface, old: Interface | None, stuck: Collection[Subject]) -> tuple[Address, ...]:
    """Return the addresses of a NIC. If one of a family is stuck, none of that family is deleted or changed."""
    families = {is_ipv6(each.address) for each in stuck if isinstance(each, NicAddress) and each.nic == wish.name}
    if not families:
        return wish.addresses
    kept = [each for each in (old.addresses if old else ()) if is_ipv6(each.address) in families]
    keys = {each.key for each in kept}
    return (
        *kept,
        *(each for each in wish.addresses if each.key not in keys and NicAddress(wish.name, each.key) not in stuck),
    )


def _hosts(interfaces: Iterable[Interface] | None) -> set[str]:
    return {address.host for each in interfaces or () for address in each.addresses}


def _reach(interfaces: Iterable[Interface] | None, routes: Iterable[Route]) -> Callable[[Route], bool]:
    """Return a function that returns whether all gateways of a route are on a link."""
    on_link = OnLink({each.name: each.connected for each in interfaces or ()}, routes)
    return lambda route: all(on_link.reaches(hop, route.table) for hop in route.nexthops)


def _missing_routes(desired: Sandbox, held: Sandbox, nics: _Nics, stuck: Collection[Subject]) -> dict[object, Route]:
    """Return the desired routes that cannot be had, by their keys: those that are stuck, and those that need others."""
    wishes = desired.routes or ()
    lost = _hosts(desired.interfaces) - _hosts(held.interfaces)
    missing: dict[object, Route] = {
        each.key: each
        for each in wishes
        if Listed("routes", each.key) in stuck or each.devices & nics.gone or each.source in lost
    }
    if not missing and not lost:
        return missing
    would_reach = _reach(desired.interfaces, wishes)
    while True:
        left = [each for each in wishes if each.key not in missing]
        reaches = _reach(held.interfaces, left)
        more = [each for each in left if each.needs_gateway and would_reach(each) and not reaches(each)]
        if not more:
            return missing
        missing.update((each.key, each) for each in more)


def _hold_rules(
    wishes: tuple[Rule, ...] | None,
    had: tuple[Rule, ...],
    missing: Mapping[object, Route],
    stuck: Collection[Subject],
) -> tuple[tuple[Rule, ...] | None, set[tuple[bool, int]]]:
    """Return the rules, and (whether IPv6, table) of each table that no rule looks up although one should.

    The rules of one priority stay together, as the kernel tells them apart by less than all of their fields.
    """
    if wishes is None:
        return None, set()
    empty = {(each.is_ipv6, each.table) for each in missing.values() if each.table not in KERNEL_TABLES}
    places = {
        _place(each)
        for each in (*wishes, *had)
        if Listed(each.section, each.key) in stuck or (_table(each) in empty and each not in had)
    }
    selectors = {_selectors(each) for each in wishes if _place(each) in places and each not in had}
    places |= {_place(each) for each in had if each not in wishes and _selectors(each) in selectors}
    kept = tuple(each for each in had if _place(each) in places)
    unused = {_table(each) for each in wishes if _place(each) in places and each not in kept}
    return (*(each for each in wishes if _place(each) not in places), *kept), unused


def _place(rule: Rule) -> tuple[str, int]:
    return rule.family, rule.priority


def _table(rule: Rule) -> tuple[bool, int]:
    return rule.family == "ipv6", rule.table


def _selectors(rule: Rule) -> Rule:
    return replace(rule, priority=0, action="table", table=0, goto=0)


def _hold_routes(
    wishes: tuple[Route, ...] | None,
    had: Sequence[Route],
    missing: Mapping[object, Route],
    unused: Collection[tuple[bool, int]],
    nics: _Nics,
) -> tuple[Route, ...] | None:
    if wishes is None:
        return None
    keys = {each.key for each in wishes}
    successors = _Successors((*missing.values(), *(each for each in wishes if (each.is_ipv6, each.table) in unused)))
    kept = [
        each
        for each in had
        if each.key in missing or (each.key not in keys and (each.devices & nics.frozen or successors.of(each)))
    ]
    return (*(each for each in wishes if each.key not in missing), *kept)


class _Successors:
    """Desired routes without effect, which should take the packets of routes that would be deleted."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = list(routes)
        self._dests = {each.dest for each in self._routes}
        self._lengths = {(each.is_ipv6, _length(each.dest)) for each in self._routes}
        # (table, length of the successor, length of the deleted route) → networks of the shorter of both lengths.
        self._networks: dict[tuple[int, int, int], set[str]] = {}

    def of(self, route: Route) -> bool:
        """Return whether a route has a successor: one to the same network, or one to a part or a whole in its table."""
        if route.dest in self._dests:
            return True
        host, _, length = route.dest.partition("/")
        return any(
            network(f"{host}/{min(each, int(length))}") in self._shortened(route.table, each, int(length))
            for is_ipv6_, each in self._lengths
            if is_ipv6_ == route.is_ipv6
        )

    def _shortened(self, table: int, own: int, other: int) -> set[str]:
        key = (table, own, other)
        if key not in self._networks:
            self._networks[key] = {
                network(f"{each.dest.partition('/')[0]}/{min(own, other)}")
                for each in self._routes
                if each.table == table and _length(each.dest) == own
            }
        return self._networks[key]


def _length(dest: str) -> int:
    return int(dest.partition("/")[2])


def _needed(routes: Sequence[Route], had: Sequence[Route], held: Sandbox, before: Sandbox, nics: _Nics) -> set[Subject]:
    """Return the NICs and addresses that would be removed, and without which an old route that stays cannot stay."""
    if held.interfaces is None:
        return set()
    there = {each.name: each for each in held.interfaces}
    old = {nics.renames.get(each.name, each.name): each for each in before.interfaces or ()}
    staying = set(had) & set(routes)
    needed: set[Subject] = {Nic(name) for each in staying for name in each.devices & (old.keys() - there.keys())}
    reaches = _reach(held.interfaces, routes)
    for route in staying:
        hosts = _hosts(there[name] for name in route.devices & there.keys())
        if not reaches(route) or (route.source is not None and route.source not in hosts):
            needed |= {
                NicAddress(hop.device, each.key)
                for hop in route.nexthops
                if hop.device in old
                for each in _carriers(old[hop.device], there.get(hop.device), hop.gateway, route.source)
            }
    return needed


def _carriers(old: Interface, new: Interface | None, gateway: str | None, source: str | None) -> Iterator[Address]:
    """Yield what a NIC loses of a route: an address that is its source, or to whose network its gateway belongs."""
    networks = new.connected if new else []
    hosts = _hosts([new] if new else [])
    for each in old.addresses:
        lost = (dest for dest in each.connected if dest not in networks)
        if (gateway and any(contains(dest, gateway) for dest in lost)) or (each.host == source and source not in hosts):
            yield each


def _hold_neighbours(
    wishes: tuple[Neighbour, ...] | None, had: Iterable[Neighbour], nics: _Nics, stuck: Collection[Subject]
) -> tuple[Neighbour, ...] | None:
    if wishes is None:
        return None
    old = [each.renamed(nics.renames) for each in had]
    keys = {each.key for each in wishes}
    missing = {each.key for each in (*wishes, *old) if Listed(each.section, each.key) in stuck}
    missing |= {each.key for each in wishes if each.device in nics.gone}
    kept = [each for each in old if each.key in missing or (each.key not in keys and each.device in nics.frozen)]
    return (*(each for each in wishes if each.key not in missing), *kept)

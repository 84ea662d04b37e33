"""The addresses of NICs: which are added and deleted, and which of them first.

If the first IPv4 address of a subnet is deleted, the kernel deletes the others of that subnet on the NIC (unless
promote_secondaries is set). With the last IPv4 address of a NIC, it deletes all IPv4 routes of the NIC. With the last
IPv6 address of a network, it deletes one route to that network on the NIC, which need not be the connected one.
"""

from __future__ import annotations

from reconciler.diff import diff
from reconciler.model.address import is_ipv6
from reconciler.model.interface import Address, Interface
from reconciler.model.route import IPV6_CONNECTED_METRIC, TABLE_MAIN, Route, connected_key
from reconciler.model.sandbox import Surroundings
from reconciler.operations.address import AddAddress, AddressOperation, DeleteAddress, ReplaceAddress
from reconciler.plan.interface import LinkPlan
from reconciler.values import dataclass, field

# What is lacking of an IPv6 address that the kernel's table `local` has lost.
NOT_LOCAL = "without its route in table local"
# The first words of what the kernel changes of an address that it has. With any other difference the address is
# deleted and added again (net/ipv4/devinet.c: inet_rtm_newaddr; net/ipv6/addrconf.c: inet6_addr_modify).
_LIFETIMES = frozenset({"dynamic", "deprecated", "with"})
_IN_PLACE_IPV4 = _LIFETIMES | {"metric"}
_IN_PLACE_IPV6 = _LIFETIMES | {"home", "mngtmpaddr", "noprefixroute"}


@dataclass(slots=True)
class AddressPlan:
    """What happens to the addresses. NICs have their names from before the plan, except in `ipv6`.

    `gone`: addresses (without length) that no NIC has in the end. `renewed`: IPv6 addresses that are deleted and added
    again, with which routes lose their source. `dropped`: IPv4 addresses that are deleted before
    routes are written; `doubtful`: those that may be. `ipv4_off`: NICs that have no IPv4 address for a moment and lose
    all their IPv4 routes; `ipv4_doubtful`: those to which this may happen. `ipv6_dropped`: (NIC, network) of IPv6
    addresses that are deleted before routes are written. `ipv6`: (NIC by its new name, address, whether it was just
    added).
    """

    early: list[AddressOperation] = field(default_factory=list)
    late: list[AddressOperation] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    ipv4_off: set[str] = field(default_factory=set)
    ipv4_doubtful: set[str] = field(default_factory=set)
    renewed: set[str] = field(default_factory=set)
    ipv6_dropped: set[tuple[str, str]] = field(default_factory=set)
    ipv6: list[tuple[str, Address, bool]] = field(default_factory=list)
    deletions: int = 0


def plan_addresses(
    wanted: tuple[Interface, ...],
    had: tuple[Interface, ...],
    routes: tuple[Route, ...],
    links: LinkPlan,
    around: Surroundings,
) -> AddressPlan:
    """Plan the addresses of all NICs that the manifest wants. `routes` are those that may be written."""
    plan = AddressPlan()
    # A NIC that is removed and added again has no addresses left.
    before = {interface.device: interface for interface in had if interface.name not in links.gone_early}
    for interface in wanted:
        old = before.get(interface.device)
        added: set[str] = set()
        is_kept = old is not None and old.up and old.name not in links.downed | links.ipv6_cut
        if old is None or not is_kept or old.addresses != interface.addresses:
            added = _plan_nic(plan, interface, old, routes, links, around)
        plan.ipv6 += [
            (interface.name, address, address.key in added)
            for address in interface.addresses
            if is_ipv6(address.address)
        ]
    for interface in had:
        if interface.name in links.gone_early:
            first = set() if any(nic == interface.name for nic, _ in around.addresses) else _primaries(interface)
            plan.dropped |= first
            plan.doubtful |= {each.host for each in interface.addresses if not is_ipv6(each.address)} - first
    present = {address.host for interface in had for address in interface.addresses}
    staying = present & {each.host for interface in wanted for each in interface.addresses}
    plan.gone = present - staying
    # If another NIC has the same address, its deletion may delete no routes.
    plan.doubtful |= plan.dropped & staying
    plan.dropped -= staying
    return plan


def _primaries(interface: Interface) -> set[str]:
    """Return the IPv4 addresses that are the first ones of their subnets.

    Of the others, the kernel keeps the routes that name them as their source where the link itself goes
    (fib_del_ifaddr, with in_dev->dead).
    """
    first = {each.subnet: each.host for each in reversed(interface.addresses) if not is_ipv6(each.address)}
    return set(first.values())


def passes_for_connected(route: Route, device: str) -> bool:
    """Return whether the kernel may delete an IPv6 route with an address, in place of the connected one of the NIC.

    The kernel chooses the first route without a gateway, by metric (addrconf_get_prefix_route). In place of the one to
    a peer, it may be one with a gateway.
    """
    return (
        route.is_ipv6
        and route.table == TABLE_MAIN
        and route.metric <= IPV6_CONNECTED_METRIC
        and any(hop.device == device and (hop.gateway is None or route.dest.endswith("/128")) for hop in route.nexthops)
    )


def _plan_nic(
    plan: AddressPlan,
    interface: Interface,
    old: Interface | None,
    routes: tuple[Route, ...],
    links: LinkPlan,
    around: Surroundings,
) -> set[str]:
    """Plan the addresses of one NIC. Return those that are added."""
    name = interface.name
    found = old.addresses if old else ()
    keys = {address.key for address in interface.addresses}
    plan.deletions += sum(address.key not in keys for address in found)
    if old and old.name in links.downed | links.ipv6_cut:
        found = tuple(address for address in found if not is_ipv6(address.address))
    given = {address for nic, address in around.addresses if old and nic == old.name}
    renewed = [
        *(found if old and _keeps_entries(old, interface, links) else ()),
        *wrong_primaries(found, interface.addresses),
        *_unchangeable(found, interface.addresses),
        *_without_peers(found, interface.addresses, is_raised=old is not None and interface.up and not old.up),
    ]
    reordered = [address for address in found if address in renewed]
    changes = diff(interface.addresses, [address for address in found if address not in reordered])
    added = [each.after for each in changes if each.after and not each.before and each.after.key not in given]
    deleted = [each.before for each in changes if each.before and not each.after]
    changed = [each.after for each in changes if each.before and each.after]
    first, rest = _must_go_first(deleted, interface, routes, {each.host for each in added})
    if old and not old.up:
        # The kernel has made routes of them if the link went up. Those must not outlast them.
        first, rest = deleted, []
    # Secondaries before their primary, with which the kernel would delete them: so each still exists in its turn.
    first = sorted([*reordered, *first], key=found.index, reverse=True)
    rest.sort(key=found.index, reverse=True)
    dropped = [each for each in _dropped_along(first, found, interface.addresses) if each not in added]
    plan.early += [DeleteAddress(device=name, address=address) for address in first]
    before = {address.key: address for address in found}
    plan.early += [ReplaceAddress(device=name, address=address) for address in dropped]
    plan.early += [ReplaceAddress(device=name, address=address, before=before[address.key]) for address in changed]
    plan.early += [AddAddress(device=name, address=address) for address in added]
    plan.late += [DeleteAddress(device=name, address=address) for address in rest]
    plan.dropped |= {address.host for address in first if not is_ipv6(address.address)}
    plan.doubtful |= {address.host for address in dropped}
    plan.renewed |= {address.host for address in first if is_ipv6(address.address)} & {each.host for each in added}
    if old:
        plan.ipv6_dropped |= {(old.name, dest) for each in first if is_ipv6(each.address) for dest in each.networks}
        had = {address.key for address in found if not is_ipv6(address.address)}
        _note_ipv4(plan, old.name, had, {address.key for address in first}, {address.key for address in dropped}, given)
    return {address.key for address in added}


def _keeps_entries(old: Interface, interface: Interface, links: LinkPlan) -> bool:
    """Return whether a NIC may get another table for its routes, that of a VRF, and the entries in the old one stay.

    The kernel makes them anew for a link that goes up, and deletes them with the last address.
    """
    return not interface.up and (old.master != interface.master or old.master in links.gone_early)


def _note_ipv4(
    plan: AddressPlan, name: str, had: set[str], first: set[str], dropped: set[str], given: set[str]
) -> None:
    """Record in `plan` whether a NIC has, or may have, no IPv4 address for a moment."""
    if not had or any(not is_ipv6(address) for address in given):
        return
    if not had - first:
        plan.ipv4_off.add(name)
    elif not had - first - dropped:
        plan.ipv4_doubtful.add(name)


def _must_go_first(
    deleted: list[Address], wanted: Interface, routes: tuple[Route, ...], added: set[str]
) -> tuple[list[Address], list[Address]]:
    """Split deletions of a NIC into those before everything else and those at the end.

    An IPv4 address is deleted first in three cases. Others of its subnet are added: the kernel might delete them with
    it later. A route replaces its connected one. No IPv4 address remains: with the last one, the kernel deletes all
    IPv4 routes of the NIC. An IPv6 address is deleted before a route is added that the kernel would delete with it, and
    before the same address is added with another length or peer: the kernel has it only once. It is deleted before
    another one gets its peer, too: with it, the kernel deletes the route to that.
    """
    if not deleted:
        return [], []
    networks = {dest for address in wanted.addresses for dest in address.networks}
    peers = {dest for address in wanted.addresses for dest in address.of_peer}
    ipv4_stays = any(not is_ipv6(each) for each in networks)
    claimed = {route.key for route in routes}
    # While the NIC has an address of a network, its routes stay.
    at_risk = {route.dest for route in routes if passes_for_connected(route, wanted.name)} - networks
    first = [
        address
        for address in deleted
        if any(connected_key(dest, address.metric) in claimed or dest in at_risk for dest in address.networks)
        or (is_ipv6(address.address) and (address.host in added or not peers.isdisjoint(address.networks)))
        or (not is_ipv6(address.address) and (not ipv4_stays or address.subnet in networks))
    ]
    return first, [address for address in deleted if address not in first]


def wrong_primaries(found: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Return the IPv4 addresses to delete and add again, so that the first desired one of a subnet is its primary.

    The primary address is the source of the connected route. The first of the addresses that stay becomes primary by
    itself.
    """
    by_subnet: dict[str, list[Address]] = {}
    for address in found:
        if not is_ipv6(address.address):
            by_subnet.setdefault(address.subnet, []).append(address)
    wrong = []
    for subnet, present in by_subnet.items():
        wishes = {address.key: address for address in wanted if address.subnet == subnet}
        # What is changed in place stays where it is.
        stay = [each for each in present if each.key in wishes and _is_changeable(each, wishes[each.key])]
        if stay and stay[0].key != next(iter(wishes)):
            wrong += stay
    return wrong


def _unchangeable(found: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Return the desired addresses that the kernel cannot change to what they should be."""
    wishes = {address.key: address for address in wanted}
    return [each for each in found if each.key in wishes and not _is_changeable(each, wishes[each.key])]


def _without_peers(found: tuple[Address, ...], wanted: tuple[Address, ...], *, is_raised: bool) -> list[Address]:
    """Return the desired IPv6 addresses whose route to their peer the kernel deletes with an address that goes.

    `is_raised`: the link goes up, and the kernel makes that route of no address that is there (fixup_permanent_addr).
    """
    keys = {address.key for address in wanted}
    going = {dest for each in found if is_raised or each.key not in keys for dest in each.networks}
    return [each for each in found if each.key in keys and not going.isdisjoint(each.of_peer)]


def _is_changeable(found: Address, wish: Address) -> bool:
    in_place = _IN_PLACE_IPV6 if is_ipv6(found.address) else _IN_PLACE_IPV4
    return in_place >= _different(found, wish)


def _different(found: Address, wish: Address) -> set[str]:
    """Return the first words of what two states of an address do not have in common."""
    return {words.partition(" ")[0] for words in {*found.words} ^ {*wish.words}}


def keeps_derived(before: Address, after: Address) -> bool:
    """Return whether the kernel's own routes of an address stay as they are when it becomes as desired, in place.

    Those of IPv6 have the lifetime of their address (net/ipv6/addrconf.c: modify_prefix_route).
    """
    return not is_ipv6(before.address) and _different(before, after) <= _LIFETIMES


def _dropped_along(first: list[Address], found: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Return the desired IPv4 addresses that the kernel may delete with the first one of their subnet."""
    primaries: dict[str, str] = {}
    for address in found:
        if not is_ipv6(address.address):
            primaries.setdefault(address.subnet, address.key)
    going = {address.key for address in first}
    present = {address.key for address in found}
    return [address for address in wanted if address.key in present and primaries.get(address.subnet) in going]

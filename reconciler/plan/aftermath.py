"""What the kernel does to routes when links and addresses change, so that a plan restores what would be lost.

Routes have the names of NICs from before the plan. Source: net/ipv4/fib_frontend.c (fib_inetaddr_event,
fib_disable_ip), fib_semantics.c (fib_sync_down_dev, fib_sync_down_addr), net/ipv6/route.c (fib6_ifdown,
rt6_mtu_change_route), net/ipv6/addrconf.c (cleanup_prefix_route).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.diff import Change, diff
from reconciler.model.address import contains
from reconciler.model.derived import connected_routes
from reconciler.model.interface import Interface
from reconciler.model.route import (
    PROTOCOL_KERNEL,
    TABLE_LOCAL,
    TABLE_MAIN,
    OnLink,
    Route,
    canonical_hops,
)
from reconciler.plan.address import AddressPlan, passes_for_connected
from reconciler.plan.interface import LinkPlan
from reconciler.values import replace


def doubt_local(addresses: AddressPlan, routes: Iterable[Route]) -> None:
    """Doubt whether routes are lost with their source where a route of type `local` leads to that address as well.

    As long as the kernel finds an address to be local, it keeps what names it (fib_del_ifaddr). It looks in the table
    `local`, which is one with `main` until there is a rule (fib_unmerge). Its own routes go with the address.
    """
    if not addresses.dropped:
        return
    local = [
        each.dest
        for each in routes
        if each.type == "local"
        and not each.is_ipv6
        and each.table in {TABLE_MAIN, TABLE_LOCAL}
        and each.protocol != PROTOCOL_KERNEL
    ]
    kept = {host for host in addresses.dropped if any(contains(dest, host) for dest in local)}
    addresses.doubtful |= kept
    addresses.dropped -= kept


def route_changes(
    wishes: Sequence[Route], routes: Sequence[Route], links: LinkPlan, addresses: AddressPlan
) -> tuple[list[Change[Route]], list[Change[Route]]]:
    """Return the changes of routes after those of links and addresses: the sure ones, and the doubtful ones.

    Whether a route is lost or changed may depend on settings of the kernel, or on an MTU that the manifest leaves to
    it. Such a route is always a change: replaced, or deleted.
    """
    links_change = links.renames or links.removed or links.gone_early or links.downed or links.mtus or links.mtus_along
    links_change = links_change or links.ipv6_cut
    if not (links_change or addresses.dropped or addresses.doubtful or addresses.ipv6_dropped or addresses.renewed):
        return diff(wishes, routes), []
    wished = {wish.key for wish in wishes}
    left: list[Route] = []
    doubtful: dict[object, Route] = {}
    for route in routes:
        after = _route_after(route, links, addresses)
        if after is None or (route.key not in wished and _leaves_with_its_nic(route, links)):
            continue
        after = with_names(after, links.renames)
        if _is_doubtful(route, links, addresses):
            doubtful[route.key] = after
        else:
            left.append(after)
    sure = diff([wish for wish in wishes if wish.key not in doubtful], left)
    kept = [Change(doubtful[wish.key], wish) for wish in wishes if wish.key in doubtful]
    gone = [Change(route, None) for key, route in doubtful.items() if key not in wished]
    return sure, [*kept, *gone]


def _leaves_with_its_nic(route: Route, links: LinkPlan) -> bool:
    """Return whether the kernel deletes a route with NICs removed at the end.

    It deletes an IPv4 route with any of its NICs, an IPv6 route with all of them.
    """
    leaving = links.removed - links.gone_early
    return bool(route.devices & leaving) and (not route.is_ipv6 or not route.devices - leaving)


def _route_after(route: Route, links: LinkPlan, addresses: AddressPlan) -> Route | None:
    devices = route.devices
    if not route.is_ipv6:
        downed = set[str]() if route.outlives_link else links.downed
        off = downed if len(devices) > 1 else downed | addresses.ipv4_off
        lost = devices & links.gone_early or (devices and not devices - off) or _names_source(route, addresses.dropped)
        return None if lost else route
    gone = links.gone_early | links.ipv6_off
    if devices and (not devices - gone or not devices - links.gone_early - links.downed - links.ipv6_cut):
        return None
    # A link that is down for a moment stays one of several next hops; one that is removed does not.
    if devices & gone:
        route = replace(route, nexthops=tuple(hop for hop in route.nexthops if hop.device not in gone))
    if route.source in addresses.renewed:
        route = replace(route, source=None)
    for device in devices & links.mtus.keys():
        route = _follow_mtu(route, *links.mtus[device])
    return route


def _is_doubtful(route: Route, links: LinkPlan, addresses: AddressPlan) -> bool:
    """Return whether a route that is not surely lost or changed may be."""
    devices = route.devices
    if route.is_ipv6:
        # If one link goes down before the MTU of another one falls, the route stays; in the other order it is lost.
        without = bool(devices) and not devices - links.gone_early - links.ipv6_off - links.downed - links.ipv6_cut
        dropped = (device for device in devices if (device, route.dest) in addresses.ipv6_dropped)
        follows = route.mtu and not route.mtu_lock and devices & links.mtus_along
        return without or bool(follows) or any(passes_for_connected(route, device) for device in dropped)
    # Several NICs lose their IPv4 addresses one after the other. A route is lost only if all are without one at once.
    downed = set[str]() if route.outlives_link else links.downed
    without = bool(devices) and not devices - downed - addresses.ipv4_off - addresses.ipv4_doubtful
    return without or _names_source(route, addresses.doubtful)


def _names_source(route: Route, gone: set[str]) -> bool:
    """Return whether a route is lost with its source address: the kernel looks for such routes in `main` only."""
    return route.source in gone and route.table == TABLE_MAIN


def _follow_mtu(route: Route, old: int, new: int) -> Route:
    """Return an IPv6 route after its NIC's MTU has changed: the kernel changes the route's with it, in two cases.

    It leaves one that is locked (rt6_mtu_change_route).
    """
    if route.mtu_lock:
        return route
    follows = route.mtu >= new or (route.mtu < new and route.mtu == old)
    return replace(route, mtu=new) if route.mtu and follows else route


def with_names(route: Route, renames: Mapping[str, str]) -> Route:
    """Return a route with the new names of NICs; `renames`: old → new."""
    if not route.devices & renames.keys():
        return route
    hops = canonical_hops(replace(hop, device=renames.get(hop.device, hop.device)) for hop in route.nexthops)
    return replace(route, nexthops=hops)


def kept_routes(
    routes: Iterable[Route],
    links: LinkPlan,
    addresses: AddressPlan,
    had: Iterable[Interface],
    wanted: Iterable[Interface],
) -> Iterator[Route]:
    """Yield the routes to keep if a manifest has no section `routes`, with the new names of NICs.

    Some are left out: those of NICs that are removed; those that are lost with their source or with the IPv4 addresses
    of a NIC, and that could not be restored without these; and IPv6 routes of NICs that lose IPv6.
    """
    kept = [
        route
        for route in routes
        if not route.devices & (links.removed | links.ipv6_off if route.is_ipv6 else links.removed)
        and (route.is_ipv6 or not _names_source(route, addresses.gone))
    ]
    names = {each.device: each.name for each in had}
    prefixes = {names[each.device]: each.connected for each in wanted if each.device in names}
    on_link = OnLink(prefixes, kept if addresses.ipv4_off else ())
    for route in kept:
        if (
            route.is_ipv6
            or not route.devices & addresses.ipv4_off
            or all(on_link.reaches(hop, route.table) for hop in route.nexthops)
        ):
            yield with_names(route, links.renames)


def foreign_routes(
    routes: Iterable[Route],
    links: LinkPlan,
    addresses: AddressPlan,
    had: Iterable[Interface],
    wanted: Iterable[Interface],
) -> list[Route]:
    """Return the foreign routes after the changes of links and addresses. Connected routes follow the addresses."""
    connected_before = set(_connected(had))
    left = (_route_after(route, links, addresses) for route in routes if route not in connected_before)
    return [*(with_names(route, links.renames) for route in left if route), *_connected(wanted)]


def _connected(interfaces: Iterable[Interface]) -> Iterator[Route]:
    """Yield the routes that the kernel adds by itself."""
    for interface in interfaces:
        if interface.up:
            yield from connected_routes(interface.name, interface.addresses)

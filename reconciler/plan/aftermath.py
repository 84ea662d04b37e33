"""What the kernel does to routes when links and addresses change, so that a plan puts back what it would lose.

Source: net/ipv4/fib_frontend.c (fib_inetaddr_event), fib_semantics.c (fib_sync_down_dev, fib_sync_down_addr), net/ipv6/route.c (rt6_sync_down_dev,
rt6_remove_prefsrc, rt6_mtu_change_route).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reconciler.model.interface import Interface
from reconciler.model.route import Route, direct_networks, is_reached
from reconciler.plan.interface import AddressPlan, LinkPlan


def renamed(routes: Iterable[Route], renames: dict[str, str]) -> Iterable[Route]:
    """Name the routes' NICs as they are called after the renames."""
    if not renames:
        return routes
    return [_with_names(route, renames) if route.devices & renames.keys() else route for route in routes]


def _with_names(route: Route, renames: dict[str, str]) -> Route:
    hops = tuple(replace(hop, device=renames.get(hop.device, hop.device)) for hop in route.nexthops)
    return replace(route, nexthops=hops)


def tenable(routes: Iterable[Route], interfaces: Iterable[Interface], addresses: AddressPlan) -> Iterable[Route]:
    """Leave out the routes that a NIC loses with its IPv4 addresses and that could not be put back without them."""
    routes = list(routes)
    if not addresses.ipv4_off:
        return routes
    direct = direct_networks(routes)
    prefixes = {each.name: [address.address for address in each.addresses] for each in interfaces}
    return [
        route
        for route in routes
        if route.is_ipv6
        or not route.devices & addresses.ipv4_off
        or all(is_reached(hop, [*prefixes.get(hop.device, ()), *direct.get(hop.device, ())]) for hop in route.nexthops)
    ]


def routes_after(
    routes: tuple[Route, ...], wishes: Iterable[Route], links: LinkPlan, addresses: AddressPlan
) -> Iterable[Route]:
    """Give the routes that are left once the links and addresses are done, as a later diff would find them.

    A NIC that goes at the end takes its routes along: they count as gone already unless their key is wished for,
    and then another route takes their place before.
    """
    if not (links.removed or links.downed or links.mtus or addresses.dropped):
        return routes
    wished = {wish.key for wish in wishes}
    lost = links.gone_early | links.downed
    doomed = links.removed - links.gone_early
    left = (_route_after(route, lost, links, addresses) for route in routes)
    return [
        route
        for route in left
        if route is not None and (route.key in wished or not route.nexthops or route.devices - doomed)
    ]


def _route_after(route: Route, lost: set[str], links: LinkPlan, addresses: AddressPlan) -> Route | None:
    if not route.is_ipv6:
        without = route.nexthops and not route.devices - lost - addresses.ipv4_off
        return None if without or route.source in addresses.dropped else route
    if route.nexthops and not route.devices - lost:
        return None
    if route.devices & lost:
        route = replace(route, nexthops=tuple(hop for hop in route.nexthops if hop.device not in lost))
    for device in route.devices & links.mtus.keys():
        route = _follow_mtu(route, *links.mtus[device])
    return route


def _follow_mtu(route: Route, old: int, new: int) -> Route:
    """Give an IPv6 route after its NIC's MTU changed: the kernel moves a route's MTU along in two cases."""
    follows = route.mtu >= new or (route.mtu < new and route.mtu == old)
    return replace(route, mtu=new) if route.mtu and follows else route

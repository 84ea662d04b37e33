"""Whether the packets of a connection still take their path after one change: for sure not, maybe not, or as before."""

from __future__ import annotations

from reconciler.model.address import contains, is_ipv6
from reconciler.model.cost import End
from reconciler.model.interface import Address
from reconciler.model.lookup import REJECTED
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import TABLE_MAIN, Route

# Whether a change cuts a connection.
SURELY, MAYBE, NOT = True, None, False


def draws(address: Address, device: str, end: End) -> bool | None:
    """Return whether an address that is added, and its networks on its link, take packets away from their route."""
    if end.address == address.host:
        return SURELY
    if end.route is None or end.route.devices == {device} or end.route.table != TABLE_MAIN:
        return NOT
    drawing = (dest for dest in address.networks if contains(dest, end.address))
    return MAYBE if any(_length(end.route) < int(dest.rpartition("/")[2]) for dest in drawing) else NOT


def replaced(route: Route, end: End) -> bool | None:
    """Return whether a route that is replaced takes packets another way."""
    before = end.route
    if before is None or before.key != route.key:
        return NOT
    if route.type in REJECTED:
        return SURELY
    return NOT if (route.type, route.nexthops) == (before.type, before.nexthops) else MAYBE


def taken_by(route: Route, end: End) -> bool | None:
    """Return whether a route that is added takes packets away from theirs."""
    before = end.route
    if before is None or is_ipv6(end.address) != route.is_ipv6 or not contains(route.dest, end.address):
        return NOT
    if (route.type, route.nexthops) == (before.type, before.nexthops):
        return NOT
    if route.table != before.table or route.tos:
        # Nobody knows which packets have which type of service.
        return MAYBE
    better = (_length(route), -route.metric) > (_length(before), -before.metric)
    return NOT if not better else SURELY if route.type in REJECTED else MAYBE


def next_to(neighbour: Neighbour, end: End) -> bool | None:
    """Return whether packets go to a neighbour next, whose entry changes."""
    hops = end.route.nexthops if end.route else ()
    met = any(hop.device == neighbour.device and (hop.gateway or end.address) == neighbour.address for hop in hops)
    return MAYBE if met and not neighbour.proxy else NOT


def _length(route: Route) -> int:
    return int(route.dest.rpartition("/")[2])

"""Warnings about what others did to our NICs and beside our routes: nothing of ours differs, and packets suffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from reconciler.manifest.finding import Finding
from reconciler.model.address import contains, split_prefix
from reconciler.model.derived import derived_routes, is_link_local
from reconciler.model.interface import Interface, LinkState
from reconciler.model.route import PROTOCOL_KERNEL, Route
from reconciler.model.sandbox import Sandbox, Surroundings

# The kinds of links that have no ARP and no multicast by nature, as what lies on them.
_QUIET = frozenset({"dummy", "vrf"})
_LOOPBACK = "127.0.0.0/8"
_BROADCAST = "ff:ff:ff:ff:ff:ff"


def warnings(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield the warnings about what was observed beside the objects of a manifest."""
    yield from _interfaces(sandbox, around)
    yield from _routes(sandbox, around)
    if around.machine and sandbox.interfaces:
        for rival in around.machine.managers.rivals:
            name, _, why = rival.partition(" ")
            yield Finding(
                ("interfaces",),
                f"{name} configures NICs in the guest by itself, and cannot be told to leave these alone"
                f"{f' {why}' if why else ''}: what it changes is a fight; stop it there, or exclude these NICs",
            )


def _interfaces(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield warnings about links, and about foreign routes in front of those that the kernel makes of addresses."""
    places: dict[Route, int] = {}
    kinds = {each.name: around.kinds.get(each.device, "") for each in sandbox.interfaces or ()}
    for index, interface in enumerate(sandbox.interfaces or ()):
        state = around.states.get(interface.device)
        if state is None:
            continue
        managed = [address for name, address in around.addresses if name == interface.name]
        below = interface.made.link if interface.made else ""
        is_quiet = not _QUIET.isdisjoint((kinds[interface.name], kinds.get(below, "")))
        for words in _link_words(interface, state, managed, is_quiet=is_quiet):
            yield Finding(("interfaces", index), f"{interface.name} {words}")
        places |= dict.fromkeys(derived_routes(interface, state, managed), index)
    for routes in (around.routes, around.local_table):
        for other, route in _in_front(routes, places):
            yield Finding(("interfaces", places[route]), _taken(route, other))


def _link_words(interface: Interface, state: LinkState, managed: Sequence[str], *, is_quiet: bool) -> Iterator[str]:
    set_ = f"ip link set dev {interface.name}"
    # A device without MAC addresses has none of these, and needs none of them.
    if not is_quiet and interface.has_mac:
        if not state.arp and "arp" not in dict(interface.attributes):
            yield f"neither sends nor answers ARP; set it there: {set_} arp on"
        if not state.multicast:
            yield f"has no multicast, which IPv6 needs; set it there: {set_} multicast on"
        if state.broadcast not in {"", _BROADCAST}:
            yield f"sends broadcasts to {state.broadcast}; set it there: {set_} broadcast {_BROADCAST}"
    if state.master and not (state.vrf or interface.master):
        yield f"is a port of {state.master}, which gets its packets; take it out there: {set_} nomaster"
    if state.held:
        yield f"has no carrier because of protodown; set it there: {set_} protodown off"
    if not interface.has_mac:
        return
    has_link_local = any(map(is_link_local, (*managed, *(each.address for each in interface.addresses))))
    if state.generation == "none" or (state.ipv6 and state.generation != "eui64" and not has_link_local):
        yield f"gets no link-local address; set it there: {set_} addrgenmode eui64"


def _in_front(routes: Sequence[Route], places: Mapping[Route, int]) -> Iterator[tuple[Route, Route]]:
    """Yield (foreign, derived) where the kernel looks at the foreign route first."""
    before: dict[tuple[int, str], list[Route]] = {}
    for route in routes:
        listed = before.setdefault((route.table, route.dest), [])
        if route in places:
            for other in listed:
                if other not in places and other.protocol != PROTOCOL_KERNEL and not _is_alike(other, route):
                    yield other, route
        listed.append(route)


def _routes(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield warnings about foreign routes that take the traffic of ours."""
    places = {route.key: index for index, route in enumerate(sandbox.routes or ())} if around.in_front else {}
    for other, route in around.in_front:
        if route.key in places and not _is_alike(other, route):
            yield Finding(("routes", places[route.key]), _taken(route, other))
    # The kernel looks at the table `local` first.
    for other in around.local_table:
        if _takes_a_network(other):
            for index, route in enumerate(sandbox.routes or ()):
                if _covers(other, route):
                    yield Finding(("routes", index), _taken(route, other))


def _takes_a_network(route: Route) -> bool:
    """Return whether a route of the table `local` takes packets to more than one host, unlike those of every `lo`."""
    return route.type not in {"throw", "multicast"} and not route.dest.endswith((_LOOPBACK, "/32", "/128"))


def _covers(other: Route, route: Route) -> bool:
    """Return whether all packets to the destination of `route` are for the one of `other`."""
    (_, length), (_, inner) = split_prefix(other.dest), split_prefix(route.dest)
    return length <= inner and contains(other.dest, route.dest.partition("/")[0])


def _is_alike(one: Route, other: Route) -> bool:
    """Return whether two routes lead to the same place."""
    return (one.type, one.nexthops) == (other.type, other.nexthops)


def _taken(route: Route, other: Route) -> str:
    # Most looks find nothing to warn about.
    from reconciler.formats.iproute2 import route_words

    part = "some of its packets" if other.tos or other.from_ else "its packets"
    return (
        f"{route_words(route)}: the route {route_words(other)} is not ours and takes {part}; delete it in the sandbox"
    )

"""What several files say of NICs becomes interfaces; what needs a NIC that is left out is left out, too.

A manifest needs of each interface a device of the host, a MAC address and an MTU. If no file says one of them, it is
chosen, and reported: the device has the name of the NIC; the MAC address is made of the sandbox's ID and that name, so
that another import yields the same; the MTU is that of Ethernet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.formats.entry import NO_PRIORITY, Link
from reconciler.formats.keepalived.statements import Position
from reconciler.manifest.imported import Imported
from reconciler.model.address import family_name
from reconciler.model.attribute import ATTRIBUTES, BY_FIELD
from reconciler.model.interface import LOOPBACK, Interface, is_manifest_name
from reconciler.model.route import OnLink, Route, canonical_hops
from reconciler.model.sandbox import Sandbox
from reconciler.values import replace

# RFC 894
ETHERNET_MTU = 1500


def fill(imported: Imported, head: Sandbox) -> None:
    """Make interfaces of links, and take away what needs those that are left out."""
    _find_names(imported)
    by_name: dict[str, list[tuple[Position, Link]]] = {}
    for position, link in imported.links:
        if link.name == LOOPBACK:
            imported.add_skipped(position, f"{LOOPBACK}: not imported: a manifest does not describe it")
        elif not is_manifest_name(link.name):
            why = "no interface of a manifest can have such a name"
            imported.absent.setdefault(link.name, why)
            imported.add_skipped(position, f"{link.name}: not imported: {why}")
        elif link.name in imported.absent:
            imported.add_skipped(position, f"{link.name}: not imported: {imported.absent[link.name]}")
        else:
            by_name.setdefault(link.name, []).append((position, link))
    for pieces in by_name.values():
        imported.interfaces.append((pieces[0][0], _merge(imported, pieces, head)))
    imported.links = []
    _settle_rules(imported)
    merged = by_name.items()
    _leave_out(imported, {(name, each) for name, pieces in merged for _, link in pieces for each in link.partial})


def _find_names(imported: Imported) -> None:
    """Give links that a file knows only by their MAC address the names that another file has for them."""
    by_mac = {link.hw_addr: link.name for _, link in imported.links if link.hw_addr and not link.matched}
    names, links = dict[str, str](), []
    for position, link in imported.links:
        name = link.name
        if link.matched in by_mac:
            name = names[link.name] = by_mac[link.matched]
        elif link.matched:
            words = f"no file says the name of the interface with the MAC address {link.matched}"
            if name == link.matched:
                imported.absent[name] = words
                imported.add_skipped(position, f"not imported: {words}; `ip -j link` beside this file does")
                continue
            imported.add_skipped(position, f"{name}: {words}; its name in the file is taken")
        links.append((position, replace(link, name=name)))
    imported.links = links
    imported.neighbours = [(position, entry.renamed(names)) for position, entry in imported.neighbours]
    imported.routes = [(position, _renamed(route, names)) for position, route in imported.routes]


def _renamed(route: Route, names: Mapping[str, str]) -> Route:
    if names.keys().isdisjoint(route.devices):
        return route
    hops = (replace(hop, device=names.get(hop.device, hop.device)) for hop in route.nexthops)
    return replace(route, nexthops=canonical_hops(hops))


def _merge(imported: Imported, pieces: list[tuple[Position, Link]], head: Sandbox) -> Interface:
    """Return the interface that files describe together: of two values, that of the later file is taken."""
    position, first = pieces[0]
    device = _latest(imported, pieces, "device")
    hw_addr = _latest(imported, pieces, "hw_addr")
    mtu = _latest(imported, pieces, "mtu")
    missing = []
    if device is None:
        device = first.name
        missing.append(f"its device on the host (device: {device} is assumed)")
    if hw_addr is None:
        hw_addr = made_mac(head.id, first.name)
        missing.append(f"its MAC address (hwAddr: {hw_addr} is made of the sandbox's ID and its name)")
    if mtu is None:
        mtu = ETHERNET_MTU
        missing.append(f"its MTU (mtu: {mtu}, that of Ethernet, is assumed)")
    if missing:
        *others, last = missing
        words = f"{', '.join(others)} or {last}" if others else last
        imported.add_skipped(position, f"{first.name}: no file says {words}")
    addresses = {each.key: each for _, link in pieces for each in link.addresses}
    attributes = ((each.field, _latest(imported, pieces, each.field)) for each in ATTRIBUTES)
    return Interface(
        name=first.name,
        device=device,
        hw_addr=hw_addr,
        mtu=mtu,
        up=_latest(imported, pieces, "state") != "down",
        addresses=tuple(addresses.values()),
        altnames=_latest(imported, pieces, "altnames"),
        attributes=tuple((field, value) for field, value in attributes if value is not None),
    )


def _latest(imported: Imported, pieces: list[tuple[Position, Link]], field: str) -> Any:
    value = None
    for position, link in pieces:
        new = dict(link.attributes).get(field) if field in BY_FIELD else getattr(link, field)
        if new is not None and value not in (None, new):
            words = field.replace("hw_addr", "hwAddr")
            imported.add_skipped(position, f"{link.name}: {words} {new} takes the place of {value}, which is above")
        value = value if new is None else new
    return value


def made_mac(sandbox: str, name: str) -> str:
    """Return a MAC address for a NIC: unicast, locally administered (IEEE 802), and always the same."""
    digest = bytearray(hashlib.sha256(f"{sandbox}/{name}".encode(errors="replace")).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")


def _settle_rules(imported: Imported) -> None:
    """Give each rule without a priority the one that the kernel would choose if the rules came in this order.

    Of a mark, take the bits of its mask: the kernel compares no others (fib_rule_match).
    """
    # net/core/fib_rules.c, fib_default_rule_pref: one less than that of the second rule, after the one for `local`.
    second = {"ipv4": 32766, "ipv6": 32766}
    rules = []
    for position, rule in imported.rules:
        placed = rule
        if rule.priority == NO_PRIORITY:
            placed = replace(rule, priority=max(second[rule.family] - 1, 0))
            words = f"the rule has no priority; imported with {placed.priority}, which the kernel would choose"
            imported.add_skipped(position, words)
        if placed.fwmark & ~placed.fwmask:
            placed = replace(placed, fwmark=placed.fwmark & placed.fwmask)
            bits = f"{rule.fwmark:#x} has bits outside its mask {rule.fwmask:#x}, which the kernel ignores"
            imported.add_skipped(position, f"fwmark: imported as {placed.mark}: {bits}")
        if placed.priority:
            second[rule.family] = min(second[rule.family], placed.priority)
        rules.append((position, placed))
    imported.rules = rules


def _leave_out(imported: Imported, partial: set[tuple[str, str]]) -> None:
    """Take away routes and neighbours of links that are left out, and routes that need an address that is.

    `partial`: (interface, family) of which there may be addresses that no manifest has.
    """
    names = {each.name for _, each in imported.interfaces}
    absent = {name: why for name, why in imported.absent.items() if name not in names}
    kept = []
    for position, entry in imported.neighbours:
        if entry.device in absent:
            imported.add_skipped(position, f"neighbour {entry.address}: not imported: nor is its device {entry.device}")
        else:
            kept.append((position, entry))
    imported.neighbours = kept
    own = {each.name: each.connected for _, each in imported.interfaces}
    hosts = {address.host for _, each in imported.interfaces for address in each.addresses}
    down = frozenset(each.name for _, each in imported.interfaces if not each.up)
    _filter_routes(
        imported,
        lambda route: (
            _without_device(route, absent) or _over_down(route, down) or _without_source(route, partial, hosts)
        ),
    )
    # Only routes without a gateway, which need no other route, lead to gateways.
    on_link = OnLink(own, [route for _, route in imported.routes])
    _filter_routes(imported, lambda route: _unreached(route, partial, on_link))
    _limit_mtus(imported)


def _limit_mtus(imported: Imported) -> None:
    """Take away the MTU of a route if it is above that of its link: no manifest can have it."""
    nics = {each.name: each for _, each in imported.interfaces}
    routes = []
    for position, route in imported.routes:
        limited = route
        for name in sorted(route.devices):
            if name in nics and not nics[name].fits(limited.mtu):
                words = f"mtu {route.mtu}: not imported: it is above that of {name}, {nics[name].mtu}"
                imported.add_skipped(position, f"route to {route.dest}: {words}")
                limited = replace(route, mtu=0)
        routes.append((position, limited))
    imported.routes = routes


def _filter_routes(imported: Imported, why_out: Callable[[Route], str]) -> None:
    """Take away the routes for which there is a reason to."""
    kept = []
    for position, route in imported.routes:
        why = why_out(route)
        if why:
            imported.add_skipped(position, f"route to {route.dest}: not imported: {why}")
        else:
            kept.append((position, route))
    imported.routes = kept


def _without_device(route: Route, absent: Mapping[str, str]) -> str:
    name = next((name for name in sorted(route.devices) if name in absent), None)
    return f"nor is its device {name}" if name is not None else ""


def _over_down(route: Route, down: frozenset[str]) -> str:
    names = sorted(route.devices & down)
    return f"its device {names[0]} is down, and the kernel refuses routes over such a link" if names else ""


def _without_source(route: Route, partial: set[tuple[str, str]], hosts: set[str]) -> str:
    if not route.source or route.source in hosts:
        return ""
    family = family_name(route.source)
    gone = any((device, family) in partial for device in route.devices)
    return f"its source {route.source} is no address that is imported" if gone else ""


def _unreached(route: Route, partial: set[tuple[str, str]], on_link: OnLink) -> str:
    for hop in route.nexthops:
        if (hop.device, family_name(hop.gateway or route.dest)) in partial and not on_link.reaches(hop, route.table):
            return f"no address of {hop.device} that is imported reaches its gateway {hop.gateway}"
    return ""

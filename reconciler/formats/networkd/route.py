"""The routes of a .network file: [Route] sections, and Gateway= of [Network]."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reconciler.formats.entry import Entry
from reconciler.formats.networkd.syntax import Document, Section
from reconciler.formats.static import (
    MADE,
    METRIC_MAX,
    TABLES_MAX,
    add_route,
    read_bytes,
    read_metrics,
    read_network,
    skip_of_reject,
    why_no_route,
)
from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, is_ipv6
from reconciler.model.metric import ordered
from reconciler.model.route import PREFERENCES, REJECT_TYPES, TABLE_MAIN, NextHop

TABLES = {"default": 253, "main": TABLE_MAIN, "local": 255}
_METRICS = {
    "hoplimit": "HopLimit",
    "initcwnd": "InitialCongestionWindow",
    "initrwnd": "InitialAdvertisedReceiveWindow",
    "quickack": "QuickAck",
    "congctl": "TCPCongestionControlAlgorithm",
}
_DYNAMIC = re.compile(r"_?(?:dhcp4|dhcp|ipv6ra)\Z")


def read(document: Document, network: Section, names: Sequence[str], *, has_addresses: bool) -> None:
    """Read the routes. Without an address, networkd takes gateways to be on the link."""
    vrf = network.text("VRF") or ""
    network.skip("VRF", "reconciler makes no device a port of another one")
    for path, text in network.items("Gateway"):
        section = Section({"Gateway": [str(text)]}, path, document.found)
        _read_route(section, names, assumed=not has_addresses, vrf=vrf)
    for name in names if network.flag("DefaultRouteOnDevice") else ():
        at = Entry({}, network.at("DefaultRouteOnDevice"), document.found)
        hop = NextHop(device=name)
        add_route(at, dest=DEFAULT_IPV4, kind="unicast", hops=[hop], table=TABLE_MAIN, metric=0)
    for section in document.each("Route"):
        _read_route(section, names, assumed=not has_addresses, vrf=vrf)
        section.rest()


def read_table(section: Section, key: str) -> int | None:
    """Read a table. None if networkd.conf gives it a name: that is reported."""
    text = section.text(key)
    if text is None or text in TABLES:
        return TABLES.get(text or "main")
    if not text[:1].isdecimal():
        section.found.skip(section.path, f"only networkd.conf says which table {text} is; write its number")
        return None
    return section.number(key, 1, TABLES_MAX)


def _read_route(section: Section, names: Sequence[str], *, assumed: bool, vrf: str) -> None:
    found, kind = section.found, (section.text("Type") or "unicast").lower()
    table = read_table(section, "Table")
    if table is None:
        section.drop(list(section.left()))
        return
    gateway = section.text("Gateway")
    why = why_no_route(kind, table)
    if gateway and _DYNAMIC.match(gateway):
        why = f"its gateway {gateway} comes from DHCP or a router"
    elif section.get("Source"):
        why = "it has a prefix that packets come from (Source=), and no manifest has"
    elif section.get("NextHop"):
        why = "it has a next hop of its own section, and no manifest has"
    elif gateway and section.get("MultiPathRoute"):
        why = "networkd ignores a route with both Gateway= and MultiPathRoute="
    elif kind in REJECT_TYPES and (gateway or section.get("MultiPathRoute")):
        why = f"networkd ignores a route of type {kind} with a gateway"
    elif vrf and not section.get("Table"):
        why = f"it is in the table of the VRF {vrf}, and {MADE}"
    if why:
        found.skip(section.path, f"route to {section.text('Destination') or 'default'}: {why}")
        section.drop(list(section.left()))
        return
    source, address = section.address("PreferredSource"), section.address("Gateway")
    named = [each for each in (section.flag(key) for key in ("GatewayOnLink", "GatewayOnlink")) if each is not None]
    on_link = named[0] if named else assumed and address is not None
    if address and assumed and not named:
        found.note(section.path, f"the gateway {address} is imported as on the link: the file has no address")
    metric = section.number("Metric", 0, METRIC_MAX)
    mtu, advmss = read_bytes(section, "MTUBytes"), read_bytes(section, "TCPAdvertisedMaximumSegmentSize")
    metrics = ordered((*read_metrics(section, _METRICS), *([("advmss", advmss)] if advmss else ())))
    skip_of_reject(section, kind, ("GatewayOnLink", "PreferredSource", "MTUBytes", *_METRICS.values()))
    scope, pref = section.text("Scope"), (section.text("IPv6Preference") or "medium").lower()
    if pref not in PREFERENCES:
        found.note(section.at("IPv6Preference"), f"{pref}: imported as medium")
        pref = "medium"
    for name in names[:1] if kind in REJECT_TYPES else names:
        hops = _read_paths(section, name)
        hops += (
            [NextHop(device=name, gateway=address, on_link=bool(on_link and address))] if address or not hops else []
        )
        dest = _read_dest(section, [*(hop.gateway for hop in hops), source])
        if dest is None:
            return
        if pref != "medium" and not is_ipv6(dest):
            section.skip("IPv6Preference", "an IPv4 route has none")
        add_route(
            section,
            dest=dest,
            kind=kind,
            hops=hops,
            table=table,
            metric=metric,
            source=source,
            mtu=mtu,
            metrics=metrics,
            scope=scope,
            pref=pref,
            mixed=True,
        )
    section.usual("Protocol", {"static", "boot"}, "routes of a manifest have the protocol 200")


def _read_dest(section: Section, others: Sequence[str | None]) -> str | None:
    """Read the destination. Without one, it is the default route of the family of the gateway or the source."""
    if section.get("Destination"):
        if section.get("Destination") == "default":
            section.found.fault(section.at("Destination"), "networkd does not know default; leave Destination= out")
            return None
        return read_network(section, "Destination")
    addresses = [each for each in others if each]
    if not addresses:
        section.found.skip(section.path, "networkd ignores a route without Destination=, Gateway= and source")
        return None
    return DEFAULT_IPV6 if is_ipv6(addresses[0]) else DEFAULT_IPV4


def _read_paths(section: Section, name: str) -> list[NextHop]:
    """Read MultiPathRoute=: `[address][@device] [weight]`."""
    hops = []
    for path, text in section.items("MultiPathRoute"):
        address, _, weight = str(text).partition(" ")
        gateway, _, device = address.partition("@")
        entry = Entry({"address": gateway or None, "weight": weight.strip() or None}, path, section.found)
        number, parsed = entry.number("weight", 1, 256), entry.address("address")
        if parsed or (device and not gateway):
            hops.append(NextHop(device=device or name, gateway=parsed, weight=number or 1))
    return hops

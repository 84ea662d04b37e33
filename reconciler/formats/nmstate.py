"""The YAML of nmstate, also in a NodeNetworkConfigurationPolicy of Kubernetes (nmstate.io).

Imported is what is desired: what is to be `absent` or `down` is left out, and so are `running` routes, which nmstate
only reports.
"""

from __future__ import annotations

from typing import Any

from reconciler.formats.entry import Entry, Found, Link, expressible_altnames
from reconciler.formats.static import (
    DHCP,
    MADE,
    METRIC_MAX,
    TABLES_MAX,
    add_route,
    read_selector,
    skip_of_reject,
    why_no_route,
)
from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, contains, is_ipv6, network, parse_prefix
from reconciler.model.interface import LOOPBACK, Address
from reconciler.model.route import REJECT_TYPES, TABLE_MAIN, NextHop
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule
from reconciler.values import replace

# `route_rule.rs` of nmstate: the first priority of rules for which none is chosen.
_FIRST_PRIORITY = 30000
_UNSET = -1
_WILDCARDS = ("0.0.0.0", "::")
_REASONS = {
    "dns-resolver": "a manifest does not describe DNS",
    "dns": "a manifest does not describe DNS",
    "running": "nmstate reports it and does not apply it",
    "auto-dns": DHCP,
    "auto-gateway": DHCP,
    "auto-routes": DHCP,
    "auto-route-table-id": DHCP,
    "auto-route-metric": DHCP,
    "dhcp": DHCP,
    "autoconf": "sysctls of the interface: {accept_ra: 0} or 1",
    "controller": "reconciler makes no device a port of another one",
}

_Key = tuple[str, int, int]


def read(data: Any, found: Found) -> None:
    """Read a document of nmstate."""
    root = Entry(data, (), found)
    if str(root.get("apiVersion") or "").startswith("nmstate.io/"):
        root.drop(("kind", "metadata", "status"))
        spec = root.entry("spec")
        root.rest()
        state = spec.entry("desiredState")
        spec.rest({"nodeSelector": "the manifest is for one sandbox"})
        root = state
    for key in ("desiredState", "desired"):
        if key in root:
            inner = root.entry(key)
            root.rest()
            root = inner
    for interface in root.entries("interfaces"):
        _read_interface(interface)
    routes = root.entry("routes")
    _read_routes(list(routes.entries("config")))
    routes.rest(_REASONS)
    rules = root.entry("route-rules")
    _read_rules(list(rules.entries("config")))
    rules.rest()
    root.rest(_REASONS)


def _read_interface(entry: Entry) -> None:
    found, name = entry.found, entry.text("name")
    if name is None:
        found.fault(entry.path, "name: missing; expected the name of an interface")
        return
    why = _why_absent(entry, name)
    if why:
        if name != LOOPBACK:
            found.absent[name] = why
        found.skip(entry.path, f"{name}: {why}")
        return
    by_mac = entry.text("identifier") == "mac-address"
    addresses: list[Address] = []
    partial = set()
    for family in ("ipv4", "ipv6"):
        ip = entry.entry(family)
        if _read_ip(ip, family == "ipv6", addresses):
            partial.add("IPv6" if family == "ipv6" else "IPv4")
        ip.rest(_REASONS)
    entry.get("type")
    entry.get("state")
    hw_addr, permanent = entry.mac("mac-address"), entry.mac("permanent-mac-address")
    found.add(
        entry.path,
        Link(
            name=name,
            hw_addr=hw_addr or permanent,
            mtu=entry.number("mtu", 0, 0xFFFFFFFF),
            addresses=tuple(addresses),
            altnames=_read_altnames(entry),
            partial=frozenset(partial),
            matched=hw_addr if by_mac else None,
        ),
    )
    entry.drop(("min-mtu", "max-mtu", "driver", "profile-name", "description"))
    entry.rest(_REASONS)


def _read_altnames(entry: Entry) -> tuple[str, ...] | None:
    named = []
    for item in entry.entries("alt-names"):
        name = item.text("name") or ""
        if item.text("state") == "absent":
            item.found.skip(item.path, f"{name}: it is to be absent")
        else:
            named.append((item.path, name))
        item.rest()
    return expressible_altnames(entry.found, named)


def _why_absent(entry: Entry, name: str) -> str:
    state, kind = entry.text("state") or "up", entry.text("type") or "ethernet"
    if name == LOOPBACK:
        return "a manifest does not describe lo"
    if state != "up":
        return f"its state is {state}"
    if kind not in ("ethernet", "unknown"):
        return f"its type is {kind}, and {MADE}"
    return ""


def _read_ip(entry: Entry, ipv6: bool, addresses: list[Address]) -> bool:
    """Read the addresses of a family. Return whether the interface has others that a manifest does not know."""
    found, enabled = entry.found, entry.flag("enabled")
    dynamic = [key for key in ("dhcp", "autoconf") if entry.flag(key) and enabled is not False]
    for key in dynamic:
        entry.skip(key, _REASONS[key])
    partial = bool(dynamic)
    for item in entry.entries("address"):
        local, length = item.address("ip"), item.number("prefix-length", 0, 128 if ipv6 else 32)
        limited = item.text("valid-life-time") not in (None, "forever")
        item.drop(("valid-life-time", "preferred-life-time"))
        item.rest()
        if enabled is False or local is None or length is None:
            if enabled is not False and not found.wrong:
                found.fault(item.path, "expected ip and prefix-length")
            continue
        if is_ipv6(local) != ipv6:
            found.fault(item.at("ip"), f"{local} is of the other family")
        elif limited:
            found.skip(item.path, f"{local}/{length}: its lifetime is limited, as by DHCP or a router's advertisement")
            partial = True
        elif ipv6 and contains("fe80::/10", local):
            found.skip(item.path, f"{local}/{length}: nmstate leaves link-local addresses to the kernel")
        else:
            addresses.append(Address(address=parse_prefix(f"{local}/{length}")))
    if enabled is False and entry.get("address"):
        found.skip(entry.at("address"), "the family is not enabled")
    if enabled is False and ipv6:
        found.note(entry.at("enabled"), "IPv6 stays on; sysctls of the interface: {disable_ipv6: 1} turns it off")
    return partial


def _read_routes(entries: list[Entry]) -> None:
    """Read routes; those with a `weight` that share destination, table and metric are one with several next hops."""
    together: dict[_Key, list[NextHop]] = {}
    first: dict[_Key, Entry] = {}
    for entry in entries:
        _read_route(entry, together, first)
        entry.rest({"cwnd": "a manifest has no such field"})
    for (dest, table, metric), hops in together.items():
        entry = first[dest, table, metric]
        source = entry.address("source")
        add_route(entry, dest=dest, kind="unicast", hops=hops, table=table, metric=metric, source=source)


def _read_route(entry: Entry, together: dict[_Key, list[NextHop]], first: dict[_Key, Entry]) -> None:
    found = entry.found
    text, kind = entry.text("destination"), entry.text("route-type") or "unicast"
    gateway, device = entry.address("next-hop-address"), entry.text("next-hop-interface")
    table = entry.number("table-id", 0, TABLES_MAX) or TABLE_MAIN
    metric, weight = entry.number("metric", _UNSET, METRIC_MAX), entry.number("weight", 0, 256)
    source = entry.address("source")
    why = why_no_route(kind, table)
    if entry.text("state") == "absent":
        why = "it is to be absent"
    elif "vrf-name" in entry:
        why = f"it is of the VRF {entry.get('vrf-name')}, and {MADE}"
    if why:
        found.skip(entry.path, f"route to {text or 'any network'}: {why}")
        entry.drop(list(entry.left()))
        return
    if not text:
        found.fault(entry.path, "destination: missing; expected a network")
        return
    dest = _read_dest(entry, text)
    gateway = None if gateway in _WILDCARDS else gateway
    if dest is None:
        return
    if not device and kind not in REJECT_TYPES:
        found.fault(entry.path, "next-hop-interface: missing; nmstate needs it")
        return
    skip_of_reject(entry, kind, ("next-hop-interface", "next-hop-address", "source", "weight"))
    metric = 0 if metric in (None, _UNSET) else metric or 0
    hop = NextHop(device=device or "", gateway=gateway, weight=weight or 1)
    if weight and kind == "unicast":
        first.setdefault((dest, table, metric), entry)
        together.setdefault((dest, table, metric), []).append(hop)
    else:
        add_route(entry, dest=dest, kind=kind, hops=[hop], table=table, metric=metric, source=source)


def _read_dest(entry: Entry, text: str) -> str | None:
    try:
        dest = network(text)
    except ValueError as error:
        entry.found.fault(entry.at("destination"), str(error))
        return None
    if dest != text and dest not in (DEFAULT_IPV4, DEFAULT_IPV6) and dest != parse_prefix(text):
        entry.found.note(entry.at("destination"), f"{text}: imported as {dest}, without the host bits")
    return dest


def _read_rules(entries: list[Entry]) -> None:
    """Read rules. Those without a priority come after all others, from 30000 on, as in nmstate."""
    rules = [(entry, rule) for entry in entries if (rule := _read_rule(entry))]
    highest = max([_FIRST_PRIORITY - 1, *(rule.priority for _, rule in rules)])
    for entry, rule in rules:
        if rule.priority != _UNSET:
            entry.found.add(entry.path, rule)
            continue
        highest += 1
        entry.found.note(entry.path, f"the rule has no priority; imported with {highest}, which nmstate would choose")
        entry.found.add(entry.path, replace(rule, priority=highest))


def _read_rule(entry: Entry) -> Rule | None:
    found = entry.found
    source, to = read_selector(entry, "ip-from"), read_selector(entry, "ip-to")
    named = entry.text("family")
    priority, table = entry.number("priority", _UNSET, ALL_BITS), entry.number("route-table", 0, TABLES_MAX)
    mark, mask = entry.number("fwmark", 0, ALL_BITS), entry.number("fwmask", 0, ALL_BITS)
    iif, action = entry.text("iif"), entry.text("action")
    keys = ("suppress-prefix-length", "suppress_prefixlength")
    suppress = next((each for each in (entry.number(key, 0, 128) for key in keys) if each is not None), NO_SUPPRESSION)
    absent = entry.text("state") == "absent"
    unknown = list(entry.left())
    why = "it is to be absent" if absent else f"no manifest has {', '.join(unknown)}" if unknown else ""
    if action and action not in REJECT_ACTIONS:
        why = f"no manifest has the action {action}"
    if why:
        found.skip(entry.path, f"the rule: {why}")
        return None
    ipv6 = any(is_ipv6(str(entry.get(key))) for key in ("ip-from", "ip-to") if key in entry)
    if not named and "ip-from" not in entry and "ip-to" not in entry:
        found.fault(entry.path, "neither ip-from, ip-to nor family; nmstate needs one of them")
        return None
    return Rule(
        family=named if named in ("ipv4", "ipv6") else "ipv6" if ipv6 else "ipv4",
        priority=_UNSET if priority is None else priority,
        from_=source,
        to=to,
        iif=iif,
        fwmark=mark or 0,
        fwmask=(ALL_BITS if mask is None else mask) if mark is not None and (mark or mask) else 0,
        suppress_prefixlength=suppress,
        action=action or "table",
        table=0 if action else table or TABLE_MAIN,
    )

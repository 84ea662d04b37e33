"""What configurations of netplan, networkd and nmstate have in common beyond their notations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from reconciler.formats.entry import Entry
from reconciler.model.address import family_name, is_ipv6, network, parse_prefix
from reconciler.model.metric import METRICS, Metrics, is_expressible
from reconciler.model.route import (
    IPV6_DEFAULT_METRIC,
    REJECT_TYPES,
    SCOPES,
    TABLE_LOCAL,
    NextHop,
    Route,
    canonical_hops,
    scope_named,
    usual_scope,
)
from reconciler.model.rule import ALL_BITS
from reconciler.values import replace
from reconciler.wording import shown

_BYTES = re.compile(r"([0-9]{1,10})([KMG]?)\Z")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30}
TABLES_MAX = 0xFFFFFFFF
METRIC_MAX = 0xFFFFFFFF
# /etc/protocols as every distribution has it, as far as rules select by them.
PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58,
             "ospf": 89, "sctp": 132, "udplite": 136}  # fmt: skip
MADE = "reconciler makes no devices"
UNDECIDED = "the file does not say whether the link is up"
DHCP = "reconciler runs no DHCP client"


def read_network(entry: Entry, key: str) -> str | None:
    """Read a network, without its host bits, as these tools and the kernel do; a note says so."""
    text = entry.text(key)
    if not text:
        return None
    try:
        prefix = parse_prefix(text)
    except ValueError as error:
        entry.found.fault(entry.at(key), str(error))
        return None
    found = network(prefix)
    if found != prefix:
        entry.found.note(entry.at(key), f"{text}: imported as {found}, without the host bits")
    return found


def read_selector(entry: Entry, key: str) -> str | None:
    """Read a network that packets are selected by. None if it is every address."""
    found = read_network(entry, key)
    return None if found is None or found.endswith("/0") else found


def why_no_route(kind: str, table: int | None) -> str:
    """Return why a manifest cannot have a route of a type in a table; empty if it can."""
    if kind != "unicast" and kind not in REJECT_TYPES:
        return f"routes of type {kind} are not imported"
    if table == TABLE_LOCAL:
        return "routes of the table local are not imported"
    return ""


def add_route(
    entry: Entry,
    *,
    dest: str,
    kind: str,
    hops: Iterable[NextHop],
    table: int,
    metric: int | None,
    source: str | None = None,
    mtu: int | None = None,
    metrics: Metrics = (),
    scope: str | None = None,
    pref: str = "medium",
    mixed: bool = False,
) -> None:
    """Add a route, if its addresses are of one family; a route of another type than unicast has no next hops.

    `mixed`: the tool takes IPv4 routes with IPv6 gateways.
    """
    found, hops = entry.found, canonical_hops(() if kind in REJECT_TYPES else hops)
    if len(hops) == 1:
        # A single next hop has all of the traffic.
        hops = (replace(hops[0], weight=1),)
    for address in (*(hop.gateway for hop in hops), source):
        if address and is_ipv6(address) != is_ipv6(dest) and not (mixed and address != source and is_ipv6(address)):
            found.fault(entry.path, f"{address} is {family_name(address)}, and {dest} is {family_name(dest)}")
            return
    route = Route(
        dest=dest,
        type=kind,
        nexthops=hops,
        table=table,
        metric=metric or (IPV6_DEFAULT_METRIC if is_ipv6(dest) else 0),
        source=source if kind == "unicast" else None,
        mtu=mtu or 0 if kind == "unicast" else 0,
        metrics=metrics if kind == "unicast" else (),
        scope=_fitting_scope(entry, scope, kind, hops, dest),
        pref=pref if kind == "unicast" and is_ipv6(dest) else "medium",
    )
    found.add(entry.path, route)


def _fitting_scope(entry: Entry, scope: str | None, kind: str, hops: tuple[NextHop, ...], dest: str) -> str | None:
    """Return a scope that a manifest can have and that is not the usual one; a note tells of any other."""
    usual = usual_scope(kind, hops, ipv6=is_ipv6(dest))
    if scope is None or is_ipv6(dest) or scope.lower() in (usual, str(SCOPES[usual])):
        return None
    named = scope_named(scope.lower())
    near = named is not None and SCOPES[named] >= SCOPES["link"]
    if named is None or kind in REJECT_TYPES or (near and any(hop.gateway for hop in hops)):
        entry.found.note(entry.path, f"imported with scope {usual}, not {scope}")
        return None
    return named


def read_metrics(entry: Entry, fields: Mapping[str, str]) -> Metrics:
    """Read the metrics of a route but for its MTU. `fields`: the key of each field of a manifest."""
    found: list[tuple[str, int | str]] = []
    for metric in METRICS:
        key = fields.get(metric.field)
        if key is None:
            continue
        value: int | str | None
        if metric.kind == "switch":
            value = 1 if entry.flag(key) else 0
        elif metric.kind == "name":
            value = entry.text(key)
        else:
            value = entry.number(key, 0, 0xFFFFFFFF)
        if value and not is_expressible(metric, value):
            entry.found.skip(entry.at(key), f"{shown(value)}: no manifest has it")
        elif value:
            found.append((metric.field, value))
    return tuple(found)


def skip_of_reject(entry: Entry, kind: str, keys: Iterable[str]) -> None:
    """Report the keys of a route that only a `unicast` one can have."""
    if kind in REJECT_TYPES:
        for key in keys:
            entry.skip(key, f"a route of type {kind} has none")


def read_bytes(entry: Entry, key: str) -> int | None:
    """Read a number of bytes, which may end in K, M or G, to the base of 1024."""
    text = entry.text(key)
    if text is None:
        return None
    match = _BYTES.match(text)
    if match:
        return int(match[1]) << _SHIFTS[match[2]]
    entry.found.fault(entry.at(key), f'"{text}": expected a number of bytes, or one that ends in K')
    return None


def read_mark(entry: Entry, key: str) -> tuple[int, int]:
    """Read `mark` or `mark/mask`. Return the mark and its mask, 0 and 0 for none."""
    text = entry.text(key)
    if text is None:
        return 0, 0
    mark, slash, mask = text.partition("/")
    both = Entry({"mark": mark, "mask": mask or None}, entry.at(key), entry.found)
    number, bits = both.number("mark", 0, ALL_BITS) or 0, both.number("mask", 0, ALL_BITS)
    bits = ALL_BITS if bits is None else bits
    # The kernel takes a mark of 0 without a mask for any mark.
    return (number, bits) if number or slash else (0, 0)

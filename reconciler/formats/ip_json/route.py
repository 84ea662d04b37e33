"""A route in the JSON of `ip -j route`."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.formats.entry import Entry
from reconciler.formats.ip_json import names
from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, family_name, is_ipv6, parse_network
from reconciler.model.metric import METRICS, Metrics, is_expressible, ordered
from reconciler.model.route import (
    DIRECT_TYPES,
    IPV6_DEFAULT_METRIC,
    PREFERENCES,
    REJECT_TYPES,
    TABLE_LOCAL,
    NextHop,
    Route,
    canonical_hops,
    scope_named,
    usual_scope,
)
from reconciler.values import replace

_STATE = (
    "users", "age", "used", "error", "cache", "ttl_propagate", "iif", "scope", "uid",
)  # fmt: skip
# Flags of state: what the kernel has found out, or hardware has done.
_FLAGS = frozenset(
    {"dead", "linkdown", "offload", "trap", "rt_offload", "rt_trap", "rt_offload_failed", "offload_failed", "notify"}
)
# What selects packets beside the destination, or sends them elsewhere: without it, another route would be meant.
_DECISIVE = {
    "from": "a prefix that packets come from",
    "src": "a prefix that packets come from",
    "encap": "an encapsulation",
    "encap_type": "an encapsulation",
    "newdst": "MPLS",
    "expires": "a lifetime, as by a router's advertisement",
}
# What a listing calls metrics, where it is not the word of a command.
_LISTED = {"congctl": "congestion"}


def read(entry: Entry) -> None:
    """Read a route."""
    found, kind = entry.found, names.route_type(entry)
    protocol = entry.text("protocol") or "boot"
    if names.is_kernels(protocol):
        found.count("objects that the kernel makes by itself")
        return
    table = names.table(entry)
    if table is None:
        return
    why = names.keeper(protocol) or _why_left_out(entry, kind, table)
    if why:
        found.skip(entry.path, f"route to {entry.text('dst')}: {why}")
        return
    source = entry.address("prefsrc")
    hops = [] if kind in REJECT_TYPES else _read_hops(entry)
    dest = _read_dest(entry, hops, source)
    if dest is None:
        return
    if why := _why_impossible(dest, hops, kind):
        found.skip(entry.path, f"route to {dest}: {why}")
        return
    metric = entry.number("metric", 0, 0xFFFFFFFF)
    mtu, metrics = _read_metrics(entry)
    ipv6 = is_ipv6(dest)
    found.add(
        entry.path,
        Route(
            dest=dest,
            type=kind,
            nexthops=canonical_hops(hops),
            table=table,
            metric=metric or (IPV6_DEFAULT_METRIC if ipv6 else 0),
            source=source,
            mtu=mtu,
            metrics=metrics,
            scope=_read_scope(entry, kind, hops, ipv6=ipv6),
            pref=_read_pref(entry),
            tos=_read_tos(entry),
        ),
    )
    _read_rest(entry)


def _why_left_out(entry: Entry, kind: str, table: int) -> str:
    if table == TABLE_LOCAL and kind not in DIRECT_TYPES:
        return f"a manifest has no routes of type {kind} in the table local"
    if table == 0:
        return "it has no table"
    if kind not in ("unicast", *REJECT_TYPES, *DIRECT_TYPES):
        return f"a manifest has no routes of type {kind}"
    return next((f"it has {words}, and no manifest has" for key, words in _DECISIVE.items() if key in entry), "")


def _read_hops(entry: Entry) -> list[NextHop]:
    if "nexthops" in entry:
        hops = [_read_nexthop(each) for each in entry.entries("nexthops")]
    else:
        hops = [_read_hop(entry, 1)]
    found = [hop for hop in hops if hop]
    return [replace(hop, weight=1) for hop in found] if len(found) == 1 else found


def _read_nexthop(entry: Entry) -> NextHop | None:
    hop = _read_hop(entry, entry.number("weight", 1, 256) or 1)
    entry.drop(("gateway", "via"))
    entry.rest()
    return hop


def _read_hop(entry: Entry, weight: int) -> NextHop | None:
    via = entry.entry("via")
    gateway = via.address("host") if "via" in entry else entry.address("gateway")
    device = entry.text("dev")
    flags = entry.texts("flags")
    if not device:
        entry.found.fault(entry.at("dev"), "missing; expected the name of a link")
        return None
    others = [each for each in flags if each != "onlink" and each not in _FLAGS]
    if others:
        entry.found.skip(entry.at("flags"), f"{' '.join(others)}: a manifest has no such field")
    return NextHop(device=device, gateway=gateway, weight=weight, on_link=bool(gateway) and "onlink" in flags)


def _read_dest(entry: Entry, hops: Sequence[NextHop], source: str | None) -> str | None:
    """Read the destination. `default` is IPv6 if an address of the route is, or if it has a preference."""
    text = entry.text("dst") or ""
    if text in ("default", "all", "any"):
        others = [source] if source else [hop.gateway for hop in hops if hop.gateway]
        ipv6 = (bool(others) and all(map(is_ipv6, others))) or "pref" in entry
        # A gateway of the other family is in `via`, which only IPv4 routes have.
        has_via = "via" in entry or any("via" in each for each in entry.entries("nexthops"))
        return DEFAULT_IPV6 if ipv6 and not has_via else DEFAULT_IPV4
    try:
        return parse_network(text)
    except ValueError as error:
        entry.found.fault(entry.at("dst"), str(error))
        return None


def _why_impossible(dest: str, hops: Sequence[NextHop], kind: str) -> str:
    """Return why no manifest can contain a route although the kernel does."""
    other = next((hop for hop in hops if hop.gateway and is_ipv6(dest) and not is_ipv6(hop.gateway)), None)
    if other and other.gateway:
        return f"its gateway {other.gateway} is {family_name(other.gateway)}, and no manifest has such a route"
    if is_ipv6(dest) and len(hops) > 1 and not all(hop.gateway for hop in hops):
        return "it has several next hops, of which one has no gateway"
    return "it has no next hop" if not hops and kind not in REJECT_TYPES else ""


def _read_metrics(entry: Entry) -> tuple[int, Metrics]:
    """Return the MTU of a route, 0 if unset, and its other metrics. A listing does not say which are locked."""
    mtu, metrics = 0, dict[str, int | str]()
    for each in entry.entries("metrics"):
        mtu = each.number("mtu", 0, 0xFFFFFFFF) or mtu
        for metric in METRICS:
            key = _LISTED.get(metric.field, metric.word)
            if metric.kind == "features":
                value: int | str | None = 1 if each.has("ecn") else 0
                each.drop(["ecn"])
            else:
                value = each.text(key) if metric.kind == "name" else each.number(key, 0, 0xFFFFFFFF)
            if value and not is_expressible(metric, value):
                each.found.skip(each.at(key), f"{value}: no manifest has it")
            elif value:
                metrics[metric.field] = value
        each.rest()
    return mtu, ordered(metrics.items())


def _read_scope(entry: Entry, kind: str, hops: Sequence[NextHop], *, ipv6: bool) -> str | None:
    """Read the scope. A listing names every one but global."""
    usual = usual_scope(kind, hops, ipv6=ipv6)
    text = entry.text("scope") or ("global" if "scope" not in entry else "")
    scope = scope_named(text)
    if scope == usual or ipv6:
        return None
    if scope is None or kind in REJECT_TYPES:
        entry.found.note(entry.path, f"imported with scope {usual}, not {scope or text}")
        return None
    return scope


def _read_pref(entry: Entry) -> str:
    text = entry.text("pref") or "medium"
    if text in PREFERENCES:
        return text
    entry.found.note(entry.at("pref"), f"{text}: imported as medium")
    return "medium"


def _read_tos(entry: Entry) -> int:
    return entry.number("tos", 0, 252) or entry.number("dsfield", 0, 252) or 0


def _read_rest(entry: Entry) -> None:
    entry.drop((*_STATE, "flags", "gateway", "dev", "via", "weight"))
    # The next hops of an object of `ip nexthop` are listed as well.
    entry.rest({"nhid": "the next hops are imported, not the object of `ip nexthop`"})

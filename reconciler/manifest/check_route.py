"""Checks of the fields of one route against each other: what the kernel, or `ip`, would refuse or leave out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.model.address import family_name, is_ipv6
from reconciler.model.interface import IPV6_MIN_MTU
from reconciler.model.metric import BY_FIELD
from reconciler.model.route import DIRECT_TYPES, REJECT_TYPES, SCOPES, TABLE_LOCAL, NextHop

# The fields that nearly all routes of a long list have, and no others.
USUAL = frozenset({"dest", "gateway", "device"})


def check_fields(
    data: Mapping[str, Any],
    kind: str,
    dest: str,
    hops: tuple[NextHop, ...],
    path: Path,
    findings: list[Finding],
) -> None:
    """Check the fields of a route against each other."""
    ipv6 = is_ipv6(dest)
    if not USUAL.issuperset(data):
        findings += _rare_problems(data, kind, hops, path, ipv6=ipv6)
    if kind in REJECT_TYPES:
        return
    if not hops:
        findings.append(Finding((*path, "device"), "missing; expected the name of an interface, or lo"))
        return
    if data["dest"] == "default" and kind == "unicast":
        for where, item in _hop_items(data, path):
            if not item.get("gateway"):
                message = "missing; a default route needs the IP address of a gateway"
                findings.append(Finding((*where, "gateway"), message))
    if ipv6 or "source" in data:
        findings += _other_families(data, hops, family_name(dest), path)
    if ipv6 and len(hops) > 1 and not all(hop.gateway for hop in hops):
        findings.append(Finding((*path, "nexthops"), "each next hop of an IPv6 route needs a gateway"))


def _rare_problems(
    data: Mapping[str, Any], kind: str, hops: tuple[NextHop, ...], path: Path, *, ipv6: bool
) -> Iterator[Finding]:
    """Yield findings about fields that few routes have."""
    yield from _not_of_this_type(data, kind, path)
    yield from _not_of_this_family(data, ipv6=ipv6, path=path)
    if data.get("table") == TABLE_LOCAL and kind not in DIRECT_TYPES:
        only = " or ".join(DIRECT_TYPES)
        yield Finding((*path, "table"), f"255 is the table local, which takes routes of type {only} only")
    if data.get("mtuLock") and not data.get("mtu"):
        yield Finding((*path, "mtuLock"), "needs an mtu beside it")
    if hops and kind not in REJECT_TYPES:
        yield from _scope_problems(data, kind, hops, path)


def _not_of_this_type(data: Mapping[str, Any], kind: str, path: Path) -> Iterator[Finding]:
    """Yield findings about fields that a route of another type than unicast does not have."""
    if kind in DIRECT_TYPES:
        refused: Iterable[str] = ("gateway", "nexthops")
    elif kind in REJECT_TYPES:
        more = (field for field in BY_FIELD if field in data)
        refused = ("gateway", "device", "nexthops", "source", "mtu", "mtuLock", "scope", "pref", *more)
    else:
        return
    for field in refused:
        if data.get(field):
            yield Finding((*path, field), f"a {kind} route has no {field}", at_key=True)


def _not_of_this_family(data: Mapping[str, Any], *, ipv6: bool, path: Path) -> Iterator[Finding]:
    """Yield findings about fields that only routes of the other family have, and about an MTU that is too small."""
    for field in ("tos", "scope") if ipv6 else ("pref",):
        if data.get(field):
            family = "IPv6" if ipv6 else "IPv4"
            yield Finding((*path, field), f"an {family} route has no {field}", at_key=True)
    if ipv6 and 0 < data.get("mtu", 0) < IPV6_MIN_MTU:
        message = f"{data['mtu']} is below the IPv6 minimum of {IPV6_MIN_MTU} (RFC 8200)"
        yield Finding((*path, "mtu"), message)


def _scope_problems(data: Mapping[str, Any], kind: str, hops: tuple[NextHop, ...], path: Path) -> Iterator[Finding]:
    """Yield what the kernel refuses of a scope (fib_create_info, fib_check_nh of net/ipv4/fib_semantics.c)."""
    scope = data.get("scope")
    if scope is None:
        return
    if kind == "local" and scope != "host":
        yield Finding((*path, "scope"), f"{scope}: a local route has the scope host")
    elif SCOPES[scope] >= SCOPES["link"] and any(hop.gateway for hop in hops):
        yield Finding((*path, "scope"), f"{scope}: a route with a gateway has the scope global or site")
    elif scope == "host" and len(hops) > 1:
        yield Finding((*path, "scope"), "host: a route of that scope has one next hop")


def _hop_items(data: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the next hops of a route as written, with their paths."""
    if "nexthops" not in data:
        yield path, data
    for index, item in enumerate(data.get("nexthops", ())):
        yield (*path, "nexthops", index), item


def _other_families(data: Mapping[str, Any], hops: tuple[NextHop, ...], family: str, path: Path) -> list[Finding]:
    ipv6 = family == "IPv6"
    if "source" not in data and all(hop.gateway is None or is_ipv6(hop.gateway) for hop in hops):
        return []
    return [
        Finding(where, f"{text} is {family_name(text)}, and the destination is {family}")
        for where, text in _addresses(data, path, gateways=ipv6)
        if family_name(text) != family
    ]


def _addresses(data: Mapping[str, Any], path: Path, *, gateways: bool) -> Iterator[tuple[Path, str]]:
    """Yield the source of a route and, if wanted, the gateways, with their paths: IPv4 takes gateways of IPv6."""
    for where, item in _hop_items(data, path) if gateways else ():
        if item.get("gateway"):
            yield (*where, "gateway"), item["gateway"]
    if data.get("source"):
        yield (*path, "source"), data["source"]

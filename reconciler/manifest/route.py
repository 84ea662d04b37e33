"""A route in a manifest: checked data → model, and model → data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from reconciler.manifest import interface, metric
from reconciler.manifest.check_route import USUAL, check_fields
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft, ListSection
from reconciler.model.address import (
    DEFAULT_IPV4,
    DEFAULT_IPV6,
    is_ipv6,
    is_unicast,
    parse_address,
    parse_network,
)
from reconciler.model.interface import LOOPBACK, Interface
from reconciler.model.route import (
    IPV6_DEFAULT_METRIC,
    TABLE_MAIN,
    NextHop,
    OnLink,
    Route,
    canonical_hops,
    usual_scope,
)

_DESTINATION = "default, a network such as 10.8.0.0/16, or an address"


def read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Route | None:
    """Read a route that meets the schema. Return None if anything else is wrong, and add that to `findings`."""
    before = len(findings)
    kind = data.get("type", "unicast")
    hops = _read_hops(data, path, findings)
    source = _read_address(data, "source", path, findings)
    dest = _read_dest(data["dest"], hops, source, path, findings)
    if len(findings) == before:
        check_fields(data, kind, dest, hops, path, findings)
    if len(findings) > before:
        return None
    ipv6 = is_ipv6(dest)
    usual_metric = IPV6_DEFAULT_METRIC if ipv6 else 0
    if USUAL.issuperset(data):
        return Route(dest=dest, nexthops=hops, metric=usual_metric)
    return Route(
        dest=dest,
        type=kind,
        nexthops=hops,
        table=data.get("table", TABLE_MAIN),
        metric=data.get("metric", 0) or usual_metric,
        source=source,
        mtu=data.get("mtu", 0),
        mtu_lock=data.get("mtuLock", False),
        metrics=metric.read(data),
        scope=_read_scope(data, kind, hops, ipv6=ipv6),
        pref=data.get("pref", "medium"),
        tos=data.get("tos", 0),
    )


def _read_scope(data: Mapping[str, Any], kind: str, hops: tuple[NextHop, ...], *, ipv6: bool) -> str | None:
    scope: str | None = data.get("scope")
    return None if scope is None or scope == usual_scope(kind, hops, ipv6=ipv6) else scope


def _read_dest(text: str, hops: tuple[NextHop, ...], source: str | None, path: Path, findings: list[Finding]) -> str:
    """Read a destination. `default` has the family of the source, or that of all gateways, or IPv4 without any."""
    if text == "default":
        others = [source] if source else [hop.gateway for hop in hops if hop.gateway]
        return DEFAULT_IPV6 if others and all(map(is_ipv6, others)) else DEFAULT_IPV4
    if text in {"0.0.0.0", "::"}:
        message = f"{text} alone is a single address; write default, or {text}/0, for all addresses"
        findings.append(Finding((*path, "dest"), message))
        return ""
    try:
        return parse_network(text)
    except ValueError as error:
        what = f'"{text}" is no destination; expected {_DESTINATION}' if text.isalpha() else str(error)
        findings.append(Finding((*path, "dest"), what))
        return ""


def _read_address(data: Mapping[str, Any], field: str, path: Path, findings: list[Finding]) -> str | None:
    text = data.get(field)
    if not text:
        if field == "source" and text is not None:
            findings.append(Finding((*path, field), "empty; expected an IP address"))
        return None
    try:
        return _parse_host(text)
    except ValueError as error:
        findings.append(Finding((*path, field), str(error)))
        return None


# A long list of routes has few gateways and devices: parse each once, and share the next hops.
@lru_cache(maxsize=4096)
def _parse_host(text: str) -> str:
    address = parse_address(text)
    if not is_unicast(address):
        raise ValueError(f"{text} is not a unicast address")
    return address


@lru_cache(maxsize=4096)
def _single_hop(device: str, gateway: str | None, *, on_link: bool) -> tuple[NextHop]:
    return (NextHop(device=device, gateway=gateway, on_link=on_link),)


def _read_hops(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> tuple[NextHop, ...]:
    if "nexthops" not in data:
        gateway, on_link = _read_gateway(data, path, findings)
        return _single_hop(data["device"], gateway, on_link=on_link) if "device" in data else ()
    for field in ("gateway", "device", "onLink"):
        if field in data:
            findings.append(Finding((*path, field), f"{field} and nexthops exclude each other", at_key=True))
    hops = [_read_hop(item, (*path, "nexthops", index), findings) for index, item in enumerate(data["nexthops"])]
    for index, hop in enumerate(hops):
        if any((hop.device, hop.gateway) == (other.device, other.gateway) for other in hops[:index]):
            findings.append(Finding((*path, "nexthops", index), "the same next hop is listed twice"))
    return canonical_hops(hops)


def _read_hop(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> NextHop:
    gateway, on_link = _read_gateway(data, path, findings)
    return NextHop(device=data["device"], gateway=gateway, weight=data.get("weight", 1), on_link=on_link)


def _read_gateway(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> tuple[str | None, bool]:
    on_link = data.get("onLink", False)
    if on_link and not data.get("gateway"):
        findings.append(Finding((*path, "onLink"), "needs a gateway beside it"))
    return _read_address(data, "gateway", path, findings), on_link


def write(route: Route) -> dict[str, Any]:
    """Return a route as the data of a manifest, without defaults."""
    default = route.dest in (DEFAULT_IPV4, DEFAULT_IPV6) and route.type == "unicast" and _reads_back(route)
    data: dict[str, Any] = {"dest": "default" if default else route.dest}
    if route.type != "unicast":
        data["type"] = route.type
    if len(route.nexthops) == 1:
        data |= _write_hop(route.nexthops[0])
    elif route.nexthops:
        data["nexthops"] = [_write_hop(hop) for hop in route.nexthops]
    return (
        data
        | {
            field: value
            for field, value, unset in (
                ("table", route.table, TABLE_MAIN),
                ("metric", route.metric, IPV6_DEFAULT_METRIC if route.is_ipv6 else 0),
                ("source", route.source, None),
                ("mtu", route.mtu, 0),
                ("mtuLock", route.mtu_lock, False),
                ("scope", route.scope, None),
                ("pref", route.pref, "medium"),
                ("tos", route.tos, 0),
            )
            if value != unset
        }
        | metric.write(route.metrics)
    )


def _reads_back(route: Route) -> bool:
    """Return whether the word `default` means this default route: each next hop has a gateway, and see `_read_dest`."""
    gateways = [hop.gateway or "" for hop in route.nexthops]
    others = [route.source] if route.source else gateways
    return all(gateways) and (bool(others) and all(map(is_ipv6, others))) == route.is_ipv6


def _write_hop(hop: NextHop) -> dict[str, Any]:
    data: dict[str, Any] = {"gateway": hop.gateway} if hop.gateway else {}
    data["device"] = hop.device
    if hop.weight != 1:
        data["weight"] = hop.weight
    if hop.on_link:
        data["onLink"] = True
    return data


def _check_together(draft: Draft) -> Iterator[Finding]:
    """Check routes against each other and against the interfaces."""
    routes = draft.items(SECTION)
    yield from _duplicate_routes(routes)
    if draft.sections.get(interface.SECTION.name) is not None:
        yield from _route_devices(draft.items(interface.SECTION), routes, _unsure(draft), _misnamed(draft))


def _unsure(draft: Draft) -> set[str]:
    """Return the names of interfaces of which not all is known.

    Those that could not be read or that two have, and those that a route which could not be read may reach something
    through.
    """
    known: set[str] = set()
    twice: set[str] = set()
    for each in draft.items(interface.SECTION):
        if each:
            (twice if each.name in known else known).add(each.name)
    named = {each["name"] for each in draft.data["interfaces"] if _is_named(each)}
    items = draft.data.get(SECTION.name)
    routes = zip(items, draft.items(SECTION), strict=True) if isinstance(items, list) else ()
    unread = (item for item, read in routes if read is None)
    return (named - known) | twice | {item["device"] for item in unread if _is_direct(item) and item["device"] in named}


def _misnamed(draft: Draft) -> bool:
    """Return whether the name of an interface could not be read: then no name is known to be unknown."""
    items = zip(draft.data["interfaces"], draft.items(interface.SECTION), strict=True)
    return any(read is None and not _is_named(item) for item, read in items)


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str) and interface.is_name(item["name"])


def _is_direct(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("device"), str) and not item.get("gateway")


def _duplicate_routes(routes: Sequence[Route | None]) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for index, route in enumerate(routes):
        if route and first.setdefault(route.key, index) != index:
            message = f"routes[{first[route.key]}] has this destination, table, metric and tos already"
            yield Finding(("routes", index, "dest"), f"{message}; give another metric, or nexthops")


def _route_devices(
    interfaces: Sequence[Interface | None], routes: Sequence[Route | None], unsure: set[str], misnamed: bool
) -> Iterator[Finding]:
    """Check that each route's device is there and its gateway within reach.

    Most routes of a long list share a few next hops, so each of those is looked at once.
    """
    names = {interface.name: interface for interface in interfaces if interface}
    own = {name: interface.connected for name, interface in names.items()}
    links = _Links(names, unsure, misnamed, OnLink(own, (route for route in routes if route)))
    tentative = _tentative(names.values())
    verdicts: dict[tuple[NextHop, int], tuple[str, str] | None] = {}
    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.source in tentative:
            message = f"{route.source} is tentative while {tentative[route.source]} has state: down; give it dad: false"
            yield Finding(("routes", index, "source"), message)
        for hop in route.nexthops:
            case = (hop, route.table)
            if case not in verdicts:
                verdicts[case] = links.problem(hop, route.table)
            verdict = verdicts[case]
            if verdict is not None:
                field, message = verdict
                yield Finding(("routes", index, "nexthops" if len(route.nexthops) > 1 else field), message)
        if route.mtu:
            yield from _route_mtu(route, index, names)


def _tentative(interfaces: Iterable[Interface]) -> dict[str | None, str]:
    """Return the addresses that no route can have as its source, as their interfaces are down, with these."""
    # Of two that have an address, the one that is up counts.
    owners = {
        address.host: each
        for each in sorted(interfaces, key=lambda each: each.up)
        for address in each.addresses
        if is_ipv6(address.address) and (each.up or address.dad)
    }
    return {host: each.name for host, each in owners.items() if not each.up}


class _Links:
    """What is known of the NICs of a manifest. `unsure`: those of which not all is known. `misnamed`: see _misnamed."""

    def __init__(self, names: dict[str, Interface], unsure: set[str], misnamed: bool, on_link: OnLink) -> None:
        self._names, self._unsure, self._misnamed, self._on_link = names, unsure, misnamed, on_link
        self._own = {
            (name, each.address.partition("/")[0]) for name, interface in names.items() for each in interface.addresses
        }

    def problem(self, hop: NextHop, table: int) -> tuple[str, str] | None:
        """Return the field of a next hop that is wrong, and why."""
        device = hop.device
        # Of an interface that could not be read nothing is known but its name.
        if device in self._unsure:
            return None
        if device not in self._names and device != LOOPBACK:
            if self._misnamed:
                return None
            return "device", interface.unknown_name(device, self._names.values(), self._unsure)
        if device in self._names and not self._names[device].up:
            return "device", f"{device} has state: down, and the kernel refuses routes over a link that is down"
        if hop.gateway and is_ipv6(hop.gateway) and (device, hop.gateway) in self._own:
            return "gateway", f"{hop.gateway} is an address of {device} itself"
        if self._on_link.reaches(hop, table):
            return None
        return "gateway", (
            f"no address or route of {device} reaches {hop.gateway}; if it is on that link nevertheless: onLink: true"
        )


def _route_mtu(route: Route, index: int, names: dict[str, Interface]) -> Iterator[Finding]:
    for device in sorted(route.devices & names.keys()):
        if not names[device].fits(route.mtu):
            message = f"{route.mtu} is above the MTU of {device}, {names[device].mtu}"
            yield Finding(("routes", index, "mtu"), message)


def _check_kata(draft: Draft) -> Iterable[Finding]:
    # Few manifests are for kata-runtime.
    from reconciler.manifest import check_kata

    routes = draft.items(SECTION)
    return check_kata.routes(routes, [write(each) if each else {} for each in routes], draft.items(interface.SECTION))


def _words(route: Route) -> str:
    # Only a listing pays for the import.
    from reconciler.formats.iproute2 import route_words

    return route_words(route)


SECTION = ListSection(
    name="routes",
    read_item=read,
    write_item=write,
    words=_words,
    checks=_check_together,
    kata_checks=_check_kata,
)

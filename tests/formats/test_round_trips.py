"""What netplan, networkd and nmstate can say of any sandbox, written as they have it, is imported as that sandbox.

The writers are here only: nothing writes these notations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.manifest.dump import dump
from reconciler.manifest.foreign import read
from reconciler.manifest.gaps import fill
from reconciler.manifest.imported import document
from reconciler.manifest.sandbox import complete as sandbox_of
from reconciler.manifest.sandbox import read_sections
from reconciler.model.address import is_ipv6
from reconciler.model.interface import Address, Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import DIRECT_TYPES, IPV6_DEFAULT_METRIC, Route
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, Rule
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.values import replace
from tests.strategies import sandboxes

DRIVER = NetnsAddress(name="box")
HEAD = Sandbox(id="box", driver=DRIVER)
# Of one NIC at least, as the notations have no routes without one.


def bare(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox that is up, without attributes, whose addresses have nothing but `dad`: few files have more."""
    nics = [
        replace(
            nic,
            up=True,
            attributes=(),
            altnames=None,
            addresses=tuple(Address(address=each.address, dad=each.dad) for each in nic.addresses),
        )
        for nic in sandbox.interfaces or ()
    ]
    return replace(sandbox, interfaces=tuple(nics))


ANY = sandboxes(["tap0", "tap1", "tap2"], DRIVER).filter(lambda sandbox: bool(sandbox.interfaces)).map(bare)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])


def imported(*files: Path) -> dict[str, set[Any]]:
    """Return the sections of the manifest that files become, without their order."""
    found = read(map(str, files))
    fill(found, HEAD)
    data = document(found, HEAD)
    return sections(sandbox_of(data, read_sections(data, [])))


def sections(sandbox: Sandbox) -> dict[str, set[Any]]:
    nics = {replace(each, addresses=()) for each in sandbox.interfaces or ()}
    addresses = {(each.name, address) for each in sandbox.interfaces or () for address in each.addresses}
    return {
        "interfaces": nics,
        "addresses": addresses,
        "routes": set(sandbox.routes or ()),
        "rules": set(sandbox.rules or ()),
        "neighbours": set(sandbox.neighbours or ()),
    }


def some(**fields: Any) -> dict[str, Any]:
    """Return fields that have a value; `_` in a name stands for `-`."""
    return {key.rstrip("_").replace("_", "-"): value for key, value in fields.items() if value not in (None, "", False)}


def metric(route: Route) -> int | None:
    usual = IPV6_DEFAULT_METRIC if route.is_ipv6 else 0
    return None if route.metric == usual else route.metric


def without_dad(interface: Interface) -> Interface:
    return replace(interface, addresses=tuple(replace(each, dad=True) for each in interface.addresses))


# netplan


def is_simple_route(route: Route, *, mixed: bool = False) -> bool:
    """Return whether a route has nothing that none of these files can say. `mixed`: gateways of IPv6 for IPv4."""
    mixes = any(is_ipv6(hop.gateway) != route.is_ipv6 for hop in route.nexthops if hop.gateway)
    others = route.tos or route.mtu_lock or route.pref != "medium" or route.type in DIRECT_TYPES
    return not others and (mixed or not mixes)


def with_metrics(route: Route, *fields: str) -> Route:
    """Return a route with no other metrics than these."""
    return replace(route, metrics=tuple(each for each in route.metrics if each[0] in fields))


NETWORKD_METRICS = {
    "hoplimit": "HopLimit",
    "initcwnd": "InitialCongestionWindow",
    "initrwnd": "InitialAdvertisedReceiveWindow",
    "quickack": "QuickAck",
    "congctl": "TCPCongestionControlAlgorithm",
}


def of_netplan(sandbox: Sandbox) -> Sandbox:
    """Return what netplan can say of a sandbox."""
    plain = Rule(family="", priority=0)

    def is_simple(rule: Rule) -> bool:
        same = ("family", "priority", "from_", "to", "fwmark", "fwmask", "tos", "table")
        known = replace(plain, **{name: getattr(rule, name) for name in same})
        return rule == known and bool(rule.from_ or rule.to) and rule.fwmask in (0, ALL_BITS)

    return replace(
        sandbox,
        interfaces=tuple(map(without_dad, sandbox.interfaces or ())),
        routes=tuple(
            with_metrics(each, "advmss", "initcwnd", "initrwnd")
            for each in sandbox.routes or ()
            if len(each.nexthops) < 2 and is_simple_route(each)
        ),
        rules=tuple(filter(is_simple, sandbox.rules or ())),
        neighbours=(),
    )


def write_netplan(sandbox: Sandbox) -> str:
    ethernets = {}
    nics = sandbox.interfaces or ()
    for number, nic in enumerate(nics):
        own = [each for each in sandbox.routes or () if nic.name in each.devices or (not number and not each.nexthops)]
        ethernets[f"id{number}"] = some(
            match={"name": nic.device},
            set_name=nic.name,
            macaddress=nic.hw_addr,
            mtu=nic.mtu,
            addresses=[each.address for each in nic.addresses],
            routes=[_netplan_route(each) for each in own],
            routing_policy=[_netplan_rule(each) for each in sandbox.rules or ()] if not number else None,
        )
    return dump([{"network": {"version": 2, "ethernets": ethernets}}])


def _netplan_route(route: Route) -> dict[str, Any]:
    hop = route.nexthops[0] if route.nexthops else None
    return some(
        to=route.dest,
        via=hop and hop.gateway,
        on_link=hop and hop.on_link,
        type=None if route.type == "unicast" else route.type,
        table=route.table,
        metric=metric(route),
        from_=route.source,
        mtu=route.mtu or None,
        scope=route.scope,
        advertised_mss=dict(route.metrics).get("advmss"),
        congestion_window=dict(route.metrics).get("initcwnd"),
        advertised_receive_window=dict(route.metrics).get("initrwnd"),
    )


def _netplan_rule(rule: Rule) -> dict[str, Any]:
    found = some(from_=rule.from_, to=rule.to, mark=rule.fwmark or None, type_of_service=rule.tos or None)
    return found | {"priority": rule.priority, "table": rule.table}


@FILES
@given(ANY)
def test_netplan(tmp_path: Path, drawn: Sandbox) -> None:
    sandbox, file = of_netplan(drawn), tmp_path / "netplan.yaml"
    file.write_text(write_netplan(sandbox))
    assert imported(file) == sections(sandbox)


# networkd


def of_networkd(sandbox: Sandbox) -> Sandbox:
    """Return what networkd can say: no devices of the host, no proxies, and no flags of several next hops."""
    return replace(
        sandbox,
        interfaces=tuple(replace(each, device=each.name) for each in sandbox.interfaces or ()),
        routes=tuple(
            with_metrics(route, "advmss", *NETWORKD_METRICS)
            for route in sandbox.routes or ()
            if is_simple_route(route, mixed=True)
            if len(route.nexthops) < 2 or all(hop.gateway and not hop.on_link for hop in route.nexthops)
        ),
        rules=tuple(each for each in sandbox.rules or () if each.priority and each.table != 255),
        neighbours=tuple(each for each in sandbox.neighbours or () if not each.proxy and not each.router),
    )


def write_network(sandbox: Sandbox, nic: Interface, *, first: bool) -> str:
    lines = ["[Match]", f"Name={nic.name}", "[Link]", f"MACAddress={nic.hw_addr}", f"MTUBytes={nic.mtu}"]
    for address in nic.addresses:
        lines += ["[Address]", f"Address={address.address}"]
        lines += ["DuplicateAddressDetection=none"] * (not address.dad)
    for route in sandbox.routes or ():
        if route.nexthops[0].device == nic.name if route.nexthops else first:
            lines += _network_route(route)
    for entry in sandbox.neighbours or ():
        if entry.device == nic.name:
            lines += ["[Neighbor]", f"Address={entry.address}", f"LinkLayerAddress={entry.hw_addr}"]
    for rule in (sandbox.rules or ()) if first else ():
        lines += ["[RoutingPolicyRule]", *_network_rule(rule)]
    return "\n".join(lines) + "\n"


def _network_route(route: Route) -> Iterator[str]:
    yield "[Route]"
    yield f"Destination={route.dest}"
    fields = {
        "Type": None if route.type == "unicast" else route.type,
        "Table": route.table,
        "Metric": metric(route),
        "PreferredSource": route.source,
        "MTUBytes": route.mtu or None,
        "Scope": route.scope,
        "TCPAdvertisedMaximumSegmentSize": dict(route.metrics).get("advmss"),
        **{key: dict(route.metrics).get(field) for field, key in NETWORKD_METRICS.items()},
    }
    if len(route.nexthops) == 1 and route.nexthops[0].gateway:
        fields |= {"Gateway": route.nexthops[0].gateway, "GatewayOnLink": str(route.nexthops[0].on_link)}
    elif len(route.nexthops) > 1:
        yield from (f"MultiPathRoute={hop.gateway}@{hop.device} {hop.weight}" for hop in route.nexthops)
    yield from (f"{key}={value}" for key, value in fields.items() if value is not None)


def _network_rule(rule: Rule) -> Iterator[str]:
    def ranged(found: tuple[int, int] | None) -> str | None:
        return found and f"{found[0]}-{found[1]}"

    fields = {
        "Family": rule.family,
        "Priority": rule.priority,
        "From": rule.from_,
        "To": rule.to,
        "IncomingInterface": rule.iif,
        "OutgoingInterface": rule.oif,
        "FirewallMark": f"{rule.fwmark}/{rule.fwmask:#x}" if rule.fwmask else None,
        "IPProtocol": rule.ipproto or None,
        "SourcePort": ranged(rule.sport),
        "DestinationPort": ranged(rule.dport),
        "User": ranged(rule.uidrange),
        "TypeOfService": rule.tos or None,
        "SuppressPrefixLength": None if rule.suppress_prefixlength == NO_SUPPRESSION else rule.suppress_prefixlength,
        "L3MasterDevice": "yes" if rule.l3mdev else None,
        "InvertRule": "yes" if rule.invert else None,
        "GoTo": rule.goto or None,
        "Type": rule.action if rule.action not in ("table", "goto") else None,
        "Table": rule.table or None,
    }
    yield from (f"{key}={value}" for key, value in fields.items() if value is not None)


@FILES
@given(ANY, st.booleans())
def test_networkd(tmp_path: Path, drawn: Sandbox, split: bool) -> None:
    """Also if a part of the sections is in a drop-in."""
    sandbox = of_networkd(drawn)
    files = []
    for number, nic in enumerate(sandbox.interfaces or ()):
        file = tmp_path / f"{number}.network"
        folder = Path(f"{file}.d")
        folder.mkdir(exist_ok=True)
        text, header, rest = write_network(sandbox, nic, first=not number).partition("[Route]")
        file.write_text(text if split else text + header + rest)
        (folder / "a.conf").write_text(header + rest if split else "")
        files.append(file)
    assert imported(*files) == sections(sandbox)


# nmstate


def of_nmstate(sandbox: Sandbox) -> Sandbox:
    """Return what nmstate can say of a sandbox."""
    plain = Rule(family="", priority=0)

    def is_simple(rule: Rule) -> bool:
        same = ("family", "priority", "from_", "to", "iif", "fwmark", "fwmask", "suppress_prefixlength", "table")
        known = replace(plain, action=rule.action, **{name: getattr(rule, name) for name in same})
        # nmstate has no mask without a mark.
        return rule == known and rule.action != "goto" and not (rule.fwmask and not rule.fwmark)

    def is_plain(route: Route) -> bool:
        bare = is_simple_route(route) and route.scope is None and not route.metrics
        return bare and not route.mtu and not any(hop.on_link for hop in route.nexthops)

    return replace(
        sandbox,
        interfaces=tuple(without_dad(replace(each, device=each.name)) for each in sandbox.interfaces or ()),
        routes=tuple(filter(is_plain, sandbox.routes or ())),
        rules=tuple(filter(is_simple, sandbox.rules or ())),
        neighbours=tuple[Neighbour, ...](),
    )


def write_nmstate(sandbox: Sandbox) -> str:
    interfaces = [
        {"name": nic.name, "type": "ethernet", "state": "up", "mac-address": nic.hw_addr.upper(), "mtu": nic.mtu}
        | {family: _addresses(nic, ipv6=family == "ipv6") for family in ("ipv4", "ipv6")}
        for nic in sandbox.interfaces or ()
    ]
    routes = [entry for route in sandbox.routes or () for entry in _nmstate_routes(route)]
    rules = [_nmstate_rule(each) for each in sandbox.rules or ()]
    return dump([{"interfaces": interfaces, "routes": {"config": routes}, "route-rules": {"config": rules}}])


def _addresses(nic: Interface, *, ipv6: bool) -> dict[str, Any]:
    own = [each.address.split("/") for each in nic.addresses if is_ipv6(each.address) == ipv6]
    addresses = [{"ip": host, "prefix-length": int(length)} for host, length in own]
    return {"enabled": True, "dhcp": False, "address": addresses}


def _nmstate_routes(route: Route) -> Iterator[dict[str, Any]]:
    table = {"destination": route.dest, "table-id": 0 if route.table == 254 else route.table}
    if not route.nexthops:
        yield table | some(route_type=route.type, metric=metric(route))
    for hop in route.nexthops:
        yield table | some(
            metric=metric(route) or -1,
            next_hop_interface=hop.device,
            next_hop_address=hop.gateway,
            weight=hop.weight if len(route.nexthops) > 1 else None,
            source=route.source,
        )


def _nmstate_rule(rule: Rule) -> dict[str, Any]:
    return {"priority": rule.priority, "route-table": rule.table} | some(
        family=rule.family,
        ip_from=rule.from_,
        ip_to=rule.to,
        iif=rule.iif,
        fwmark=hex(rule.fwmark) if rule.fwmark else None,
        fwmask=rule.fwmask or None,
        action=rule.action if rule.action != "table" else None,
    ) | ({} if rule.suppress_prefixlength < 0 else {"suppress-prefix-length": rule.suppress_prefixlength})  # fmt: skip


@FILES
@given(ANY)
def test_nmstate(tmp_path: Path, drawn: Sandbox) -> None:
    sandbox, file = of_nmstate(drawn), tmp_path / "state.yml"
    file.write_text(write_nmstate(sandbox))
    assert imported(file) == sections(sandbox)

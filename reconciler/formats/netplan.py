"""The YAML of netplan: its Ethernet devices with their addresses, routes and rules (netplan.readthedocs.io).

Defaults are those of its backend networkd: a route without `via` is on the link, a rule without `table` looks up main.
"""

from __future__ import annotations

import re
from typing import Any

from reconciler.formats.entry import NO_PRIORITY, Entry, Found, Link
from reconciler.formats.static import (
    DHCP,
    MADE,
    METRIC_MAX,
    TABLES_MAX,
    UNDECIDED,
    add_route,
    read_metrics,
    read_network,
    read_selector,
    skip_of_reject,
    why_no_route,
)
from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, is_ipv6, parse_prefix
from reconciler.model.interface import Address
from reconciler.model.route import TABLE_MAIN, NextHop
from reconciler.model.rule import ALL_BITS, Rule

# Mappings of devices that netplan makes, or that are no Ethernet devices.
_OTHERS = {
    "bonds": MADE,
    "bridges": MADE,
    "dummy-devices": MADE,
    "tunnels": MADE,
    "virtual-ethernets": MADE,
    "vlans": MADE,
    "vrfs": MADE,
    "modems": "it is no Ethernet device",
    "wifis": "it is no Ethernet device",
    "nm-devices": "only NetworkManager knows what it is",
}
_METRICS = {"advmss": "advertised-mss", "initcwnd": "congestion-window", "initrwnd": "advertised-receive-window"}
_GLOB = re.compile(r"[*?\[]")
_RENDERER = "reconciler takes its place"
_REASONS = {
    "renderer": _RENDERER,
    "accept-ra": "sysctls of the interface: {accept_ra: 0} or 1",
    "ipv6-mtu": "a manifest has one MTU for both families",
    "link-local": "the kernel makes an IPv6 link-local address unless sysctls say otherwise",
    "nameservers": "a manifest does not describe DNS",
    "optional": "nothing waits for the interface",
    "dhcp4-overrides": DHCP,
    "dhcp6-overrides": DHCP,
    "dhcp-identifier": DHCP,
}


def read(data: Any, found: Found) -> None:
    """Read a document of netplan."""
    root = Entry(data, (), found)
    network = root.entry("network")
    root.rest()
    network.number("version", 2, 2)
    vrfs = _read_vrfs(network)
    for kind, why in _OTHERS.items():
        devices = network.entry(kind)
        for name in devices.left():
            found.absent[name] = why
            devices.skip(name, why)
    ethernets = network.entry("ethernets")
    for name in ethernets.left():
        device = ethernets.entry(name)
        _read_ethernet(name, device, vrfs.get(name, ""))
        device.rest(_REASONS)
    network.rest(_REASONS)


def _read_vrfs(network: Entry) -> dict[str, str]:
    """Return the devices that are ports of VRFs, with the VRF of each."""
    vrfs = network.entry("vrfs")
    return {
        port: name for name in vrfs.left() for port in Entry(vrfs.get(name), vrfs.at(name), Found()).texts("interfaces")
    }


def _read_ethernet(identity: str, entry: Entry, vrf: str) -> None:
    found, match = entry.found, entry.entry("match")
    matched, mac = match.text("name"), match.mac("macaddress")
    pattern = matched is not None and _GLOB.search(matched) is not None
    name = entry.text("set-name") or (identity if pattern or not matched else matched)
    if pattern and not mac and "set-name" not in entry:
        why = f"it matches by the pattern {matched}; which interfaces these are is not in the file"
        found.absent[identity] = why
        found.skip(entry.path, why)
        entry.drop(list(entry.left()))
        return
    by_mac = mac is not None and "set-name" not in entry and (pattern or not matched)
    if "match" in entry and "set-name" not in entry and not matched and not mac:
        found.note(entry.at("match"), f"the interface is imported as {name}, its ID in the file")
    match.rest({"driver": "the name decides"})
    partial = _read_dynamic(entry)
    own = _read_mac(entry)
    if mac and own not in (None, mac):
        found.skip(match.at("macaddress"), f"{mac}: macaddress sets another one")
    addresses = _read_addresses(entry)
    entry.usual("activation-mode", {"off"}, UNDECIDED)
    found.add(
        entry.path,
        Link(
            name=name,
            device=None if pattern else matched,
            hw_addr=own or mac,
            mtu=entry.number("mtu", 0, 0xFFFFFFFF),
            state="down" if entry.text("activation-mode") == "off" else None,
            addresses=addresses,
            partial=partial,
            matched=mac if by_mac else None,
        ),
    )
    for key, dest in (("gateway4", DEFAULT_IPV4), ("gateway6", DEFAULT_IPV6)):
        gateway = entry.address(key)
        if gateway and vrf:
            found.skip(entry.at(key), f"it is in the table of the VRF {vrf}, and {MADE}")
        elif gateway:
            at = Entry({}, entry.at(key), found)
            add_route(
                at, dest=dest, kind="unicast", hops=[NextHop(device=name, gateway=gateway)], table=TABLE_MAIN, metric=0
            )
    for route in entry.entries("routes"):
        _read_route(route, name, vrf)
        route.rest({"scope": "the type and the gateway decide"})
    for rule in entry.entries("routing-policy"):
        _read_rule(rule)


def _read_mac(entry: Entry) -> str | None:
    text = entry.text("macaddress")
    if text in ("permanent", "random", "stable", "preserve"):
        entry.found.skip(entry.at("macaddress"), f"{text}: a manifest names an address")
        return None
    return entry.mac("macaddress")


def _read_dynamic(entry: Entry) -> frozenset[str]:
    """Report what gives addresses to an interface. Return the families of which it may have others."""
    clients = [key for key in ("dhcp4", "dhcp6") if entry.flag(key)]
    for key in clients:
        entry.skip(key, DHCP)
    families = {"IPv4" if key == "dhcp4" else "IPv6" for key in clients}
    ignored = entry.flag("accept-ra") is False
    entry.skip("accept-ra", _REASONS["accept-ra"])
    return frozenset(families if ignored else {*families, "IPv6"})


def _read_addresses(entry: Entry) -> tuple[Address, ...]:
    found: dict[str, Address] = {}
    for path, item in entry.items("addresses"):
        options = Entry({}, path, entry.found)
        text: Any = item
        if isinstance(item, dict) and len(item) == 1:
            ((text, value),) = item.items()
            options = Entry(value, (*path, text), entry.found)
        if not isinstance(text, str) or "/" not in text:
            entry.found.fault(path, f"{text}: expected an address with its prefix length, such as 192.0.2.1/24")
            continue
        try:
            prefix = parse_prefix(text)
        except ValueError as error:
            entry.found.fault(path, str(error))
            continue
        options.usual("lifetime", {"forever"}, "no address of a manifest is deprecated")
        options.skip("label", "write it into the manifest")
        options.rest()
        found[prefix] = Address(address=prefix)
    return tuple(found.values())


def _read_route(entry: Entry, name: str, vrf: str) -> None:
    found, kind = entry.found, (entry.text("type") or "unicast").lower()
    gateway, source = entry.address("via"), entry.address("from")
    table = entry.number("table", 0, TABLES_MAX)
    on_link, metric = entry.flag("on-link"), entry.number("metric", 0, METRIC_MAX)
    mtu, metrics = entry.number("mtu", 0, 0xFFFFFFFF), read_metrics(entry, _METRICS)
    why = why_no_route(kind, table)
    if vrf and not table:
        why = f"it is in the table of the VRF {vrf}, and {MADE}"
    if why:
        found.skip(entry.path, f"route to {entry.get('to')}: {why}")
        entry.drop(list(entry.left()))
        return
    if "to" not in entry:
        found.fault(entry.path, "to: missing; expected a destination")
        return
    if entry.text("to") == "default":
        dest = DEFAULT_IPV6 if is_ipv6(gateway or source or "") else DEFAULT_IPV4
    else:
        dest = read_network(entry, "to") or ""
    scope = entry.text("scope")
    skip_of_reject(entry, kind, ("via", "on-link", "from", "mtu", *_METRICS.values()))
    if dest:
        hop = NextHop(device=name, gateway=gateway, on_link=bool(gateway and on_link))
        add_route(
            entry,
            dest=dest,
            kind=kind,
            hops=[hop],
            table=table or TABLE_MAIN,
            metric=metric,
            source=source,
            mtu=mtu,
            metrics=metrics,
            scope=scope,
        )


def _read_rule(entry: Entry) -> None:
    """Read a rule; with anything that is not known, it would select other packets, so that it is left out."""
    found = entry.found
    source, to = read_selector(entry, "from"), read_selector(entry, "to")
    table, priority = entry.number("table", 0, TABLES_MAX), entry.number("priority", 0, ALL_BITS)
    mark, tos = entry.number("mark", 0, ALL_BITS), entry.number("type-of-service", 0, 255)
    unknown = list(entry.left())
    if unknown:
        found.skip(entry.path, f"the rule: no manifest has {', '.join(unknown)}")
        return
    if not {"from", "to"} & {key for key in ("from", "to") if key in entry}:
        found.fault(entry.path, "neither from nor to; netplan needs one of them")
        return
    ipv6 = any(is_ipv6(str(entry.get(key))) for key in ("from", "to") if key in entry)
    found.add(
        entry.path,
        Rule(
            family="ipv6" if ipv6 else "ipv4",
            priority=NO_PRIORITY if priority is None else priority,
            from_=source,
            to=to,
            fwmark=mark or 0,
            fwmask=ALL_BITS if mark else 0,
            tos=tos or 0,
            table=table or TABLE_MAIN,
        ),
    )

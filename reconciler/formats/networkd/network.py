"""A .network file → the interfaces that it names, with their addresses and neighbours; and a .netdev file."""

from __future__ import annotations

import re
from collections.abc import MutableMapping

from reconciler.formats.entry import BOTH, Found, Link
from reconciler.formats.networkd import route, rule
from reconciler.formats.networkd.syntax import Document, Section
from reconciler.formats.static import DHCP, MADE, UNDECIDED, read_bytes
from reconciler.model.address import family_name, is_ipv6, parse_prefix
from reconciler.model.interface import Address, address_key
from reconciler.model.neighbour import Neighbour

_READ = ("Match", "Link", "Network", "Address", "Neighbor", "Route", "RoutingPolicyRule")
_GLOB = re.compile(r"[*?\[]")
_NO = ("no", "none", "false", "off", "0", "n", "f")
_CONDITIONS = "its truth is not known here; imported as if it holds"
_NO_DNS = "a manifest does not describe DNS"
_SYSCTL = "sysctls of the manifest can set it"
_PORT = "reconciler makes no device a port of another one"
_ATTRIBUTES = {"ARP": "arp", "AllMulticast": "allmulticast"}
_STATES = {"up": "up", "always-up": "up", "down": "down", "always-down": "down"}
_NETWORK = {
    **dict.fromkeys(("DNS", "Domains", "LLMNR", "MulticastDNS", "DNSSEC", "DNSOverTLS", "DNSDefaultRoute"), _NO_DNS),
    **dict.fromkeys(("IPForward", "IPv4Forwarding", "IPv6Forwarding", "IPv6AcceptRA"), _SYSCTL),
    **dict.fromkeys(("VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "VXLAN", "Tunnel", "Xfrm", "MACsec", "IPVTAP"), MADE),
    **dict.fromkeys(("Bridge", "Bond", "BatmanAdvanced", "VRF"), _PORT),
}


def read_file(document: Document, file: str, matched: MutableMapping[str, str]) -> None:
    """Read a .network file, or a .netdev file, with its drop-ins. See `_read`."""
    if "NetDev" in document:
        _read_netdev(document)
    else:
        _read(document, file, matched)


def _read_netdev(document: Document) -> None:
    """Report the device that a .netdev file makes: it is left out, and so is a .network file of its name."""
    section = document.one("NetDev")
    name, kind = section.text("Name"), section.text("Kind")
    why = f"networkd makes it (Kind={kind}), and {MADE}"
    if name:
        document.found.absent[name] = why
    document.found.skip(section.path, f"{name}: {why}")


def _read(document: Document, file: str, matched: MutableMapping[str, str]) -> None:
    """Read a .network file with its drop-ins.

    `matched`: the names of interfaces that an earlier file is for → that file. networkd takes the first one.
    """
    found, match = document.found, document.one("Match")
    names, mac = _read_match(match, found)
    for name in [name for name in names if name in matched]:
        names.remove(name)
        found.skip(match.at("Name"), f"{name}: networkd takes {matched[name]} for it, which comes first")
    if not names:
        return
    matched.update(dict.fromkeys(names, file))
    for path in document.others(_READ):
        found.skip(path, "a manifest has no such section")
    link, network = document.one("Link"), document.one("Network")
    if link.flag("Unmanaged"):
        for name in names:
            found.absent[name] = "networkd does not manage it"
            found.skip(link.at("Unmanaged"), f"{name}: networkd does not manage it")
        return
    hw_addr = link.mac("MACAddress") or mac
    if mac and mac != hw_addr:
        found.skip(match.path, f"{mac}: [Link] sets another MAC address")
    mtu = read_bytes(link, "MTUBytes")
    state = _read_state(link, network)
    attributes = tuple((field, value) for key, field in _ATTRIBUTES.items() if (value := link.flag(key)) is not None)
    link.rest()
    addresses, partial = _read_addresses(document, network)
    for name in names:
        by_mac = mac if name == mac else None
        part = Link(
            name=name,
            hw_addr=hw_addr,
            mtu=mtu,
            state=state,
            addresses=addresses,
            attributes=attributes,
            partial=partial,
            matched=by_mac,
        )
        found.add(match.at("MACAddress" if by_mac else "Name"), part)
    neighbours = list(document.each("Neighbor"))
    for name in names:
        for section in neighbours:
            _read_neighbour(section, name)
    route.read(document, network, names, has_addresses=bool(addresses) or network.text("DHCP") not in (None, *_NO))
    rule.read(document)
    network.rest(_NETWORK)


def _read_state(link: Section, network: Section) -> str | None:
    """Return whether networkd sets an interface up or down; None if others decide."""
    if "BindCarrier" in network:
        link.skip("ActivationPolicy", "networkd ignores it beside BindCarrier=")
        return None
    link.usual("ActivationPolicy", _STATES, UNDECIDED)
    return _STATES.get(link.text("ActivationPolicy") or "")


def _read_match(match: Section, found: Found) -> tuple[list[str], str | None]:
    """Return the names of the interfaces that a file is for, none if these are not known; and the MAC address.

    Of a file that says only the MAC address, that is the name.
    """
    names = list(dict.fromkeys(match.words("Name")))
    macs = [*match.words("MACAddress"), *match.words("PermanentMACAddress")]
    mac = match.mac("MACAddress" if match.get("MACAddress") else "PermanentMACAddress") if len(macs) == 1 else None
    known = bool(names) and not any(_GLOB.search(name) or name.startswith("!") for name in names)
    if not known and mac is None:
        why = f"it matches by the pattern {' '.join(names)}" if names else "it has no Name="
        where = match.at("Name") if names else match.path
        found.skip(where, f"{why}; which interfaces these are is not in the file")
        return [], None
    if len(names) > 1 and known:
        mac = None
    if macs and mac is None:
        found.note(match.at("MACAddress"), "more than one MAC address or name; which belong together is not known")
    for key in match.left():
        if match.get(key):
            found.note(match.at(key), _CONDITIONS)
    return names if known else [str(mac)], mac


def _read_addresses(document: Document, network: Section) -> tuple[tuple[Address, ...], frozenset[str]]:
    """Return the addresses, and the families of which the interface may have others."""
    found, addresses = document.found, dict[str, Address]()
    partial = _read_dynamic(network)
    for path, text in network.items("Address"):
        single = Section({"Address": [text]}, path, found)
        address = _read_prefix(single, path)
        partial |= BOTH if address is None else set()
        addresses |= {address: Address(address=address)} if address else {}
    for section in document.each("Address"):
        address = _read_prefix(section, section.at("Address"))
        if address is None:
            partial |= BOTH
            continue
        peer = section.prefix("Peer")
        if peer and peer.partition("/")[2] != address.partition("/")[2]:
            found.skip(section.at("Peer"), f"{address}: its peer has another prefix length")
            section.drop(list(section.left()))
            partial |= {family_name(address)}
            continue
        peer = peer and peer.partition("/")[0]
        key = address_key(address, peer)
        addresses[key] = Address(address=address, peer=peer, dad=_read_dad(section) or not is_ipv6(address))
        section.usual("PreferredLifetime", {"forever", "infinity"}, "no address of a manifest is deprecated")
        section.rest()
    return tuple(addresses.values()), frozenset(partial)


def _read_dynamic(network: Section) -> set[str]:
    """Return the families of which DHCP or routers may give addresses to an interface."""
    dhcp = (network.text("DHCP") or "no").lower()
    families = set() if dhcp in _NO else {"IPv4"} if dhcp in ("ipv4", "v4") else {"IPv6"}
    families = set(BOTH) if dhcp not in (*_NO, "ipv4", "v4", "ipv6", "v6") else families
    if dhcp not in _NO:
        network.found.skip(network.at("DHCP"), DHCP)
    ignored = (network.text("IPv6AcceptRA") or "yes").lower() in _NO
    network.skip("IPv6AcceptRA", _SYSCTL)
    return families if ignored else families | {"IPv6"}


def _read_prefix(section: Section, path: tuple[str | int, ...]) -> str | None:
    """Read an address. None, reported, if there is none, or one that networkd would take from a pool."""
    text, found = section.text("Address"), section.found
    if not text:
        found.skip(path, "networkd ignores a section without an address")
        return None
    try:
        prefix = parse_prefix(text)
    except ValueError as error:
        found.fault(path, str(error))
        return None
    host, _, length = prefix.partition("/")
    if host in ("0.0.0.0", "::"):
        found.skip(path, f"{text}: networkd takes an address from a pool")
        return None
    if "/" not in text:
        found.note(path, f"{text} has no prefix length; networkd takes /{length}, and so does the manifest")
    return prefix


def _read_dad(section: Section) -> bool:
    """Return whether duplicate addresses are detected. As a boolean, networkd has the opposite meaning (historical)."""
    word = (section.text("DuplicateAddressDetection") or "ipv6").lower()
    if word in ("ipv6", "both"):
        return True
    return word not in ("none", "ipv4") and not section.flag("DuplicateAddressDetection")


def _read_neighbour(section: Section, name: str) -> None:
    key = "LinkLayerAddress" if section.get("LinkLayerAddress") else "MACAddress"
    address, hw_addr = section.address("Address"), section.mac(key)
    section.get("MACAddress")
    if address and hw_addr:
        section.found.add(section.path, Neighbour(address=address, device=name, hw_addr=hw_addr))
    else:
        section.found.skip(section.path, "networkd ignores a neighbour without Address= and LinkLayerAddress=")
    section.rest()

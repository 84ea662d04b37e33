"""An interface in a manifest: checked data → model, and model → data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.manifest import made as made_links
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft, ListSection
from reconciler.manifest.sysctl import read_of_nic
from reconciler.model.address import is_ipv6, is_unicast, network, parse_mac, parse_prefix, split_prefix
from reconciler.model.attribute import ATTRIBUTES, BY_FIELD, TEXT_MAX
from reconciler.model.attribute import words as attribute_words
from reconciler.model.identity import HostDevice, Nic, NicAddress, Subject, Sysctl
from reconciler.model.interface import IPV6_MIN_MTU, LOOPBACK, MTU_MAX, Address, Interface, Origin
from reconciler.model.made import made_key
from reconciler.model.mark import OWN_ALTNAMES
from reconciler.model.sandbox import Observed, Surroundings
from reconciler.model.sysctl import full_name
from reconciler.values import replace
from reconciler.wording import quote, suggest

_LOOPBACK = {
    "name": "lo is the loopback interface, which each sandbox has already; choose another name",
    "device": "lo is the loopback interface of the host, which cannot leave it; each sandbox has one of its own",
}


def read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Interface | None:
    """Read an interface that meets the schema. Return None if anything else is wrong, and add that to `findings`."""
    before = len(findings)
    hw_addr = data.get("hwAddr", "")
    kind = made_links.kind_of(data)
    try:
        hw_addr = parse_mac(hw_addr) if "hwAddr" in data else ""
    except ValueError as error:
        findings.append(Finding((*path, "hwAddr"), str(error)))
    for field, message in _LOOPBACK.items():
        if data.get(field) == LOOPBACK:
            findings.append(Finding((*path, field), message))
    addresses: dict[str, Address] = {}
    subnets: dict[str, tuple[str, int, bool]] = {}
    listed: list[tuple[Path, Address]] = []
    for index, item in enumerate(data.get("addresses", ())):
        where = (*path, "addresses", index)
        try:
            address = _read_address(item, data)
        except ValueError as error:
            findings.append(Finding(where, str(error)))
            continue
        # A link can have an IPv6 address only once, whatever the prefix length; an IPv4 address once in a network.
        key = address.host if is_ipv6(address.address) else f"{address.host} {address.subnet}"
        if key in addresses:
            findings.append(Finding(where, f"{address.key} is listed twice"))
        addresses[key] = address
        # The kernel makes one connected route of a network, and takes one scope (__inet_insert_ifa).
        subnet, options = address.subnet, (address.scope, address.metric, address.noprefixroute)
        if subnets.setdefault(subnet, options) != options:
            message = f"{address.key} has another scope, metric or noprefixroute than another address of {subnet}"
            findings.append(Finding(where, message))
        listed.append((where, address))
    findings += _of_peers(listed)
    findings += (Finding((*path, *where), message) for where, message in _of_our_own(data))
    sysctls = read_of_nic(data, path, findings)
    made = made_links.read(kind, data, path, findings) if kind else None
    if len(findings) > before:
        return None
    return Interface(
        name=data["name"],
        device=made_key(kind, data["name"]) if kind else data["device"],
        hw_addr=hw_addr,
        mtu=data.get("mtu", 0),
        up=data.get("state", "up") == "up",
        made=made,
        master=data.get("master", ""),
        addresses=tuple(addresses.values()),
        queues=data.get("queues", 0),
        vhost_user_socket=data.get("vhostUserSocket"),
        sysctls=sysctls,
        attributes=tuple((each.field, data[each.field]) for each in ATTRIBUTES if each.field in data),
        altnames=tuple(sorted(data["altnames"])) if "altnames" in data else None,
    )


def _of_our_own(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with an alias and alternative names: by such ones reconciler knows its own."""
    alias = data.get("alias", "")
    if not BY_FIELD["alias"].is_expressible(alias):
        yield ("alias",), f"it has {len(alias.encode())} bytes; an alias has at most {TEXT_MAX}"
    if Origin.from_alias(alias):
        yield ("alias",), "reconciler itself gives devices such an alias; choose another one"
    for index, name in enumerate(data.get("altnames", ())):
        if name.startswith(OWN_ALTNAMES):
            yield ("altnames", index), f"{name}: names that begin with {OWN_ALTNAMES} are marks of reconciler itself"


def _of_peers(addresses: Sequence[tuple[Path, Address]]) -> Iterator[Finding]:
    hosts, peers = {each.host for _, each in addresses}, set[str]()
    for path, address in addresses:
        peer = address.peer
        if peer in hosts:
            yield Finding((*path, "peer"), f"{peer} is an address of the interface itself")
        if peer in peers:
            message = f"{peer} is the peer of another address, with which the kernel deletes the route to it"
            yield Finding((*path, "peer"), message)
        if peer and is_ipv6(peer):
            peers.add(peer)


def _read_address(item: str | Mapping[str, Any], nic: Mapping[str, Any]) -> Address:
    mtu = nic.get("mtu", 0)
    data: Mapping[str, Any] = {"address": item} if isinstance(item, str) else item
    text, peer = data["address"], None
    if "peer" in data:
        text, peer = _with_peer(text, data["peer"])
    prefix = parse_prefix(text)
    if "/" not in text:
        length = 64 if is_ipv6(text) else 24
        raise ValueError(f"{text} has no prefix length; write that of its network, such as {text}/{length}")
    packed, length = split_prefix(prefix)
    if not is_unicast(prefix.partition("/")[0]):
        raise ValueError(f"{text} is not a unicast address")
    if prefix.startswith("::1/"):
        raise ValueError(f"{text} is the loopback address, which only lo has")
    ipv6 = len(packed) == 16
    if not ipv6 and peer is None and length < 31 and prefix == network(prefix):
        raise ValueError(f"{text} is the address of the network itself; a host needs one within it")
    if ipv6 and 0 < mtu < IPV6_MIN_MTU:
        raise ValueError(f"{text} needs an MTU of at least {IPV6_MIN_MTU} (RFC 8200); this interface has {mtu}")
    if not ipv6 and "dad" in data:
        raise ValueError(f"{text} is IPv4; duplicate address detection (dad) is IPv6 only")
    options = _options(data, text, nic["name"], ipv6=ipv6)
    return Address(address=prefix, peer=peer, dad=data.get("dad", True), **options)


def _with_peer(text: str, other: str) -> tuple[str, str]:
    """Return an address with the prefix length of its peer, and the peer. ValueError if they do not fit."""
    peer, _, length = parse_prefix(other).partition("/")
    host, has_length, _ = text.partition("/")
    if has_length:
        raise ValueError(f"{text} has a peer, so the prefix length is that of the peer; write {host}")
    if "/" not in other:
        raise ValueError(f"the peer {other} has no prefix length; for a single host, write {other}/{length}")
    if is_ipv6(host) != is_ipv6(peer):
        raise ValueError(f"{text} and its peer {other} are not of the same family")
    if not is_unicast(peer):
        raise ValueError(f"the peer {other} is not a unicast address")
    if parse_prefix(host).partition("/")[0] == peer:
        raise ValueError(f"{text} is its own peer; for an address without a peer, write {host}/{length}")
    return f"{host}/{length}", peer


def _options(data: Mapping[str, Any], text: str, name: str, *, ipv6: bool) -> dict[str, Any]:
    for field in ("label", "scope") if ipv6 else ():
        if field in data:
            raise ValueError(f"{text} is IPv6; a {field} is IPv4 only")
    label = data.get("label")
    if label is not None and not label.startswith(name):
        raise ValueError(f"the label {label} has to begin with the name of the interface, such as {name}:1")
    if data.get("metric") and data.get("noprefixroute"):
        raise ValueError(f"{text} has noprefixroute, so there is no connected route that could have a metric")
    return {
        "label": None if label == name else label,
        "scope": data.get("scope", "global"),
        "metric": data.get("metric", 0),
        "noprefixroute": data.get("noprefixroute", False),
    }


def write(interface: Interface) -> dict[str, Any]:
    """Return an interface as the data of a manifest, without defaults."""
    data: dict[str, Any] = {"name": interface.name}
    data |= made_links.write(interface.made) if interface.made else {"device": interface.device}
    data |= {"hwAddr": interface.hw_addr} if interface.hw_addr else {}
    # The kernel may have chosen one that no manifest can ask for.
    is_sayable = 0 < interface.mtu <= MTU_MAX or not interface.made
    data |= {"mtu": interface.mtu} if is_sayable else {}
    data |= {} if interface.up else {"state": "down"}
    if interface.master:
        data["master"] = interface.master
    if interface.addresses:
        data["addresses"] = [_write_address(each) for each in interface.addresses]
    if interface.queues:
        data["queues"] = interface.queues
    if interface.vhost_user_socket is not None:
        data["vhostUserSocket"] = interface.vhost_user_socket
    if interface.sysctls:
        data["sysctls"] = dict(interface.sysctls)
    if interface.altnames is not None:
        data["altnames"] = list(interface.altnames)
    return data | dict(interface.attributes)


def _write_address(address: Address) -> str | dict[str, Any]:
    host, _, length = address.address.partition("/")
    data = {
        field: value
        for field, value, unset in (
            ("peer", f"{address.peer}/{length}" if address.peer else None, None),
            ("dad", address.dad, True),
            ("label", address.label, None),
            ("scope", address.scope, "global"),
            ("metric", address.metric, 0),
            ("noprefixroute", address.noprefixroute, False),
        )
        if value != unset
    }
    return {"address": host if address.peer else address.address, **data} if data else address.address


def is_name(text: str) -> bool:
    """Return whether an interface of a manifest can have this name."""
    return text != LOOPBACK and bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", text))


def unknown_name(name: str, interfaces: Iterable[Interface], others: Iterable[str] = ()) -> str:
    """Return the words about a name that no interface has. `others`: interfaces of which only the name is known."""
    names = []
    for each in interfaces:
        if each.device == name:
            return f'no interface is named "{name}"; that is the device of {each.name} on the host'
        names.append(each.name)
    names.extend(others)
    hint = suggest(name, names, listed_by="the manifest") if names else "none is declared"
    return f'no interface is named "{name}"; {hint}'


def _check(draft: Draft) -> Iterator[Finding]:
    """Check interfaces against the driver and against each other."""
    interfaces = draft.items(SECTION)
    for index, interface in enumerate(interfaces):
        if interface and interface.vhost_user_socket is not None and draft.driver == "netns":
            path = (SECTION.name, index, "vhostUserSocket")
            yield Finding(path, "a network namespace has no vhost-user NICs; those are for virtual machines")
        if interface and not interface.has_mac and draft.driver != "netns":
            what = "missing; expected a unicast MAC address: only a network namespace takes a device without one"
            yield Finding((SECTION.name, index, "hwAddr"), what)
    yield from _duplicates(interfaces)
    if any(each and each.beneath for each in interfaces):
        yield from made_links.check(interfaces)


def _duplicates(interfaces: Sequence[Interface | None]) -> Iterator[Finding]:
    for field, attribute in (("name", "name"), ("device", "device"), ("hwAddr", "hw_addr")):
        first: dict[str, int] = {}
        for index, interface in enumerate(interfaces):
            value = getattr(interface, attribute, None)
            if (
                value
                and (field == "name" or interface is None or interface.made is None)
                and first.setdefault(value, index) != index
            ):
                yield Finding(
                    ("interfaces", index, field), f"{value} is the {field} of interfaces[{first[value]}] already"
                )
    names = {each.name: "name" for each in interfaces if each}
    for index, interface in enumerate(interfaces):
        for altname in interface.altnames or () if interface else ():
            if altname in names:
                yield Finding(
                    ("interfaces", index, "altnames"), f"{altname} is a {names[altname]} of an interface already"
                )
            names[altname] = "altname"


class _Interfaces(ListSection[Interface]):
    """The section: its objects are named twice, and have addresses."""

    __slots__ = ()

    def locate(self, value: Sequence[Interface] | None, subject: Subject) -> Path | None:
        """Return the path of an interface by its name in the sandbox or by the host's device."""
        match subject:
            case Nic(name=name) | NicAddress(nic=name):
                names = [item.name for item in value or ()]
            case HostDevice(name=name):
                names = [item.device for item in value or ()]
            case Sysctl(nic=str(nic), name=name):
                return next((path for path in _sysctl_paths(value or (), nic, name)), ())
            case _:
                return None
        return (self.name, names.index(name)) if name in names else ()

    def asks_for_all(self, value: Sequence[Interface] | None) -> tuple[Interface, ...]:
        """Return the sysctls and attributes that the manifest names, and nothing else of its interfaces."""
        bare = (replace(each, addresses=(), queues=0, vhost_user_socket=None) for each in value or ())
        return tuple(each for each in bare if each.sysctls or each.attributes or each.altnames is not None or each.made)

    def list_ours(self, observed: Observed) -> Iterator[str]:
        """Yield a line an interface, and a line for each of its addresses."""
        # Only a listing pays for the import.
        from reconciler.formats.iproute2 import address_words

        around = observed.around
        for interface in observed.sandbox.interfaces or ():
            yield self.words(interface)
            for address in interface.addresses:
                failed = (interface.name, address.key) in around.dad_failed
                tentative = (interface.name, address.key) in around.tentative
                yield f"  {address_words(address)}{' tentative' * tentative}{' duplicate' * failed}"
            yield from (f"  {full_name(interface.name, name)} = {value}" for name, value in interface.sysctls)

    def list_foreign(self, around: Surroundings) -> Iterator[str]:
        """Yield the names of links that are not ours."""
        return iter(sorted(around.links))


def _sysctl_paths(interfaces: Sequence[Interface], nic: str, full: str) -> Iterator[Path]:
    for index, interface in enumerate(interfaces):
        for name, _ in interface.sysctls if interface.name == nic else ():
            if full_name(nic, name) == full:
                yield ("interfaces", index, "sysctls", name)


def _words(interface: Interface) -> str:
    state = "up" if interface.up else "down"
    origin = made_links.words(interface.made) if interface.made else f"host {interface.device}"
    settings = [interface.hw_addr] * bool(interface.hw_addr) + [f"mtu {interface.mtu}"] * bool(interface.mtu)
    settings += [f"master {interface.master}"] * bool(interface.master)
    settings += [f"altname {quote(each)}" for each in interface.altnames or ()]
    return f"{interface.name} ({origin}): {' '.join([*settings, *attribute_words(interface.attributes), state])}"


def _check_kata(draft: Draft) -> Iterable[Finding]:
    # Few manifests are for kata-runtime.
    from reconciler.manifest import check_kata

    return check_kata.interfaces(draft.items(SECTION))


SECTION = _Interfaces(
    name="interfaces",
    read_item=read,
    write_item=write,
    words=_words,
    checks=_check,
    kata_checks=_check_kata,
)

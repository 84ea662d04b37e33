"""A virtual service and its servers in a manifest: checked data → model, and model → data.

A manifest holds thousands of them, and servers repeat: each spelling of a server is read once a section.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.manifest.compose import Path
from reconciler.manifest.schema import Finding
from reconciler.model.address import family_name, is_ipv6, is_unicast, pack, parse_address, unpack
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    Server,
    Service,
    scheduler_flag_names,
)

_ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
# What servers mostly have, and what needs no look at other fields.
_BY_THEMSELVES = frozenset(("address", "weight"))
_TUNNEL_FIELDS = ("tunType", "tunPort", "tunChecksum")
# Checksums that each kind of tunnel can have (ipvsadm(8)).
_CHECKSUMS = {"ipip": ("none",), "gre": ("none", "csum"), "gue": ("none", "csum", "remcsum")}


class _Context(NamedTuple):
    """What a server must know of its service."""

    fwmark: bool
    ipv6: bool
    port: int


# Servers by what is written of them, and those by what they know of their service (`_Context`).
_Known = dict[Hashable, Server]
Cache = dict[tuple[bool, bool, int], _Known]


def read(data: Mapping[str, Any], path: Path, findings: list[Finding], cache: Cache) -> Service | None:
    """Read a service that meets the schema. What else is wrong with it is added to `findings`; then there is none."""
    before = len(findings)
    protocol, address, port = _read_key(data, path, findings)
    scheduler = data.get("scheduler", DEFAULT_SCHEDULER)
    netmask: str | None = None
    flags: tuple[str, ...] = ()
    # Where the address is wrong there is nothing to compare the rest with.
    if address and "netmask" in data:
        netmask = _read_netmask(data["netmask"], address, path, findings)
    if "schedulerFlags" in data:
        flags = _read_flags(data["schedulerFlags"], scheduler, path, findings)
    one_packet = data.get("onePacket", False)
    if one_packet and protocol not in ("udp", FWMARK):
        findings.append(Finding((*path, "onePacket"), f"is for udp and fwmark services; this one is {protocol}"))
    servers: tuple[Server, ...] = ()
    if address and "servers" in data:
        known = cache.setdefault((protocol == FWMARK, ":" in address, port), {})
        try:
            servers = tuple([known[tuple(item.items())] for item in data["servers"]])
        except KeyError:
            context = _Context(protocol == FWMARK, ":" in address, port)
            servers = _read_servers(data["servers"], path, context, findings, known)
    if len(findings) > before:
        return None
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=flags,
        persistent=data.get("persistent", 0),
        netmask=netmask,
        persistence_engine=data.get("persistenceEngine"),
        one_packet=one_packet,
        servers=servers,
        ignore=tuple(data["ignore"]) if "ignore" in data else (),
    )


def _read_key(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> tuple[str, str, int]:
    for protocol in PROTOCOLS:
        if protocol in data:
            text = data[protocol]
            try:
                address, port = _split(text)
                return protocol, address, port or _no_port(text, address, port, persistent="persistent" in data)
            except ValueError as error:
                findings.append(Finding((*path, protocol), str(error)))
                return protocol, "", 0
    return FWMARK, _ANY[data.get("family", "ipv4")], data["fwmark"]


def _no_port(text: str, address: str, port: int | None, *, persistent: bool) -> int:
    """Give the port of a service that is for any. ValueError if it cannot be."""
    if port is None:
        raise ValueError(f"{text} has no port; write {write_address(address, 80)} for port 80")
    if not persistent:
        raise ValueError(f"{text} is for any port, which only a persistent service can be")
    return port


def _split(text: str) -> tuple[str, int | None]:
    """Read `address`, `address:port` or `[address]:port`. ValueError if it is none of them."""
    host, port = text, ""
    if text[0] == "[":
        host, closed, port = text[1:].partition("]")
        if not closed or ":" not in host or (port and port[0] != ":"):
            raise ValueError(f'"{text}" is not an address and port')
        port, given = port[1:], bool(port)
    elif given := text.count(":") == 1:
        host, _, port = text.partition(":")
    address = parse_address(host)
    if not given:
        return address, None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f'"{text}" has no valid port; expected 1 to 65535')
    return address, int(port)


def _read_netmask(value: str | int, address: str, path: Path, findings: list[Finding]) -> str | None:
    """Read the netmask of a service; that of a single address is none."""
    try:
        return _netmask6(value) if is_ipv6(address) else _netmask4(value)
    except ValueError as error:
        findings.append(Finding((*path, "netmask"), str(error)))
        return None


def _netmask6(value: str | int) -> str | None:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 128):
        raise ValueError(f"{text} is not a prefix length; an IPv6 service needs one from 1 to 128")
    return None if int(text) == 128 else str(int(text))


def _netmask4(value: str | int) -> str | None:
    bits = int(value) if str(value).isascii() and str(value).isdecimal() else None
    if bits is not None and bits <= 32:
        mask = unpack(((1 << 32) - (1 << (32 - bits))).to_bytes(4, "big"))
        raise ValueError(f"{bits} is a prefix length; the netmask of an IPv4 service is {mask}")
    try:
        packed = pack(str(value))
    except ValueError:
        packed = b""
    if len(packed) != 4:
        raise ValueError(f'"{value}" is not a netmask; an IPv4 service needs one such as 255.255.255.0')
    return None if packed == b"\xff" * 4 else str(value)


def _read_flags(names: Sequence[str], scheduler: str, path: Path, findings: list[Finding]) -> tuple[str, ...]:
    """Read scheduler flags: as ipvsadm prints them, by bit."""
    canonical = scheduler_flag_names(scheduler)
    flags: list[str] = []
    for index, name in enumerate(names):
        flag = canonical[SCHEDULER_FLAGS.index(name)] if name in SCHEDULER_FLAGS else name
        if flag not in canonical:
            message = f"{name} is no flag of {scheduler}; expected one of: {', '.join(canonical)}"
            findings.append(Finding((*path, "schedulerFlags", index), message))
        elif flag in flags:
            findings.append(Finding((*path, "schedulerFlags", index), f"{name} is listed twice"))
        flags.append(flag)
    return tuple(flag for flag in canonical if flag in flags)


def _read_servers(
    items: Sequence[Mapping[str, Any]], path: Path, context: _Context, findings: list[Finding], known: _Known
) -> tuple[Server, ...]:
    servers = []
    for index, item in enumerate(items):
        key = tuple(item.items())
        server = known.get(key)
        if server is None:
            server = _read_server(item, path, index, context, findings)
            if server is None:
                continue
            known[key] = server
        servers.append(server)
    return tuple(servers)


def _read_server(
    data: Mapping[str, Any], path: Path, index: int, context: _Context, findings: list[Finding]
) -> Server | None:
    """Read the server of an index of the service at `path`."""
    before = len(findings)
    address, port = "", 0
    try:
        address, port = _real(data["address"], data.get("forward", "nat"), context)
    except ValueError as error:
        findings.append(Finding((*path, "servers", index, "address"), str(error)))
    if not data.keys() <= _BY_THEMSELVES:
        _check_thresholds(data, (*path, "servers", index), findings)
        _check_tunnel(data, (*path, "servers", index), findings)
    if len(findings) > before:
        return None
    return Server(
        address=address,
        port=port,
        forward=data.get("forward", "nat"),
        weight=data.get("weight", 1),
        upper_threshold=data.get("upperThreshold", 0),
        lower_threshold=data.get("lowerThreshold", 0),
        tun_type=data.get("tunType", "ipip"),
        tun_port=data.get("tunPort", 0),
        tun_checksum=data.get("tunChecksum", "none"),
    )


def _real(text: str, forward: str, context: _Context) -> tuple[str, int]:
    """Read a server's address and port; a port that is not said is that of the service. ValueError if it cannot be."""
    address, port = _split(text)
    own = 0 if context.fwmark else context.port
    if not is_unicast(address):
        raise ValueError(f"{address} is not a unicast address")
    if is_ipv6(address) != context.ipv6 and forward != "tunnel":
        family = "IPv6" if context.ipv6 else "IPv4"
        raise ValueError(f"{address} is {family_name(address)} and the service {family}; that takes forward: tunnel")
    if port is None:
        return address, own
    if port != own and forward != "nat" and not context.fwmark:
        raise ValueError(f"{forward} does not change the port; expected {own}, or no port")
    return address, port


def _check_thresholds(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> None:
    lower, upper = data.get("lowerThreshold", 0), data.get("upperThreshold", 0)
    if lower and not upper:
        findings.append(Finding((*path, "lowerThreshold"), "needs an upperThreshold beside it", at_key=True))
    elif lower > upper:
        findings.append(Finding((*path, "lowerThreshold"), f"{lower} is above the upperThreshold, {upper}"))


def _check_tunnel(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> None:
    given = [field for field in _TUNNEL_FIELDS if field in data]
    if data.get("forward", "nat") != "tunnel":
        for field in given:
            findings.append(Finding((*path, field), "is of a tunnel; that takes forward: tunnel", at_key=True))
        return
    kind, checksum = data.get("tunType", "ipip"), data.get("tunChecksum", "none")
    if kind == "gue" and "tunPort" not in data:
        findings.append(Finding((*path, "tunPort"), "missing; a gue tunnel needs a UDP port from 1 to 65535"))
    if kind != "gue" and "tunPort" in data:
        findings.append(Finding((*path, "tunPort"), f"is of a gue tunnel; this one is {kind}", at_key=True))
    if checksum not in _CHECKSUMS[kind]:
        expected = " or ".join(_CHECKSUMS[kind])
        findings.append(Finding((*path, "tunChecksum"), f"{checksum} is not for {kind}; expected {expected}"))


def write(service: Service) -> dict[str, Any]:
    """Write a service as a manifest says it, defaults left out."""
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("family", "ipv6" if service.protocol == FWMARK and service.is_ipv6 else "", ""),
        ("scheduler", service.scheduler, DEFAULT_SCHEDULER),
        ("schedulerFlags", list(service.scheduler_flags), []),
        ("persistent", service.persistent, 0),
        ("netmask", _write_netmask(service), None),
        ("persistenceEngine", service.persistence_engine, None),
        ("onePacket", service.one_packet, False),
        ("ignore", list(service.ignore), []),
        ("servers", [_write_server(server, service) for server in service.servers], []),
    )
    return {service.protocol: _write_key(service)} | _set(fields)


def _set(fields: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Make a mapping of (field, value, default), defaults left out."""
    return {field: value for field, value, default in fields if value != default}


def _write_key(service: Service) -> str | int:
    return service.port if service.protocol == FWMARK else write_address(service.address, service.port)


def name(service: Service) -> str:
    """Name a service in a message that stands at its protocol."""
    return f"fwmark {service.port}" if service.protocol == FWMARK else write_address(service.address, service.port)


def write_address(address: str, port: int) -> str:
    """Write an address and port as one text."""
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"


def _write_netmask(service: Service) -> str | int | None:
    return int(service.netmask) if service.netmask and service.is_ipv6 else service.netmask


def _write_server(server: Server, service: Service) -> dict[str, Any]:
    bare = server.port == 0 and (service.port == 0 or service.protocol == FWMARK)
    fields = (
        ("weight", server.weight, 1),
        ("forward", server.forward, "nat"),
        ("upperThreshold", server.upper_threshold, 0),
        ("lowerThreshold", server.lower_threshold, 0),
        ("tunType", server.tun_type, "ipip"),
        ("tunPort", server.tun_port, 0),
        ("tunChecksum", server.tun_checksum, "none"),
    )
    return {"address": server.address if bare else write_address(server.address, server.port)} | _set(fields)

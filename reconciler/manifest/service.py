"""A virtual service and its servers in a manifest: checked data → model, and model → data.

A manifest may have thousands of services, and many of their servers are equal: each spelling of a server is read once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.model.address import is_ipv6, pack, parse_address, unpack
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    PORT_MAX,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    Server,
    ServerProblem,
    Service,
    ServiceKey,
    endpoint_problems,
    scheduler_flag_names,
    threshold_problems,
    tunnel_problems,
)

_ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
# Most servers have only these; nothing can be wrong with their other fields.
_PLAIN_FIELDS = frozenset(("address", "weight"))
_TUNNEL_FIELDS = {"tun_type": "tunType", "tun_port": "tunPort", "tun_checksum": "tunChecksum"}
# The fields of Server as a manifest has them.
_FIELDS = {"address": "address", "port": "address", "lower_threshold": "lowerThreshold", **_TUNNEL_FIELDS}

# Servers by their fields, and these by what a server depends on: whether its service has a mark, is IPv6, and its port.
_Known = dict[Hashable, Server]
Cache = dict[tuple[bool, bool, int], _Known]


def read(data: Mapping[str, Any], path: Path, findings: list[Finding], cache: Cache) -> Service | None:
    """Read a service that is valid by the schema. Return None if it is wrong otherwise; this is added to `findings`."""
    before = len(findings)
    protocol, address, port = _read_key(data, path, findings)
    scheduler = data.get("scheduler", DEFAULT_SCHEDULER)
    netmask: str | None = None
    flags: tuple[str, ...] = ()
    # Without a valid address, netmask and servers cannot be checked.
    if address and "netmask" in data:
        netmask = _read_netmask(data["netmask"], address, path, findings)
    if "schedulerFlags" in data:
        flags = _read_flags(data["schedulerFlags"], scheduler, path, findings)
    one_packet = data.get("onePacket", False)
    if one_packet and protocol not in ("udp", FWMARK):
        findings.append(
            Finding((*path, "onePacket"), f"is possible only for udp and fwmark services; this one is {protocol}")
        )
    servers: tuple[Server, ...] = ()
    if address and "servers" in data:
        known = cache.setdefault((protocol == FWMARK, ":" in address, port), {})
        try:
            servers = tuple([known[tuple(item.items())] for item in data["servers"]])
        except KeyError:
            servers = _read_servers(data["servers"], path, (protocol, address, port), findings, known)
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
                address, port = split_address(text)
                return protocol, address, port or _no_port(text, address, port, persistent="persistent" in data)
            except ValueError as error:
                findings.append(Finding((*path, protocol), str(error)))
                return protocol, "", 0
    return FWMARK, _ANY[data.get("family", "ipv4")], data["fwmark"]


def _no_port(text: str, address: str, port: int | None, *, persistent: bool) -> int:
    """Return port 0, which stands for all ports. ValueError if the port is missing or the service is not persistent."""
    if port is None:
        raise ValueError(_missing_port(text, address))
    if not persistent:
        raise ValueError(f"{text} means all ports, which needs a persistent service")
    return port


def _missing_port(text: str, address: str) -> str:
    """Return what to write for an address without a port. The last part of an IPv6 address may be meant as the port."""
    host, _, last = text.rpartition(":")
    if is_ipv6(address) and last.isdecimal() and 0 < int(last) <= PORT_MAX and _is_address(host):
        return f"{text} is an address without a port; write [{host}]:{last} if {last} is the port"
    return f"{text} has no port; write {write_address(address, 80)} for port 80"


def _is_address(text: str) -> bool:
    try:
        return bool(pack(text))
    except ValueError:
        return False


def split_address(text: str) -> tuple[str, int | None]:
    """Read `address`, `address:port` or `[address]:port`; a missing port is None. ValueError if it is none of them."""
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
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= PORT_MAX):
        raise ValueError(f'"{text}" has no valid port; expected 1 to {PORT_MAX}')
    return address, int(port)


def _read_netmask(value: str | int, address: str, path: Path, findings: list[Finding]) -> str | None:
    """Read the netmask of a service; that of a single address is None."""
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
    """Read scheduler flags. Return them under the names that ipvsadm prints, in the order of their bits."""
    canonical = scheduler_flag_names(scheduler)
    flags: list[str] = []
    for index, name in enumerate(names):
        flag = canonical[SCHEDULER_FLAGS.index(name)] if name in SCHEDULER_FLAGS else name
        if flag not in canonical:
            message = f"{name} is not a flag of {scheduler}; expected one of: {', '.join(canonical)}"
            findings.append(Finding((*path, "schedulerFlags", index), message))
        elif flag in flags:
            findings.append(Finding((*path, "schedulerFlags", index), f"{name} is listed twice"))
        flags.append(flag)
    return tuple(flag for flag in canonical if flag in flags)


def _read_servers(
    items: Sequence[Mapping[str, Any]], path: Path, service: ServiceKey, findings: list[Finding], known: _Known
) -> tuple[Server, ...]:
    servers = []
    for index, item in enumerate(items):
        key = tuple(item.items())
        server = known.get(key)
        if server is None:
            server = _read_server(item, (*path, "servers", index), service, findings)
            if server is None:
                continue
            known[key] = server
        servers.append(server)
    return tuple(servers)


def _read_server(data: Mapping[str, Any], path: Path, service: ServiceKey, findings: list[Finding]) -> Server | None:
    before = len(findings)
    address, port = "", 0
    forward = data.get("forward", "nat")
    try:
        address, port = _read_endpoint(data["address"], service)
        findings += _findings(endpoint_problems(address, port, forward, service), path)
    except ValueError as error:
        findings.append(Finding((*path, "address"), str(error)))
    upper, lower = data.get("upperThreshold", 0), data.get("lowerThreshold", 0)
    tun_type, tun_port = data.get("tunType", "ipip"), data.get("tunPort", 0)
    tun_checksum = data.get("tunChecksum", "none")
    if not data.keys() <= _PLAIN_FIELDS:
        given = [field for field, name in _TUNNEL_FIELDS.items() if name in data]
        findings += _findings(threshold_problems(upper, lower), path)
        findings += _findings(tunnel_problems(forward, tun_type, tun_port, tun_checksum, given), path)
    if len(findings) > before:
        return None
    return Server(
        address=address,
        port=port,
        forward=forward,
        weight=data.get("weight", 1),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=tun_type,
        tun_port=tun_port,
        tun_checksum=tun_checksum,
    )


def _read_endpoint(text: str, service: ServiceKey) -> tuple[str, int]:
    """Read a server's address and port. A missing port is that of the service. ValueError if it is no address."""
    address, port = split_address(text)
    if port is not None:
        return address, port
    protocol, _, service_port = service
    return address, 0 if protocol == FWMARK else service_port


def _findings(problems: Iterable[ServerProblem], path: Path) -> Iterator[Finding]:
    """Yield findings for the problems of the server at a path."""
    for each in problems:
        message = each.message.format(tunnel="forward: tunnel")
        yield Finding((*path, _FIELDS[each.field]), message, at_key=each.misplaced)


def write(service: Service) -> dict[str, Any]:
    """Return the data of a service, without defaults."""
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("family", "ipv6" if service.protocol == FWMARK and service.is_ipv6 else "", ""),
        ("scheduler", service.scheduler, DEFAULT_SCHEDULER),
        ("schedulerFlags", list(service.scheduler_flags), []),
        ("persistent", max(service.persistent, 0) if service.persistent else None, None),
        ("netmask", _write_netmask(service), None),
        ("persistenceEngine", service.persistence_engine, None),
        ("onePacket", service.one_packet, False),
        ("ignore", list(service.ignore), []),
        ("servers", [_write_server(server, service) for server in service.servers], []),
    )
    return {service.protocol: _write_key(service)} | _set(fields)


def _set(fields: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Return a mapping of (field, value, default), without defaults."""
    return {field: value for field, value, default in fields if value != default}


def _write_key(service: Service) -> str | int:
    return service.port if service.protocol == FWMARK else write_address(service.address, service.port)


def name(service: Service) -> str:
    """Return the name of a service for a message at the field of its protocol."""
    return f"fwmark {service.port}" if service.protocol == FWMARK else write_address(service.address, service.port)


def write_address(address: str, port: int) -> str:
    """Return an address and port as one text."""
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

"""The table as `ipvsadm -Ln` prints it, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reconciler.model.address import is_ipv6, pack, parse_address
from reconciler.model.ipvs import FWMARK, PERSISTENT_ZERO, PROTOCOLS, Server, ServerKey, Service, ServiceKey
from reconciler.values import replace

_FORWARDS = {"nat": "Masq", "dr": "Route", "tunnel": "Tunnel", "localnode": "Local"}
# What ipvsadm prints for a forward without a word of its own; we print its name or number.
_FORWARD_OF = {word: forward for forward, word in _FORWARDS.items()} | {"(null)": "unknown", "bypass": "bypass"}
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp", "FWM": FWMARK}
# A protocol without a word of its own, as /proc/net/ip_vs has it: this and its number.
_NUMBERED = "IP_"

# Returns how many connections a server has: active ones, and inactive ones.
Counts = Callable[[ServiceKey, ServerKey], tuple[int, int]]


def list_services(services: Iterable[Service], counts: Counts) -> Iterator[str]:
    """Yield the lines for services and their servers, in ipvsadm's order, below its headings."""
    yield "Prot LocalAddress:Port Scheduler Flags"
    yield "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
    for service in in_order(services):
        yield " ".join([_service_words(service.key), *_setting_words(service)])
        for server in service.servers:
            active, inactive = counts(service.key, server.key)
            forward = _FORWARDS.get(server.forward, server.forward)
            endpoint = _endpoint(*server.key)
            yield f"  -> {endpoint:<28} {forward:<7} {server.weight:<6} {active:<10} {inactive:<10}"


def in_order(services: Iterable[Service]) -> list[Service]:
    """Return services and servers in ipvsadm's order: by mark (none first), family, protocol, address and port."""
    ordered = sorted(services, key=_service_order)
    return [_with_servers_in_order(service) for service in ordered]


def _with_servers_in_order(service: Service) -> Service:
    return replace(service, servers=tuple(sorted(service.servers, key=_server_order)))


def _service_order(service: Service) -> tuple[int, bool, int, bytes, int]:
    protocol, address, port = service.key
    mark = port if protocol == FWMARK else 0
    order = (FWMARK, *PROTOCOLS)
    number = order.index(protocol) if protocol in order else len(order) + int(protocol)
    return mark, is_ipv6(address), number, pack(address), port


def _server_order(server: Server) -> tuple[bool, bytes, int]:
    return is_ipv6(server.address), pack(server.address), server.port


def _service_words(key: ServiceKey) -> str:
    protocol, address, port = key
    if protocol == FWMARK:
        return f"FWM  {port} IPv6" if is_ipv6(address) else f"FWM  {port}"
    name = protocol.upper() if protocol in PROTOCOLS else f"{_NUMBERED}{protocol}"
    return f"{name:<4} {_endpoint(address, port)}"


def _setting_words(service: Service) -> Iterator[str]:
    yield service.scheduler
    if service.kernel_flags:
        yield f"({','.join(service.kernel_flags)})"
    if service.one_packet:
        yield "ops"
    if service.persistent:
        yield f"persistent {max(service.persistent, 0)}"
    if service.netmask:
        yield f"mask {service.netmask}"
    if service.persistence_engine:
        yield f"pe {service.persistence_engine}"
    if service.other_flags:
        yield f"flags {service.other_flags:#x}"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"


def parse_listing(text: str) -> list[Service]:
    """Read what `ipvsadm -Ln` prints: services, each with its servers. ValueError with the number of the wrong line.

    The listing lacks the types of tunnels and the thresholds of servers; they have their defaults.
    """
    services: list[tuple[Service, list[Server]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == ["->"] and words[1] != "RemoteAddress:Port":
                services[-1][1].append(_read_server(words))
            elif words[:1] and (words[0] in _PROTOCOLS or words[0].startswith(_NUMBERED)):
                services.append((_read_service(words), []))
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"line {number}: {line.strip()}: {error}") from None
    return [replace(service, servers=tuple(servers)) for service, servers in services]


def _read_service(words: list[str]) -> Service:
    """Read the words of a service: protocol, address and port, scheduler, and settings by name."""
    kind, endpoint, *rest = words
    protocol = _PROTOCOLS[kind] if kind in _PROTOCOLS else str(int(kind.removeprefix(_NUMBERED)))
    if protocol == FWMARK:
        ipv6 = rest[:1] == ["IPv6"]
        address, port = "::" if ipv6 else "0.0.0.0", int(endpoint)
        rest = rest[ipv6:]
    else:
        address, port = _split(endpoint)
    scheduler, *rest = rest
    flags = rest.pop(0)[1:-1].split(",") if rest[:1] and rest[0].startswith("(") else []
    one_packet = rest[:1] == ["ops"]
    rest = rest[one_packet:]
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    if not given.keys() <= {"persistent", "mask", "pe", "flags"}:
        raise ValueError("unknown settings")
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=tuple(flags),
        persistent=int(given.get("persistent", 0)) if given.get("persistent") != "0" else PERSISTENT_ZERO,
        netmask=given.get("mask"),
        persistence_engine=given.get("pe"),
        one_packet=one_packet,
        other_flags=int(given.get("flags", "0"), 0),
    )


def _read_server(words: list[str]) -> Server:
    _, endpoint, forward, weight, *_ = words
    address, port = _split(endpoint)
    return Server(address=address, port=port, forward=_read_forward(forward), weight=int(weight))


def _read_forward(word: str) -> str:
    return word if word.isdecimal() else _FORWARD_OF[word]


def _split(endpoint: str) -> tuple[str, int]:
    address, _, port = endpoint.rpartition(":")
    return parse_address(address.strip("[]")), int(port)

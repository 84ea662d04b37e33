"""IPVS in netlink's format: encode an operation, decode a dump.

Source: include/uapi/linux/ip_vs.h (enum IPVS_CMD_*, IPVS_SVC_ATTR_*, IPVS_DEST_ATTR_*), net/netfilter/ipvs/ip_vs_ctl.c
(ip_vs_genl_fill_service, ip_vs_genl_fill_dest), include/uapi/linux/genetlink.h.

Messages are built in the very order in which the kernel dumps. So a dumped service or server that equals a desired one
is found by its bytes and never decoded. If a kernel uses another order, decoding has the same result but takes longer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from socket import AF_INET, AF_INET6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import assert_never

from reconciler.errors import ProtocolError
from reconciler.model.address import is_ipv6, unpack
from reconciler.model.address import pack as pack_address
from reconciler.model.ipvs import (
    FALLBACK_FLAGS,
    FORWARDS,
    FWMARK,
    PERSISTENT_ZERO,
    TUN_CHECKSUMS,
    TUN_TYPES,
    Load,
    Server,
    Service,
    ServiceKey,
    Timeouts,
    scheduler_flag_names,
)
from reconciler.netlink import message
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    MarkService,
    MessageOperation,
    SetTimeouts,
    StopFallback,
)

# Our mark in a service's flags: one of the bits that the kernel keeps but does not use.
MARK = 0x40000000
# With the fallback flag of a scheduler: we have switched it on while servers drain.
DRAINING = 0x20000000
_PERSISTENT, _HASHED, _ONE_PACKET = 0x1, 0x2, 0x4
_SCHEDULER_BITS = (0x8, 0x10, 0x20)
# The bits that an edit may change; other bits stay. The kernel sets _HASHED itself; a request must not contain it.
_OURS = _PERSISTENT | _ONE_PACKET | MARK | DRAINING | sum(_SCHEDULER_BITS)
_ALL = 0xFFFFFFFF

# genetlink.h: the controller, its command to look up a family by name, and the attributes of request and answer.
_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DEST, _SET_DEST, _DEL_DEST, _GET_DEST = 5, 6, 7, 8
_SET_CONFIG, _GET_CONFIG = 12, 13
# IPVS_CMD_ATTR_*.
_SERVICE, _DEST, _TIMEOUT_TCP, _TIMEOUT_FIN, _TIMEOUT_UDP = 1, 2, 4, 5, 6
# IPVS_SVC_ATTR_*.
_AF, _PROTOCOL, _ADDR, _PORT, _FWMARK, _SCHED, _FLAGS, _TIMEOUT, _NETMASK, _STATS, _PE = range(1, 12)
# IPVS_DEST_ATTR_*: these three identify a server; the others are in _SERVER.
_DEST_ACTIVE, _DEST_INACTIVE, _DEST_PERSISTENT, _DEST_FAMILY = 7, 8, 9, 11

_HEAD = struct.Struct("=BBH")
# What a count is if a kernel does not report it.
_NO_COUNT = bytes(4)
_BODY_AT = 8
_U16, _U32, _PORT_FORM, _FLAGS_FORM = (
    struct.Struct("=H"),
    struct.Struct("=I"),
    struct.Struct("!H"),
    struct.Struct("=II"),
)
# All that identifies a service: one with an address, and one with a firewall mark.
_IDENTITY = struct.Struct("=HHHxx HHHxx HH16s HH2sxx")
_FWMARK_IDENTITY = struct.Struct("=HHHxx HHI")
# The netmask of a persistent IPv4 service that has none.
_ALL_BITS = b"\xff" * 4
# If a dump has this very order, these attributes are at these places.
_AF_FIRST, _PROTOCOL_NEXT, _PORT_LAST = _U16.pack(_AF), _U16.pack(_PROTOCOL), _U16.pack(_PORT)
# All fields of a server that a manifest can set, with the header of each attribute, and then its family.
_SERVER = struct.Struct("=HH16s HH2sxx HHI HHI HHBxxx HH2sxx HHHxx HHI HHI")
_SERVER_FAMILY = struct.Struct("=HHHxx")
_COUNTERS_SIZE = 24
PROTOCOL_NUMBERS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "sctp": IPPROTO_SCTP}
# IP_VS_CONN_F_*: masquerade, direct route, tunnel; and those that only other programs set.
FORWARD_NUMBERS = {**dict(zip(FORWARDS, (0, 3, 2), strict=True)), "localnode": 1, "bypass": 4}
_TUN_TYPES = {name: number for number, name in enumerate(TUN_TYPES)}
_TUN_CHECKSUMS = {name: number for number, name in enumerate(TUN_CHECKSUMS)}


def family_request(sequence: int) -> bytes:
    """Build a request to the controller for the number of the IPVS family; the kernel loads the module if needed."""
    body = _HEAD.pack(_GET_FAMILY, 1, 0) + message.attribute(_FAMILY_NAME, b"IPVS\0")
    return message.pack(_CONTROLLER, message.REQUEST | message.ACK, sequence, body)


def decode_family(payload: bytes) -> int:
    """Return the number of the IPVS family from the controller's answer."""
    for kind, value in message.attributes(payload, _HEAD.size):
        if kind == _FAMILY_ID and len(value) == 2:
            return int(_U16.unpack(value)[0])
    raise ProtocolError("the kernel's answer lacks the number of the IPVS family")


def dump_services_request(family: int, sequence: int) -> bytes:
    """Build a request for all services."""
    return _request(family, _GET_SERVICE, sequence, b"", message.DUMP)


def get_service_request(family: int, key: ServiceKey, sequence: int) -> bytes:
    """Build a request for one service."""
    return _request(family, _GET_SERVICE, sequence, _named(key))


def dump_servers_request(family: int, identity: bytes, sequence: int) -> bytes:
    """Build a request for the servers of a service."""
    return _request(family, _GET_DEST, sequence, message.attribute(_SERVICE, identity), message.DUMP)


def get_timeouts_request(family: int, sequence: int) -> bytes:
    """Build a request for the timeouts."""
    return _request(family, _GET_CONFIG, sequence, b"", message.ACK)


def _request(family: int, command: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return message.pack(family, message.REQUEST | flags, sequence, _HEAD.pack(command, 1, 0) + body)


def encode(operation: MessageOperation, family: int, sequence: int) -> bytes:
    """Build the request of an operation."""
    match operation:
        case AddService(service=service):
            return _request(family, _NEW_SERVICE, sequence, message.attribute(_SERVICE, _settings(service, _OURS)))
        case EditService(service=service) | MarkService(service=service) | StopFallback(service=service):
            return _request(family, _SET_SERVICE, sequence, message.attribute(_SERVICE, _settings(service, _OURS)))
        case DeleteService(service=service):
            return _request(family, _DEL_SERVICE, sequence, _named(service.key))
        case AddServer(service=key, server=server):
            return _request(family, _NEW_DEST, sequence, _named(key) + message.attribute(_DEST, encode_server(server)))
        case EditServer(service=key, server=server) | DrainServer(service=key, server=server):
            return _request(family, _SET_DEST, sequence, _named(key) + message.attribute(_DEST, encode_server(server)))
        case DeleteServer(service=key, server=server):
            return _request(family, _DEL_DEST, sequence, _named(key) + message.attribute(_DEST, encode_server(server)))
        case SetTimeouts(timeouts=timeouts):
            attributes = zip((_TIMEOUT_TCP, _TIMEOUT_FIN, _TIMEOUT_UDP), timeouts, strict=True)
            body = b"".join(_u32(kind, seconds) for kind, seconds in attributes if seconds is not None)
            return _request(family, _SET_CONFIG, sequence, body)
        case _:
            assert_never(operation)


# The operations on a service and on its servers follow each other, so the same key is encoded many times in a row.
@lru_cache(maxsize=8)
def _named(key: ServiceKey) -> bytes:
    return message.attribute(_SERVICE, encode_identity(key))


def encode_identity(key: ServiceKey) -> bytes:
    """Build the attributes that identify a service."""
    protocol, address, port = key
    family = AF_INET6 if is_ipv6(address) else AF_INET
    if protocol == FWMARK:
        return _FWMARK_IDENTITY.pack(6, _AF, family, 8, _FWMARK, port)
    number, packed = number_of(protocol, PROTOCOL_NUMBERS), pack_address(address)
    return _IDENTITY.pack(6, _AF, family, 6, _PROTOCOL, number, 20, _ADDR, packed, 6, _PORT, _PORT_FORM.pack(port))


def identity_of(protocol: int, address: bytes, port: bytes, mark: int) -> bytes:
    """Build the same of an IPv4 service of which the kernel tells this; one with a mark has nothing else."""
    if mark:
        return _FWMARK_IDENTITY.pack(6, _AF, AF_INET, 8, _FWMARK, mark)
    return _IDENTITY.pack(6, _AF, AF_INET, 6, _PROTOCOL, protocol, 20, _ADDR, address, 6, _PORT, port)


def encode_settings(service: Service) -> bytes:
    """Build the bytes that the kernel dumps for a service, up to its statistics."""
    return encode_identity(service.key) + encode_traits(service)


def encode_traits(service: Service) -> bytes:
    """Build the bytes that the kernel dumps for a service behind its identity, up to its statistics."""
    return _traits(service, _ALL)


def _settings(service: Service, mask: int) -> bytes:
    return encode_identity(service.key) + _traits(service, mask)


def _traits(service: Service, mask: int) -> bytes:
    flags = (MARK if service.marked else 0) | (_PERSISTENT if service.persistent else 0)
    flags |= _ONE_PACKET if service.one_packet else 0
    flags |= scheduler_bits(service.scheduler, service.kernel_flags) | (_HASHED & mask)
    flags |= DRAINING if service.draining else 0
    netmask = _encode_netmask(service.netmask, ipv6=service.is_ipv6)
    return _encode_traits(
        service.scheduler, service.persistence_engine or "", flags, mask, max(service.persistent, 0), netmask
    )


# Services differ little except in their key.
@lru_cache(maxsize=256)
def _encode_traits(scheduler: str, engine: str, flags: int, mask: int, timeout: int, netmask: bytes) -> bytes:
    return b"".join(
        (
            message.attribute(_SCHED, scheduler.encode() + b"\0"),
            message.attribute(_PE, engine.encode() + b"\0") if engine else b"",
            message.attribute(_FLAGS, _FLAGS_FORM.pack(flags, mask)),
            _u32(_TIMEOUT, timeout),
            message.attribute(_NETMASK, netmask),
        )
    )


def scheduler_bits(scheduler: str, flags: tuple[str, ...]) -> int:
    """Return the bits of a scheduler's flags; `sh` and `mh` have names of their own for two of them."""
    if not flags:
        return 0
    names = zip(_SCHEDULER_BITS, scheduler_flag_names(scheduler), strict=True)
    return sum(bit for bit, name in names if name in flags)


def _decode_flags(scheduler: str, flags: int) -> tuple[tuple[str, ...], bool]:
    """Return a scheduler's flags, and whether we have switched on its fallback flag, which is then not among them."""
    names = zip(_SCHEDULER_BITS, scheduler_flag_names(scheduler), strict=True)
    found = tuple(name for bit, name in names if flags & bit)
    fallback = FALLBACK_FLAGS.get(scheduler)
    draining = bool(flags & DRAINING) and fallback in found
    return tuple(name for name in found if name != fallback) if draining else found, draining


def _encode_netmask(netmask: str | None, *, ipv6: bool) -> bytes:
    if ipv6:
        return _U32.pack(int(netmask or 128))
    return pack_address(netmask) if netmask else _ALL_BITS


def _decode_netmask(value: bytes, *, ipv6: bool, persistent: int) -> str | None:
    """Return a netmask in ipvsadm's notation; None if the service is not persistent, as it has no effect then."""
    if not persistent or value == _encode_netmask(None, ipv6=ipv6):
        return None
    return str(_number(value)) if ipv6 else unpack(value)


def encode_server(server: Server) -> bytes:
    """Build the bytes that the kernel dumps for a server up to its counters, and its family, which follows them."""
    return _SERVER.pack(
        *(20, 1, _address(server.address), 6, 2, _PORT_FORM.pack(server.port)),
        *(8, 3, number_of(server.forward, FORWARD_NUMBERS), 8, 4, server.weight),
        *(5, 13, number_of(server.tun_type, _TUN_TYPES), 6, 14, _PORT_FORM.pack(server.tun_port)),
        *(6, 15, number_of(server.tun_checksum, _TUN_CHECKSUMS)),
        *(8, 5, server.upper_threshold, 8, 6, server.lower_threshold),
    ) + _SERVER_FAMILY.pack(6, _DEST_FAMILY, AF_INET6 if ":" in server.address else AF_INET)


def number_of(name: str, numbers: Mapping[str, int]) -> int:
    """Return the number of a name. A value that has no name is its number as text."""
    return numbers[name] if name in numbers else int(name)


def _name_of(number: int, numbers: Mapping[str, int]) -> str:
    """Return the name of a number; the number as text if it has no name. See `number_of`."""
    return next((name for name, known in numbers.items() if known == number), str(number))


# A large table has few different addresses of servers.
@lru_cache(maxsize=1 << 16)
def _address(text: str) -> bytes:
    return pack_address(text)


def _u32(kind: int, value: int) -> bytes:
    return message.attribute(kind, _U32.pack(value))


def identity(payload: bytes) -> bytes:
    """Return the bytes that identify a dumped service, as `encode_identity` builds them."""
    if payload[10:12] == _AF_FIRST and payload[18:20] == _PROTOCOL_NEXT and payload[46:48] == _PORT_LAST:
        return payload[_BODY_AT : _BODY_AT + _IDENTITY.size]
    return encode_identity(decode_service(payload).key)


def is_same_service(payload: bytes, settings: bytes) -> bool:
    """Return whether a dumped service has the settings that `encode_settings` built."""
    return payload.startswith(settings, _BODY_AT)


def server_bytes(payload: bytes) -> bytes:
    """Return the part of a dumped server that `encode_server` builds."""
    end = _BODY_AT + _SERVER.size
    family = end + _COUNTERS_SIZE
    return payload[_BODY_AT:end] + payload[family : family + _SERVER_FAMILY.size]


def is_service(payload: bytes) -> bool:
    """Return whether a message of the family is a dumped service."""
    return len(payload) > _BODY_AT and payload[0] == _NEW_SERVICE


def is_server(payload: bytes) -> bool:
    """Return whether a message of the family is a dumped server."""
    return len(payload) > _BODY_AT and payload[0] == _NEW_DEST


def decode_service(payload: bytes) -> Service:
    """Read a dumped service, without its servers."""
    found = _nested(payload, _SERVICE)
    family = _number(found.get(_AF, b""))
    if family not in {AF_INET, AF_INET6}:
        raise ProtocolError(f"IPVS service of address family {family}")
    ipv6 = family == AF_INET6
    flags = _number(found.get(_FLAGS, b"")[:4])
    scheduler = _text(found.get(_SCHED, b""))
    persistent = _number(found.get(_TIMEOUT, b"")) or PERSISTENT_ZERO if flags & _PERSISTENT else 0
    protocol, address, port = _decode_key(found, ipv6=ipv6)
    scheduler_flags, draining = _decode_flags(scheduler, flags)
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=scheduler_flags,
        persistent=persistent,
        netmask=_decode_netmask(_exactly(found.get(_NETMASK, b""), 4), ipv6=ipv6, persistent=persistent),
        persistence_engine=_text(found[_PE]) if _PE in found else None,
        one_packet=bool(flags & _ONE_PACKET),
        marked=bool(flags & MARK),
        draining=draining,
        other_flags=flags & ~(_OURS | _HASHED),
    )


def _decode_key(found: dict[int, bytes], *, ipv6: bool) -> ServiceKey:
    if _FWMARK in found:
        return FWMARK, "::" if ipv6 else "0.0.0.0", _number(found[_FWMARK])
    protocol = _name_of(_number(found.get(_PROTOCOL, b"")), PROTOCOL_NUMBERS)
    return protocol, _decode_address(found.get(_ADDR, b""), ipv6=ipv6), _port(found.get(_PORT, b""))


def decode_server(payload: bytes) -> tuple[Server, Load]:
    """Read a dumped server, and how many connections it has."""
    found = _nested(payload, _DEST)
    family = _number(found.get(_DEST_FAMILY, b""))
    if family not in {AF_INET, AF_INET6}:
        raise ProtocolError(f"IPVS server of address family {family}")
    server = Server(
        address=_decode_address(found.get(1, b""), ipv6=family == AF_INET6),
        port=_port(found.get(2, b"")),
        forward=_name_of(_number(found.get(3, b"")), FORWARD_NUMBERS),
        weight=_number(found.get(4, b"")),
        upper_threshold=_number(found.get(5, b"")),
        lower_threshold=_number(found.get(6, b"")),
        tun_type=_name_of(_number(found.get(13, b"\0")), _TUN_TYPES),
        tun_port=_port(found.get(14, b"\0\0")),
        tun_checksum=_name_of(_number(found.get(15, b"\0\0")), _TUN_CHECKSUMS),
    )
    counts = (found.get(_DEST_ACTIVE, b""), found.get(_DEST_INACTIVE, b""), found.get(_DEST_PERSISTENT, _NO_COUNT))
    return server, Load(*map(_number, counts))


def decode_timeouts(payload: bytes) -> Timeouts:
    """Read the timeouts."""
    found = dict(message.attributes(payload, _HEAD.size))
    return Timeouts(*(_number(found.get(kind, b"")) for kind in (_TIMEOUT_TCP, _TIMEOUT_FIN, _TIMEOUT_UDP)))


def _nested(payload: bytes, kind: int) -> dict[int, bytes]:
    for found, value in message.attributes(payload, _HEAD.size):
        if found == kind:
            return dict(message.attributes(value))
    raise ProtocolError("IPVS message without the attribute of its service, server or timeouts")


def _number(value: bytes) -> int:
    if len(value) not in {1, 2, 4}:
        raise ProtocolError(f"IPVS number of {len(value)} bytes")
    return int.from_bytes(value, "little" if _U16.pack(1)[0] else "big")


def _port(value: bytes) -> int:
    return int(_PORT_FORM.unpack(_exactly(value, 2))[0])


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ProtocolError(f"IPVS attribute of {len(value)} bytes; {size} were expected")
    return value


def _decode_address(value: bytes, *, ipv6: bool) -> str:
    return unpack(_exactly(value, 16)[: 16 if ipv6 else 4])


def _text(value: bytes) -> str:
    """Read a name of the kernel without its final NUL. ProtocolError if it is long or not printable."""
    text = value.rstrip(b"\0").decode("ascii", errors="replace")
    if not 0 < len(text) <= 16 or not text.isprintable():
        raise ProtocolError(f"IPVS name {text[:20]!r}")
    return text

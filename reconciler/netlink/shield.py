"""A table of nftables that keeps packets of guarded IPVS services from the director's own TCP.

While no service of a family exists, the kernel has no hook of IPVS: packets for a service reach the director's own TCP,
which ends the connection (RST). Untranslated answers of servers reach the clients, whose TCP does the same. The table
drops the former after IPVS had its turn, and the RST of the latter on their way to the servers.

It is ours by its name. It belongs to the netlink socket that made it: nobody else can change it, and it ends with that
socket (NFT_TABLE_F_OWNER, since Linux 5.12).
Source: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h; net/netfilter/ipvs/ip_vs_core.c (ip_vs_ops4).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from socket import AF_INET, AF_INET6, IPPROTO_TCP

from reconciler.errors import HostError, ProtocolError
from reconciler.model.address import pack
from reconciler.model.ipvs import Service
from reconciler.netlink import message
from reconciler.netlink.channel import Channel
from reconciler.netlink.message import attribute

NAME = "reconciler"
# NFNL_SUBSYS_NFTABLES << 8, with NFT_MSG_*; NFNL_MSG_BATCH_BEGIN and _END.
_SUBSYSTEM = 10
NEW_TABLE, GET_TABLE, DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENTS = (
    _SUBSYSTEM << 8 | number for number in (0, 1, 2, 3, 6, 9, 12)
)
_BEGIN, _END = 0x10, 0x11
_NFGENMSG = struct.Struct("!BBH")
_FAMILIES: dict[int, int] = {AF_INET: 2, AF_INET6: 10}
_OWNER = 0x2
# NF_INET_LOCAL_IN, _FORWARD; the hooks of IPVS there have the priorities 98 to 100.
_INPUT, _FORWARD, _PRIORITY, _ACCEPT = 1, 2, 110, 1
# NFT_META_L4PROTO; NFT_PAYLOAD_NETWORK_HEADER, _TRANSPORT_HEADER; NFT_REG32_00, of 4 bytes each; NFT_REG_VERDICT.
_L4PROTO, _NETWORK, _TRANSPORT, _REGISTER, _VERDICT = 16, 1, 2, 8, 0
_EQUAL, _UNEQUAL, _TCP_RST = 0, 1, 0x04
# Of the headers: where the destination is, how long it is; the port of TCP, its flags.
_DESTINATIONS: dict[int, tuple[int, int]] = {AF_INET: (16, 4), AF_INET6: (24, 16)}
_PORT_AT, _FLAGS_AT = 2, 13
# The kernel's names of types for `nft list`: ipv4_addr, ipv6_addr, inet_service; 6 bits for each.
_TYPES: dict[int, int] = {AF_INET: 7 << 6 | 13, AF_INET6: 8 << 6 | 13}
# Elements of one message, whose attribute has at most 64 KB.
_ELEMENTS = 1000
# What a kernel without nf_tables answers.
_LACKING = {errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}

_Place = tuple[str, int]


def install(channel: Channel, services: Iterable[Service], local: Collection[str], next_: Callable[[], int]) -> int:
    """Make the tables for services, in place of earlier ones. Return how many services they protect.

    `local`: the addresses of the director; a service with a server there is left out, as its packets are to reach it.
    HostError if the kernel has no nf_tables, or another program has a table of that name.
    """
    chosen = [each for each in services if _is_protected(each, local)]
    for family in _FAMILIES:
        check(channel, family, next_)
        ours = [each for each in chosen if each.is_ipv6 == (family == AF_INET6)]
        there = {(each.address, each.port) for each in ours}
        behind = {(s.address, s.port) for each in ours for s in each.servers if s.forward == "nat" and s.port}
        _exchange(channel, list(transaction(family, sorted(there), sorted(behind), next_)))
    return len(chosen)


def remove(channel: Channel, next_: Callable[[], int]) -> None:
    """Delete the tables."""
    for family in _FAMILIES:
        if check(channel, family, next_):
            _exchange(channel, [*_framed([_message(DELETE_TABLE, family, next_(), _named())], next_)])


def check(channel: Channel, family: int, next_: Callable[[], int]) -> bool:
    """Return whether the table of a family exists. HostError if the kernel has no nf_tables."""
    sequence = next_()
    request = message.pack(GET_TABLE, message.REQUEST | message.ACK, sequence, _head(family) + _named())
    for answer in channel.exchange(request, sequence):
        failed = message.failure(answer) if answer.type == message.ERROR else None
        if failed and failed.errno in _LACKING:
            raise HostError("its kernel has no nf_tables")
        if failed and failed.errno != errno.ENOENT:
            raise ProtocolError(f"the kernel refused to look up the table {NAME} of nftables: {failed}")
        if answer.type == NEW_TABLE:
            return True
    return False


def _is_protected(service: Service, local: Collection[str]) -> bool:
    if service.protocol != "tcp" or not service.port:
        return False
    return not any(each.address in local or each.forward == "localnode" for each in service.servers)


def transaction(
    family: int, services: Collection[_Place], servers: Collection[_Place], next_: Callable[[], int]
) -> Iterator[bytes]:
    """Yield the messages that replace the table of a family, as one transaction; without services they delete it."""

    def new(kind: int, body: bytes) -> bytes:
        return _message(kind, family, next_(), _named() + body, message.CREATE | message.APPEND)

    owned = attribute(2, _number(_OWNER))
    # Deleted first, so that nothing of an earlier one is left; and made before that, so that there is one to delete.
    parts = [new(NEW_TABLE, owned), _message(DELETE_TABLE, family, next_(), _named())]
    if services:
        parts.append(new(NEW_TABLE, owned))
        for number, (name, places) in enumerate((("services", services), ("servers", servers)), 1):
            parts.append(new(_NEW_SET, _set(name, number, family, len(places))))
            parts += [new(_NEW_ELEMENTS, each) for each in _elements(name, number, places)]
        for name, hook, expressions in (
            ("input", _INPUT, [*_destination("services", 1, family), _drop()]),
            ("forward", _FORWARD, [*_destination("servers", 2, family), *_reset(), _drop()]),
        ):
            parts.append(new(_NEW_CHAIN, _chain(name, hook)))
            listed = b"".join(attribute(1, each) for each in expressions)
            parts.append(new(_NEW_RULE, _text(2, name) + attribute(4, listed)))
    return _framed(parts, next_)


def _framed(parts: list[bytes], next_: Callable[[], int]) -> Iterator[bytes]:
    head = _NFGENMSG.pack(0, 0, _SUBSYSTEM)
    yield message.pack(_BEGIN, message.REQUEST, next_(), head)
    yield from parts
    yield message.pack(_END, message.REQUEST, next_(), head)


def _exchange(channel: Channel, parts: list[bytes]) -> None:
    """Send a transaction. The kernel answers each message between its first and its last one."""
    for answer in channel.exchange(b"".join(parts), message.sequence_of(parts[-2])):
        failed = message.failure(answer) if answer.type == message.ERROR else None
        if failed:
            raise HostError(f"the table {NAME} of nftables cannot be changed: {failed}")


def _message(kind: int, family: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return message.pack(kind, message.REQUEST | message.ACK | flags, sequence, _head(family) + body)


def _head(family: int) -> bytes:
    return _NFGENMSG.pack(_FAMILIES[family], 0, 0)


def _named() -> bytes:
    return _text(1, NAME)


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _number(value: int) -> bytes:
    return value.to_bytes(4)


def _set(name: str, number: int, family: int, size: int) -> bytes:
    length = _DESTINATIONS[family][1] + 4
    body = _text(2, name) + attribute(3, _number(0)) + attribute(4, _number(_TYPES[family]))
    body += attribute(5, _number(length)) + attribute(10, _number(number))
    return body + attribute(9, attribute(1, _number(max(size, 1))))


def _elements(name: str, number: int, places: Collection[_Place]) -> Iterator[bytes]:
    listed = [pack(address) + port.to_bytes(2) + bytes(2) for address, port in places]
    for start in range(0, len(listed), _ELEMENTS):
        elements = (attribute(1, attribute(1, attribute(1, key))) for key in listed[start : start + _ELEMENTS])
        yield _text(2, name) + attribute(3, b"".join(elements)) + attribute(4, _number(number))


def _chain(name: str, hook: int) -> bytes:
    hooked = attribute(1, _number(hook)) + attribute(2, _number(_PRIORITY))
    return _text(3, name) + attribute(4, hooked) + attribute(5, _number(_ACCEPT)) + _text(7, "filter")


def _destination(name: str, number: int, family: int) -> Iterator[bytes]:
    """Yield the expressions that select packets of TCP to a place of a set."""
    offset, length = _DESTINATIONS[family]
    yield _expression("meta", attribute(1, _number(_REGISTER)) + attribute(2, _number(_L4PROTO)))
    yield _compare(_EQUAL, bytes((IPPROTO_TCP,)))
    yield _payload(_REGISTER, _NETWORK, offset, length)
    yield _payload(_REGISTER + length // 4, _TRANSPORT, _PORT_AT, 2)
    yield _expression("lookup", _text(1, name) + attribute(2, _number(_REGISTER)) + attribute(4, _number(number)))


def _reset() -> Iterator[bytes]:
    """Yield the expressions that select packets of TCP with the flag RST."""
    yield _payload(_REGISTER, _TRANSPORT, _FLAGS_AT, 1)
    registers = attribute(1, _number(_REGISTER)) + attribute(2, _number(_REGISTER)) + attribute(3, _number(1))
    masked = attribute(4, attribute(1, bytes((_TCP_RST,)))) + attribute(5, attribute(1, b"\0"))
    yield _expression("bitwise", registers + masked)
    yield _compare(_UNEQUAL, b"\0")


def _payload(register: int, base: int, offset: int, length: int) -> bytes:
    numbers = enumerate((register, base, offset, length), 1)
    return _expression("payload", b"".join(attribute(kind, _number(value)) for kind, value in numbers))


def _compare(how: int, value: bytes) -> bytes:
    data = attribute(1, _number(_REGISTER)) + attribute(2, _number(how)) + attribute(3, attribute(1, value))
    return _expression("cmp", data)


def _drop() -> bytes:
    verdict = attribute(2, attribute(1, _number(0)))
    return _expression("immediate", attribute(1, _number(_VERDICT)) + attribute(2, verdict))


def _expression(name: str, data: bytes) -> bytes:
    return _text(1, name) + attribute(2, data)

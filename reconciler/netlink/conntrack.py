"""Entries of connection tracking, found by original destination and protocol, and deleted one by one.

Source: include/uapi/linux/netfilter/nfnetlink.h (struct nfgenmsg), nfnetlink_conntrack.h (enum ctattr_type,
ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_filter); the flags of a filter are in net/netfilter/nf_internals.h.

Traps: a deletion without a tuple empties the whole table, so every deletion that is built here has one. Kernels before
Linux 5.8 silently ignore the filter of a dump. Some later kernels compare IPv6 addresses the wrong way round (6.1 does,
6.12 does not). Therefore IPv6 entries are filtered by protocol only, and every dumped entry is checked again here.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6

from reconciler.errors import HostError, ProtocolError
from reconciler.model.address import pack as pack_address
from reconciler.netlink import message
from reconciler.netlink.channel import Channel
from reconciler.netlink.engine import whole_dump
from reconciler.netlink.message import Message, attribute
from reconciler.values import NamedTuple

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

# NFNL_SUBSYS_CTNETLINK << 8, and IPCTNL_MSG_CT_NEW, _GET and _DELETE.
NEW, GET, DELETE = 0x100, 0x101, 0x102
# enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_filter.
TUPLE_ORIGINAL, ID, ZONE, FILTER = 1, 12, 18, 25
TUPLE_ADDRESSES, TUPLE_PROTOCOL = 1, 2
IPV4_DESTINATION, IPV6_DESTINATION = 2, 4
PROTOCOL_NUMBER, DESTINATION_PORT = 1, 3
FILTER_ORIGINAL = 1
# The fields of the original tuple that the kernel compares: CTA_FILTER_F_CTA_IP_DST, _PROTO_NUM, _PROTO_DST_PORT.
BY_DESTINATION, BY_PROTOCOL, BY_PORT = 0x2, 0x8, 0x20

_NFGENMSG = struct.Struct("=BBH")
_U32 = struct.Struct("=I")
_NESTED = 0x8000
# Bytes of requests in one send, as in `execute`; a deletion takes 80 to 120.
BATCH = 1 << 16
# A kernel without ctnetlink answers every request with EINVAL.
_LACKING = {errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP}


class _Original(NamedTuple):
    """Where the first packet of a connection went: 4 or 16 bytes, an IPPROTO, and the port if it has one."""

    destination: bytes
    protocol: int
    port: int | None


def dump_request(address: str, protocol: str, sequence: int, *, port: int | None = None) -> bytes:
    """Build a request for the entries whose first packet went to `address` (and `port`) by `protocol`.

    `protocol` is one of PROTOCOLS. The kernel filters as far as it can: by IPv4 address, by protocol, and by port of
    TCP and UDP. `delete_request` decides which entries really match. ValueError if `address` is no address, KeyError
    for another protocol.
    """
    packed = pack_address(address)
    kind, flags = (IPV4_DESTINATION, BY_DESTINATION) if len(packed) == 4 else (IPV6_DESTINATION, 0)
    flags |= BY_PROTOCOL
    upper = attribute(PROTOCOL_NUMBER, bytes((PROTOCOLS[protocol],)))
    if port is not None:
        flags |= BY_PORT
        upper += attribute(DESTINATION_PORT, port.to_bytes(2))
    wanted = _nested(TUPLE_ADDRESSES, attribute(kind, packed)) + _nested(TUPLE_PROTOCOL, upper)
    body = _NFGENMSG.pack(_family(packed), 0, 0) + _nested(TUPLE_ORIGINAL, wanted)
    body += _nested(FILTER, attribute(FILTER_ORIGINAL, _U32.pack(flags)))
    return message.pack(GET, message.REQUEST | message.DUMP, sequence, body)


def delete_request(
    entry: bytes, address: str, protocol: str, sequence: int, *, port: int | None = None
) -> bytes | None:
    """Build the deletion of exactly one dumped entry: with its original tuple, its zone and its id.

    None if the entry has another destination or protocol. ProtocolError for malformed bytes.
    """
    if len(entry) < _NFGENMSG.size:
        raise ProtocolError(f"conntrack entry of {len(entry)} bytes")
    packed = pack_address(address)
    if entry[0] != _family(packed):
        return None
    found = dict(message.attributes(entry, _NFGENMSG.size))
    original = _original(found, len(packed))
    if original[:2] != (packed, PROTOCOLS[protocol]) or port not in {None, original.port}:
        return None
    body = _NFGENMSG.pack(entry[0], 0, 0) + _nested(TUPLE_ORIGINAL, found[TUPLE_ORIGINAL])
    if ZONE in found:
        body += attribute(ZONE, _sized(found, ZONE, 2))
    # A new connection with the same addresses and ports has another id, unless the kernel reuses the same memory.
    body += attribute(ID, _sized(found, ID, 4))
    return message.pack(DELETE, message.REQUEST, sequence, body)


def delete(
    channel: Channel, address: str, protocol: str, *, sequence: Callable[[], int], port: int | None = None
) -> int:
    """Delete the entries whose first packet went to `address` (and `port`) by `protocol`. Return how many were deleted.

    `channel` is of the family NETFILTER; `sequence` returns its next sequence number. An entry that ended by itself
    meanwhile is not counted. HostError if the kernel lacks the module nf_conntrack_netlink or we lack a privilege,
    BusyError if no consistent dump succeeds within 10 s, ProtocolError for malformed answers (then nothing was deleted)
    and if the kernel refuses a deletion.
    """
    requests = [
        request
        for entry in _entries(channel, address, protocol, sequence, port)
        if (request := delete_request(entry, address, protocol, sequence(), port=port))
    ]
    return sum(_send(channel, batch) for batch in _batches(requests))


def _entries(
    channel: Channel, address: str, protocol: str, sequence: Callable[[], int], port: int | None
) -> list[bytes]:
    request = partial(dump_request, address, protocol, port=port)
    answers = whole_dump(channel, request, sequence, "the connections change", _check_end)
    return [answer.payload for answer in answers if answer.type == NEW]


def _check_end(answers: Sequence[Message]) -> None:
    if not answers or answers[-1].type not in {message.DONE, message.ERROR}:
        raise ProtocolError("a dump of connection tracking has no end")
    failed = message.failure(answers[-1])
    if failed:
        if failed.errno in _LACKING:
            raise HostError(
                f"the kernel cannot list its connections: {failed}; does it have the module nf_conntrack_netlink?"
            )
        raise ProtocolError(f"the kernel refused to list its connections: {failed}")


def _batches(requests: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield batches of at most BATCH bytes, each for one send."""
    batch: list[bytes] = []
    size = 0
    for request in requests:
        if batch and size + len(request) > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += len(request)
    if batch:
        yield batch


def _send(channel: Channel, batch: list[bytes]) -> int:
    """Send deletions and ask for an answer to the last only. Return how many of them deleted an entry."""
    batch[-1] = message.with_ack(batch[-1])
    numbers = set(map(message.sequence_of, batch))
    answers = channel.exchange(b"".join(batch), message.sequence_of(batch[-1]))
    ended = set()
    for answer in answers:
        failed = message.failure(answer) if answer.type == message.ERROR and answer.sequence in numbers else None
        if failed and failed.errno != errno.ENOENT:
            raise ProtocolError(f"the kernel refused to delete a connection: {failed}")
        if failed:
            ended.add(answer.sequence)
    return len(batch) - len(ended)


def _original(found: Mapping[int, bytes], size: int) -> _Original:
    """Read the original tuple of an entry with addresses of `size` bytes."""
    parts = dict(message.attributes(_get(found, TUPLE_ORIGINAL)))
    addresses = dict(message.attributes(_get(parts, TUPLE_ADDRESSES)))
    upper = dict(message.attributes(_get(parts, TUPLE_PROTOCOL)))
    port = _sized(upper, DESTINATION_PORT, 2) if DESTINATION_PORT in upper else None
    return _Original(
        _sized(addresses, IPV4_DESTINATION if size == 4 else IPV6_DESTINATION, size),
        _sized(upper, PROTOCOL_NUMBER, 1)[0],
        int.from_bytes(port) if port is not None else None,
    )


def _sized(found: Mapping[int, bytes], kind: int, size: int) -> bytes:
    value = _get(found, kind)
    if len(value) != size:
        raise ProtocolError(f"conntrack attribute of {len(value)} bytes; {size} were expected")
    return value


def _get(found: Mapping[int, bytes], kind: int) -> bytes:
    value = found.get(kind)
    if value is None:
        raise ProtocolError(f"conntrack entry without attribute {kind}")
    return value


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(_NESTED | kind, payload)


def _family(packed: bytes) -> int:
    return AF_INET if len(packed) == 4 else AF_INET6

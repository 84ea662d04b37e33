"""An entry of a neighbour table in netlink's format: encode an operation, decode a dump.

Source: include/uapi/linux/neighbour.h (struct ndmsg, enum NDA_*, NTF_*, NUD_*), net/core/neighbour.c.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from socket import AF_INET, AF_INET6
from typing import assert_never

from reconciler.errors import ProtocolError
from reconciler.model.address import pack, unpack
from reconciler.model.mark import PROTOCOL
from reconciler.model.neighbour import Neighbour
from reconciler.netlink import message
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem

# RTM_NEWNEIGH, _DELNEIGH, _GETNEIGH.
NEW, DELETE, GET = 28, 29, 30
# Family, index of the link, state, flags, type of route.
_NDMSG = struct.Struct("=BxxxiHBB")
# NDA_*.
_DST, _LLADDR, _PROTOCOL, _FLAGS_EXT = 1, 2, 12, 15
# NUD_PERMANENT, NTF_PROXY, NTF_ROUTER, NTF_EXT_LEARNED, NTF_EXT_MANAGED.
_PERMANENT, _PROXY, _ROUTER, _LEARNED, _MANAGED = 0x80, 0x08, 0x80, 0x10, 0x1
_SIZES = {AF_INET: 4, AF_INET6: 16}


def dump_request(sequence: int, *, proxy: bool) -> bytes:
    """Build a request for the entries of both families: those that answer for other hosts (`proxy`), or all others."""
    body = _NDMSG.pack(0, 0, 0, _PROXY if proxy else 0, 0)
    return message.pack(GET, message.REQUEST | message.DUMP, sequence, body)


def encode(operation: ItemOperation, neighbour: Neighbour, indexes: Mapping[str, int], sequence: int) -> bytes:
    """Build the request of an operation on `neighbour`. KeyError for a NIC that `indexes` lacks.

    An addition replaces an entry that the kernel has learned.
    """
    match operation:
        case AddItem() | ReplaceItem():
            kind, flags = NEW, message.CREATE | message.REPLACE
        case DeleteItem():
            kind, flags = DELETE, 0
        case _:
            assert_never(operation)
    return message.pack(kind, message.REQUEST | flags, sequence, encode_body(neighbour, indexes))


def encode_body(neighbour: Neighbour, indexes: Mapping[str, int]) -> bytes:
    """Build the header and attributes of an entry."""
    packed = pack(neighbour.address)
    flags = (_PROXY if neighbour.proxy else 0) | (_ROUTER if neighbour.router else 0)
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _NDMSG.pack(family, indexes[neighbour.device], _PERMANENT, flags, 0)
    body += message.attribute(_DST, packed) + message.attribute(_PROTOCOL, bytes((neighbour.protocol,)))
    if neighbour.hw_addr:
        body += message.attribute(_LLADDR, bytes.fromhex(neighbour.hw_addr.replace(":", "")))
    return body


def decode(payload: bytes, names: Mapping[int, str]) -> tuple[int, Neighbour] | None:
    """Decode a dumped entry: its protocol and the entry. None if the kernel has learned or made the entry by itself.

    ProtocolError for malformed bytes.
    """
    if len(payload) < _NDMSG.size:
        raise ProtocolError(f"neighbour message of {len(payload)} bytes")
    family, index, state, flags, _ = _NDMSG.unpack_from(payload)
    found = dict(message.attributes(payload, _NDMSG.size))
    protocol = found.get(_PROTOCOL, b"\0")
    size = _SIZES.get(family)
    proxy, permanent = bool(flags & _PROXY), bool(state & _PERMANENT)
    if size is None or not (permanent or proxy or protocol == bytes((PROTOCOL,))):
        return None
    address = found.get(_DST, b"")
    if len(address) != size:
        raise ProtocolError(f"neighbour of {len(address)} bytes; {size} were expected")
    if len(protocol) != 1:
        raise ProtocolError(f"protocol of a neighbour of {len(protocol)} bytes; 1 was expected")
    return protocol[0], Neighbour(
        address=unpack(address),
        device=names.get(index, f"if{index}"),
        hw_addr=message.hardware_address(found.get(_LLADDR, b"")),
        proxy=proxy,
        router=bool(flags & _ROUTER),
        permanent=permanent or proxy,
        protocol=protocol[0],
        opaque=("extern_learn",) * bool(flags & _LEARNED)
        + ("managed",) * bool(int.from_bytes(found.get(_FLAGS_EXT, b""), sys.byteorder) & _MANAGED),
    )


def is_news(kind: int, payload: bytes) -> bool:
    """Return whether a notification may matter: an entry that the kernel learns by itself is no drift."""
    if kind not in {NEW, DELETE}:
        return True
    return dict(message.attributes(payload, _NDMSG.size)).get(_PROTOCOL) == bytes((PROTOCOL,))

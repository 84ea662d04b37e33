"""Netlink framing: headers, attributes, answers. Every length is checked: malformed bytes raise ProtocolError.

Source: include/uapi/linux/netlink.h (struct nlmsghdr, nlattr, nlmsgerr, enum nlmsgerr_attrs).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator

from reconciler.errors import ProtocolError
from reconciler.values import NamedTuple

# Flags of nlmsghdr.
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
DUMP_INTERRUPTED = 0x10
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
# Message types that all families share, and those of the route family that are used here (rtnetlink.h).
ERROR, DONE, OVERRUN = 2, 3, 4
NEW_LINK, GET_LINK = 16, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")
_NESTED_AND_ORDER = 0xC000
# nlmsgerr: the error, then the header of the request; its attributes follow if the flags say so.
_ERROR_SIZE = 4 + _HEADER.size
_CAPPED, _HAS_ATTRIBUTES = 0x100, 0x200
_EXTACK_TEXT = 1
# Bytes. NETLINK_MAX_FMTMSG_LEN of the kernel is 80.
_WORDS_MAX = 1024
# Bytes: a 64-bit number, and MAX_ADDR_LEN of linux/netdevice.h.
_NUMBER_MAX, _ADDRESS_MAX = 8, 32
# include/linux/err.h.
_MAX_ERRNO = 4095


class Message(NamedTuple):
    """A message without its header; `payload` is what follows it, unpadded."""

    type: int
    flags: int
    sequence: int
    payload: bytes


class Failure(NamedTuple):
    """Why the kernel refused a request: an errno, and the kernel's own words, if it sent any."""

    errno: int
    text: str

    def __str__(self) -> str:
        words = os.strerror(self.errno)
        return f"{words}: {self.text}" if self.text else words


def pack(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Build a message. `payload` must be padded to 4 bytes, as everything that `attribute` builds is."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def sequence_of(request: bytes) -> int:
    """Return the sequence number of a request that is already built."""
    return int(_HEADER.unpack_from(request)[3])


def with_ack(request: bytes) -> bytes:
    """Return an already built request, changed so that it asks for an answer: the last of its messages does."""
    start = 0
    length, kind, flags, sequence, port = _HEADER.unpack_from(request)
    while start + length < len(request):
        start += length
        length, kind, flags, sequence, port = _HEADER.unpack_from(request, start)
    header = _HEADER.pack(length, kind, flags | ACK, sequence, port)
    return request[:start] + header + request[start + _HEADER.size :]


def attribute(kind: int, payload: bytes) -> bytes:
    """Build an attribute, padded to 4 bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length & 3)


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes from `start` to the end of `data`: (kind without flag bits, payload)."""
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise ProtocolError(f"netlink attribute claims {length} bytes, but {end - start} are left")
        yield kind & ~_NESTED_AND_ORDER, data[start + 4 : start + length]
        start += (length + 3) & ~3


def messages(datagram: bytes) -> list[Message]:
    """Split a datagram into its messages."""
    found = []
    start, end = 0, len(datagram)
    unpack, make = _HEADER.unpack_from, Message._make
    while start < end:
        if end - start < _HEADER.size:
            raise ProtocolError(f"netlink message cut to {end - start} bytes")
        length, kind, flags, sequence, _ = unpack(datagram, start)
        if length < _HEADER.size or start + length > end:
            raise ProtocolError(f"netlink message claims {length} bytes, but {end - start} are left")
        found.append(make((kind, flags, sequence, datagram[start + 16 : start + length])))
        start += (length + 3) & ~3
    return found


def text(value: bytes, most: int, what: str) -> str:
    """Decode a text of at most so many bytes, which a NUL may end. ProtocolError if it is longer.

    A name or an alias may contain any byte. Those that are not UTF-8 become surrogates (PEP 383).
    """
    bare = value.rstrip(b"\0")
    if len(bare) > most:
        raise ProtocolError(f"{what} of {len(bare)} bytes; the kernel allows {most}")
    return bare.decode(errors="surrogateescape")


def number(value: bytes, what: str) -> int:
    """Decode a number of any size, in the byte order of the kernel. ProtocolError if the kernel has none so long."""
    if len(value) > _NUMBER_MAX:
        raise ProtocolError(f"{what} of {len(value)} bytes; the kernel has {_NUMBER_MAX} at most")
    return int.from_bytes(value, sys.byteorder)


def hardware_address(value: bytes) -> str:
    """Decode a hardware address, such as a MAC address. ProtocolError if the kernel has none so long."""
    if len(value) > _ADDRESS_MAX:
        raise ProtocolError(f"hardware address of {len(value)} bytes; the kernel allows {_ADDRESS_MAX}")
    return value.hex(":")


def failure(message: Message) -> Failure | None:
    """Read an answer of type ERROR (or the status of DONE): None means success."""
    payload = message.payload
    if len(payload) < 4:
        if message.type == DONE:
            return None
        raise ProtocolError("netlink error message without an error")
    (code,) = _INT.unpack_from(payload)
    if code >= 0:
        return None
    if code < -_MAX_ERRNO:
        raise ProtocolError(f"netlink error {code} is no errno")
    text = ""
    if message.type == DONE and message.flags & _HAS_ATTRIBUTES:
        text = _words(payload, 4)
    elif message.type == ERROR and message.flags & _HAS_ATTRIBUTES and len(payload) >= _ERROR_SIZE:
        start = _ERROR_SIZE
        if not message.flags & _CAPPED:
            start = 4 + (_HEADER.unpack_from(payload, 4)[0] + 3 & ~3)
        text = _words(payload, start)
    return Failure(-code, text)


def _words(payload: bytes, start: int) -> str:
    """Read the kernel's text about an error from the attributes that follow it."""
    for kind, value in attributes(payload, start):
        if kind == _EXTACK_TEXT:
            return text(value, _WORDS_MAX, "words of the kernel").rstrip(".")
    return ""

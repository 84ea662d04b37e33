"""The encoding of protocol buffers, as far as etcd's messages need it.

Fields are numbered, and are varints or bytes: https://protobuf.dev/programming-guides/encoding/ describes it. A codec
that is generated would need the library and the compiler of protocol buffers, in versions that fit each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.errors import ProtocolError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIGNED = 1 << 63
_ALL = 1 << 64


def number(field: int, value: int) -> bytes:
    """Return a field with an integer, an enumeration or a boolean. The default, 0, is not sent."""
    return _varint(field << 3 | _VARINT) + _varint(value % _ALL) if value else b""


def data(field: int, value: bytes) -> bytes:
    """Return a field with bytes or text. The default, nothing, is not sent."""
    return message(field, value) if value else b""


def message(field: int, value: bytes) -> bytes:
    """Return a field with a message, which is sent even if it is empty."""
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class Message:
    """A message that was received: its fields by their numbers. ProtocolError if it is none."""

    def __init__(self, received: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for field, value in _fields(received):
            self._fields.setdefault(field, []).append(value)

    def number(self, field: int) -> int:
        """Return an integer, signed; 0 if it is absent."""
        value = self._fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise ProtocolError(f"etcd sent a message whose field {field} is no number")
        return value - _ALL if value >= _SIGNED else value

    def data(self, field: int) -> bytes:
        """Return bytes; none if they are absent."""
        values = self.all(field)
        return values[-1] if values else b""

    def all(self, field: int) -> list[bytes]:
        """Return the bytes of each occurrence of a field."""
        values = self._fields.get(field, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) != len(values):
            raise ProtocolError(f"etcd sent a message whose field {field} is a number")
        return found


def _fields(received: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field, in order. Those of a fixed size are skipped: etcd has none."""
    at = 0
    while at < len(received):
        tag, at = _read_varint(received, at)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            value, at = _read_varint(received, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(received, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ProtocolError(f"etcd sent a message with a field of the unknown kind {kind}")
        if at + size > len(received):
            raise ProtocolError("etcd sent a message that ends too early")
        if kind == _BYTES:
            yield tag >> 3, received[at : at + size]
        at += size


def _read_varint(received: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where the next byte after it is."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(received):
            raise ProtocolError("etcd sent a message that ends too early")
        byte, at = received[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value % _ALL, at
    raise ProtocolError("etcd sent a message with a number that is too long")

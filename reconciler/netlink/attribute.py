"""The simple attributes of a link in netlink's format: see `model.attribute`."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from reconciler.errors import ProtocolError
from reconciler.model.attribute import ATTRIBUTES, BY_FIELD, TEXT_MAX, Attribute, Attributes, Value
from reconciler.netlink import message

_U32 = struct.Struct("=I")


def decode(flags: int, found: Mapping[int, bytes]) -> Attributes:
    """Decode the attributes of a link, all of them. ProtocolError for malformed bytes."""
    return tuple((each.field, _value(each, flags, found.get(each.number))) for each in ATTRIBUTES)


def _value(attribute: Attribute, flags: int, data: bytes | None) -> Value:
    if attribute.is_flag:
        return bool(flags & attribute.number) == (attribute.kind == "flag")
    if attribute.kind == "text":
        return message.text(data or b"", TEXT_MAX, f"{attribute.word} of a link")
    if data is None:
        return attribute.usual
    if len(data) != _U32.size:
        raise ProtocolError(f"{attribute.word} of {len(data)} bytes; 4 were expected")
    (number,) = _U32.unpack(data)
    return int(number)


def encode(attributes: Attributes) -> tuple[int, int, bytes]:
    """Return the flags of a link that are set, those that are changed, and the netlink attributes of the others."""
    flags, change, data = 0, 0, b""
    for field, value in attributes:
        attribute = BY_FIELD[field]
        if attribute.is_flag:
            change |= attribute.number
            flags |= attribute.number if value == (attribute.kind == "flag") else 0
        elif isinstance(value, str):
            data += message.attribute(attribute.number, value.encode(errors="surrogateescape"))
        else:
            data += message.attribute(attribute.number, _U32.pack(value))
    return flags, change, data

"""The alternative names of a link in netlink's format.

Source: include/uapi/linux/if_link.h, rtnetlink.h; net/core/rtnetlink.c (rtnl_linkprop).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from reconciler.model.interface import ALTNAME_MAX
from reconciler.netlink import message

_IFINFOMSG = struct.Struct("=BxHiII")
_NEW, _DELETE = 108, 109
_PROP_LIST, _ALT_IFNAME, _NESTED = 52, 53, 0x8000


def decode(properties: bytes) -> tuple[str, ...]:
    """Decode IFLA_PROP_LIST of a link, sorted. ProtocolError for malformed bytes."""
    found = (value for kind, value in message.attributes(properties) if kind == _ALT_IFNAME)
    return tuple(sorted(message.text(value, ALTNAME_MAX, "alternative name of a link") for value in found))


def encode(index: int, names: Iterable[str], sequence: int, *, delete: bool = False) -> bytes:
    """Build the request that adds alternative names to a link, or deletes them."""
    listed = b"".join(message.attribute(_ALT_IFNAME, name.encode(errors="surrogateescape") + b"\0") for name in names)
    body = _IFINFOMSG.pack(0, 0, index, 0, 0) + message.attribute(_PROP_LIST | _NESTED, listed)
    return message.pack(_DELETE if delete else _NEW, message.REQUEST, sequence, body)

"""Links that are made in a sandbox, in netlink's format: their options are decoded, they are made, changed, deleted.

Source: include/uapi/linux/if_link.h; net/core/rtnetlink.c (rtnl_newlink).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Mapping
from typing import assert_never

from reconciler.errors import ProtocolError
from reconciler.model.made import KINDS, Made, Option, Value, made, unusual
from reconciler.model.mark import made_altname
from reconciler.netlink import altnames, message
from reconciler.operations.made import AddLink, ChangeLink, DeleteLink, MadeOperation, MarkLink

_IFINFOMSG = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 18, 37
_INFO_KIND, _INFO_DATA = 1, 2
_NESTED = 0x8000
_DELETE_LINK = 17
# Indexes of links that we make, if those that there are cannot be counted up from; and where that ends.
_LOWEST, _HIGHEST = 1 << 24, 1 << 30
# No namespace has this number.
_NO_NAMESPACE = 0x7FFFFFFE


def decode(kind: str, data: bytes, link: str) -> Made:
    """Decode the options of a link of a kind of KINDS. `link`: the one it lies on. ProtocolError for wrong bytes."""
    found = dict(message.attributes(data))
    values: dict[str, Value] = {}
    for option in KINDS[kind].options:
        if option.attribute in found:
            values[option.name] = option.from_kernel(_number(option, found[option.attribute]))
    return made(kind, values, link)


def _number(option: Option, value: bytes) -> int:
    if len(value) != struct.calcsize(option.form):
        raise ProtocolError(f"option {option.name} of a link of {len(value)} bytes")
    (number,) = struct.unpack(option.form, value)
    return int(number)


def encode(operation: MadeOperation, indexes: dict[str, int], sequence: int) -> bytes:
    """Build the messages of an operation. KeyError for an unknown name. `indexes`: of links; an addition updates it."""
    match operation:
        case AddLink():
            return _encode_added(operation, indexes, sequence)
        case ChangeLink():
            info = _info(operation.made.kind, operation.changes)
            return message.pack(message.NEW_LINK, message.REQUEST, sequence, _header(indexes[operation.name]) + info)
        case MarkLink():
            return _encode_mark(operation, indexes[operation.name], sequence)
        case DeleteLink():
            return message.pack(_DELETE_LINK, message.REQUEST, sequence, _header(indexes[operation.name]))
        case _:
            assert_never(operation)


def _encode_added(operation: AddLink, indexes: dict[str, int], sequence: int) -> bytes:
    """Build two messages that the kernel takes as one: it makes no link with our mark, and none may be without.

    The second names the link by an index that no other link has: if the first is refused, it changes nothing.
    """
    wanted = operation.made
    index = _new_index(indexes.values())
    body = _header(index) + message.attribute(_IFLA_IFNAME, operation.name.encode() + b"\0")
    if wanted.link:
        body += message.attribute(_IFLA_LINK, _U32.pack(indexes[wanted.link]))
    body += _info(wanted.kind, unusual(wanted))
    flags = message.REQUEST | message.CREATE | message.EXCLUSIVE
    indexes[operation.name] = index
    return message.pack(message.NEW_LINK, flags, sequence, body) + _encode_mark(
        MarkLink(name=operation.name), index, sequence
    )


def _encode_mark(operation: MarkLink, index: int, sequence: int) -> bytes:
    return altnames.encode(index, (made_altname(operation.name),), sequence, delete=not operation.marked)


def _new_index(taken: Collection[int]) -> int:
    """Return an index that no link has, nor one that another program makes meanwhile: the kernel counts those up.

    It is above all others, so that links are listed in the order in which they were made, unless these are too large.
    """
    index = max(taken, default=0) + 1 + int.from_bytes(os.urandom(2))
    return index if index < _HIGHEST else _LOWEST + int.from_bytes(os.urandom(3))


def lacks_request(kind: str, sequence: int) -> bytes:
    """Build a request that makes no link, whatever the answer: `lacks` tells from it whether a kernel has a kind.

    The kernel loads the module of the kind, and then finds that the other namespace does not exist.
    """
    body = _header(0) + _info(kind, ()) + message.attribute(_IFLA_LINK_NETNSID, _U32.pack(_NO_NAMESPACE))
    return message.pack(message.NEW_LINK, message.REQUEST | message.CREATE | message.ACK, sequence, body)


def lacks(code: int) -> bool:
    """Return whether the errno of an answer means that the kernel does not have the kind."""
    return code == errno.EOPNOTSUPP


def _header(index: int) -> bytes:
    return _IFINFOMSG.pack(0, 0, index, 0, 0)


def _info(kind: str, options: tuple[tuple[str, Value], ...]) -> bytes:
    by_name: Mapping[str, Option] = {each.name: each for each in KINDS[kind].options}
    data = b"".join(
        message.attribute(by_name[name].attribute, struct.pack(by_name[name].form, by_name[name].to_kernel(value)))
        for name, value in options
    )
    nested = message.attribute(_INFO_KIND, kind.encode() + b"\0")
    nested += message.attribute(_INFO_DATA | _NESTED, data) if data else b""
    return message.attribute(_IFLA_LINKINFO | _NESTED, nested)

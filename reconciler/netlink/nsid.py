"""The numbers by which a namespace knows others. The kernel assigns them, when one asks or when a device leads there.

Source: include/uapi/linux/net_namespace.h, net/core/net_namespace.c.
"""

from __future__ import annotations

import errno
import struct

from reconciler.errors import ChannelError
from reconciler.netlink.channel import Channel
from reconciler.netlink.message import ACK, ERROR, REQUEST, Message, attribute, attributes, failure, pack

NEW, DELETE, _GET = 88, 89, 90
_NSID, _FD = 1, 3
# The sequence number of what reads a number.
_LAST = 2
_RTGENMSG, _S32 = struct.pack("=Bxxx", 0), struct.Struct("=i")


def ask_without_a_namespace(channel: Channel) -> Message:
    """Ask for a number of nothing. Return the answer: the kernel looks at the right to do so before the request."""
    (answer,) = channel.exchange(pack(NEW, REQUEST | ACK, 1, _RTGENMSG), 1)
    return answer


def assign(channel: Channel, namespace: int) -> int | None:
    """Return the number of an open namespace, and give it one if it has none. Else as `find`."""
    body = _RTGENMSG + attribute(_NSID, _S32.pack(-1)) + _named(namespace)
    # This fails if the namespace has a number already; the next message reads the number in any case.
    return _found(channel, pack(NEW, REQUEST | ACK, 1, body) + _get(namespace))


def find(channel: Channel, namespace: int) -> int | None:
    """Return the number of an open namespace in that of the channel; None if it has none, or the file is no namespace.

    ChannelError if that cannot be found out now.
    """
    return _found(channel, _get(namespace))


def _get(namespace: int) -> bytes:
    return pack(_GET, REQUEST | ACK, _LAST, _RTGENMSG + _named(namespace))


def _found(channel: Channel, requests: bytes) -> int | None:
    for answer in channel.exchange(requests, _LAST):
        if answer.sequence != _LAST:
            continue
        if answer.type == NEW:
            found = number_of(answer)
            return found if found >= 0 else None
        failed = failure(answer) if answer.type == ERROR else None
        if failed and failed.errno != errno.EINVAL:
            raise ChannelError(f"the number of the namespace: {failed}")
    return None


def number_of(message: Message) -> int:
    """Return the number that a message of type NEW or DELETE is about; -1 if it has none."""
    found = dict(attributes(message.payload, len(_RTGENMSG)))
    return int(_S32.unpack(found.get(_NSID, _S32.pack(-1)))[0])


def _named(namespace: int) -> bytes:
    return attribute(_FD, _S32.pack(namespace))

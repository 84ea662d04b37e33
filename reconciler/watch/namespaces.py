"""Reports changes in any number of network namespaces over one socket, which keeps none of them alive.

A socket inside a namespace would keep it alive after `ip netns del`. So this module gives each namespace a number in
the watcher's own namespace (RTM_NEWNSID), where one socket receives the notifications of all numbered namespaces
(NETLINK_LISTEN_ALL_NSID). The kernel frees a number when its namespace is destroyed. Source:
include/uapi/linux/net_namespace.h, linux/netlink.h, net/core/net_namespace.c.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping

from reconciler.errors import HostError, ProtocolError
from reconciler.netlink.channel import RECEIVE_BUFFER, RECEIVE_SIZE, ROUTE, LocalKernel
from reconciler.netlink.message import ACK, NEW_LINK, REQUEST, attribute, messages, pack
from reconciler.netlink.neighbour import is_news
from reconciler.netlink.sections import GROUPS

_NEW_NSID, _GET_NSID = 88, 90
_NSA_NSID, _NSA_FD = 1, 3
_RTGENMSG = struct.Struct("=Bxxx")
_S32 = struct.Struct("=i")
_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
# The control message that contains the number of the namespace in which something has changed.
_NUMBER = (_SOL_NETLINK, _LISTEN_ALL_NSID)
# Stands for the watcher's own namespace, the host.
HOST = -1
_SO_RCVBUFFORCE = 33
_ANCILLARY = 256


class NamespaceSocket:
    """Gives numbers to namespaces, and receives the notifications of those that have one."""

    def __init__(self) -> None:
        """Open the socket. HostError if the kernel cannot receive notifications of other namespaces."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
            self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            self._socket.bind((0, GROUPS))
        except OSError as error:
            self._socket.close()
            raise HostError(f"listening to network namespaces: {error.strerror}") from error

    def fileno(self) -> int:
        """Return the descriptor, to poll for reading."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def assign_number(self, file: str) -> int | None:
        """Return the number of a namespace, and give it one if it has none; None if there is no such namespace."""
        try:
            namespace = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        channel = LocalKernel().open(ROUTE)
        try:
            named = attribute(_NSA_FD, _S32.pack(namespace))
            body = _RTGENMSG.pack(0) + attribute(_NSA_NSID, _S32.pack(-1)) + named
            # This fails if the namespace has a number already; the next message reads the number in any case.
            channel.exchange(pack(_NEW_NSID, REQUEST | ACK, 1, body), 1)
            answers = channel.exchange(pack(_GET_NSID, REQUEST | ACK, 2, _RTGENMSG.pack(0) + named), 2)
        finally:
            channel.close()
            os.close(namespace)
        return next((int(_S32.unpack(m.payload[8:12])[0]) for m in answers if m.type == _NEW_NSID), None)

    def read_changes(self) -> Iterator[int | None]:
        """Yield the numbers of the namespaces that have changed; None if notifications were lost: any may have changed.

        HOST is reported only for changes of links: a device for which a sandbox waits may have appeared.
        """
        seen: set[int] = set()
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(RECEIVE_SIZE, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: more notifications came than the buffer can store.
                yield None
                continue
            numbers = [_S32.unpack(number)[0] for level, kind, number in ancillary if (level, kind) == _NUMBER]
            if not _is_news(data):
                continue
            seen.update(numbers)
            if not numbers and int.from_bytes(data[4:6], sys.byteorder) == NEW_LINK:
                seen.add(HOST)
        yield from seen


def _is_news(data: bytes) -> bool:
    """Return whether a datagram tells of a change that matters; one that cannot be read may."""
    try:
        return any(is_news(each.type, each.payload) for each in messages(data))
    except ProtocolError:
        return True


class NamespaceTracker:
    """Knows which sandbox is in which namespace, and notices when a namespace is created, deleted or replaced."""

    def __init__(self, channel: NamespaceSocket) -> None:
        """Use a socket, which the caller closes."""
        self._socket = channel
        # Sandbox → identity of its namespace at the last refresh, None if it did not exist; sandbox → number; and back.
        self._identities: dict[str, tuple[int, ...] | None] = {}
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def refresh(self, files: Mapping[str, str]) -> list[str]:
        """Track these namespaces and no others: sandbox → file of its namespace, such as `/run/netns/web-1`.

        Return the sandboxes whose namespace was created, deleted or replaced since the last call.
        """
        for name in self._identities.keys() - files.keys():
            self._forget(name)
        changed = []
        for name, file in files.items():
            identity = _identity(file)
            if name not in self._identities or identity != self._identities[name]:
                self._forget(name)
                self._identities[name] = identity
                number = self._socket.assign_number(file) if identity else None
                if number is not None:
                    self._numbers[name], self._names[number] = number, name
                changed.append(name)
        return changed

    def read_changes(self) -> Iterator[str | int | None]:
        """Yield the sandboxes in whose namespace something has changed; HOST and None as the socket does."""
        for number in self._socket.read_changes():
            if number is None or number == HOST:
                yield number
            elif number in self._names:
                yield self._names[number]

    def _forget(self, name: str) -> None:
        self._identities.pop(name, None)
        number = self._numbers.pop(name, None)
        if number is not None and self._names.get(number) == name:
            del self._names[number]


def _identity(file: str) -> tuple[int, ...] | None:
    """Return what differs in another namespace of this name; None: there is none. Inode numbers are reused at once."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns)

"""Changes in any number of network namespaces, told on one socket that keeps none of them alive.

A socket in a namespace would hold it. So each namespace is given a number in ours (RTM_NEWNSID), and a socket in ours
listens to all that have one (NETLINK_LISTEN_ALL_NSID); the kernel takes the number back as the namespace dies.
Source: include/uapi/linux/net_namespace.h, linux/netlink.h, net/core/net_namespace.c.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping

from reconciler.errors import HostError
from reconciler.netlink.channel import RECEIVE_BUFFER, RECEIVE_SIZE, ROUTE, LocalKernel
from reconciler.netlink.message import ACK, GROUPS, NEW_LINK, REQUEST, attribute, pack

_NEW_NSID, _GET_NSID = 88, 90
_NSA_NSID, _NSA_FD = 1, 3
_RTGENMSG = struct.Struct("=Bxxx")
_S32 = struct.Struct("=i")
_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
# How a datagram says of which namespace it is.
_NUMBER = (_SOL_NETLINK, _LISTEN_ALL_NSID)
HOST = -1
_SO_RCVBUFFORCE = 33
_ANCILLARY = 256


class Namespaces:
    """The socket, and which namespace has which number."""

    def __init__(self) -> None:
        """Listen. HostError if the kernel cannot listen to other namespaces."""
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
        """Give the descriptor, to poll for reading."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def number(self, file: str) -> int | None:
        """Give the number of a namespace, which it gets if it has none; None if it does not exist (any more)."""
        try:
            namespace = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        channel = LocalKernel().open(ROUTE)
        try:
            named = attribute(_NSA_FD, _S32.pack(namespace))
            body = _RTGENMSG.pack(0) + attribute(_NSA_NSID, _S32.pack(-1)) + named
            # It may have one: then this fails, and the question finds it.
            channel.exchange(pack(_NEW_NSID, REQUEST | ACK, 1, body), 1)
            answers = channel.exchange(pack(_GET_NSID, REQUEST | ACK, 2, _RTGENMSG.pack(0) + named), 2)
        finally:
            channel.close()
            os.close(namespace)
        return next((int(_S32.unpack(m.payload[8:12])[0]) for m in answers if m.type == _NEW_NSID), None)

    def changed(self) -> Iterator[int | None]:
        """Give the numbers of namespaces in which something has changed; None if that of some is lost: all of them.

        HOST stands for our own, of which only links are told: a device that a sandbox waits for may have come.
        """
        seen: set[int] = set()
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(RECEIVE_SIZE, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: more has happened than the buffer takes.
                yield None
                continue
            numbers = [_S32.unpack(number)[0] for level, kind, number in ancillary if (level, kind) == _NUMBER]
            seen.update(numbers)
            if not numbers and int.from_bytes(data[4:6], sys.byteorder) == NEW_LINK:
                seen.add(HOST)
        yield from seen


class Followed:
    """Which sandbox is in which namespace, and whether that is still the one it was."""

    def __init__(self, namespaces: Namespaces) -> None:
        """Take the socket, which stays its owner's."""
        self._namespaces = namespaces
        # By sandbox: what its namespace was when last seen, None: not there; its number, and the way back.
        self._identities: dict[str, tuple[int, ...] | None] = {}
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def look(self, files: Mapping[str, str]) -> list[str]:
        """Look at the namespaces' files, by sandbox; give the sandboxes whose namespace has come, gone or been replaced."""
        for name in self._identities.keys() - files.keys():
            self._forget(name)
        changed = []
        for name, file in files.items():
            identity = _identity(file)
            if name not in self._identities or identity != self._identities[name]:
                self._forget(name)
                self._identities[name] = identity
                number = self._namespaces.number(file) if identity else None
                if number is not None:
                    self._numbers[name], self._names[number] = number, name
                changed.append(name)
        return changed

    def changed(self) -> Iterator[str | int | None]:
        """Give the sandboxes in whose namespace something has changed; HOST and None as `Namespaces.changed` does."""
        for number in self._namespaces.changed():
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
    """Give what another namespace under this name would not have: inode numbers are used again at once."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns)

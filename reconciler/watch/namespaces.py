"""Reports changes in any number of network namespaces over one socket, which keeps none of them alive.

A socket inside a namespace would keep it alive after `ip netns del`. So this module gives each namespace a number in
the watcher's own namespace (RTM_NEWNSID), where one socket receives the notifications of all numbered namespaces
(NETLINK_LISTEN_ALL_NSID). The kernel frees a number when its namespace is destroyed, and reports that (RTM_DELNSID)
before the inode number of the namespace can be used again. So a namespace is known by its device and inode for as long
as its number is valid. Its ctime says nothing: that of `/proc/PID/ns/net` is the time of the look. Source:
include/uapi/linux/net_namespace.h, linux/netlink.h, net/core/net_namespace.c, fs/nsfs.c.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Mapping

from reconciler.errors import ChannelError, HostError, ProtocolError, RefusedError, SandboxGoneError
from reconciler.model.sandbox import NetnsAddress
from reconciler.netlink import nsid
from reconciler.netlink.channel import RECEIVE_SIZE, ROUTE, LocalKernel, enlarge
from reconciler.netlink.message import NEW_LINK, failure, messages
from reconciler.netlink.neighbour import is_news
from reconciler.netlink.sections import GROUPS
from reconciler.watch.files import Stamp, read_stamp

_NSID_TYPES = {nsid.NEW, nsid.DELETE}
# RTNLGRP_NSID, the 28th.
_NSID_GROUP = 1 << 27
_S32 = struct.Struct("=i")
_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
# The control message that contains the number of the namespace in which something has changed.
_NUMBER = (_SOL_NETLINK, _LISTEN_ALL_NSID)
# Stands for the watcher's own namespace, the host.
HOST = -1
_NEEDS = "listening to network namespaces needs root (CAP_NET_ADMIN and CAP_NET_BROADCAST)"
_ANCILLARY = 256
# Notifications that are read at a time. The caller has other work as well, however many come.
_MOST = 20_000


class Gone(int):
    """The number of a namespace that was destroyed."""


class NamespaceSocket:
    """Gives numbers to namespaces, and receives the notifications of those that have one."""

    def __init__(self) -> None:
        """Open the socket. HostError if the kernel cannot receive notifications of other namespaces."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            enlarge(self._socket)
            self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            self._socket.bind((0, GROUPS | _NSID_GROUP))
        except PermissionError as error:
            self._socket.close()
            raise HostError(_NEEDS) from error
        except OSError as error:
            self._socket.close()
            raise HostError(f"listening to network namespaces: {error.strerror}") from error
        # Open from the start on, so that a number needs no other descriptor than that of the namespace.
        self._requests = LocalKernel().open(ROUTE)
        try:
            self._check_right()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, to poll for reading."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the sockets."""
        self._requests.close()
        self._socket.close()

    def _check_right(self) -> None:
        """Raise HostError if this process may not give numbers: the kernel looks at the right before the request."""
        answer = nsid.ask_without_a_namespace(self._requests)
        if (failed := failure(answer)) and failed.errno == errno.EPERM:
            raise HostError(_NEEDS)

    def assign_number(self, namespace: int) -> int | None:
        """Return the number of an open namespace, and give it one if it has none; None if the file is no namespace.

        ChannelError if that cannot be found out now.
        """
        return nsid.assign(self._requests, namespace)

    def read_changes(self) -> Iterator[int | Gone | None]:
        """Yield the numbers of the namespaces that have changed; None if notifications were lost: any may have changed.

        HOST is reported only for changes of links: a device for which a sandbox waits may have appeared. A namespace
        that was destroyed is Gone: if another one has its number now, the number comes once more.
        """
        seen: set[int] = set()
        gone: set[int] = set()
        for _ in range(_MOST):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(RECEIVE_SIZE, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError(f"listening to network namespaces: {error.strerror}") from error
                # More notifications came than the buffer can store.
                yield None
                continue
            numbers = [_S32.unpack(number)[0] for level, kind, number in ancillary if (level, kind) == _NUMBER]
            if int.from_bytes(data[4:6], sys.byteorder) in _NSID_TYPES:
                # Each namespace has numbers of its own for others. Only those of the host's are ours.
                gone |= _ended(data) if not numbers else set()
                continue
            if not _is_news(data):
                continue
            seen.update(numbers)
            if not numbers and int.from_bytes(data[4:6], sys.byteorder) == NEW_LINK:
                seen.add(HOST)
        yield from map(Gone, gone)
        yield from seen


def _ended(data: bytes) -> set[int]:
    """Return the numbers of the namespaces that a datagram reports as destroyed."""
    return {nsid.number_of(each) for each in messages(data) if each.type == nsid.DELETE}


def _is_news(data: bytes) -> bool:
    """Return whether a datagram tells of a change that matters; one that cannot be read may."""
    try:
        return any(is_news(each.type, each.payload) for each in messages(data))
    except ProtocolError:
        return True


class _Named:
    """Notices that names of `ip netns` may lead to other namespaces: each of them is a mount, or an entry of FOLDER."""

    FOLDER = "/run/netns"

    def __init__(self) -> None:
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(self._mounts, select.POLLPRI)
        self._folder: Stamp | None = None
        # Whether to say so once more: two changes within a tick of the kernel's clock have the same time.
        self._again = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._mounts)

    def may_have_changed(self) -> bool:
        """Return whether they may have since the last call."""
        # proc(5): mountinfo is readable once after each change of a mount.
        changed = bool(self._poller.poll(0))
        before, self._folder = self._folder, read_stamp(self.FOLDER)
        changed |= before != self._folder
        again, self._again = self._again, changed
        return changed or again


class NamespaceTracker:
    """Knows which sandbox is in which namespace, and notices when a namespace is created, deleted or replaced.

    `unheard`: sandbox → why changes in its namespace are not reported at present; `refresh` tries again.
    """

    def __init__(self, channel: NamespaceSocket, open_namespace: Callable[[NetnsAddress], int]) -> None:
        """Use a socket, which the caller closes. `open_namespace`: see `drivers.reach`."""
        self.unheard: dict[str, str] = {}
        self._socket, self._open = channel, open_namespace
        self._named = _Named()
        # Sandbox → an address by a name that is no link: what it leads to is the same as long as `_named` says so.
        self._steady: dict[str, NetnsAddress] = {}
        # Sandbox → identity of its namespace at the last refresh, None if it did not exist; sandbox → number; and back.
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        # Sandboxes whose namespaces may have been replaced unnoticed: reports were lost.
        self._unsure: set[str] = set()
        # What `read_changes` returns next, in order.
        self._changes: dict[str | int, None] = {}

    def close(self) -> None:
        """Notice nothing any more."""
        self._named.close()

    def refresh(self, addresses: Mapping[str, NetnsAddress]) -> list[str]:
        """Track these namespaces and no others: sandbox → address.

        Return the sandboxes whose namespace was created, deleted or replaced since the last call, or may have been.
        """
        for name in (self._identities.keys() | self.unheard.keys()) - addresses.keys():
            self._forget(name)
            self.unheard.pop(name, None)
        changed = []
        if self._named.may_have_changed():
            self._steady.clear()
        for name, address in addresses.items():
            if self._steady.get(name) is address and name not in self._unsure:
                continue
            identity, is_link = _identity(address.file)
            known = name in self._identities and identity == self._identities[name]
            if (not known or name in self._unsure) and self._listen(name, address, identity):
                changed.append(name)
            if address.name and not is_link and name in self._identities:
                self._steady[name] = address
        return changed

    def reload(self) -> None:
        """Open all namespaces anew at the next refresh: others may be allowed now."""
        self._unsure |= self._identities.keys()

    def _listen(self, name: str, address: NetnsAddress, identity: tuple[int, int] | None) -> bool:
        """Begin to listen to a namespace, if it exists. Return False, and record why, if that is not possible."""
        self._forget(name)
        # The number may be that of a namespace whose end is still to be read.
        self._read()
        try:
            number = self._assign_number(address) if identity else None
        except (HostError, ChannelError) as error:
            self.unheard[name] = str(error)
            return False
        self.unheard.pop(name, None)
        self._identities[name] = identity
        if number is not None:
            self._numbers[name], self._names[number] = number, name
        return True

    def _assign_number(self, address: NetnsAddress) -> int | None:
        """Return the number of a namespace; None if it does not exist, or is refused, which its look reports."""
        try:
            namespace = self._open(address)
        except (SandboxGoneError, RefusedError):
            return None
        try:
            return self._socket.assign_number(namespace)
        finally:
            os.close(namespace)

    def read_changes(self) -> list[str | int]:
        """Return the sandboxes in whose namespace something has changed, and HOST as the socket does.

        If reports were lost, the next refresh returns all sandboxes: each may be in another namespace.
        """
        self._read()
        found, self._changes = list(self._changes), {}
        return found

    def _read(self) -> None:
        for number in self._socket.read_changes():
            if isinstance(number, Gone):
                # The next refresh looks at the file again.
                for name in [name for name, each in self._numbers.items() if each == number]:
                    self._forget(name)
            elif number is None:
                self._unsure |= self._identities.keys()
            elif number == HOST:
                self._changes[HOST] = None
            elif number in self._names:
                self._changes[self._names[number]] = None

    def _forget(self, name: str) -> None:
        self._identities.pop(name, None)
        self._steady.pop(name, None)
        self._unsure.discard(name)
        number = self._numbers.pop(name, None)
        if number is not None and self._names.get(number) == name:
            del self._names[number]


def _identity(file: str) -> tuple[tuple[int, int] | None, bool]:
    """Return what differs in another namespace that exists at the same time, None for none; and whether by a link."""
    is_link = False
    try:
        found = os.lstat(file)
        if is_link := stat.S_ISLNK(found.st_mode):
            found = os.stat(file)
    except OSError:
        return None, is_link
    return (found.st_dev, found.st_ino), is_link

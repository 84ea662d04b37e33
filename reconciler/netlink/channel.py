"""Channels carry netlink messages to a kernel and bring back its answers.

Here are the protocols, and this host's kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import cache
from typing import Protocol

from reconciler.errors import ChannelError, HostError, ProtocolError, SandboxGoneError
from reconciler.netlink.budget import BYTES, Budget
from reconciler.netlink.closer import close_later
from reconciler.netlink.message import DONE, ERROR, Message, messages, sequence_of

# Seconds a kernel may take for one exchange; a large dump takes milliseconds.
TIMEOUT = 10.0
# Bytes of answers that the socket can queue. Each refused request of a batch of 64 KB is one answer.
RECEIVE_BUFFER = 8 << 20
SEND_BUFFER = 1 << 20
# The kernel sends a dump in pieces of at most 32 KB. A larger buffer does not make them larger.
RECEIVE_SIZE = 1 << 16
# For each piece of a dump, the kernel allocates as many bytes as the largest read so far. For a dump of a few messages
# this allocation is what takes time: 5,000 dumps take 0.3 s with this size, 0.9 s with 32 KB. The kernel never
# allocates less than this (linux/netlink.h: NLMSG_GOODSIZE).
SMALL_RECEIVE_SIZE = min(os.sysconf("SC_PAGE_SIZE"), 8192) - 320

# linux/netlink.h. Generic netlink is for IPVS, netfilter for connection tracking, sock_diag for TCP connections.
ROUTE, SOCK_DIAG, NETFILTER, GENERIC = 0, 4, 12, 16

# linux/netlink.h, asm-generic/socket.h and linux/sched.h; Python names none of them.
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_NETNS_COOKIE = 32, 33, 71
# All that one send contains must fit into the send buffer.
_BUFFERS = ((_SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER), (_SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER))
_CLONE_NEWNET = 0x40000000
# struct timeval.
_TIMEVAL = struct.Struct("@ll")
# asm-generic/unistd.h, the same on every architecture, and linux/mount.h. glibc has wrappers only from 2.36 on.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _CREATE = 1, 6


class Channel(Protocol):
    """Carries netlink messages of one family to one kernel namespace and brings the answers."""

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send messages back to back. Return all that comes back, up to the answer to sequence number `last`.

        ChannelError if that answer does not come in time: it is then unknown what the kernel has done.
        """

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Yield the answers to each batch, in order. A slow channel sends a batch before the last one is answered.

        After a ChannelError it is unknown what the kernel did with the batches taken from `batches` and not answered.
        """

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send dump requests, each after the answer to the one before, as the kernel demands. Return all answers.

        Made for many dumps of a few messages each, on a channel that is used for nothing else.
        """

    def close(self) -> None:
        """Close the channel; it no longer keeps the namespace alive."""


class Kernel(Protocol):
    """One network namespace of a kernel: its netlink channels and its settings."""

    def open(self, protocol: int) -> Channel:
        """Open a channel of a netlink family: ROUTE, GENERIC, NETFILTER, SOCK_DIAG. HostError if there is none."""

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read settings by their names for sysctl(8), and leave out those that the kernel does not have."""

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting. HostError if the kernel does not have it or refuses the value."""

    def ipvs_listing(self) -> str | None:
        """Read the kernel's listing of its IPVS table (/proc/net/ip_vs); None if the kernel has no IPVS."""

    def ipvs_servers(self) -> bytes | None:
        """Read the servers of all IPv4 services by the older interface, as `ipvs_legacy.read` does; None without it."""

    def read_listing(self, name: str) -> str | None:
        """Read a file of /proc/net: ip_vs_conn, snmp or snmp6; None if the kernel does not have it."""


class LocalKernel:
    """The kernel of this host: the namespace of this process, or another one."""

    def __init__(self, namespace: int | None = None, budget: Budget | None = None) -> None:
        """Use the namespace that the open file `namespace` refers to, which the caller closes; by default our own.

        `budget`: what its answers may cost, if others have rights in the namespace.
        """
        self._namespace, self._budget = namespace, budget
        self._cookie: int | None = None

    def open(self, protocol: int) -> SocketChannel:
        """Open a channel, as the protocol says."""
        with self._inside():
            # The operator bounds the connections of all namespaces together, by nf_conntrack_max.
            channel = SocketChannel(protocol, None if protocol == NETFILTER else self._budget)
        # It costs almost nothing here. An old kernel does not have it, which is an error only for those who need it.
        with suppress(OSError):
            self._cookie = channel.cookie()
        return channel

    @property
    def cookie(self) -> int:
        """The number of the namespace: no other one has it, or had it since the boot. Needs Linux 5.14."""
        if self._cookie is None:
            with closing(self.open(ROUTE)) as channel:
                self._cookie = channel.cookie()
        return self._cookie

    def device_numbers(self, names: Mapping[int, str]) -> dict[int, int]:
        """Return the number of each device by its index, without those that do not exist. `names`: what each is named.

        The number is the inode of the device's folder in sysfs, which the kernel counts up (kernfs): no other device
        has it, or had it since the boot. A device keeps it through renames and moves, and nobody can choose it.
        """
        if not names:
            return {}
        with self._inside():
            root = _mount_sysfs()
        try:
            found = dict(filter(None, (_device(root, name) for name in names.values())))
            if found.keys() != names.keys():
                # Some were renamed since, or have names that are no text.
                found |= dict(filter(None, (_device(root, name) for name in _listed(root))))
        finally:
            close_later(root)
        return {index: found[index] for index in names if index in found}

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read settings, as the protocol says."""
        if not names:
            return {}
        with self._inside():
            found = {name: _text(_sysctl_file(name), f"sysctl {name}") for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting, as the protocol says."""
        try:
            with self._inside(), open(_sysctl_file(name), "w", encoding="ascii") as file:
                file.write(value)
        except OSError as error:
            raise HostError(f"sysctl {name}={value}: {error.strerror}") from error

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Open a socket in the namespace, which stays there."""
        with self._inside():
            return socket.socket(family, kind, protocol)

    def ipvs_listing(self) -> str | None:
        """Read the listing, as the protocol says."""
        return self.read_listing("ip_vs")

    def ipvs_servers(self) -> bytes | None:
        """Read the servers, as the protocol says."""
        from reconciler.netlink import ipvs_legacy

        with self._inside():
            answer = ipvs_legacy.read(_libc())
        if answer and self._budget:
            self._budget.spend(len(answer), ipvs_legacy.count(answer))
        return answer

    def read_listing(self, name: str) -> str | None:
        """Read a file of /proc/net; None if the kernel does not have it."""
        with self._inside():
            return _text(f"/proc/thread-self/net/{name}", f"/proc/net/{name}")

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Enter the namespace, and leave it at the end. What is opened inside keeps working afterwards."""
        if self._namespace is None:
            yield
            return
        try:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"the network namespace of this thread cannot be opened: {error.strerror}") from error
        try:
            _setns(self._namespace)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)


class SocketChannel:
    """A netlink socket in the namespace that this process is in when the socket is opened."""

    def __init__(self, protocol: int = ROUTE, budget: Budget | None = None) -> None:
        """Open the socket of a netlink family. `budget`: what all answers may cost; None: they are not bounded."""
        self._budget = budget
        self._socket = _open(protocol)

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send and receive, as the protocol says."""
        with _translated, self._step():
            self._socket.send(requests)
            return self._collect(last, RECEIVE_SIZE)

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Exchange one after the other: the kernel has executed a batch before the call that sends it returns."""
        return (self.exchange(requests, last) for requests, last in batches)

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send one by one and receive, as the protocol says."""
        answers: list[Message] = []
        with _translated, self._step():
            for request in requests:
                self._socket.send(request)
                answers += self._collect(sequence_of(request), SMALL_RECEIVE_SIZE)
        return answers

    def cookie(self) -> int:
        """Return the number of the namespace of the socket. OSError if the kernel does not number them."""
        return int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)

    def _collect(self, last: int, size: int) -> list[Message]:
        answers: list[Message] = []
        buffer = bytearray(size)
        while True:
            received = self._socket.recv_into(buffer, 0, socket.MSG_TRUNC)
            if received > size:
                raise ProtocolError(f"the kernel sent a datagram of {received} bytes; at most {size} were expected")
            part = messages(bytes(memoryview(buffer)[:received]))
            answers += part
            if self._budget:
                self._budget.spend(received, len(part))
            if any(m.sequence == last and m.type in (ERROR, DONE) for m in (part[0], part[-1])):
                return answers

    def _step(self) -> AbstractContextManager[None]:
        return self._budget.step() if self._budget else nullcontext()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def enter_new_namespace() -> int:
    """Enter a new network namespace with this thread. Return its open file.

    It has no name: with its files, sockets and threads, it ends, and all devices in it. So nothing of it is left
    whenever this process dies.
    """
    if _libc().unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        needs = " (it needs root: CAP_SYS_ADMIN)" if code == errno.EPERM else ""
        raise HostError(f"a network namespace cannot be made: {os.strerror(code)}{needs}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class _Translated:
    """Turns errors of a socket into ours. A generator in its place would take as long as a message of the kernel."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, BlockingIOError):
            raise ChannelError(f"the kernel did not answer within {TIMEOUT:.0f} s") from None
        if isinstance(error, OSError):
            raise ChannelError(f"netlink: {error.strerror}") from error


_translated = _Translated()


def _open(protocol: int) -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        lacks = f"this kernel has no netlink family {protocol}"
        reason = lacks if error.errno == errno.EPROTONOSUPPORT else f"netlink family {protocol} cannot be opened"
        raise HostError(f"{reason}: {error.strerror}") from error
    try:
        # With a timeout of Python's own, a poll would precede each call.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            channel.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(TIMEOUT), 0))
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            channel.setsockopt(_SOL_NETLINK, option, 1)
        enlarge(channel)
        channel.bind((0, 0))
    except BaseException:
        channel.close()
        raise
    return channel


def enlarge(channel: socket.socket) -> None:
    """Make the buffers of a socket large: of these sizes, or as large as the host lets those who are not its root."""
    for forced, plain, size in _BUFFERS:
        try:
            channel.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            channel.setsockopt(socket.SOL_SOCKET, plain, size)


def _text(path: str, name: str) -> str | None:
    data = bytearray()
    try:
        with open(path, "rb", buffering=0) as file:
            # The kernel may allocate as much as is asked for at a time.
            while len(data) <= BYTES and (part := file.read(RECEIVE_SIZE)):
                data += part
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{name}: {error.strerror}") from error
    if len(data) > BYTES:
        raise ProtocolError(f"{name}: it has more than {BYTES >> 20} MiB")
    return data.decode("ascii", errors="replace").strip()


def _sysctl_file(name: str) -> str:
    """Return the file of a sysctl. A name with slashes has dots that are not between its parts, as in sysctl(8)."""
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))


@cache
def _libc() -> ctypes.PyDLL:
    # These calls take microseconds. To let other threads run meanwhile, and then to wait for them, takes longer.
    return ctypes.PyDLL(None, use_errno=True)


def _setns(descriptor: int) -> None:
    # os.setns exists only from Python 3.12 on.
    if _libc().setns(descriptor, _CLONE_NEWNET) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM:
        raise HostError("entering a network namespace needs root (CAP_SYS_ADMIN)")
    if code == errno.EINVAL:
        raise HostError("the file is not a network namespace")
    raise SandboxGoneError(f"cannot enter the network namespace: {os.strerror(code)}")


def _mount_sysfs() -> int:
    """Mount the sysfs of this thread's namespace, without a place in any tree of files. Return its descriptor."""
    context = _call(_FSOPEN, b"sysfs", _CLOEXEC)
    try:
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def _call(number: int, *arguments: bytes | int | None) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise HostError(
            f"the devices of a network namespace cannot be told apart (mount of sysfs: "
            f"{os.strerror(ctypes.get_errno())}); this needs root (CAP_SYS_ADMIN)"
        )
    return result


def _listed(root: int) -> list[str]:
    folder = os.open("class/net", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        return os.listdir(folder)
    finally:
        os.close(folder)


def _device(root: int, name: str) -> tuple[int, int] | None:
    """Return the index and the number of a device by its name; None if there is none."""
    try:
        # Both are read by one descriptor, which is of one device, whatever is renamed meanwhile.
        folder = os.open(f"class/net/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    except (OSError, ValueError):
        return None
    try:
        file = os.open("ifindex", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            return int(os.read(file, 32)), os.fstat(folder).st_ino
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None
    finally:
        os.close(folder)

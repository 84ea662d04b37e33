"""The seam between netlink and what carries it: "send these messages, give me the answers"; and this host's kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from reconciler.errors import ChannelError, HostError, ProtocolError, SandboxGoneError
from reconciler.netlink.message import DONE, ERROR, Message, messages, sequence_of

# Seconds a kernel may take for one exchange; a large dump takes milliseconds.
TIMEOUT = 10.0
# Bytes of answers that may wait: each refusal of a batch of 64 KB is one.
RECEIVE_BUFFER = 8 << 20
SEND_BUFFER = 1 << 20
# A dump comes in pieces of at most 32 KB; a larger buffer does not make them larger.
RECEIVE_SIZE = 1 << 16
# The kernel makes room for a piece of a dump as large as the largest read so far, and for a dump of a few messages
# making the room is what takes time: 5,000 of them in 0.3 s with these bytes, in 0.9 with 32 KB. It is what the kernel
# makes at least (linux/netlink.h: NLMSG_GOODSIZE).
SMALL_RECEIVE_SIZE = min(os.sysconf("SC_PAGE_SIZE"), 8192) - 320

# linux/netlink.h. Generic netlink is for IPVS, netfilter for connection tracking.
ROUTE, NETFILTER, GENERIC = 0, 12, 16

# linux/netlink.h, asm-generic/socket.h and linux/sched.h; Python names none of them.
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
# What is sent at once has to fit whole.
_BUFFERS = ((_SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER), (_SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER))
_CLONE_NEWNET = 0x40000000


class Channel(Protocol):
    """Carries netlink messages of one family to one kernel namespace and brings the answers."""

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send messages back to back; give all that comes back up to the answer to sequence number `last`.

        Raises ChannelError if that answer does not come in time: what was done is then unknown.
        """

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Exchange one batch after the other; where the way is long, each is sent while the one before is carried out.

        A ChannelError leaves unknown what became of all batches taken from `batches` and not answered.
        """

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send dump requests, each after the answer to the one before, as the kernel wants it; give all that comes back.

        For many dumps of a few messages each, and on a channel that does nothing else.
        """

    def close(self) -> None:
        """Let the namespace go."""


class Kernel(Protocol):
    """The ways to one network namespace of a kernel."""

    def open(self, protocol: int) -> Channel:
        """Open a channel of a netlink family: ROUTE, GENERIC or NETFILTER. HostError if the kernel lacks it."""

    def sysctl(self, name: str) -> str | None:
        """Read a setting such as net.ipv4.ip_forward; None if the kernel does not have it."""

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting. HostError if the kernel does not have it or does not take the value."""

    def ipvs_listing(self) -> str | None:
        """Read the kernel's listing of its IPVS table (/proc/net/ip_vs); None if it does not have one."""


class LocalKernel:
    """The kernel of this host: the namespace of this process, or another one."""

    def __init__(self, namespace: int | None = None) -> None:
        """Take the namespace that the open file `namespace`, which stays its owner's, refers to; or ours."""
        self._namespace = namespace

    def open(self, protocol: int) -> SocketChannel:
        """Open a channel, as the protocol says."""
        with self._inside():
            return SocketChannel(protocol)

    def sysctl(self, name: str) -> str | None:
        """Read a setting, as the protocol says."""
        return self._text(_sysctl_file(name), f"sysctl {name}")

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting, as the protocol says."""
        try:
            with self._inside(), open(_sysctl_file(name), "w", encoding="ascii") as file:
                file.write(value)
        except OSError as error:
            raise HostError(f"sysctl {name}={value}: {error.strerror}") from error

    def ipvs_listing(self) -> str | None:
        """Read the listing, as the protocol says."""
        return self._text("/proc/thread-self/net/ip_vs", "listing of the IPVS table")

    def _text(self, path: str, name: str) -> str | None:
        try:
            with self._inside(), open(path, encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"{name}: {error.strerror}") from error

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Be in the namespace for a moment: what is opened there stays there."""
        if self._namespace is None:
            yield
            return
        with open("/proc/thread-self/ns/net", "rb") as home:
            _setns(self._namespace)
            try:
                yield
            finally:
                _setns(home.fileno())


class SocketChannel:
    """A netlink socket in the namespace that this process is in as it is opened."""

    def __init__(self, protocol: int = ROUTE) -> None:
        """Open the socket of a netlink family."""
        self._socket = _open(protocol)

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send and collect, as the protocol says."""
        with _translated():
            self._socket.send(requests)
            return self._collect(last, RECEIVE_SIZE)

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Exchange one after the other: the kernel is done with a batch before its sending returns."""
        return (self.exchange(requests, last) for requests, last in batches)

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send one by one and collect, as the protocol says."""
        answers: list[Message] = []
        with _translated():
            for request in requests:
                self._socket.send(request)
                answers += self._collect(sequence_of(request), SMALL_RECEIVE_SIZE)
        return answers

    def _collect(self, last: int, size: int) -> list[Message]:
        answers: list[Message] = []
        buffer = bytearray(size)
        while True:
            received = self._socket.recv_into(buffer, 0, socket.MSG_TRUNC)
            if received > size:
                raise ProtocolError(f"the kernel answers in pieces of {received} bytes where {size} are expected")
            part = messages(bytes(memoryview(buffer)[:received]))
            answers += part
            if any(m.sequence == last and m.type in (ERROR, DONE) for m in (part[0], part[-1])):
                return answers

    def close(self) -> None:
        """Let the namespace go."""
        self._socket.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise ChannelError(f"the kernel did not answer within {TIMEOUT:.0f} s") from None
    except OSError as error:
        raise ChannelError(f"netlink: {error.strerror}") from error


def _open(protocol: int) -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise HostError(f"this kernel has no netlink family {protocol}: {error.strerror}") from error
    try:
        channel.settimeout(TIMEOUT)
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            channel.setsockopt(_SOL_NETLINK, option, 1)
        for forced, plain, size in _BUFFERS:
            try:
                channel.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                channel.setsockopt(socket.SOL_SOCKET, plain, size)
        channel.bind((0, 0))
    except BaseException:
        channel.close()
        raise
    return channel


def _sysctl_file(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def _setns(descriptor: int) -> None:
    # os.setns is there from Python 3.12 on only.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM:
        raise HostError("entering a network namespace needs root (CAP_SYS_ADMIN)")
    if code == errno.EINVAL:
        raise HostError("that file is not a network namespace")
    raise SandboxGoneError(f"cannot enter the network namespace: {os.strerror(code)}")

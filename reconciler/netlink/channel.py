"""The seam between netlink and what carries it: "send these messages, give me the answers"; and the local socket."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Protocol

from reconciler.errors import ChannelError, HostError, SandboxGoneError
from reconciler.netlink.message import DONE, ERROR, Message, messages

# Seconds a kernel may take for one exchange; a large dump takes milliseconds.
TIMEOUT = 10.0
# Bytes of answers that may wait: each refusal of a batch of 64 KB is one.
RECEIVE_BUFFER = 8 << 20
# A dump comes in pieces of at most 32 KB; a larger buffer does not make them larger.
RECEIVE_SIZE = 1 << 16

# linux/netlink.h, asm-generic/socket.h and linux/sched.h; Python names none of them.
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_SO_RCVBUFFORCE = 33
_CLONE_NEWNET = 0x40000000


class Channel(Protocol):
    """Carries netlink messages to one kernel namespace and brings the answers."""

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send messages back to back; give all that comes back up to the answer to sequence number `last`.

        Raises ChannelError if that answer does not come in time: what was done is then unknown.
        """

    def close(self) -> None:
        """Let the namespace go."""


class SocketChannel:
    """A NETLINK_ROUTE socket, in the namespace of this process or in another one."""

    def __init__(self, namespace: int | None = None) -> None:
        """Open the socket in the namespace that the open file `namespace` refers to, or in ours."""
        self._socket = _open() if namespace is None else _open_within(namespace)

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send and collect, as the protocol says."""
        answers: list[Message] = []
        try:
            self._socket.send(requests)
            while True:
                part = messages(self._socket.recv(RECEIVE_SIZE))
                answers += part
                if any(m.sequence == last and m.type in (ERROR, DONE) for m in (part[0], part[-1])):
                    return answers
        except TimeoutError:
            raise ChannelError(f"the kernel did not answer within {TIMEOUT:.0f} s") from None
        except OSError as error:
            raise ChannelError(f"netlink: {error.strerror}") from error

    def close(self) -> None:
        """Let the namespace go."""
        self._socket.close()


def _open() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        channel.settimeout(TIMEOUT)
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            channel.setsockopt(_SOL_NETLINK, option, 1)
        try:
            channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        channel.bind((0, 0))
    except BaseException:
        channel.close()
        raise
    return channel


def _open_within(namespace: int) -> socket.socket:
    """Open a socket in another namespace; the thread is back in its own when this returns."""
    with open("/proc/thread-self/ns/net", "rb") as home:
        _setns(namespace)
        try:
            return _open()
        finally:
            _setns(home.fileno())


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

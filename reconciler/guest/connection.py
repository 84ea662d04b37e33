"""The host's end of an agent's port: frames over the unix socket that QEMU serves for it, or over vsock.

What the guest sends is bounded in size and time, and raises only ProtocolError and ChannelError. Traps: QEMU lets a
second client of the socket connect and wait in silence until the first one leaves, so there is a lock of the socket, by
its device and inode. And QEMU delivers what the guest wrote while no client was connected to the next one, so
everything is discarded up to the echo of a new greeting.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from types import TracebackType
from typing import Self

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest import agent
from reconciler.guest.agent import Decoder, Frame
from reconciler.model.sandbox import SANDBOXES
from reconciler.model.transport import UnixSocket, Vsock, transport
from reconciler.rundir import NamedLock
from reconciler.wording import quote, reason

# Seconds for one exchange with the guest: more than the agent gives its kernel (agent.KERNEL_TIMEOUT).
TIMEOUT = 10.0
# Bytes of one read or write.
READ_SIZE = 1 << 16
# Bytes of frames that may wait to be received. While there are more, the socket is not read.
QUEUE_SIZE = 4 << 20
# Characters of a kernel release.
_RELEASE_LENGTH = 64
# Seconds that one poll may take: it counts milliseconds in an int of C.
_LONGEST_POLL = 86400.0


class OtherVersionError(ProtocolError):
    """The guest's agent speaks another version of the protocol, which is `version`."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the guest's agent speaks version {version} of the protocol, this program version {agent.VERSION}; "
            "copy the agent of this program into the guest (docs/guest.md)"
        )
        self.version = version


class Connection:
    """The only client of a port's socket, from `__init__` to `close`. For one thread.

    Deadlines are times of time.monotonic().
    """

    def __init__(self, path: str | socket.socket, target: str = "") -> None:
        """Connect. SandboxGoneError if the socket is not served, BusyError if another process has the lock.

        `path`: an address of `model.transport`, or a socket that is connected already and that no other process has.
        `target`: where to connect to, if not to its path: an open file of that socket.
        """
        # Who ends a connection.
        self._carrier = "QEMU"
        self._lock: NamedLock | None = None
        if isinstance(path, socket.socket):
            self.path, self._socket = "a throwaway machine", path
        else:
            self.path = path
            self._open(path, target)
        self._socket.setblocking(False)
        # Nothing that it finds counts before the first greeting.
        self._decoder = Decoder(os.urandom(agent.NONCE_SIZE), 0)
        self._frames: deque[Frame] = deque()
        # Bytes of these frames.
        self._size = 0
        self._unsent = bytearray()

    def _open(self, path: str, target: str) -> None:
        if transport(path) != UnixSocket(path):
            self._carrier = "the machine"
        self._lock = _lock(path)
        try:
            self._socket = _dial(path, target)
        except BaseException:
            self._lock.close()
            raise
        if lock_name(identity(path)) != self._lock.name:
            # Another QEMU has taken its place since.
            self.close()
            raise gone(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the port for other processes."""
        self._socket.close()
        if self._lock:
            self._lock.close()

    @property
    def pending(self) -> int:
        """Return how many bytes are not sent yet."""
        return len(self._unsent)

    def greet(self, deadline: float) -> str:
        """Begin anew: both ends forget everything before. Return the release of the guest's kernel.

        ProtocolError if the other end is no agent of this version.
        """
        greeting = agent.MAGIC + os.urandom(agent.NONCE_SIZE).replace(agent.MAGIC[:1], b"\0")
        self._decoder = Decoder(greeting, 0)
        self._frames.clear()
        self._size = 0
        # A frame that is half sent is sent to its end, so that no greeting begins within a header.
        self._unsent += greeting
        echo, hello = self.receive(deadline), self.receive(deadline)
        head = agent.HELLO_HEAD
        is_hello = hello.request == 0 and hello.kind == agent.HELLO and len(hello.payload) >= head.size
        if echo.kind != agent.GREETING or not is_hello:
            raise ProtocolError(f"the other end of {self.path} does not introduce itself as reconciler's agent")
        (version,) = head.unpack_from(hello.payload)
        if version != agent.VERSION:
            raise OtherVersionError(version)
        return hello.payload[head.size : head.size + _RELEASE_LENGTH].decode(errors="replace")

    def push(self, request: int, kind: int, payload: bytes = b"") -> None:
        """Append a frame to what is to be sent. HostError if no frame can carry the payload."""
        if len(payload) > agent.MAX_FRAME:
            raise HostError(f"a request to the guest has {len(payload)} bytes; the limit is {agent.MAX_FRAME}")
        if agent.MAGIC in payload:
            raise HostError("a request to the guest contains the bytes by which the agent recognizes a new connection")
        self._unsent += agent.HEADER.pack(len(payload), request, kind) + payload

    def receive(self, deadline: float) -> Frame:
        """Return the next frame. Send what is to be sent while waiting for it. ChannelError after the deadline."""
        while not self._frames:
            self.step(deadline)
            if time.monotonic() > deadline and not self._frames:
                raise ChannelError(f"the guest sent data, but no answer in time ({self.path})")
        frame = self._frames.popleft()
        self._size -= len(frame.payload) + agent.HEADER.size
        return frame

    def has_frame(self) -> bool:
        """Return whether `receive` would return a frame at once."""
        return bool(self._frames)

    def step(self, deadline: float, source: int | None = None) -> bool:
        """Wait until data can be sent or received, and do that. Return whether the descriptor `source` is readable.

        ChannelError after the deadline, or if QEMU closes the socket.
        """
        poller = select.poll()
        if self._size < QUEUE_SIZE:
            poller.register(self._socket, select.POLLIN)
        if self._unsent:
            poller.register(self._socket, select.POLLOUT | (select.POLLIN if self._size < QUEUE_SIZE else 0))
        if source is not None:
            poller.register(source, select.POLLIN)
        events = dict(poller.poll(min(max(0.0, deadline - time.monotonic()), _LONGEST_POLL) * 1000))
        if not events:
            raise ChannelError(f"the guest did not answer in time ({self.path})")
        mine = events.get(self._socket.fileno(), 0)
        try:
            if mine & select.POLLOUT:
                del self._unsent[: self._socket.send(self._unsent[:READ_SIZE])]
            if mine & ~select.POLLOUT:
                self._decode(self._socket.recv(READ_SIZE))
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelError(
                f"{self._carrier} closed the connection to the guest ({self.path}: {error.strerror})"
            ) from error
        return source in events

    def _decode(self, data: bytes) -> None:
        if not data:
            raise ChannelError(f"{self._carrier} closed the connection to the guest ({self.path})")
        for frame in self._decoder.feed(data):
            if frame.kind == agent.OVERSIZED:
                raise ProtocolError(f"the guest announced a frame of more than {agent.MAX_FRAME} bytes")
            self._frames.append(frame)
            self._size += len(frame.payload) + agent.HEADER.size


def _dial(address: str, target: str) -> socket.socket:
    """Connect to the agent at an address; `target` as for Connection."""
    found = transport(address)
    if isinstance(found, Vsock):
        # Few machines are reached by vsock.
        from reconciler.guest import vsock

        return vsock.connect(found, TIMEOUT)
    channel = connect(
        target or found.path,
        TIMEOUT,
        gone=gone(found.path),
        late=ChannelError(f"QEMU did not accept a connection to {found.path} within {TIMEOUT:.0f} s"),
    )
    if found.port is not None:
        from reconciler.guest import vsock

        try:
            vsock.choose_port(channel, address, found.port, TIMEOUT)
        except BaseException:
            channel.close()
            raise
    return channel


def _lock(path: str) -> NamedLock:
    """Lock a socket. BusyError if another process has the lock."""
    lock = NamedLock(lock_name(identity(path)))
    if not lock.acquire():
        lock.close()
        raise BusyError(f"another process is connected to {path}; try again when it has finished")
    return lock


def identity(path: str) -> str:
    """Return what all addresses of a socket have in common. SandboxGoneError if there is none."""
    to = transport(path)
    if isinstance(to, Vsock):
        return f"vsock-{to.cid}-{to.port}"
    try:
        found = os.stat(to.path)
    except (FileNotFoundError, NotADirectoryError):
        raise gone(to.path) from None
    except OSError as error:
        raise HostError(f"cannot connect to {to.path}: {reason(error)}") from error
    return f"{found.st_dev}-{found.st_ino}" + ("" if to.port is None else f"-{to.port}")


def lock_name(socket_identity: str) -> str:
    """Return the name of the lock of a socket."""
    return f"socket {socket_identity}"


def gone(path: str) -> SandboxGoneError:
    """Return the error that no QEMU serves a socket. If it is that of a machine of ours: how to start it."""
    folder, _, _ = path.rpartition("/")
    above, _, name = folder.rpartition("/")
    advice = f"; `reconciler sandbox start {quote(name)}` starts it" if above == SANDBOXES else ""
    return SandboxGoneError(f"no QEMU serves {path}: the sandbox is not running{advice}")


def connect(path: str, timeout: float, *, gone: ReconcilerError, late: ReconcilerError) -> socket.socket:
    """Connect to a socket of QEMU. Raise `gone` if it is not served, `late` after `timeout` seconds."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(timeout)
        channel.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()
        raise gone from None
    except (TimeoutError, BlockingIOError):
        channel.close()
        raise late from None
    except OSError as error:
        channel.close()
        raise HostError(f"cannot connect to {path}: {reason(error)}") from error
    return channel

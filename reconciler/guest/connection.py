"""The host's end of a virtio-serial port: frames over the unix socket that QEMU serves for it.

What comes from the guest is bounded in size and time, and can raise only ProtocolError and ChannelError. Traps: a
second client of the socket is connected, waits in silence, and later becomes the peer, so there is a lock; and what the
guest wrote while nobody was there is delivered to the next client, so all is discarded up to the echo of a new mark.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest import agent
from reconciler.guest.agent import Decoder, Frame

# Seconds for one exchange with the guest: more than its agent gives its kernel.
TIMEOUT = 10.0
# Bytes of a read, and of frames that may wait here; then nothing is read until some are fetched.
READ_SIZE = 1 << 16
QUEUE_SIZE = 4 << 20
_RELEASE_LENGTH = 64
# Seconds that a poll can wait: its milliseconds are an int of C.
_LONGEST = 86400.0


class Hello(NamedTuple):
    """What the other end says of itself."""

    version: int
    kernel: str


class Connection:
    """The only client of one port's socket, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str) -> None:
        """Connect. SandboxGoneError if nobody serves the socket, BusyError if another client holds it."""
        self.path = path
        self._lock = _lock(path)
        try:
            self._socket = connect(
                path,
                TIMEOUT,
                gone=SandboxGoneError(f"nobody serves {path}: the sandbox is not running"),
                late=ChannelError(f"QEMU did not accept a connection in time ({path})"),
            )
            self._socket.setblocking(False)
        except BaseException:
            os.close(self._lock)
            raise
        self._decoder = Decoder(os.urandom(agent.NONCE_SIZE), 0)
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._unsent = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the port to others."""
        self._socket.close()
        os.close(self._lock)

    @property
    def pending(self) -> int:
        """Bytes that are still to be sent."""
        return len(self._unsent)

    def greet(self, deadline: float) -> Hello:
        """Begin anew: the guest forgets what was before, and so do we. Times are of time.monotonic()."""
        mark = agent.MAGIC + os.urandom(agent.NONCE_SIZE).replace(agent.MAGIC[:1], b"\0")
        self._decoder = Decoder(mark, 0)
        self._frames.clear()
        self._size = 0
        # A frame that is half sent is sent to its end: the agent never sees a mark at an unlucky place.
        self._unsent += mark
        greeting, hello = self.receive(deadline), self.receive(deadline)
        head = agent.HELLO_HEAD
        if greeting[1] != agent.GREETING or hello[:2] != (0, agent.HELLO) or len(hello[2]) < head.size:
            raise ProtocolError("the guest's agent does not introduce itself")
        (version,) = head.unpack_from(hello[2])
        if version != agent.VERSION:
            raise ProtocolError(f"the guest's agent speaks version {version}, this program {agent.VERSION}")
        release = hello[2][head.size : head.size + _RELEASE_LENGTH].decode(errors="replace")
        return Hello(version, "".join(filter(str.isprintable, release)))

    def push(self, request: int, kind: int, payload: bytes = b"") -> None:
        """Put a frame behind what is to be sent."""
        if len(payload) > agent.MAX_FRAME:
            raise HostError(f"{len(payload)} bytes are too many for one frame to the guest")
        if agent.MAGIC in payload:
            raise HostError("what is to be sent holds the mark by which the guest's agent knows a new connection")
        self._unsent += agent.HEADER.pack(len(payload), request, kind) + payload

    def receive(self, deadline: float) -> Frame:
        """Wait for the next frame, and meanwhile send what is to be sent. ChannelError after the deadline."""
        while not self._frames:
            self.step(deadline)
            if time.monotonic() > deadline and not self._frames:
                raise ChannelError(f"the guest sends, and does not answer in time ({self.path})")
        frame = self._frames.popleft()
        self._size -= len(frame[2]) + agent.HEADER.size
        return frame

    def has_frame(self) -> bool:
        """Tell whether `receive` would give a frame at once."""
        return bool(self._frames)

    def step(self, deadline: float, source: int | None = None) -> bool:
        """Wait until something can be moved, and move it; tell whether the descriptor `source` can be read."""
        poller = select.poll()
        if self._size < QUEUE_SIZE:
            poller.register(self._socket, select.POLLIN)
        if self._unsent:
            poller.register(self._socket, select.POLLOUT | (select.POLLIN if self._size < QUEUE_SIZE else 0))
        if source is not None:
            poller.register(source, select.POLLIN)
        events = dict(poller.poll(min(max(0.0, deadline - time.monotonic()), _LONGEST) * 1000))
        if not events:
            raise ChannelError(f"the guest did not answer in time ({self.path})")
        mine = events.get(self._socket.fileno(), 0)
        try:
            if mine & select.POLLOUT:
                del self._unsent[: self._socket.send(self._unsent[:READ_SIZE])]
            if mine & ~select.POLLOUT:
                self._take(self._socket.recv(READ_SIZE))
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelError(f"QEMU closed the connection ({self.path}: {error.strerror})") from error
        return source in events

    def _take(self, data: bytes) -> None:
        if not data:
            raise ChannelError(f"QEMU closed the connection ({self.path})")
        for frame in self._decoder.feed(data):
            if frame[1] == agent.OVERSIZED:
                raise ProtocolError(f"the guest announced a frame of more than {agent.MAX_FRAME} bytes")
            self._frames.append(frame)
            self._size += len(frame[2]) + agent.HEADER.size


def _lock(path: str) -> int:
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise SandboxGoneError(f"{os.path.dirname(path)} does not exist: the sandbox is not running") from None
    except OSError as error:
        raise HostError(f"{path}.lock: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError(f"another process is connected to {path}; try again when it has finished") from None
    return lock


def connect(path: str, timeout: float, *, gone: ReconcilerError, late: ReconcilerError) -> socket.socket:
    """Connect to a socket that QEMU serves: `gone` is raised if nobody does, `late` if it takes no client in time."""
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
        raise HostError(f"{path}: {error.strerror or error}") from error
    return channel

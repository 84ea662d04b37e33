"""A port that somebody holds for long is lent to others for a while.

Who holds it serves a socket beside it. Whoever connects there is sent a byte once the port is free, and gives it back by
closing the connection, so that a borrower that is killed keeps nothing.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from reconciler.errors import BusyError, HostError
from reconciler.guest.connection import TIMEOUT, Connection

# Seconds for somebody who holds a port and does not lend it: a watcher connects, or another command is about to end.
PATIENCE = 2.0
_POLL = 0.05
_FREE = b"\n"


class Lender:
    """Serves the socket beside a port that the caller holds, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, wake: int) -> None:
        """Begin; `wake` is a descriptor that wakes the caller as well. HostError if there can be no such socket."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._either: select.epoll | None = None
        try:
            # bind(2) gives the file this mode: whoever may change the folder is not to have another file's changed.
            os.fchmod(self._socket.fileno(), 0o600)
            with _beside(path) as name:
                # One that was killed leaves it; and who holds the port may take the name.
                with suppress(FileNotFoundError):
                    os.unlink(name)
                self._socket.bind(name)
            self._socket.listen()
            self._socket.setblocking(False)
            self._either = select.epoll()
            self._either.register(wake, select.EPOLLIN)
            self._either.register(self._socket, select.EPOLLIN)
        except OSError as error:
            self.close()
            raise HostError(f"{path} cannot be lent: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lend no more."""
        if self._either:
            self._either.close()
        self._socket.close()
        with suppress(OSError), _beside(self._path) as name:
            os.unlink(name)

    def fileno(self) -> int:
        """Give a descriptor that can be read when somebody asks for the port, or `wake` can be read."""
        assert self._either
        return self._either.fileno()

    def asker(self) -> socket.socket | None:
        """Give the connection of somebody who asks for the port, if there is one. HostError if it cannot be had."""
        try:
            return self._socket.accept()[0]
        except BlockingIOError:
            return None
        except OSError as error:
            raise HostError(f"{self._path} cannot be lent: {error.strerror}") from error


def lend(asker: socket.socket) -> None:
    """Tell who asks that the port is free."""
    # Who has left is seen as one who gives it back.
    with suppress(OSError):
        asker.send(_FREE)


def is_back(asker: socket.socket, wake: int) -> bool:
    """Wait until a port is given back, or `wake` can be read; tell whether it is back."""
    poller = select.poll()
    # Whatever a borrower sends, it is the end.
    poller.register(asker, select.POLLIN)
    poller.register(wake, select.POLLIN)
    return any(descriptor == asker.fileno() for descriptor, _ in poller.poll())


def borrow(path: str) -> tuple[Connection, socket.socket | None]:
    """Connect to a port, and ask whoever holds it to lend it; to close what is returned, in this order, gives it back.

    BusyError if it is not lent, ChannelError and others as a connection has them. It may take TIMEOUT and PATIENCE.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _connect_or_ask(path)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL)


def _connect_or_ask(path: str) -> tuple[Connection, socket.socket | None]:
    with suppress(BusyError):
        return Connection(path), None
    loan = _ask(path)
    try:
        # Without a loan, it may be free by now; with one, a third process may be quicker.
        return Connection(path), loan
    except BaseException:
        if loan:
            loan.close()
        raise


def _ask(path: str) -> socket.socket | None:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(TIMEOUT)
        with _beside(path) as name:
            channel.connect(name)
        if channel.recv(1) == _FREE:
            return channel
    except OSError:
        pass
    channel.close()
    return None


@contextmanager
def _beside(path: str) -> Iterator[str]:
    """Give the name of the socket beside a port; it is short enough for any socket, whatever the port's is like."""
    # Most commands find the port free.
    from hashlib import sha256

    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/lend-{sha256(os.path.basename(path).encode()).hexdigest()[:16]}.sock"
    finally:
        os.close(folder)

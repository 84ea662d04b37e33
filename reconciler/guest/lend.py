"""A port that somebody holds for long is lent to others for a while.

Who holds it serves a socket beside it. Whoever connects there is sent a byte once the port is free, and gives it back by
closing the connection, so that a borrower that is killed keeps nothing.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from reconciler.errors import HostError
from reconciler.guest.connection import TIMEOUT

_FREE = b"\n"


class Lender:
    """Serves the socket beside a port that the caller holds, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, wake: int) -> None:
        """Begin; `wake` is a descriptor that wakes the caller as well. HostError if there can be no such socket."""
        self._path = _beside(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._either = select.epoll()
        try:
            # One that was killed leaves it; and who holds the port may take the name.
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._socket.bind(self._path)
            os.chmod(self._path, 0o600)
            self._socket.listen()
            self._socket.setblocking(False)
            self._either.register(wake, select.EPOLLIN)
            self._either.register(self._socket, select.EPOLLIN)
        except OSError as error:
            self.close()
            raise HostError(f"{self._path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lend no more."""
        self._either.close()
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._path)

    def fileno(self) -> int:
        """Give a descriptor that can be read when somebody asks for the port, or `wake` can be read."""
        return self._either.fileno()

    def asker(self) -> socket.socket | None:
        """Give the connection of somebody who asks for the port, if there is one."""
        try:
            return self._socket.accept()[0]
        except OSError:
            return None


def lend(asker: socket.socket, wake: int) -> bool:
    """Tell who asks that the port is free, and wait until it is given back; tell whether it was, before `wake`."""
    asker.setblocking(False)
    try:
        asker.send(_FREE)
        poller = select.poll()
        poller.register(asker, select.POLLIN)
        poller.register(wake, select.POLLIN)
        # Whatever a borrower sends, it is the end.
        return any(descriptor == asker.fileno() for descriptor, _ in poller.poll())
    except OSError:
        return True


def borrow(path: str) -> socket.socket | None:
    """Ask who holds a port for it; None if it is not lent. To close what is returned gives it back."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(TIMEOUT)
        channel.connect(_beside(path))
        if channel.recv(1) == _FREE:
            return channel
    except OSError:
        pass
    channel.close()
    return None


def _beside(path: str) -> str:
    return f"{path}.lend"

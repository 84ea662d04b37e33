"""Lends a port that a process uses for long to other processes, one at a time.

The lender, such as a watcher, serves a socket in FOLDER, which has the name of the port's device and inode. A borrower
connects there. When the lender has freed the port, it sends the borrower a byte. The borrower returns the port by
closing the connection, so it also does when it is killed.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from reconciler import rundir
from reconciler.errors import BusyError, HostError, SandboxGoneError
from reconciler.guest.connection import TIMEOUT, Connection, identity, lock_name

FOLDER = "/run/reconciler/lend"
_SUFFIX = ".sock"
# Seconds to wait for a process that uses the port and does not lend it: it may be a watcher that is about to serve its
# socket, or a command that is about to end.
PATIENCE = 2.0
# Seconds between two tries meanwhile.
_POLL_INTERVAL = 0.05
# The byte that says that the port is free.
_FREE = b"\n"


class Lender:
    """Lends a port that the caller is connected to, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, wake: int) -> None:
        """Serve. `wake` is a descriptor that wakes the caller as well. HostError if the socket cannot be made."""
        self._path, self._name = path, _name(path)
        rundir.make(FOLDER)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._either: select.epoll | None = None
        try:
            # bind(2) gives the file this mode.
            os.fchmod(self._socket.fileno(), 0o600)
            # A lender that was killed leaves its socket. The process that uses the port may replace it.
            with suppress(FileNotFoundError):
                os.unlink(self._name)
            self._socket.bind(self._name)
            self._socket.listen()
            self._socket.setblocking(False)
            self._either = select.epoll()
            self._either.register(wake, select.EPOLLIN)
            self._either.register(self._socket, select.EPOLLIN)
        except OSError as error:
            self.close()
            raise HostError(f"cannot lend {path} to other processes: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop lending."""
        if self._either:
            self._either.close()
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._name)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a borrower asks for the port, or when `wake` is readable."""
        assert self._either
        return self._either.fileno()

    def asker(self) -> socket.socket | None:
        """Return the connection of the next borrower that asks for the port, if there is one.

        HostError if it cannot be accepted.
        """
        try:
            return self._socket.accept()[0]
        except BlockingIOError:
            return None
        except OSError as error:
            raise HostError(f"cannot lend {self._path} to another process: {error.strerror}") from error


def lend(asker: socket.socket) -> None:
    """Report to a borrower that the port is free."""
    # `is_back` sees a borrower that has left already.
    with suppress(OSError):
        asker.send(_FREE)


def is_back(asker: socket.socket, wake: int) -> bool:
    """Wait until the borrower returns the port, or `wake` is readable. Return whether the port is back."""
    poller = select.poll()
    # A borrower never sends anything, so its socket becomes readable when it closes the connection.
    poller.register(asker, select.POLLIN)
    poller.register(wake, select.POLLIN)
    return any(descriptor == asker.fileno() for descriptor, _ in poller.poll())


def borrow(path: str, target: str = "") -> tuple[Connection, socket.socket | None]:
    """Connect to a port. If another process uses it, ask that process to lend it.

    `target`: as for Connection. Close both results, in this order, to return the port. BusyError if the port is not
    lent; else the errors of Connection. It can take TIMEOUT and PATIENCE together.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _connect_or_ask(path, target)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_INTERVAL)


def _connect_or_ask(path: str, target: str) -> tuple[Connection, socket.socket | None]:
    with suppress(BusyError):
        return Connection(path, target), None
    loan = _ask(path)
    try:
        # Without a loan the port may have become free meanwhile. With one, a third process may be quicker.
        return Connection(path, target), loan
    except BaseException:
        if loan:
            loan.close()
        raise


def _ask(path: str) -> socket.socket | None:
    """Ask the lender of a port for it. Return the connection to the lender, or None if it does not lend."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(TIMEOUT)
        channel.connect(_name(path))
        if channel.recv(1) == _FREE:
            return channel
    except (OSError, SandboxGoneError):
        pass
    channel.close()
    return None


def prune() -> None:
    """Delete the sockets of lenders that were killed: those of ports that no process is connected to."""
    for file in os.listdir(rundir.make(FOLDER)):
        lock = rundir.NamedLock(lock_name(file.removesuffix(_SUFFIX)))
        # A lender is connected to its port for as long as it serves.
        if lock.acquire():
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(FOLDER, file))
        lock.close()


def _name(path: str) -> str:
    return os.path.join(FOLDER, identity(path) + _SUFFIX)

"""The status of the watcher, as JSON on a local socket."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.watch import client

# Seconds to the next try after a client could not be answered.
RETRY = 0.1
# Bytes of the question of a client.
_LONGEST = 1 << 20


class StatusSocket:
    """Answers each connection with the result of `data` as JSON, in a thread of its own.

    A client sends a line: the patterns of the sandboxes that it asks for, as JSON.
    """

    def __init__(self, data: Callable[[Sequence[str]], dict[str, Any]]) -> None:
        self._data, self._closed = data, threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            rundir.make(os.path.dirname(client.SOCKET))
            # A socket that exists was left by a killed watcher: the caller has the lock of this host.
            with suppress(FileNotFoundError):
                os.unlink(client.SOCKET)
            # bind(2) gives the file this mode.
            os.fchmod(self._socket.fileno(), 0o600)
            self._socket.bind(client.SOCKET)
            self._socket.listen()
        except BaseException as error:
            self._socket.close()
            if isinstance(error, OSError):
                raise HostError(f"{client.SOCKET}: {error.strerror}") from error
            raise
        self._thread = threading.Thread(target=self._serve, name="watch-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and end the thread."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        with suppress(FileNotFoundError):
            os.unlink(client.SOCKET)

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(client.TIMEOUT)
                    connection.sendall(json.dumps(self._data(_read_patterns(connection))).encode())
            except OSError:
                # The client has left, or this process has no descriptors left at the moment.
                self._closed.wait(RETRY)
            except Exception:
                # A defect must not end the thread: `status` is how people learn that something is wrong.
                logging.getLogger(__name__).exception("defect")


def _read_patterns(connection: socket.socket) -> list[str]:
    """Read what a client asks for. One that says nothing asks for all."""
    parts: list[bytes] = []
    with suppress(TimeoutError):
        while sum(map(len, parts)) < _LONGEST and (part := connection.recv(1 << 16)):
            parts.append(part)
            if part.endswith(b"\n"):
                return list(json.loads(b"".join(parts)))
    return []


def format_age(when: float) -> str:
    """Format how long ago a time (Unix seconds) was, such as `2 s ago`; `-` for 0, which means never."""
    if not when:
        return "-"
    seconds = max(0, int(time.time() - when))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"

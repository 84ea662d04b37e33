"""A host that attacks a gate with its own certificate, in a process of its own: `python -m tests.fleet.flood KIND`."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

# Threads of an attack.
_THREADS = 6
_HEAD = b"Host: gate\r\nContent-Type: application/json\r\n"


class Target(NamedTuple):
    """Where to connect, with what, and until when."""

    port: int
    context: ssl.SSLContext
    end: float

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        return self.context.wrap_socket(plain, server_hostname="127.0.0.1")


def requests(target: Target) -> None:
    """Ask as often as possible, many requests at a time."""
    with target.connect() as connection:
        reader = threading.Thread(target=_read, args=(connection,), daemon=True)
        reader.start()
        while time.monotonic() < target.end:
            connection.sendall((b"GET /v1/desired?have= HTTP/1.1\r\n" + _HEAD + b"\r\n") * 100)


def reports(target: Target) -> None:
    """Report as often as possible."""
    body = b'{"release": "r1", "reached": true, "counts": {"failed": 1}}'
    with target.connect() as connection:
        while time.monotonic() < target.end:
            words = b"POST /v1/status HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (_HEAD, len(body), body)
            connection.sendall(words)
            connection.recv(4096)


def bodies(target: Target) -> None:
    """Send bodies without end."""
    with target.connect() as connection:
        connection.sendall(b"POST /v1/status HTTP/1.1\r\n" + _HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while time.monotonic() < target.end:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def headers(target: Target) -> None:
    """Send a header without end."""
    with target.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        while time.monotonic() < target.end:
            connection.sendall(b"x" * 65536)


def loris(target: Target) -> None:
    """Send a request a byte at a time, on many connections."""
    connections = [target.connect() for _ in range(10)]
    while time.monotonic() < target.end:
        for each in connections:
            with suppress(OSError):
                each.sendall(b"G")
        time.sleep(0.2)


def handshakes(target: Target) -> None:
    """Connect and leave, as often as possible."""
    while time.monotonic() < target.end:
        target.connect().close()


def silent(target: Target) -> None:
    """Connect without a handshake."""
    connections = []
    while time.monotonic() < target.end:
        connections.append(socket.create_connection(("127.0.0.1", target.port), 10))
        time.sleep(0.01)


def garbage(target: Target) -> None:
    """Send what is no TLS, and what is no HTTP."""
    while time.monotonic() < target.end:
        with socket.create_connection(("127.0.0.1", target.port), 10) as plain:
            plain.sendall(os.urandom(2000))
        with target.connect() as connection:
            connection.sendall(os.urandom(2000))
            connection.recv(100)


KINDS: dict[str, Callable[[Target], None]] = {
    each.__name__: each for each in (requests, reports, bodies, headers, loris, handshakes, silent, garbage)
}


def _read(connection: ssl.SSLSocket) -> None:
    with suppress(OSError, ValueError):
        while connection.recv(65536):
            pass


def _repeat(kind: Callable[[Target], None], target: Target) -> None:
    while time.monotonic() < target.end:
        with suppress(OSError):
            kind(target)


def main(kind: str, port: str, authority: str, certificate: str, key: str, seconds: str) -> None:
    """Attack for some seconds."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    target = Target(int(port), context, time.monotonic() + float(seconds))
    threads = [threading.Thread(target=_repeat, args=(KINDS[kind], target), daemon=True) for _ in range(_THREADS)]
    for each in threads:
        each.start()
    print("begun", flush=True)
    while time.monotonic() < target.end:
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

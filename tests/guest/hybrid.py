"""Hybrid vsock, as Firecracker and Cloud Hypervisor speak it: a unix socket, each client of which names a port.

`python hybrid.py SOCKET` serves it by the vsock loopback of the machine that it runs in.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Dial = Callable[[int], socket.socket]


def serve(listener: socket.socket, dial: Dial) -> None:
    """Serve clients until the listener is closed."""
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, dial), daemon=True).start()


def _serve(client: socket.socket, dial: Dial) -> None:
    with client, suppress(OSError):
        words = client.makefile("rb", buffering=0).readline(64).split()
        with dial(int(words[1])) as server:
            # Both send the port that the host has, which has no meaning.
            client.sendall(b"OK 1073741824\n")
            _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    while True:
        for each in select.select([client, server], [], [])[0]:
            data = each.recv(1 << 16)
            if not data:
                return
            other[each].sendall(data)


@contextmanager
def serving(path: str, dial: Dial) -> Iterator[None]:
    """Serve a socket meanwhile."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener, dial), daemon=True)
        thread.start()
        yield
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _loopback(port: int) -> socket.socket:
    channel = socket.socket(socket.AF_VSOCK)
    channel.bind((socket.VMADDR_CID_ANY, 700))
    channel.connect((1, port))
    return channel


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(sys.argv[1])
        unix.listen()
        serve(unix, _loopback)

"""The other end of a port, played by a test: a unix socket as QEMU serves it, and a thread that runs a script."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from reconciler.guest import agent

Script = Callable[[socket.socket], None]
RELEASE = b"6.1.0-test"


@contextmanager
def peer(script: Script) -> Iterator[str]:
    """Yield the path of a socket. The script serves its first client."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/port.sock"
        listener.bind(path)
        listener.listen(1)
        thread = threading.Thread(target=_play, args=(listener, script))
        thread.start()
        try:
            yield path
        finally:
            with suppress(OSError):
                # Wake the thread if no client has connected.
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(120)
            assert not thread.is_alive()


def _play(listener: socket.socket, script: Script) -> None:
    with suppress(OSError):
        channel, _ = listener.accept()
        channel.settimeout(60)
        with channel:
            script(channel)


def frame(request: int, kind: int, payload: bytes = b"") -> bytes:
    return agent.HEADER.pack(len(payload), request, kind) + payload


def hello(version: int = agent.VERSION) -> bytes:
    return frame(0, agent.HELLO, agent.HELLO_HEAD.pack(version) + RELEASE)


def read_greeting(channel: socket.socket) -> bytes:
    """Read up to the end of a greeting. Return the greeting, which is to be echoed."""
    size = len(agent.MAGIC) + agent.NONCE_SIZE
    data = b""
    while agent.MAGIC not in data or len(data) < data.index(agent.MAGIC) + size:
        more = channel.recv(1)
        if not more:
            raise OSError("the host left")
        data += more
    return data[-size:]


def greet(channel: socket.socket) -> None:
    channel.sendall(read_greeting(channel) + hello())


def read_request(channel: socket.socket) -> agent.Frame:
    head = _read(channel, agent.HEADER.size)
    length, request, kind = agent.HEADER.unpack(head)
    return agent.Frame(request, kind, _read(channel, length))


def _read(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = channel.recv(size - len(data))
        if not more:
            raise OSError("the host left")
        data += more
    return data


def wait_for_end(channel: socket.socket) -> None:
    """Read until the host leaves."""
    with suppress(OSError):
        while channel.recv(1 << 16):
            pass

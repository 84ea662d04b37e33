"""User-mode Linux as a machine: our agent serves its own kernel there, and a socket of this host leads to it.

There is no QEMU, so nothing can be plugged in. All else of a machine is as it is, a tenth as slow as without KVM.
"""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path
from typing import Any

from tests.machine import Ran
from tests.uml import Uml
from tests.uml.agent import COUNT, WINDOW

_SIZE = 1 << 16


class UmlMachine:
    """A machine whose agent is at `socket`, for one client after the other, as QEMU has it."""

    def __init__(self, uml: Uml, path: Path) -> None:
        """Serve the agent of `uml` at `path`, until `close`."""
        self._uml, self.socket = uml, str(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket)
        listener.listen()
        self._open, ended = socket.socketpair()
        self._carrier = threading.Thread(target=_carry, args=(listener, uml.line, uml.read, ended), daemon=True)
        self._carrier.start()

    def close(self) -> None:
        """Serve it no more."""
        self._open.close()
        self._carrier.join()

    @property
    def driver(self) -> dict[str, Any]:
        return {"vm": {"agent": self.socket}}

    def run(self, *words: str, stdin: bytes = b"") -> Ran:
        """Run a program there."""
        ran = self._uml.run(*words, stdin=stdin.decode())
        return Ran(ran.status, ran.stdout.encode(), ran.stderr.encode())

    def output(self, *words: str, stdin: bytes = b"") -> str:
        """Run what has to succeed; give what it prints."""
        return self._uml.output(*words, stdin=stdin.decode())


def _carry(listener: socket.socket, line: socket.socket, read: socket.socket, ended: socket.socket) -> None:
    """Carry bytes between each client in turn and the line, until `ended` is readable.

    What the machine says to nobody is lost. `read`: the line that tells how many bytes were read there.
    """
    client: socket.socket | None = None
    room, told = WINDOW, bytearray()
    with listener, ended:
        while ended not in (
            ready := select.select([line, read, ended, *([client or listener] if room else [])], [], [])[0]
        ):
            if read in ready:
                told += read.recv(_SIZE)
                while len(told) >= COUNT:
                    room += int.from_bytes(told[:COUNT])
                    del told[:COUNT]
            if line in ready:
                if not (data := line.recv(_SIZE)):
                    return
                if client and not _sent(client, data):
                    client = None
            elif client is None and listener in ready:
                client, _ = listener.accept()
            elif client in ready and client:
                if data := _received(client, room):
                    line.sendall(data)
                    room -= len(data)
                else:
                    client.close()
                    client = None


def _received(client: socket.socket, size: int) -> bytes:
    try:
        return client.recv(size)
    except ConnectionResetError:
        # It was killed.
        return b""


def _sent(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
    except OSError:
        client.close()
        return False
    return True

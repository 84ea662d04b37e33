"""Runs in User-mode Linux: our agent on a serial line, its standard input.

The kernel reads nothing more from a line whose buffer of 4 KiB was full once (arch/um/drivers/line.c: line_throttle).
So the other end of the line is told on standard output, another line, how many bytes were read: it has WINDOW bytes on
their way at most.
"""

from __future__ import annotations

import os
import socket
import threading

from reconciler.guest.agent import Agent, Port, serve

WINDOW = 3 << 10
# Bytes of each number that is told.
COUNT = 2


def _read(inner: socket.socket) -> None:
    while data := os.read(0, WINDOW):
        inner.sendall(data)
        os.write(1, len(data).to_bytes(COUNT))


def _write(inner: socket.socket) -> None:
    while data := inner.recv(1 << 16):
        while data:
            data = data[os.write(0, data) :]


if __name__ == "__main__":
    outside, inside = socket.socketpair()
    for target in (_read, _write):
        threading.Thread(target=target, args=(outside,), daemon=True).start()
    serve(Agent(Port(inside.detach)))

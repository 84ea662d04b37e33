"""TCP connections that are held open, and counted: which of them still carry a byte and its echo.

    calls.py serve ADDRESS…
    calls.py hold SOURCE TARGET COUNT…

`serve` echoes until its stdin ends. `hold` opens COUNT connections of each pair of addresses, and prints `ready`. For
each line on stdin, `prove SECONDS EXPECTED`, it sends a byte on each connection, waits until EXPECTED have answered and
SECONDS longer for others, and prints how many have.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time

PORT = 7008
# Seconds for those that are expected to answer: a busy host may be slow, and TCP repeats what it has lost.
PATIENCE = 60.0


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(addresses: list[str]) -> None:
    for address in addresses:
        server = socket.create_server((address, PORT), family=family(address), backlog=512)
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def _echo(server: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is server:
                selector.register(server.accept()[0], selectors.EVENT_READ)
                continue
            peer: socket.socket = key.fileobj  # type: ignore[assignment]
            try:
                data = peer.recv(4096)
                peer.sendall(data)
            except OSError:
                data = b""
            if not data:
                selector.unregister(peer)
                peer.close()


def hold(words: list[str]) -> None:
    held = []
    for source, target, count in zip(*[iter(words)] * 3, strict=True):
        for _ in range(int(count)):
            made = socket.socket(family(target))
            made.bind((source, 0))
            made.settimeout(PATIENCE)
            made.connect((target, PORT))
            made.setblocking(False)
            held.append(made)
    print("ready", flush=True)
    for line in sys.stdin:
        _, seconds, expected = line.split()
        print(prove(held, float(seconds), int(expected)), flush=True)


def prove(held: list[socket.socket], seconds: float, expected: int) -> int:
    """Send a byte on each connection; return how many answered."""
    selector = selectors.DefaultSelector()
    for each in held:
        _drain(each)
        try:
            each.send(b".")
        except OSError:
            continue
        selector.register(each, selectors.EVENT_READ)
    answered = 0
    deadline = time.monotonic() + PATIENCE
    while answered < expected and time.monotonic() < deadline:
        answered += _answers(selector, 0.2)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        answered += _answers(selector, left)
    return answered


def _answers(selector: selectors.BaseSelector, seconds: float) -> int:
    if not selector.get_map():
        time.sleep(seconds)
    found = 0
    for key, _ in selector.select(seconds):
        found += _drain(key.fileobj)  # type: ignore[arg-type]
        selector.unregister(key.fileobj)
    return found


def _drain(each: socket.socket) -> bool:
    """Read what has come; return whether that was anything."""
    try:
        return bool(each.recv(4096))
    except OSError:
        return False


if __name__ == "__main__":
    (serve if sys.argv[1] == "serve" else hold)(sys.argv[2:])

"""A source of traffic that counts: TCP connections that send bytes and wait for their echoes, until stdin ends.

    talk.py serve ADDRESS…
    talk.py call COUNT ADDRESS…

`call` holds COUNT connections to each address, sends a byte on each every 2 ms, and opens one more connection for each
round. It prints how many bytes were sent and echoed, and how many connections were opened and failed. Nothing depends
on speed: at the end it waits for each echo.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading

PORT = 7007
# Seconds for what was sent to come back; the kernel repeats what is lost sooner than this.
_PATIENCE = 60.0


def serve(addresses: list[str]) -> None:
    for address in addresses:
        server = socket.create_server((address, PORT), family=_family(address), backlog=512)
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def _accept(server: socket.socket) -> None:
    while True:
        threading.Thread(target=_echo, args=(server.accept()[0],), daemon=True).start()


def _echo(peer: socket.socket) -> None:
    with peer:
        while data := peer.recv(4096):
            peer.sendall(data)


def call(count: int, addresses: list[str]) -> None:
    held = [_connect(address) for address in addresses for _ in range(count)]
    sent = echoed = failed = 0
    opened = len(held)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        for address in addresses:
            opened += 1
            try:
                held.append(_connect(address))
            except OSError:
                failed += 1
        for each in held[: count * len(addresses)]:
            each.sendall(b".")
            sent += 1
    for each in held:
        each.shutdown(socket.SHUT_WR)
        try:
            while data := each.recv(4096):
                echoed += len(data)
        except OSError:
            failed += 1
    print(json.dumps({"sent": sent, "echoed": echoed, "opened": opened, "failed": failed}), flush=True)


def _connect(address: str) -> socket.socket:
    return socket.create_connection((address, PORT), timeout=_PATIENCE)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        call(int(sys.argv[2]), sys.argv[3:])

"""Machines that lie to a watcher: the sockets of their QEMU and of their agent, served by a process of its own.

    python -m tests.watch.hostile FOLDER

serves a machine of each of KINDS below FOLDER, and writes their manifests into FOLDER/manifests.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import AF_INET
from typing import Any

from reconciler.guest import agent
from reconciler.guest.agent import Decoder, Frame
from reconciler.netlink import message
from reconciler.netlink.message import ACK, DONE, DUMP, ERROR, GET_LINK, GET_ROUTE, NEW_LINK, NEW_ROUTE, Message
from tests.drivers.fake import Fake
from tests.guest.peer import frame, hello
from tests.netlink.scripted import link

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {kind}
driver: {{vm: {{qmp: {folder}/qmp.sock, agent: {folder}/agent.sock}}}}
routes: []
"""


def route(number: int, protocol: int) -> bytes:
    """Return a blackhole route: the payload of its message."""
    head = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, protocol, 0, 6, 0)
    return head + message.attribute(1, struct.pack("!I", 0x0B000000 + number))


class Honest:
    """The agent of a machine with nothing but `lo`. One connection."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._decoder = Decoder(agent.MAGIC, agent.NONCE_SIZE)
        self.is_subscribed = False

    def send(self, data: bytes) -> None:
        with self._lock:
            self._channel.sendall(data)

    def serve(self) -> None:
        threading.Thread(target=self._disturb, daemon=True).start()
        while data := self._channel.recv(1 << 16):
            for each in self._decoder.feed(data):
                if each.kind == agent.GREETING:
                    self.send(agent.MAGIC + each.payload + hello())
                else:
                    self.answer(each)

    def _disturb(self) -> None:
        with suppress(OSError):
            while not self.is_subscribed:
                time.sleep(0.01)
            self.disturb()

    def disturb(self) -> None:
        """Send what nobody asked for."""

    def answer(self, asked: Frame) -> None:
        """Answer a request."""
        if asked.kind == agent.SUBSCRIBE:
            self.is_subscribed = True
        parts = list(self.netlink(asked.payload)) if asked.kind == agent.NETLINK else [b""]
        for part in parts[:-1]:
            self.send(frame(asked.request, agent.MORE, part))
        self.send(frame(asked.request, agent.DONE, parts[-1]))

    def netlink(self, payload: bytes) -> Iterator[bytes]:
        """Yield the parts of the answer to messages."""
        requests = message.messages(payload[agent.NETLINK_HEAD.size :])
        for each in requests:
            if each.flags & DUMP == DUMP:
                kind, found = self.dump(each)
                packed = [message.pack(kind, 2, each.sequence, part) for part in found]
                for start in range(0, len(packed), 500):
                    yield b"".join(packed[start : start + 500])
                yield message.pack(DONE, 2, each.sequence, b"\0\0\0\0")
                return
            self.change(each.type)
        last = requests[-1]
        if last.flags & ACK:
            head = struct.pack("=IHHII", 16, last.type, last.flags, last.sequence, 0)
            yield message.pack(ERROR, 0x100, last.sequence, b"\0\0\0\0" + head)

    def dump(self, asked: Message) -> tuple[int, list[bytes]]:
        """Return the type and the payloads of the messages of a dump."""
        return NEW_LINK, [link(1, "lo")] if asked.type == GET_LINK else []

    def change(self, kind: int) -> None:
        """Change what a message asks for."""


class Listing(Honest):
    """Sends 64 MiB of links."""

    def dump(self, asked: Message) -> tuple[int, list[bytes]]:
        return NEW_LINK, [link(number, f"x{number}") for number in range(2_000_000 if asked.type == GET_LINK else 0)]


class Crowd(Honest):
    """Has as many foreign routes as may be, and reports a change as often as it can."""

    def dump(self, asked: Message) -> tuple[int, list[bytes]]:
        if asked.type == GET_ROUTE and asked.payload[0] == AF_INET:
            return NEW_ROUTE, [route(number, 42) for number in range(90_000)]
        return super().dump(asked)

    def disturb(self) -> None:
        notice = frame(0, agent.NOTIFY, message.pack(NEW_ROUTE, 0, 0, route(1, 42)))
        while True:
            self.send(notice)
            time.sleep(0.001)


class Empty(Honest):
    """Sends empty notifications without end."""

    def disturb(self) -> None:
        while True:
            self.send(frame(0, agent.NOTIFY) * 1000)


class Noise(Honest):
    """Sends notifications that say nothing without end."""

    def disturb(self) -> None:
        while True:
            self.send(frame(0, agent.NOTIFY, message.pack(99, 0, 0, b"")) * 1000)


class Lost(Honest):
    """Says without end that notifications were lost."""

    def disturb(self) -> None:
        while True:
            self.send(frame(0, agent.LOST) * 100)


class Guarded(Honest):
    """Says without end that a service was restored."""

    def disturb(self) -> None:
        while True:
            self.send(frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(2, 0, 5)) * 100)


class Drip(Honest):
    """Sends bytes one by one, of a frame that never ends."""

    def disturb(self) -> None:
        self.send(agent.HEADER.pack(1 << 20, 0, agent.NOTIFY))
        while True:
            self.send(b"\0")


class Slow(Honest):
    """Answers each request after 9 s."""

    def answer(self, asked: Frame) -> None:
        time.sleep(9)
        super().answer(asked)


class Drift(Honest):
    """Has some of our routes that no manifest wants, never the same twice, and lets each be deleted."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._next, self._left = 0, 0

    def dump(self, asked: Message) -> tuple[int, list[bytes]]:
        if asked.type == GET_ROUTE and asked.payload[0] == AF_INET:
            return NEW_ROUTE, [route(self._next + number, 200) for number in range(self._left)]
        return super().dump(asked)

    def change(self, kind: int) -> None:
        if kind == message.DELETE_ROUTE:
            self._left = 0

    def disturb(self) -> None:
        while True:
            if not self._left:
                self._next, self._left = self._next + 10, 9
            self.send(frame(0, agent.NOTIFY, message.pack(NEW_ROUTE, 0, 0, route(1, 200))))
            time.sleep(0.01)


class Name(Honest):
    """Has a link with a name of 60 KB, another one at each look."""

    def dump(self, asked: Message) -> tuple[int, list[bytes]]:
        name = f"{time.monotonic_ns()}" + "x" * 60_000
        return NEW_LINK, [link(1, "lo"), link(2, name)] if asked.type == GET_LINK else []

    disturb = Crowd.disturb


class Reason(Honest):
    """Refuses each request, each time for another reason."""

    def answer(self, asked: Frame) -> None:
        text = f"{time.monotonic_ns()} ".encode() * 40
        self.send(frame(asked.request, agent.FAILED, agent.FAILED_HEAD.pack(1) + text))


KINDS: dict[str, type[Honest]] = {
    kind.__name__.lower(): kind
    for kind in (Listing, Crowd, Empty, Noise, Lost, Guarded, Drip, Slow, Drift, Name, Reason)
}
# What QEMU sends to each command instead of an answer.
MONITORS: dict[str, bytes] = {
    "events": (json.dumps({"event": "RTC_CHANGE", "data": {"offset": 1}}).encode() + b"\r\n") * 1000,
    "line": b"x" * 65536,
    "junk": b'{"return": [[{"name": 7}]], "id": ID}\r\n',
}


def monitor(channel: socket.socket, junk: bytes) -> None:
    """Serve a monitor."""
    fake = Fake()
    channel.sendall(json.dumps(GREETING).encode() + b"\r\n")
    with channel.makefile("rb") as lines:
        for line in lines:
            command: dict[str, Any] = json.loads(line)
            name, id_ = command["execute"], command["id"]
            while junk and name != "qmp_capabilities":
                channel.sendall(junk.replace(b"ID", str(id_).encode()))
                if b"ID" in junk:
                    break
            answer = {} if name == "qmp_capabilities" else fake.execute(name, **command["arguments"])
            channel.sendall(json.dumps({"return": answer, "id": id_}).encode() + b"\r\n")


def serve(path: Path, script: Callable[[socket.socket], None]) -> None:
    """Serve a socket, one client after the other."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def run() -> None:
        while True:
            channel, _ = listener.accept()
            with channel, suppress(OSError):
                script(channel)

    threading.Thread(target=run, daemon=True).start()


def begin(folder: Path) -> list[str]:
    """Serve a machine of each kind. Return their names."""
    (folder / "manifests").mkdir(exist_ok=True)
    machines = {**{name: (kind, b"") for name, kind in KINDS.items()}, **{n: (Honest, j) for n, j in MONITORS.items()}}
    for name, (kind, junk) in machines.items():
        place = folder / name
        place.mkdir()
        serve(place / "agent.sock", lambda channel, kind=kind: kind(channel).serve())  # type: ignore[misc]
        serve(place / "qmp.sock", lambda channel, junk=junk: monitor(channel, junk))  # type: ignore[misc]
        (folder / "manifests" / f"{name}.yaml").write_text(MANIFEST.format(kind=name, folder=place))
    return list(machines)


if __name__ == "__main__":
    print(" ".join(begin(Path(sys.argv[1]))), flush=True)
    threading.Event().wait()

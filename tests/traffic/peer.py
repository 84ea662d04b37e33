"""Runs in namespaces of the guest: servers that say who they are and echo, and clients that are told what to do.

    peer.py serve PORT ADDRESS…
    peer.py call FOLDER

The guest's Python is a minimal one: there is no json, no dataclasses, no subprocess. A client is asked by a line of
words in FOLDER/ask and answers by a line, a literal of Python, in FOLDER/answer; both are named pipes.

    tcp GROUP COUNT ADDRESS PORT PACE    connect, and send a byte every PACE milliseconds; 0: none unasked
    ack GROUP COUNT ADDRESS PORT PACE    the same where nobody echoes: the word of the server's kernel counts
    udp GROUP COUNT ADDRESS PORT PACE    the same with datagrams, each flow from a port of its own
    new GROUP COUNT ADDRESS PORT PACE    connect, and as soon as a server has answered again, every PACE milliseconds
    prove GROUP… SECONDS                   send, and wait until what was sent from now on is answered
    look GROUP
    end GROUP, reset GROUP                 close, as a client does or without a farewell

With one more word, the beginning of an address, each call of a group comes from an address of its own: that and 1, 2 …
An echo takes a guest a millisecond. So at the port after PORT there are servers that never read, for a thousand
clients.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial

# Seconds for a group to be connected, calls that are connected at a time, and sent by before answers are looked at.
CONNECT_TIMEOUT, AT_A_TIME, SENT_AT_A_TIME = 60.0, 32, 64
# Of so many calls the servers are told one by one.
TOLD = 64
# Seconds for a try that neither a server answers nor anybody refuses.
RENEW_TIMEOUT = 30.0
# A poll that waits for nothing in particular.
PAUSE = 0.2
IP_FREEBIND = 15
# linux/tcp.h: tcpi_bytes_acked of struct tcp_info. A connection has one acknowledged as it begins.
TCP_INFO, BYTES_ACKED = 11, struct.Struct("=120xQ")

Answer = dict[str, object]


class Servers:
    """At each address: TCP and UDP that echo, and a port further TCP that does not."""

    def __init__(self, port: int, addresses: list[str]) -> None:
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        for address in addresses:
            self._add(bound("udp", address, port), partial(self._answer, address))
            self._add(bound("tcp", address, port), partial(self._accept, address, echo=True))
            self._add(bound("tcp", address, port + 1), partial(self._accept, address, echo=False))

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                self._ready[descriptor]()

    def _add(self, each: socket.socket, ready: Callable[[socket.socket], None], events: int = select.EPOLLIN) -> None:
        self._ready[each.fileno()] = partial(ready, each)
        self._poll.register(each, events)

    def _accept(self, name: str, listener: socket.socket, *, echo: bool) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.send(name.encode() + b"\n")
        except OSError:
            # Of a client that has gone.
            connection.close()
            return
        if echo:
            self._add(connection, self._echo)
        else:
            self._add(connection, self._forget, select.EPOLLRDHUP)

    def _echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
            if data:
                connection.send(data)
                return
        except OSError:
            pass
        self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        del self._ready[connection.fileno()]
        connection.close()

    def _answer(self, name: str, flows: socket.socket) -> None:
        try:
            data, client = flows.recvfrom(100)
            flows.sendto(name.encode() + b" " + data, client)
        except OSError:
            # Of a client that has gone.
            pass


class Call:
    """A connection, or a flow of datagrams. What was sent and answered is counted, in bytes or datagrams."""

    __slots__ = ("_begun", "_kind", "due", "echoed", "failed", "proof", "sent", "server", "since", "socket", "stall")

    def __init__(self, kind: str, address: str, port: int, source: str = "") -> None:
        self.socket = unbound(kind, address)
        if source:
            # Linux lets IPv6 bind to a whole local network only so.
            self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            self.socket.bind((source, 0))
        self.socket.setblocking(False)
        self._kind = kind
        if kind != "udp":
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server, self.failed, self._begun = "", "", b""
        self.sent = self.echoed = self.proof = 0
        self.due = self.stall = 0.0
        self.since = time.monotonic()
        code = self.socket.connect_ex((address, port))
        if code not in {0, errno.EINPROGRESS}:
            self.failed = errno.errorcode[code]

    def send(self, now: float) -> None:
        self.look(now)
        if self.sent == self.echoed:
            self.since = now
        try:
            self.socket.send(b"%d" % (self.sent + 1) if self._kind == "udp" else b".")
        except BlockingIOError:
            return
        except OSError as error:
            self._note(error)
            if self.failed:
                return
        self.sent += 1

    def receive(self, now: float) -> None:
        try:
            data = self.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._note(error)
            return
        if self._kind == "udp":
            name, _, number = data.partition(b" ")
            self.server = name.decode()
            self._progress(int(number), now)
        elif not data:
            self.failed = self.failed or "EOF"
        elif self.server:
            self._progress(self.echoed + len(data), now)
        else:
            self._begun += data
            if self._begun.endswith(b"\n"):
                self.server = self._begun.decode().strip()

    def look(self, now: float) -> None:
        """Ask the kernel, where nobody else answers."""
        if self._kind == "ack" and self.server:
            (acked,) = BYTES_ACKED.unpack_from(self.socket.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 192))
            self._progress(acked - 1, now)

    def _progress(self, echoed: int, now: float) -> None:
        if echoed > self.echoed:
            self.stall = max(self.stall, now - self.since)
            self.echoed, self.since = echoed, now

    def _note(self, error: OSError) -> None:
        """A flow has no end: what is unreachable now may be reached a moment later."""
        if self._kind != "udp":
            self.failed = errno.errorcode[error.errno or errno.EIO]

    @property
    def connecting(self) -> bool:
        return self._kind != "udp" and not (self.server or self.failed)

    @property
    def proven(self) -> bool:
        self.look(time.monotonic())
        return self.server != "" and self.echoed >= self.proof


class Group:
    """Calls of a kind, each sending at its turn."""

    def __init__(self, make: Callable[[int], Call], count: int, pace: float) -> None:
        self.calls: list[Call] = []
        self._turns: deque[Call] = deque()
        self._make, self._count, self._pace = make, count, pace

    def connect(self, register: Callable[[Call], None]) -> bool:
        """Connect some more; tell whether all are."""
        waiting = sum(call.connecting for call in self.calls[-AT_A_TIME:])
        while len(self.calls) < self._count and waiting < AT_A_TIME:
            call = self._make(len(self.calls))
            register(call)
            self.calls.append(call)
            waiting += call.connecting
        done = len(self.calls) == self._count and not any(call.connecting for call in self.calls)
        if done and self._pace:
            now = time.monotonic()
            for index, call in enumerate(self.calls):
                call.due = now + self._pace * index / self._count
                self._turns.append(call)
        return done

    def send_due(self, now: float) -> float:
        """Send what is due; give the time of the next turn."""
        turns = self._turns
        for _ in range(SENT_AT_A_TIME):
            if not turns or turns[0].due > now:
                break
            call = turns.popleft()
            if not call.failed:
                call.send(now)
                call.due = max(call.due + self._pace, now)
                turns.append(call)
        return turns[0].due if turns else now + PAUSE

    def prove(self) -> None:
        now = time.monotonic()
        for call in self.calls:
            if not call.failed:
                call.proof = call.sent + 1
                call.send(now)

    def is_proven(self) -> bool:
        return all(call.failed or call.proven for call in self.calls)

    def tell(self) -> Answer:
        return together([self])


def together(groups: list[Group]) -> Answer:
    """Tell how the calls of groups fare."""
    calls = [call for group in groups for call in group.calls]
    errors: dict[str, int] = {}
    for call in calls:
        if call.failed:
            errors[call.failed] = errors.get(call.failed, 0) + 1
    return {
        "calls": len(calls),
        "answered": sum(not call.failed and call.proven for call in calls),
        "servers": [call.server for call in calls[:TOLD]],
        "errors": errors,
        "sent": sum(call.sent for call in calls),
        "stall": max((call.stall for call in calls if not call.failed), default=0.0),
    }


class Renewed(Group):
    """Calls that are begun anew as soon as they are answered or refused: each is one more try, and counted."""

    def __init__(self, make: Callable[[int], Call], count: int, pace: float, forget: Callable[[Call], None]) -> None:
        super().__init__(make, count, pace)
        self._forget = forget
        self._register: Callable[[Call], None] = lambda _: None
        self._turn = 0.0
        # When was told last how tries fare. Who has answered one that was begun before was chosen before.
        self._told = 0.0
        self._servers: dict[str, int] = {}
        self._errors: dict[str, int] = {}

    def connect(self, register: Callable[[Call], None]) -> bool:
        """Begin them; tell whether each source has been answered or refused once."""
        self._register = register
        return super().connect(register)

    def send_due(self, now: float) -> float:
        """Count what is over and begin it anew; give the time of the next turn."""
        if now < self._turn or len(self.calls) < self._count:
            return now + PAUSE
        self._turn = now + self._pace
        for index, call in enumerate(self.calls):
            if call.connecting and now < call.since + RENEW_TIMEOUT:
                continue
            if not call.server:
                error = call.failed or "ETIMEDOUT"
                self._errors[error] = self._errors.get(error, 0) + 1
            elif call.since >= self._told:
                self._servers[call.server] = self._servers.get(call.server, 0) + 1
            reset(call.socket)
            self._forget(call)
            self.calls[index] = self._make(index)
            self._register(self.calls[index])
        return self._turn

    def tell(self) -> Answer:
        """Say how many tries each server has answered that were begun since this was told last, and how many failed.

        As long as there are none of either, nothing was told.
        """
        answer: Answer = {"servers": self._servers, "errors": self._errors}
        if self._servers or self._errors:
            self._servers, self._errors, self._told = {}, {}, time.monotonic()
        return answer


class Client:
    """Does what it is asked, one thing at a time, while all groups go on."""

    def __init__(self, folder: str) -> None:
        # Open both ways, so that neither end ever sees the other leave.
        self._ask, self._answer = (os.open(f"{folder}/{name}", os.O_RDWR) for name in ("ask", "answer"))
        self._poll = select.epoll()
        self._poll.register(self._ask, select.EPOLLIN)
        self._calls: dict[int, Call] = {}
        self._groups: dict[str, Group] = {}
        # What is waited for, until when, and what is told then.
        self._done: Callable[[], bool] | None = None
        self._deadline = 0.0
        self._tell: Callable[[], Answer] = dict

    def run(self) -> None:
        while True:
            now = time.monotonic()
            due = min((group.send_due(now) for group in self._groups.values()), default=now + PAUSE)
            for descriptor, _ in self._poll.poll(max(0.0, min(due - time.monotonic(), PAUSE)), 256):
                if descriptor == self._ask:
                    self._take(os.read(self._ask, 4096).decode().split())
                elif descriptor in self._calls:
                    self._receive(self._calls[descriptor])
            if self._done and (self._done() or time.monotonic() > self._deadline):
                self._done = None
                os.write(self._answer, repr(self._tell()).encode() + b"\n")

    def _receive(self, call: Call) -> None:
        call.receive(time.monotonic())
        if call.failed:
            self._poll.unregister(call.socket)

    def _register(self, call: Call) -> None:
        self._calls[call.socket.fileno()] = call
        self._poll.register(call.socket, select.EPOLLIN)

    def _forget(self, call: Call) -> None:
        del self._calls[call.socket.fileno()]
        call.socket.close()

    def _take(self, words: list[str]) -> None:
        verb, name, *rest = words
        if verb == "prove":
            *names, seconds = (name, *rest)
            groups = [self._groups[each] for each in names]
            for group in groups:
                group.prove()
            self._wait(lambda: all(each.is_proven() for each in groups), float(seconds), partial(together, groups))
        elif verb == "look":
            self._wait(lambda: True, 0, self._groups[name].tell)
        elif verb in {"end", "reset"}:
            for call in self._groups.pop(name).calls:
                del self._calls[call.socket.fileno()]
                if verb == "reset":
                    reset(call.socket)
                call.socket.close()
            self._wait(lambda: True, 0, dict)
        else:
            count, address, port, pace, *sources = rest

            def make(index: int) -> Call:
                return Call(verb, address, int(port), *(f"{start}{index + 1}" for start in sources))

            if verb == "new":
                made: Group = Renewed(make, int(count), int(pace) / 1000, self._forget)
            else:
                made = Group(make, int(count), int(pace) / 1000)
            self._groups[name] = made
            self._wait(partial(made.connect, self._register), CONNECT_TIMEOUT, made.tell)

    def _wait(self, done: Callable[[], bool], seconds: float, tell: Callable[[], Answer]) -> None:
        self._done, self._deadline, self._tell = done, time.monotonic() + seconds, tell


def reset(each: socket.socket) -> None:
    """Have it end without a farewell when it is closed."""
    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def unbound(kind: str, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)


def bound(kind: str, address: str, port: int) -> socket.socket:
    made = unbound(kind, address)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind != "udp":
        made.listen(4096)
    return made


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        Servers(int(sys.argv[2]), sys.argv[3:]).run()
    else:
        Client(sys.argv[2]).run()

"""The way to a guest's kernel: requests to the agent in it, and a netlink channel of each family over them.

Whatever the guest sends raises only ProtocolError and ChannelError, within a deadline and bounded memory.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from socket import AF_INET, AF_INET6
from types import TracebackType
from typing import NamedTuple, Self

from reconciler.errors import ChannelError, ProtocolError, ReconcilerError
from reconciler.guest import agent, lend
from reconciler.guest.agent import Frame
from reconciler.guest.connection import TIMEOUT, Connection, Hello
from reconciler.netlink.message import DONE, ERROR, Message, attributes, messages, sequence_of

# Bounds of one answer: a route takes about 60 bytes in a dump, an IPVS server 200.
ANSWER_SIZE = 64 << 20
ANSWER_MESSAGES = 500_000
# Bytes of notifications that may wait; then they are lost, and it is said so.
NOTICES_SIZE = 4 << 20
_PART_SIZE = 64
# What the guard did that may wait; then it is lost as well.
GUARDED_COUNT = 1024
# Seconds between two looks of a guard: the kernel takes 4 ms for a flush and the first service (docs/guest.md has more).
GUARD_PERIOD = 0.002
_LAST_REQUEST = 0xFFFFFFFF
# Dump requests in a frame: 60 bytes each, 0.1 ms of the kernel's time or more.
DUMPS_AT_ONCE = 2000
# Seconds for all dumps of a table: 5,000 take less than one.
DUMPS_TIMEOUT = 30.0
# Where the attributes begin in a message of generic netlink, its header included; IPVS_CMD_ATTR_SERVICE and
# IPVS_SVC_ATTR_AF.
_ATTRIBUTES_AT, _SERVICE, _FAMILY = 20, 1, 1
# What the guest's agent reports of time and room; all else is a refusal.
_PASSING = {errno.ETIMEDOUT, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO}


class Guarded(NamedTuple):
    """What became of the guarded service of an address family that was found gone.

    `errno`: 0, it is back; EEXIST, another was quicker; EAGAIN, it is not put back again within this second; else what the
    kernel refused. `gone`: seconds since it was last seen, None if it never was.
    """

    family: int
    errno: int
    gone: float | None


class Notices(NamedTuple):
    """Notifications in order, whether some were lost (then: look at everything, guard anew), and what the guard did."""

    messages: list[Message]
    lost: bool
    guarded: tuple[Guarded, ...] = ()


class Relay:
    """Requests to the agent of one guest, one at a time. For one thread."""

    def __init__(self, path: str, timeout: float = TIMEOUT, *, borrow: bool = False) -> None:
        """Connect to the socket of the port. Each request may take `timeout` seconds.

        `borrow`: ask whoever holds the port to lend it, instead of an error at once.
        """
        self._loan: socket.socket | None = None
        if borrow:
            self._connection, self._loan = lend.borrow(path)
        else:
            self._connection = Connection(path)
        self._timeout = timeout
        self._hello: Hello | None = None
        self._request_id = 0
        self._subscribed = self._guarding = False
        self._guarded: list[Guarded] = []
        self._notices: list[Message] = []
        self._size = 0
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the guest to others."""
        self._connection.close()
        if self._loan:
            self._loan.close()

    def hello(self) -> Hello:
        """Ask the agent for its version and its kernel, unless it has said so on this connection."""
        return self._greet(time.monotonic() + self._timeout)

    def modprobe(self, name: str) -> None:
        """Load a kernel module in the guest: one of agent.MODULES."""
        self.request(agent.MODPROBE, name.encode())

    def sysctl(self, name: str) -> str | None:
        """Read a setting in the guest: one of agent.SYSCTLS; None if its kernel does not have it."""
        return self._text(agent.SYSCTL_GET, name.encode())

    def ipvs_listing(self) -> str | None:
        """Read the guest's /proc/net/ip_vs; None if its kernel does not have it."""
        return self._text(agent.LISTING, b"")

    def _text(self, kind: int, payload: bytes) -> str | None:
        try:
            return b"".join(self._request(kind, payload)).decode(errors="replace")
        except _FailedError as failed:
            if failed.errno == errno.ENOENT:
                return None
            raise failed.translated() from None

    def set_sysctl(self, name: str, value: str) -> None:
        """Set a setting in the guest."""
        self.request(agent.SYSCTL_SET, f"{name}={value}".encode())

    def subscribe(self, groups: int) -> None:
        """Subscribe to notifications of the guest's kernel: to these groups of the route family, and to no others.

        `groups` is a mask of RTMGRP_* bits; ProtocolError if one is not in agent.ALLOWED_GROUPS. An error on the
        connection ends the subscription.
        """
        self.request(agent.SUBSCRIBE, agent.SUBSCRIBE_BODY.pack(groups))
        self._subscribed = True

    def guard(self, period: float, probes: Sequence[bytes], restores: Sequence[bytes]) -> None:
        """Let the guest look for IPVS services every `period` seconds, and put back at once those that have gone.

        A service is one message that asks for it and one that adds it; one of each address family. Only these are guarded
        from now on, until an error on the connection or `unguard`.
        """
        parts = [
            agent.GUARD_SERVICE_HEAD.pack(_address_family(probe), len(probe), len(restore)) + probe + restore
            for probe, restore in zip(probes, restores, strict=True)
        ]
        self._guarding = True
        self.request(agent.GUARD, b"".join((agent.GUARD_HEAD.pack(round(period * 1e6)), *parts)))

    def unguard(self) -> None:
        """Guard nothing any more. Once this returns the guest puts nothing back."""
        self.request(agent.GUARD, agent.GUARD_HEAD.pack(0))
        self._guarding = False

    def notices(self, timeout: float, wake: int | None = None) -> Notices:
        """Give what the guest told, once there is something, or `wake` can be read, or `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        try:
            self._listen(deadline, wake)
        except ChannelError:
            if time.monotonic() < deadline:
                self._forget()
                raise
        except BaseException:
            self._forget()
            raise
        found = Notices(self._notices, self._lost, tuple(self._guarded))
        self._notices, self._lost, self._size, self._guarded = [], False, 0, []
        return found

    def _listen(self, deadline: float, wake: int | None) -> None:
        while True:
            while self._connection.has_frame():
                self._keep(self._connection.receive(deadline))
            if self._notices or self._lost or self._guarded or self._connection.step(deadline, wake):
                return

    def request(self, kind: int, payload: bytes) -> list[bytes]:
        """Ask the agent; give the parts of its answer.

        After any error the next request begins with a new greeting, so that nothing late is taken for its answer.
        """
        try:
            return self._request(kind, payload)
        except _FailedError as failed:
            raise failed.translated() from None

    def requests(self, kind: int, payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Ask the agent several things, each while the one before is answered; give the parts of each answer."""
        asked: deque[int] = deque()
        try:
            for payload in payloads:
                asked.append(self._push(kind, payload, time.monotonic() + self._timeout))
                if len(asked) > 1:
                    yield self._collect(asked.popleft(), time.monotonic() + self._timeout)
            while asked:
                yield self._collect(asked.popleft(), time.monotonic() + self._timeout)
        except _FailedError as failed:
            self._forget()
            raise failed.translated() from None
        except BaseException:
            self._forget()
            raise

    def _request(self, kind: int, payload: bytes) -> list[bytes]:
        deadline = time.monotonic() + self._timeout
        try:
            return self._collect(self._push(kind, payload, deadline), deadline)
        except _FailedError:
            raise
        except BaseException:
            self._forget()
            raise

    def _push(self, kind: int, payload: bytes, deadline: float) -> int:
        self._greet(deadline)
        self._request_id = self._request_id % _LAST_REQUEST + 1
        self._connection.push(self._request_id, kind, payload)
        return self._request_id

    def _collect(self, asked: int, deadline: float) -> list[bytes]:
        parts: list[bytes] = []
        left = ANSWER_SIZE
        while True:
            request, kind, payload = frame = self._connection.receive(deadline)
            if time.monotonic() > deadline:
                raise ChannelError(f"the guest was not done answering within {self._timeout:.0f} s")
            if request == 0:
                self._keep(frame)
                continue
            if request != asked:
                raise ProtocolError(f"the guest answers request {request}, which it was not asked")
            # An empty part takes room as well.
            left -= len(payload) + _PART_SIZE
            if left < 0:
                raise ProtocolError(f"the guest's answer has more than {ANSWER_SIZE} bytes")
            if kind == agent.FAILED:
                raise _failed(payload)
            if kind not in {agent.MORE, agent.DONE}:
                raise ProtocolError(f"the guest answers with a frame of kind {kind}")
            parts.append(payload)
            if kind == agent.DONE:
                return parts

    def _greet(self, deadline: float) -> Hello:
        if self._hello is None:
            self._hello = self._connection.greet(deadline)
        return self._hello

    def _forget(self) -> None:
        """Begin anew with the next request; the guest forgets a subscription and a guard then: what it would tell is lost."""
        self._hello = None
        self._lost = self._lost or self._subscribed or self._guarding
        self._subscribed = self._guarding = False

    def _keep(self, frame: Frame) -> None:
        """Keep a notification, within bounds."""
        request, kind, payload = frame
        if request or kind not in {agent.NOTIFY, agent.LOST, agent.GUARDED}:
            raise ProtocolError(f"the guest sends a frame of kind {kind} that was not asked for")
        if kind == agent.GUARDED and len(self._guarded) < GUARDED_COUNT:
            self._guarded.append(_decode_guarded(payload))
        elif kind != agent.NOTIFY or self._size + len(payload) > NOTICES_SIZE:
            self._lost = True
        else:
            self._notices += messages(payload)
            self._size += len(payload)


class GuestKernel:
    """A guest's kernel, over a relay that its owner closes."""

    def __init__(self, relay: Relay) -> None:
        """Take the relay."""
        self._relay = relay

    def open(self, protocol: int) -> RelayChannel:
        """Open a channel of a netlink family: GENERIC is for IPVS only, NETFILTER for connection tracking only."""
        return RelayChannel(self._relay, protocol)

    def sysctl(self, name: str) -> str | None:
        """Read a setting; None if the kernel does not have it."""
        return self._relay.sysctl(name)

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting."""
        self._relay.set_sysctl(name, value)

    def ipvs_listing(self) -> str | None:
        """Read the kernel's listing of its IPVS table; None if it does not have one."""
        return self._relay.ipvs_listing()


class RelayChannel:
    """The netlink channel of one family, over a relay that its owner closes."""

    def __init__(self, relay: Relay, protocol: int) -> None:
        """Take one of the families of netlink.channel."""
        self._relay = relay
        self._protocol = protocol

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send messages back to back; give all that comes back up to the answer to sequence number `last`."""
        return self._read(self._relay.request(agent.NETLINK, self._frame(requests, last)), last)

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Exchange one batch after the other, each while the one before is carried out."""
        lasts: deque[int] = deque()

        def frames() -> Iterator[bytes]:
            for requests, last in batches:
                lasts.append(last)
                yield self._frame(requests, last)

        for parts in self._relay.requests(agent.NETLINK, frames()):
            yield self._read(parts, lasts.popleft())

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send dump requests, each after the answer to the one before; give all that comes back."""
        answers: list[Message] = []
        deadline = time.monotonic() + DUMPS_TIMEOUT
        runs = [requests[start : start + DUMPS_AT_ONCE] for start in range(0, len(requests), DUMPS_AT_ONCE)]
        frames = (self._frame(b"".join(run), 0) for run in runs)
        for run, parts in zip(runs, self._relay.requests(agent.DUMPS, frames), strict=True):
            answers += self._read(parts, sequence_of(run[-1]))
            _check_count(answers)
            if time.monotonic() > deadline:
                raise ChannelError(f"the guest was not done with its dumps within {DUMPS_TIMEOUT:.0f} s")
        return answers

    def _frame(self, requests: bytes, last: int) -> bytes:
        return agent.NETLINK_HEAD.pack(self._protocol, last) + requests

    def _read(self, parts: Iterable[bytes], last: int) -> list[Message]:
        answers: list[Message] = []
        for part in parts:
            answers += messages(part)
            _check_count(answers)
        if not _is_end(answers, last):
            raise ProtocolError("the guest's answer does not end with the one to the last message")
        return answers

    def close(self) -> None:
        """Nothing is held: the relay is its owner's."""


def _check_count(answers: list[Message]) -> None:
    if len(answers) > ANSWER_MESSAGES:
        raise ProtocolError(f"the guest's answer has more than {ANSWER_MESSAGES} messages")


def _address_family(probe: bytes) -> int:
    """Read the address family of the service that a message asks for."""
    service = dict(attributes(probe, _ATTRIBUTES_AT))[_SERVICE]
    return int.from_bytes(dict(attributes(service))[_FAMILY], sys.byteorder)


def _decode_guarded(payload: bytes) -> Guarded:
    body = agent.GUARDED_BODY
    family, code, since = body.unpack(payload) if len(payload) == body.size else (0, 0, 0)
    if family not in {AF_INET, AF_INET6}:
        raise ProtocolError(f"the guest says that it guards a service of address family {family}")
    return Guarded(family, code, None if since == agent.NEVER else since / 1e6)


def _is_end(answers: list[Message], last: int) -> bool:
    return bool(answers) and answers[-1].sequence == last and answers[-1].type in {ERROR, DONE}


class _FailedError(Exception):
    """The agent answered that a request failed."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.errno = code

    def translated(self) -> ReconcilerError:
        """Give it as what the caller is told."""
        return (ChannelError if self.errno in _PASSING else ProtocolError)(f"the guest's agent: {self}")


def _failed(payload: bytes) -> Exception:
    head = agent.FAILED_HEAD
    if len(payload) < head.size:
        return ProtocolError("the guest's agent reports a failure without saying which")
    words = payload[head.size : head.size + 1024].decode(errors="replace")
    return _FailedError(head.unpack_from(payload)[0], "".join(filter(str.isprintable, words)))

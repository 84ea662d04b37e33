"""The client of the agent in a guest: requests, subscriptions and the guard.

Whatever the guest sends, a client raises only ProtocolError and ChannelError, within a deadline and in bounded memory.
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
from typing import Self

from reconciler.errors import ChannelError, ProtocolError, ReconcilerError
from reconciler.guest import agent, lend
from reconciler.guest.agent import Frame
from reconciler.guest.connection import TIMEOUT, Connection
from reconciler.model.machine import Managers
from reconciler.netlink.budget import UNASKED, Budget
from reconciler.netlink.message import Message, attributes, messages
from reconciler.values import NamedTuple

# Bytes of notifications that may wait. If more come, they are dropped and `Notices.lost` is set.
NOTICES_SIZE = 1 << 20
# Seconds to wait for the rest of a frame.
_DRIP = 0.005
# Reports of the guard that may wait, likewise.
GUARDED_COUNT = 1024
# Seconds between two looks of a guard. The kernel takes 4 ms for a flush and the first service (see docs/guest.md).
GUARD_PERIOD = 0.002
# Request ids are 1 to this, over and over.
_LAST_REQUEST = 0xFFFFFFFF
# Where the attributes begin in a message of generic netlink, its header included.
_ATTRIBUTES_AT = 20
# linux/ip_vs.h: IPVS_CMD_ATTR_SERVICE and, in it, IPVS_SVC_ATTR_AF.
_SERVICE = 1
_ADDRESS_FAMILY = 1
# Programs of a guest that configure NICs, and characters of a name with a reason.
_RIVALS, _RIVAL = 10, 200
# Failures of the agent that may pass: it had no time or no room. All others are refusals.
_PASSING = {errno.ETIMEDOUT, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO}


class GuardReport(NamedTuple):
    """A report of the guard: a service disappeared, the guarded one of this address family.

    `errno`: 0 if the guard restored it, EEXIST if another program was quicker, EAGAIN if it was restored too often
    within this second, else what the kernel answered. `gone`: seconds since it was last seen, None if it never was.
    """

    family: int
    errno: int
    gone: float | None


class Notices(NamedTuple):
    """What the agent sent without being asked.

    `messages`: notifications of the guest's kernel, in order; `lost`: some were lost, or the guard has ended: read
    everything again and set the guard again; `guarded`: the reports of the guard.
    """

    messages: list[Message]
    lost: bool
    guarded: tuple[GuardReport, ...] = ()


class AgentClient:
    """The only client of one guest's agent, from `__init__` to `close`. It sends one request at a time. For one thread.

    After an error the next request begins with a new greeting: so nothing late is taken for its answer. The agent then
    ends the subscription and the guard, and the next notices are `lost`.
    """

    def __init__(
        self,
        path: str | socket.socket,
        timeout: float = TIMEOUT,
        *,
        target: str = "",
        borrow: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Connect to the socket of the agent's port. Each request may take `timeout` seconds.

        `path`, `target`: as for Connection. `borrow`: if another process uses the port, ask it to lend the port
        (`guest.lend`) instead of raising BusyError. `budget`: what all answers of the machine may cost; by default,
        each request has one of its own.
        """
        self.budget = budget or Budget()
        self._loan: socket.socket | None = None
        if borrow and isinstance(path, str):
            self._connection, self._loan = lend.borrow(path, target)
        else:
            self._connection = Connection(path, target)
        self._timeout = timeout
        # The kernel release of the guest; None before the greeting, and after an error.
        self._release: str | None = None
        self._request_id = 0
        self._subscribed = False
        self._guarding = False
        # What `notices` returns next, and the size of its messages in bytes.
        self._messages: list[Message] = []
        self._size = 0
        self._lost = False
        self._guarded: list[GuardReport] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the port for other processes."""
        self._connection.close()
        if self._loan:
            self._loan.close()

    def kernel_release(self) -> str:
        """Return the release of the guest's kernel, such as 6.1.0-18-cloud-amd64."""
        return self._greet(time.monotonic() + self._timeout)

    def greet(self, seconds: float) -> None:
        """Greet the agent, unless that was done. ChannelError if it does not answer within so many seconds.

        OtherVersionError if it speaks another version of the protocol.
        """
        self._greet(time.monotonic() + seconds)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of sysctls that the agent allows, without those that the guest's kernel does not have."""
        if not names:
            return {}
        answer = b"".join(self.request(agent.SYSCTL_GET, "\n".join(names).encode())).decode(errors="replace")
        values = answer.split("\n")
        if len(values) != len(names):
            raise ProtocolError(f"the guest's agent sent {len(values)} values for {len(names)} sysctls")
        return {name: value for name, value in zip(names, values, strict=True) if value}

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a sysctl that the agent allows."""
        self.request(agent.SYSCTL_SET, f"{name}={value}".encode())

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        """Return whether the guest's kernel has modules, loaded or not; without those of which nobody knows."""
        names = [name for name in names if name in agent.MODULES]
        if not names:
            return {}
        try:
            lines = b"".join(self._request(agent.MODULES_GET, "\n".join(names).encode())).decode().split("\n")
        except _FailedError as failed:
            if failed.errno in {errno.EOPNOTSUPP, errno.EPERM}:
                # An agent that is older than this request, or than one of the modules.
                return {}
            raise failed.translated() from None
        except UnicodeDecodeError:
            lines = []
        if len(lines) != len(names):
            raise ProtocolError(f"the guest's agent sent {len(lines)} lines about {len(names)} modules")
        return {name: line == "yes" for name, line in zip(names, lines, strict=True) if line in {"yes", "no"}}

    def unmanaged(self) -> Managers:
        """Return which NICs the guest's network managers leave alone."""
        lines = b"".join(self.request(agent.UNMANAGED_GET, b"")).decode(errors="replace").split("\n")
        if len(lines) != 3:
            raise ProtocolError(f"the guest's agent sent {len(lines)} lines about network managers, not 3")
        told, addresses, others = lines
        rivals = [each[:_RIVAL] for each in others.split(",")[:_RIVALS] if each]
        return Managers(tuple(told.split()[:_RIVALS]), frozenset(addresses.split()), tuple(rivals))

    def set_unmanaged(self, addresses: Iterable[str]) -> None:
        """Tell the guest's network managers to leave NICs alone, by their MAC addresses, and no others."""
        self.request(agent.UNMANAGED_SET, " ".join(addresses).encode())

    def attempt(self, probes: Sequence[agent.Probe], seconds: float) -> list[str]:
        """Try to reach something from the guest; see `agent.attempt`. At most agent.MAX_PROBE_TIME milliseconds."""
        payload = agent.PROBE_HEAD.pack(round(seconds * 1000)) + "\n".join(each.line for each in probes).encode()
        answer = b"".join(self.request(agent.PROBE, payload)).decode(errors="replace").split("\n")
        if len(answer) != len(probes):
            raise ProtocolError(f"the guest's agent sent {len(answer)} results for {len(probes)} probes")
        return [line[: agent.MAX_TEXT] for line in answer]

    def ipvs_listing(self) -> str | None:
        """Return the guest's /proc/net/ip_vs; None if its kernel does not have it."""
        return self._read_file(agent.LISTING, "")

    def read_listing(self, name: str) -> str | None:
        """Return one of agent.FILES of the guest's /proc/net; None if its kernel does not have it."""
        return self._read_file(agent.FILE, name)

    def _read_file(self, kind: int, name: str) -> str | None:
        try:
            return b"".join(self._request(kind, name.encode())).decode(errors="replace")
        except _FailedError as failed:
            if failed.errno == errno.ENOENT:
                return None
            raise failed.translated() from None

    def ipvs_servers(self) -> bytes | None:
        """Return the servers of the guest's IPv4 services, as `ipvs_legacy.read` does.

        None if its kernel or its Python cannot tell them so.
        """
        try:
            answer = b"".join(self._request(agent.SERVERS, b""))
        except _FailedError as failed:
            if failed.errno in {errno.ENOSYS, errno.ENOPROTOOPT}:
                return None
            raise failed.translated() from None
        from reconciler.netlink import ipvs_legacy

        self.budget.spend(0, ipvs_legacy.count(answer))
        return answer

    def subscribe(self, groups: int) -> None:
        """Subscribe to notifications of the guest's kernel: to these groups of the route family, and to no others.

        `groups` is a mask of RTMGRP_* bits. Raise ProtocolError if a bit is not in agent.ALLOWED_GROUPS.
        """
        self.request(agent.SUBSCRIBE, agent.SUBSCRIBE_BODY.pack(groups))
        self._subscribed = True

    def guard(self, period: float, probes: Sequence[bytes], restores: Sequence[bytes]) -> None:
        """Make the agent look for IPVS services every `period` seconds, and restore at once those that disappeared.

        Of each service there is a netlink message that asks for it, and one that adds it; at most one service of each
        address family. They replace those that were guarded before.
        """
        head = agent.GUARD_SERVICE_HEAD
        parts = [
            head.pack(_address_family(probe), len(probe), len(restore)) + probe + restore
            for probe, restore in zip(probes, restores, strict=True)
        ]
        self._guarding = True
        self.request(agent.GUARD, b"".join((agent.GUARD_HEAD.pack(round(period * 1e6)), *parts)))

    def unguard(self) -> None:
        """End the guard. When this returns, the agent restores nothing any more."""
        self.request(agent.GUARD, agent.GUARD_HEAD.pack(0))
        self._guarding = False

    def notices(self, timeout: float, wake: int | None = None) -> Notices:
        """Return what the agent sent, as soon as there is something, even if it says nothing.

        Return nothing after `timeout` seconds, or when the descriptor `wake` is readable. What is read at a time is
        bounded, so the caller decides how much time a guest takes that sends without end.
        """
        deadline = time.monotonic() + timeout
        try:
            self._await_notice(deadline, wake)
        except ChannelError:
            if time.monotonic() < deadline:
                self._begin_anew()
                raise
        except BaseException:
            self._begin_anew()
            raise
        found = Notices(self._messages, self._lost, tuple(self._guarded))
        self._messages, self._size, self._lost, self._guarded = [], 0, False, []
        return found

    def _await_notice(self, deadline: float, wake: int | None) -> None:
        while not (self._messages or self._lost or self._guarded or self._connection.has_frame()):
            if self._connection.step(deadline, wake):
                break
            if not self._connection.has_frame():
                # A guest that sends byte by byte is not read byte by byte.
                time.sleep(_DRIP)
        while self._connection.has_frame():
            self._keep(self._connection.receive(deadline))

    def request(self, kind: int, payload: bytes) -> list[bytes]:
        """Send a request. Return the parts of its answer."""
        try:
            return self._request(kind, payload)
        except _FailedError as failed:
            raise failed.translated() from None

    def requests(self, kind: int, payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Send requests, each while the one before is answered. Yield the parts of each answer."""
        with self.budget.step():
            yield from self._requests(kind, payloads)

    def _requests(self, kind: int, payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
        asked: deque[int] = deque()
        try:
            for payload in payloads:
                asked.append(self._push(kind, payload, self.budget.deadline(self._timeout)))
                if len(asked) > 1:
                    yield self._collect(asked.popleft(), self.budget.deadline(self._timeout))
            while asked:
                yield self._collect(asked.popleft(), self.budget.deadline(self._timeout))
        except _FailedError as failed:
            self._begin_anew()
            raise failed.translated() from None
        except BaseException:
            self._begin_anew()
            raise

    def _request(self, kind: int, payload: bytes) -> list[bytes]:
        with self.budget.step():
            deadline = self.budget.deadline(self._timeout)
            try:
                return self._collect(self._push(kind, payload, deadline), deadline)
            except _FailedError:
                raise
            except BaseException:
                self._begin_anew()
                raise

    def _push(self, kind: int, payload: bytes, deadline: float) -> int:
        """Append a request to what is to be sent. Return its id."""
        self._greet(deadline)
        self._request_id = self._request_id % _LAST_REQUEST + 1
        self._connection.push(self._request_id, kind, payload)
        return self._request_id

    def _collect(self, asked: int, deadline: float) -> list[bytes]:
        """Receive the answer to the request with this id. Return its parts."""
        parts: list[bytes] = []
        while True:
            frame = self._connection.receive(deadline)
            self.budget.spend(len(frame.payload) + agent.HEADER.size, 1 if frame.request else UNASKED)
            if time.monotonic() > deadline:
                raise ChannelError(f"the guest's agent did not finish its answer within {self._timeout:.0f} s")
            if frame.request == 0:
                self._keep(frame)
                if self._release is None:
                    raise ChannelError("the guest's agent has started again before it finished its answer")
                continue
            if frame.request != asked:
                raise ProtocolError(f"the guest's agent answered request {frame.request}, which was not sent")
            if frame.kind == agent.FAILED:
                raise _failed(frame.payload)
            if frame.kind not in {agent.MORE, agent.DONE}:
                raise ProtocolError(f"the guest's agent answered with a frame of kind {frame.kind}")
            parts.append(frame.payload)
            if frame.kind == agent.DONE:
                return parts

    def _greet(self, deadline: float) -> str:
        if self._release is None:
            self._release = self._connection.greet(deadline)
        return self._release

    def _begin_anew(self) -> None:
        """Greet again before the next request, which ends the subscription and the guard."""
        self._release = None
        self._lost = self._lost or self._subscribed or self._guarding
        self._subscribed = self._guarding = False

    def _keep(self, frame: Frame) -> None:
        """Keep a frame that was not requested for the next `notices`."""
        if (frame.request, frame.kind) == (0, agent.HELLO):
            # The agent has started again, or its port was unplugged: it knows nothing of what was agreed before.
            self._begin_anew()
            return
        if frame.request or frame.kind not in {agent.NOTIFY, agent.LOST, agent.GUARDED}:
            raise ProtocolError(f"the guest's agent sent a frame of kind {frame.kind} that was not requested")
        if frame.kind == agent.GUARDED and len(self._guarded) < GUARDED_COUNT:
            self._guarded.append(_decode_guarded(frame.payload))
        elif frame.kind != agent.NOTIFY or self._size + len(frame.payload) > NOTICES_SIZE:
            self._lost = True
        else:
            self._messages += messages(frame.payload)
            self._size += len(frame.payload)


def _address_family(probe: bytes) -> int:
    """Return the address family of the service that a message asks for."""
    service = dict(attributes(probe, _ATTRIBUTES_AT))[_SERVICE]
    return int.from_bytes(dict(attributes(service))[_ADDRESS_FAMILY], sys.byteorder)


def _decode_guarded(payload: bytes) -> GuardReport:
    body = agent.GUARDED_BODY
    if len(payload) != body.size:
        raise ProtocolError(f"the guest's agent sent a report of its guard of {len(payload)} bytes, not {body.size}")
    family, code, since = body.unpack(payload)
    if family not in {AF_INET, AF_INET6}:
        raise ProtocolError(f"the guest's agent reported a guarded service of the unknown address family {family}")
    return GuardReport(family, code, None if since == agent.NEVER else since / 1e6)


class _FailedError(Exception):
    """The agent answered a request with FAILED."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.errno = code

    def translated(self) -> ReconcilerError:
        """Return the error for the caller."""
        return (ChannelError if self.errno in _PASSING else ProtocolError)(f"the guest's agent: {self}")


def _failed(payload: bytes) -> Exception:
    head = agent.FAILED_HEAD
    if len(payload) < head.size:
        return ProtocolError("the guest's agent reported a failure without an error number")
    text = payload[head.size : head.size + agent.MAX_TEXT].decode(errors="replace")
    return _FailedError(head.unpack_from(payload)[0], text)

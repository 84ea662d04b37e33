"""What runs in the guest: it relays raw netlink between the host and this kernel. One file, standard library only.

    agent.py [PORT]

PORT is the name of a virtio-serial port, `reconciler.agent` unless said otherwise. The host imports the frames from
here (docs/guest.md has the protocol); neither end trusts the other.

Traps: the port reads b"" for ever while the host is away. A host that leaves and comes back quickly goes unnoticed, and
can have lost the end of its last frame; so each host begins with a mark, which counts wherever it comes. Or it is noticed
late, when the next host's greeting is read already: so a host is away only if it stays away.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from typing import NoReturn

VERSION = 2
PORT = "reconciler.agent"

# A frame: bytes of payload, request id (0 where nobody asked), kind; then the payload.
HEADER = struct.Struct("!IIH")
MAX_FRAME = 1 << 20
# No zero byte stands in it and every header begins with one, so it cannot lie across the edge of a frame.
MAGIC = b"reconcil\xba\xd1\x4c\xe9\xca\x38\x7a\x57\x1a\xe0\x72\x20\x30\xbc\x1b\xb9\xc1\x95\x0e\x5d\x25\x7d\xae\xcb"
ID_SIZE = 16

# Kinds of frames: what the host asks; what it is told once a connection, in answer, and unasked.
NETLINK, MODPROBE, SYSCTL_GET, SYSCTL_SET, SUBSCRIBE, DUMPS, LISTING, GUARD = 1, 2, 3, 4, 5, 6, 7, 8
HELLO, MORE, DONE, FAILED, NOTIFY, LOST, GUARDED = 32, 33, 34, 35, 36, 37, 38
# What the decoder reports beside the frames; kinds on the wire have 16 bits.
GREETING, BROKEN = 0x10000, 0x10001
# What stands before the kernel release; the messages (protocol, sequence number of the last; 0 for DUMPS); the words of
# a failure.
HELLO_HEAD, NETLINK_HEAD, FAILED_HEAD = struct.Struct("!H"), struct.Struct("!HI"), struct.Struct("!H")
# The groups of netlink's route family to subscribe to, as bits.
SUBSCRIBE_BODY = struct.Struct("!I")
# A guard: microseconds between two looks (0: none any more); then of each service its address family, the bytes of the
# message that asks for it and of the one that adds it, and both. What became of a service: its address family, an errno,
# and the microseconds since it was last seen, or UNSEEN.
GUARD_HEAD, GUARD_PART, GUARDED_BODY = struct.Struct("!I"), struct.Struct("!BHH"), struct.Struct("!BHI")
UNSEEN = 0xFFFFFFFF
# Services of a guard, one of each address family; microseconds between two looks at least; times within a second that
# one is put back.
GUARD_PARTS, GUARD_SHORTEST, GUARD_RESTORES = 2, 500, 10

# linux/netlink.h. Of generic netlink only IPVS is relayed, of netfilter only connection tracking.
ROUTE, NETFILTER, GENERIC = 0, 12, 16
# The groups that a host may subscribe to (rtnetlink.h; the bit of group n is 1 << n - 1): RTNLGRP_LINK, _NEIGH,
# _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE.
ALLOWED_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
# What can be loaded: IPVS, its schedulers and helpers, and conntrack's netlink side.
# fmt: off
MODULES = frozenset({
    "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_fo", "ip_vs_ovf", "ip_vs_lblc", "ip_vs_lblcr",
    "ip_vs_dh", "ip_vs_sh", "ip_vs_mh", "ip_vs_sed", "ip_vs_nq", "ip_vs_twos", "ip_vs_ftp", "ip_vs_pe_sip",
    "nf_conntrack", "nf_conntrack_netlink",
})
# What can be read and set: net.ipv4.ip_forward, and these below net.ipv4.vs (networking/ipvs-sysctl.rst of the kernel).
IPVS_SYSCTLS = frozenset({
    "am_droprate", "amemthresh", "backup_only", "cache_bypass", "conn_reuse_mode", "conntrack", "drop_entry",
    "drop_packet", "est_cpulist", "est_nice", "expire_nodest_conn", "expire_quiescent_template", "ignore_tunneled",
    "nat_icmp_send", "pmtu_disc", "run_estimation", "schedule_icmp", "secure_tcp", "sloppy_sctp", "sloppy_tcp",
    "snat_reroute", "sync_persist_mode", "sync_ports", "sync_qlen_max", "sync_refresh_period", "sync_retries",
    "sync_sock_size", "sync_threshold", "sync_version",
})
# fmt: on
SYSCTLS = frozenset({"net.ipv4.ip_forward"}.union(f"net.ipv4.vs.{name}" for name in IPVS_SYSCTLS))

# Seconds for the kernel or modprobe, less than the host waits; and for a host that does not read.
KERNEL_TIMEOUT, WRITE_TIMEOUT = 8.0, 10.0
# Seconds between two looks whether a host has come, after which it is away, and between two of a service at what is due.
PAUSE, GRACE, TICK = 0.1, 0.5, 5.0
# Bytes of a part of an answer (virtio_console takes 32 KB at a time), of a read, and of what the kernel may have to say
# while nobody listens (as netlink/channel.py).
CHUNK, READ_SIZE, RECEIVE_BUFFER = 32 << 10, 64 << 10, 8 << 20
# As netlink/channel.py: what makes many small dumps quick.
SMALL_READ_SIZE = min(os.sysconf("SC_PAGE_SIZE"), 8192) - 320

_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_MESSAGE, _TIMEVAL = struct.Struct("=IHHII"), struct.Struct("ll")
_ERROR, _DONE = 2, 3
_TYPE, _ENDS = struct.Struct("=H"), {_ERROR, _DONE}
# Where the other byte of a type stands first, every message looks like the last.
_LOOKS_LAST = {*_ENDS, *((0, 1, 2, 3) if sys.byteorder == "big" else ())}
# genetlink.h: GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, and CTRL_ATTR_FAMILY_NAME with the name.
_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _IPVS_NAME = 16, 3, 1, struct.pack("=HH5s3x", 9, 2, b"IPVS")
# nfnetlink.h: NFNL_SUBSYS_CTNETLINK.
_CONNTRACK = 1
# netlink.h: NLM_F_REQUEST, _ACK; the type of an answer and its errno; ip_vs.h: IPVS_CMD_NEW_SERVICE, _GET_SERVICE.
_REQUEST, _ACK, _ANSWER = 1, 4, struct.Struct("=4xH10xi")
_NEW_SERVICE, _GET_SERVICE = 1, 4

Frame = tuple[int, int, bytes]


class GoneError(Exception):
    """The host has let the port go, or does not read."""


class Decoder:
    """Bytes in, frames out, as (request id, kind, payload). Holds no more than one frame and what was fed last.

    Nothing counts before the mark. Wherever the mark comes, within a frame too, what is unfinished is dropped and a
    GREETING begins anew; its payload is the `tail` bytes behind the mark. The mark's first byte must not be among them:
    so half a greeting does not swallow the next one. BROKEN stands for a header that cannot be one; nothing counts after
    it until the mark comes again.
    """

    def __init__(self, mark: bytes, tail: int) -> None:
        self._mark, self._greeting = mark, len(mark) + tail
        self._buffer = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; give the frames that are complete now."""
        buffer = self._buffer
        frames: list[Frame] = []
        start = max(0, len(buffer) - len(self._mark) + 1) if self._greeted else 0
        buffer += data
        while (at := buffer.find(self._mark, start)) >= 0:
            del buffer[: at - self._cut(at, frames)]
            self._greeted = False
            start = buffer.find(self._mark[:1], len(self._mark), self._greeting)
            if start >= 0:
                # Half a greeting, and maybe the next one.
                continue
            if len(buffer) < self._greeting:
                return frames
            frames.append((0, GREETING, bytes(buffer[len(self._mark) : self._greeting])))
            del buffer[: self._greeting]
            self._greeted, start = True, 0
        self._cut(len(buffer), frames)
        if not self._greeted:
            del buffer[: 1 - len(self._mark)]
        return frames

    def _cut(self, end: int, frames: list[Frame]) -> int:
        """Move the whole frames before `end` from the buffer to `frames`; give their size."""
        position = 0
        while self._greeted and position + HEADER.size <= end:
            length, request, kind = HEADER.unpack_from(self._buffer, position)
            after = position + HEADER.size + length
            if length > MAX_FRAME:
                self._greeted = False
                frames.append((request, BROKEN, b""))
            elif after > end:
                break
            else:
                frames.append((request, kind, bytes(self._buffer[position + HEADER.size : after])))
                position = after
        del self._buffer[:position]
        return position


class Port:
    """A virtio-serial port, or anything else that can be polled. Only `send` waits."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.pending = bytearray()
        self._away_since = 0.0

    def receive(self) -> bytes:
        """Read what is there, up to the size of a read; the port gives a page at a time."""
        data = bytearray()
        try:
            while len(data) < READ_SIZE:
                part = os.read(self.descriptor, READ_SIZE)
                data += part
                if not part:
                    break
        except BlockingIOError:
            part = b"nothing yet"
        except OSError as error:
            raise GoneError from error
        if data or part:
            self._away_since = 0.0
        else:
            self._pause()
        return bytes(data)

    def _pause(self) -> None:
        """Wait for a host that seems to be away. GoneError if it stays away."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > GRACE:
            raise GoneError
        time.sleep(PAUSE)

    def push(self, request: int, kind: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Put a frame behind what is to be written, and write as much as is taken now."""
        self.pending += HEADER.pack(len(payload), request, kind)
        self.pending += payload
        self.flush()

    def flush(self) -> None:
        """Write as much as is taken now."""
        try:
            while self.pending:
                del self.pending[: os.write(self.descriptor, self.pending[:CHUNK])]
        except BlockingIOError:
            return
        except OSError as error:
            raise GoneError from error

    def send(self, request: int, kind: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Write a frame, and wait until it is taken. GoneError if that takes too long."""
        self.push(request, kind, payload)
        deadline = time.monotonic() + WRITE_TIMEOUT
        poller = select.poll()
        poller.register(self.descriptor, select.POLLOUT)
        while self.pending:
            events = poller.poll(max(0, deadline - time.monotonic()) * 1000)
            if not events:
                raise GoneError
            if events[0][1] & select.POLLHUP:
                self._pause()
            self.flush()

    def fail(self, request: int, error: OSError) -> None:
        """Answer that a request failed: an errno, and words."""
        code = errno.ETIMEDOUT if isinstance(error, (TimeoutError, BlockingIOError)) else error.errno or errno.EIO
        self.send(request, FAILED, FAILED_HEAD.pack(code) + (error.strerror or str(error)).encode()[:1024])


class Service:
    """What is done for a host at a port."""

    def __init__(self, port: Port) -> None:
        self.port = port

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Take a frame. An OSError is answered as FAILED."""
        raise NotImplementedError

    def sources(self) -> list[tuple[int, int]]:
        """Give the descriptors, with events, to poll beside the port."""
        return []

    def ready(self, source: int) -> None:
        """Serve a source that is ready."""

    def tick(self, *, idle: bool) -> None:
        """Do what is due after events, or (idle) after TICK seconds without any."""

    def reset(self) -> None:
        """Forget the host."""


class Post:
    """A service that is guarded: the question for it, and the message that puts it back."""

    def __init__(self, family: int, probe: bytes, restore: bytes) -> None:
        self.family, self.probe, self.restore = family, probe, restore
        self._seen = self._told = 0
        self._tries: deque[int] = deque(maxlen=GUARD_RESTORES)

    def is_seen(self, code: int, now: int) -> bool:
        """Take the answer to the question; tell whether it is well."""
        if code == 0:
            self._seen, self._told = now, 0
        return code == 0

    def may_restore(self, now: int) -> bool:
        """Tell whether it was not put back too often, and count this time."""
        if len(self._tries) == GUARD_RESTORES and now - self._tries[0] < 10**9:
            return False
        self._tries.append(now)
        self._told = 0
        return True

    def report(self, code: int) -> bytes:
        """Say what became of it, or nothing if that was just said."""
        if code and code == self._told:
            return b""
        self._told = code
        since = min((time.monotonic_ns() - self._seen) // 1000, UNSEEN) if self._seen else UNSEEN
        return GUARDED_BODY.pack(self.family, code, since)


class Lookout:
    """Looks at services, and puts back at once what has gone; each event is told to `host`, as far as that takes it."""

    def __init__(self, posts: list[Post], channel: socket.socket, host: socket.socket) -> None:
        self._posts, self._channel, self._host = posts, channel, host
        self._probes = b"".join(post.probe for post in posts)
        self._answer = bytearray(READ_SIZE)

    def run(self, period: float) -> NoReturn:
        """Look until the agent is gone or the kernel has no room, and end the process."""
        try:
            self._close_others()
            while True:
                self.look()
                # The agent says nothing. A poll would know milliseconds only.
                if select.select([self._host], [], [], period)[0]:
                    break
        finally:
            os._exit(0)

    def _close_others(self) -> None:
        """Let go of what the agent has open, the port above all: only one may have it."""
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in {self._host.fileno(), self._channel.fileno()}:
                # The listing had one of its own.
                with suppress(OSError):
                    os.close(int(name))

    def look(self) -> None:
        """Look once."""
        self._channel.send(self._probes)
        now = time.monotonic_ns()
        # All answers are there when `send` returns; what is put back has one of its own.
        for post, code in [(post, self._receive()) for post in self._posts]:
            if not post.is_seen(code, now):
                self._serve(post, code, now)

    def _serve(self, post: Post, code: int, now: int) -> None:
        """Put a service back if it is gone, and say so. What else the kernel may answer is for the host to judge."""
        if code == errno.ESRCH:
            code = errno.EAGAIN
            if post.may_restore(now):
                self._channel.send(post.restore)
                code = self._receive()
        event = post.report(code)
        if event:
            with suppress(BlockingIOError):
                self._host.send(event, socket.MSG_DONTWAIT)

    def _receive(self) -> int:
        """Give the errno of the next answer; 0 for what was asked for."""
        self._channel.recv_into(self._answer)
        kind, code = _ANSWER.unpack_from(self._answer)
        return -int(code) if kind == _ERROR else 0


class Guard:
    """A lookout in a process of its own, which ends with this one.

    From a flush of the table to the first service that is back, each packet of a connection ends it (a RST). So no batch
    in the kernel and no host that is slow to read may delay the lookout. A thread would slow down large dumps more: it
    and the agent would take the interpreter from each other with each call of the kernel.
    """

    def __init__(self, period: float, posts: list[Post]) -> None:
        """Begin, with `period` seconds between two looks."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        with theirs, open_netlink(GENERIC) as channel:
            self._child = os.fork()
            if self._child == 0:
                Lookout(posts, channel, theirs).run(period)

    def end(self) -> None:
        """End; nothing is put back from now on. What there is to tell can still be read."""
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


class Relay(Service):
    """Answers the host's requests to this kernel, one at a time."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        self._notices: socket.socket | None = None
        self._guard: Guard | None = None
        self._family = -1

    def reset(self) -> None:
        """Forget what the host subscribed to, what is guarded for it, and answers that it did not fetch."""
        self._end_guard(tells=False)
        for channel in (*self._sockets.values(), *([self._notices] if self._notices else ())):
            channel.close()
        self._sockets.clear()
        self._notices = None

    def sources(self) -> list[tuple[int, int]]:
        """Give the notifications; only if the host reads: the kernel's buffer is their queue. And what the guard did."""
        if self.port.pending:
            return []
        found = (self._notices, self._guard.channel if self._guard else None)
        return [(each.fileno(), select.POLLIN) for each in found if each]

    def ready(self, source: int) -> None:
        """Pass notifications on, and what the guard did, or the word that some were lost."""
        if self._guard and source == self._guard.channel.fileno():
            if self._tell(self._guard):
                self._end_guard(tells=False)
                self.port.push(0, LOST)
            return
        data = bytearray()
        try:
            while len(data) < CHUNK // 2:
                data += os.read(source, READ_SIZE)
        except BlockingIOError:
            pass
        except OSError:
            self.port.push(0, LOST)
        if data:
            self.port.push(0, NOTIFY, data)

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Answer one request."""
        if kind in {NETLINK, DUMPS}:
            answer = self._exchange(request, kind, payload)
        elif kind == MODPROBE:
            answer = modprobe(payload.decode(errors="replace"))
        elif kind == SYSCTL_GET:
            answer = read_sysctl(payload.decode(errors="replace"))
        elif kind == SYSCTL_SET:
            answer = write_sysctl(*payload.decode(errors="replace").partition("=")[::2])
        elif kind == SUBSCRIBE:
            answer = self._subscribe(payload)
        elif kind == LISTING:
            answer = self._list(request)
        elif kind == GUARD:
            answer = self._set_guard(payload)
        else:
            raise unknown(kind)
        self.port.send(request, DONE, answer)

    def _subscribe(self, payload: bytes) -> bytes:
        """Listen to these groups from now on, and to no others."""
        if len(payload) != SUBSCRIBE_BODY.size:
            raise OSError(errno.EINVAL, f"a subscription has {SUBSCRIBE_BODY.size} bytes, not {len(payload)}")
        (groups,) = SUBSCRIBE_BODY.unpack(payload)
        if groups & ~ALLOWED_GROUPS:
            raise PermissionError(errno.EPERM, f"netlink groups {groups & ~ALLOWED_GROUPS:#x} are not relayed")
        if not self._notices:
            self._notices = open_netlink(ROUTE)
            self._notices.setblocking(False)
        self._notices.bind((self._notices.getsockname()[0], groups))
        return b""

    def _list(self, request: int) -> bytes:
        """Send the kernel's listing of its IPVS table to the host as it comes; give the end of it."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        part = bytearray()
        with open("/proc/net/ip_vs", "rb", buffering=0) as file:
            while data := file.read(READ_SIZE):
                part += data
                if len(part) >= CHUNK:
                    self.port.send(request, MORE, part)
                    part.clear()
                    if time.monotonic() > deadline:
                        raise TimeoutError(errno.ETIMEDOUT, f"the listing took more than {KERNEL_TIMEOUT:.0f} s")
        return bytes(part)

    def _tell(self, guard: Guard) -> bool:
        """Tell the host what the guard did; give whether it has ended."""
        with suppress(BlockingIOError):
            while event := guard.channel.recv(READ_SIZE):
                self.port.push(0, GUARDED, event)
            return True
        return False

    def _end_guard(self, *, tells: bool) -> None:
        guard, self._guard = self._guard, None
        if guard:
            guard.end()
            if tells:
                self._tell(guard)
            guard.channel.close()

    def _set_guard(self, payload: bytes) -> bytes:
        """Guard services from now on, or none. Before the answer the host has heard all of what was guarded so far."""
        self._end_guard(tells=True)
        (period,) = GUARD_HEAD.unpack_from(payload) if len(payload) >= GUARD_HEAD.size else (1,)
        if period:
            posts = self._read_posts(memoryview(payload)[GUARD_HEAD.size :])
            if period < GUARD_SHORTEST or not 0 < len(posts) <= GUARD_PARTS:
                raise OSError(errno.EINVAL, f"a guard has 1 to {GUARD_PARTS} services, and {GUARD_SHORTEST} us or more")
            self._guard = Guard(period / 1e6, posts)
        return b""

    def _read_posts(self, body: memoryview) -> list[Post]:
        posts = []
        while body:
            family, *sizes = GUARD_PART.unpack_from(body) if len(body) >= GUARD_PART.size else (0, len(body), 0)
            middle = GUARD_PART.size + sizes[0]
            end = middle + sizes[1]
            if end > len(body):
                raise OSError(errno.EINVAL, "guard cut short")
            probe = self._read_guarding(body[GUARD_PART.size : middle], _GET_SERVICE, _REQUEST)
            restore = self._read_guarding(body[middle:end], _NEW_SERVICE, _REQUEST | _ACK)
            posts.append(Post(family, probe, restore))
            body = body[end:]
        return posts

    def _read_guarding(self, data: memoryview, command: int, flags: int) -> bytes:
        """Check a message of a guard. Its flags are ours, so that each message has one answer."""
        if len(self._check(DUMPS, GENERIC, data)) != 1 or data[_MESSAGE.size : _MESSAGE.size + 1] != bytes([command]):
            raise OSError(errno.EINVAL, "a guard takes the question for a service, and the same service to add")
        length, kind, _, sequence, _ = _MESSAGE.unpack_from(data)
        message = _MESSAGE.pack(length, kind, flags, sequence, 0) + bytes(data[_MESSAGE.size : length])
        return message.ljust(len(message) + 3 & ~3, b"\0")

    def _exchange(self, request: int, kind: int, payload: bytes) -> bytes:
        """Send messages to the kernel, and what comes back to the host; give the end of it, for the caller to send.

        NETLINK: back to back. DUMPS: each after the answer to the one before, as the kernel wants it, on a socket apart
        that never reads more than a little at a time.
        """
        if len(payload) < NETLINK_HEAD.size + _MESSAGE.size:
            raise OSError(errno.EINVAL, "netlink request cut short")
        protocol, last = NETLINK_HEAD.unpack_from(payload)
        if kind == DUMPS and protocol == ROUTE:
            raise OSError(errno.EOPNOTSUPP, "dumps one after the other are of IPVS and connection tracking")
        body = memoryview(payload)[NETLINK_HEAD.size :]
        parts = self._check(kind, protocol, body)
        channel = self._sockets.get((kind, protocol))
        if channel is None:
            channel = self._sockets[kind, protocol] = open_netlink(protocol)
        try:
            if kind == NETLINK:
                channel.send(body)
                return self._collect(request, channel, last)
            return self._collect_dumps(request, channel, body, parts)
        except BaseException:
            # What the kernel still has to say must not be taken for the answer to the next request.
            del self._sockets[kind, protocol]
            channel.close()
            raise

    def _collect(self, request: int, channel: socket.socket, last: int) -> bytes:
        """Send what the kernel says to the host as it comes; give the end of it, up to the answer to `last`."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        part = bytearray()
        while True:
            datagram = channel.recv(READ_SIZE)
            part += datagram
            part += b"\0" * (-len(part) & 3)
            if is_end(datagram, last):
                return bytes(part)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"the kernel was not done within {KERNEL_TIMEOUT:.0f} s")
            if len(part) >= CHUNK:
                self.port.send(request, MORE, part)
                part.clear()

    def _collect_dumps(
        self, request: int, channel: socket.socket, body: memoryview, dumps: list[tuple[int, int, int]]
    ) -> bytes:
        """Send each message after the answer to the one before; the rest as `_collect`, but in a hurry."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        buffer = bytearray(CHUNK + SMALL_READ_SIZE)
        view, end = memoryview(buffer), 0
        send, receive, type_at = channel.send, channel.recv_into, _TYPE.unpack_from
        for number, (sequence, first, last) in enumerate(dumps):
            # A look at the clock takes a guest without a good one as long as a dump.
            if number % 64 == 0 and time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"the kernel was not done within {KERNEL_TIMEOUT:.0f} s")
            send(body[first:last])
            done = False
            while not done:
                start = end
                size = receive(view[start : start + SMALL_READ_SIZE], 0, socket.MSG_TRUNC)
                if size > SMALL_READ_SIZE:
                    raise OSError(errno.EMSGSIZE, f"a dump comes in pieces of {size} bytes")
                end = start + size
                # The last message of a dump stands alone, or with 4 bytes of its own at the end; its type has two bytes.
                if buffer[start + 4] in _LOOKS_LAST:
                    done = type_at(buffer, start + 4)[0] in _ENDS
                if not done and buffer[end - 16] in _LOOKS_LAST:
                    done = is_end(bytes(view[start:end]), sequence)
                if end >= CHUNK:
                    self.port.send(request, MORE, view[:end])
                    end = 0
        return bytes(view[:end])

    def _check(self, kind: int, protocol: int, messages: memoryview) -> list[tuple[int, int, int]]:
        """Refuse what is neither the route family's, nor IPVS's, nor connection tracking's.

        Give sequence number, start and end of each message of DUMPS.
        """
        if protocol == ROUTE:
            return []
        if protocol not in {GENERIC, NETFILTER}:
            raise PermissionError(errno.EPERM, f"netlink protocol {protocol} is not relayed")
        if kind == NETLINK and protocol == GENERIC and are_alike(messages, self._family):
            return []
        found = []
        position, end, head = 0, len(messages), _MESSAGE.unpack_from
        while position < end:
            length, family, _, sequence, _ = head(messages, position) if end - position >= _MESSAGE.size else (0,) * 5
            after = position + length
            if length < _MESSAGE.size or after > end:
                raise OSError(errno.EINVAL, f"netlink message of {length} bytes where {end - position} are left")
            # Thousands of messages are all of one type.
            if family != self._family or protocol != GENERIC:
                body = messages[position + _MESSAGE.size : after]
                if not (self._is_ipvs(family, body) if protocol == GENERIC else family >> 8 == _CONNTRACK):
                    raise PermissionError(errno.EPERM, f"netlink {protocol}, message type {family} is not relayed")
            found.append((sequence, position, after))
            position = after + 3 & ~3
        return found

    def _is_ipvs(self, kind: int, body: memoryview) -> bool:
        """Tell whether a message of generic netlink is IPVS's, or asks the controller for the number of IPVS."""
        if kind != self._family:
            # Its number is new each time the module is loaded.
            self._family = find_ipvs()
        asks = kind == _CONTROLLER and body[:1] == bytes([_GET_FAMILY]) and body[4:] == _IPVS_NAME
        return kind == self._family or asks


def unknown(kind: int) -> OSError:
    """Make the error for a frame of a kind that is not taken here."""
    return OSError(errno.EOPNOTSUPP, f"no request of kind {kind}")


def open_netlink(protocol: int) -> socket.socket:
    """Open a netlink socket, as netlink/channel.py does; its send buffer takes a whole frame."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            channel.setsockopt(_SOL_NETLINK, option, 1)
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        channel.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * MAX_FRAME)
        # A timeout of Python's would look before each read whether there is something.
        channel.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(KERNEL_TIMEOUT), int(KERNEL_TIMEOUT % 1 * 1e6))
        )
        channel.bind((0, 0))
    except BaseException:
        channel.close()
        raise
    return channel


def are_alike(messages: memoryview, kind: int) -> bool:
    """Tell whether messages are all of one length and of this type: a long run is proven so at once, not one by one."""
    length = int.from_bytes(messages[:4], sys.byteorder)
    if length < _MESSAGE.size or length % 4 or len(messages) % length:
        return False
    count, head = len(messages) // length, bytes(messages[:4]) + _TYPE.pack(kind & 0xFFFF)
    return all(bytes(messages[at::length]) == head[at : at + 1] * count for at in range(len(head)))


def is_end(datagram: bytes, last: int) -> bool:
    """Tell whether the first or the last message of a datagram from the kernel answers sequence number `last`."""
    position = final = 0
    while position + _MESSAGE.size <= len(datagram):
        final = position
        position += max(_MESSAGE.size, int.from_bytes(datagram[position : position + 4], sys.byteorder) + 3 & ~3)
    return any(
        kind in _ENDS and sequence == last
        for _, kind, _, sequence, _ in (_MESSAGE.unpack_from(datagram, at) for at in {0, final})
    )


def find_ipvs() -> int:
    """Ask the kernel for the number of the IPVS family; load the module if there is none. OSError if it cannot be."""
    try:
        return _ask_ipvs()
    except FileNotFoundError:
        modprobe("ip_vs")
        return _ask_ipvs()


def _ask_ipvs() -> int:
    body = struct.pack("=BBH", _GET_FAMILY, 1, 0) + _IPVS_NAME
    with open_netlink(GENERIC) as controller:
        controller.send(_MESSAGE.pack(_MESSAGE.size + len(body), _CONTROLLER, 1, 1, 0) + body)
        answer = controller.recv(READ_SIZE)
    position = _MESSAGE.size + 4
    while _MESSAGE.unpack_from(answer)[1] == _CONTROLLER and position + 6 <= len(answer):
        length, kind, value = struct.unpack_from("=HHH", answer, position)
        if kind == _FAMILY_ID:
            return int(value)
        position += max(4, length + 3 & ~3)
    raise FileNotFoundError(errno.ENOENT, "this kernel has no IPVS")


def modprobe(name: str) -> bytes:
    """Load a module of the closed list."""
    if name not in MODULES:
        raise PermissionError(errno.EPERM, f"module {name!r} is not one of those that are loaded here")
    child = os.posix_spawnp("modprobe", ["modprobe", name], os.environ)
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], KERNEL_TIMEOUT)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"modprobe {name} was not done within {KERNEL_TIMEOUT:.0f} s")
    finally:
        os.close(handle)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(errno.ENOENT, f"modprobe {name}: exit status {status}; has this kernel the module?")
    return b""


def read_sysctl(name: str) -> bytes:
    """Read a setting of the closed list."""
    with open(_sysctl_file(name), "rb") as file:
        return file.read(4096).strip()


def write_sysctl(name: str, value: str) -> bytes:
    """Set one of the closed list."""
    if not 0 < len(value) <= 64 or not set(value) <= set("0123456789 ,-"):
        raise OSError(errno.EINVAL, f"{name}: a value is 1 to 64 digits, spaces, commas and minus signs")
    with open(_sysctl_file(name), "w", encoding="ascii") as file:
        file.write(value)
    return b""


def _sysctl_file(name: str) -> str:
    if name not in SYSCTLS:
        raise PermissionError(errno.EPERM, f"sysctl {name!r} is not one of those that are relayed")
    return "/proc/sys/" + name.replace(".", "/")


def serve(service: Service) -> None:
    """Serve one host after the other, for ever."""
    decoder = Decoder(MAGIC, ID_SIZE)
    while True:
        try:
            _serve_events(service, decoder)
        except GoneError:
            service.port.pending.clear()
            service.reset()
            decoder = Decoder(MAGIC, ID_SIZE)
            time.sleep(PAUSE)


def _serve_events(service: Service, decoder: Decoder) -> None:
    port = service.port
    poller = select.poll()
    poller.register(port.descriptor, select.POLLIN | (select.POLLOUT if port.pending else 0))
    for source, events in service.sources():
        poller.register(source, events)
    found = dict(poller.poll(TICK * 1000))
    idle = not found
    events = found.pop(port.descriptor, 0)
    # Before the port: a frame can make sources that are ready now go away.
    for source in found:
        service.ready(source)
    if events & select.POLLOUT:
        port.flush()
    if events & ~select.POLLOUT:
        for frame in decoder.feed(port.receive()):
            _serve_frame(service, *frame)
    service.tick(idle=idle)


def _serve_frame(service: Service, request: int, kind: int, payload: bytes) -> None:
    try:
        if kind == GREETING:
            service.reset()
            service.port.pending += MAGIC + payload
            service.port.send(0, HELLO, HELLO_HEAD.pack(VERSION) + os.uname().release.encode())
        elif kind == BROKEN:
            service.port.fail(request, OSError(errno.EMSGSIZE, f"a frame has at most {MAX_FRAME} bytes"))
        else:
            service.handle(request, kind, payload)
    except OSError as error:
        service.port.fail(request, error)


def open_port(name: str) -> Port:
    """Open a virtio-serial port by its name; wait for it to appear."""
    folder = "/sys/class/virtio-ports"
    while True:
        for entry in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{entry}/name", encoding="utf-8") as file:
                if file.read().strip() == name:
                    return Port(os.open(f"/dev/{entry}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        time.sleep(PAUSE)


if __name__ == "__main__":
    serve(Relay(open_port(sys.argv[1] if sys.argv[1:] else PORT)))

"""Accepts the connections of hosts, and bounds what each may take before and after it is known whose it is.

aiohttp speaks HTTP; it limits neither handshakes nor connections nor bytes. Before the handshake, a peer is only an
address. One that says nothing takes a descriptor and no more. Of those that do, no address has more than a few
handshakes at a time: the others wait in its own queue. After it, the peer is a host, and `Peers` knows what that may
take.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from reconciler.errors import HostError
from reconciler.fleet.gate.peers import NOBODY, Peers, peer_of

# Seconds for a handshake, and for the first request.
HANDSHAKE, FIRST = 4.0, 10.0
# The same for a peer that is not let in: it is told why.
REFUSED = 2.0
# Seconds from an answer to the end of the next request. An agent that has nothing to say reports every minute.
IDLE = 90.0
# Handshakes of an address at a time, and connections that wait for one: of an address, and of all.
AT_ONCE, WAITING, ALL_WAITING = 32, 1024, 8192
# Connections of an address that have said nothing yet. The oldest one leaves for a new one.
SILENT = 256
# Bytes of the line and of each header of a request, and headers.
LINE, HEADERS = 2048, 32
# Milliseconds after which a peer that acknowledges nothing is gone.
_SILENCE = 20_000
# Seconds to the next try if this process has no descriptors left.
_RETRY = 0.1


def make_context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """Return what hosts connect with: only those with a certificate of the authority. HostError if a file is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # A session that is resumed would not show its certificate again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        raise HostError(f"--ca {authority}: {error.strerror or error}") from error
    try:
        context.load_cert_chain(certificate, key, lambda: "")
    except OSError as error:
        raise HostError(f"--cert {certificate}, --key {key}: {error.strerror or error}") from error
    return context


class HostConnection(RequestHandler):
    """One connection of a host."""

    # aiohttp's own class has slots; these are ours.
    __slots__ = ("_peers", "_timer", "peer")

    def __init__(self, server: web.Server, peers: Peers, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=IDLE,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=LINE,
            max_field_size=LINE,
            max_headers=HEADERS,
            lingering_time=0,
            auto_decompress=False,
        )
        self._peers, self.peer = peers, NOBODY
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn whose connection this is, and begin the time of its first request."""
        super().connection_made(transport)
        self.peer = peer_of(transport.get_extra_info("ssl_object"))
        refused = self._peers.refusal(self.peer)
        self._timer = self._loop.call_later(REFUSED if refused else FIRST, self.abort)
        if refused:
            return
        self._peers.add(self, self.peer)
        if self._peers.allowance(self.peer.host).take_sent(0) > 0:
            # It has sent too much a moment ago: nothing that it sends now is read.
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self.end_timer()
        self._peers.remove(self, self.peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what the host sends, unless it sends more than it may."""
        if self.peer is not NOBODY and self._peers.allowance(self.peer.host).take_sent(len(data)) > 0:
            self._peers.crowded += 1
            self.abort()
            return
        super().data_received(data)

    def end_timer(self) -> None:
        """End the time of the first request: it has come."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Close it, without what was not sent yet."""
        self.end_timer()
        if self.transport is not None:
            self.transport.abort()


class Listener:
    """Accepts connections on one address until it is closed. HostError if it cannot be bound."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, server: web.Server, peers: Peers) -> None:
        self._context, self._server, self._peers = context, server, peers
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise HostError(f"--listen {host}:{port}: {error.strerror or error}") from error
        self._socket.setblocking(False)
        self._silent: dict[str, dict[socket.socket, asyncio.TimerHandle]] = {}
        self._waiting: dict[str, deque[socket.socket]] = {}
        self._shaking: dict[str, int] = {}
        self._unknown: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Connections that were closed because too many waited.
        self.dropped = 0

    @property
    def port(self) -> int:
        """Return the port. If it was 0 in the options, the kernel has chosen one."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Accept connections, without end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(_RETRY)
                continue
            with suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._listen(accepted, source_of(str(address[0])))

    def close(self) -> None:
        """Accept nothing more, and let nobody wait."""
        self._socket.close()
        for unknown in self._unknown:
            # asyncio would wait for the peer's part of the end.
            with suppress(OSError):
                unknown.shutdown(socket.SHUT_RDWR)
        for each in self._tasks:
            each.cancel()
        for queue in self._waiting.values():
            for accepted in queue:
                accepted.close()
        for source, silent in [*self._silent.items()]:
            for accepted in [*silent]:
                self._forget(accepted, source)
                accepted.close()

    def _listen(self, accepted: socket.socket, source: str) -> None:
        """Wait until a peer says something."""
        loop, silent = asyncio.get_running_loop(), self._silent.setdefault(source, {})
        if len(silent) >= SILENT:
            self._drop(next(iter(silent)), source)
        self._silent.setdefault(source, silent)[accepted] = loop.call_later(HANDSHAKE, self._drop, accepted, source)
        loop.add_reader(accepted, self._hear, accepted, source)

    def _hear(self, accepted: socket.socket, source: str) -> None:
        self._forget(accepted, source)
        self._enqueue(accepted, source)

    def _drop(self, accepted: socket.socket, source: str) -> None:
        self._forget(accepted, source)
        self.dropped += 1
        accepted.close()

    def _forget(self, accepted: socket.socket, source: str) -> None:
        silent = self._silent[source]
        silent.pop(accepted).cancel()
        if not silent:
            del self._silent[source]
        asyncio.get_running_loop().remove_reader(accepted)

    def _enqueue(self, accepted: socket.socket, source: str) -> None:
        queue = self._waiting.setdefault(source, deque())
        if len(queue) >= WAITING or sum(map(len, self._waiting.values())) >= ALL_WAITING:
            self.dropped += 1
            accepted.close()
            return
        queue.append(accepted)
        if self._shaking.get(source, 0) < AT_ONCE:
            self._shaking[source] = self._shaking.get(source, 0) + 1
            task = asyncio.get_running_loop().create_task(self._shake(source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake(self, source: str) -> None:
        """Make the handshakes of an address, one after the other, until nobody waits there any more."""
        loop = asyncio.get_running_loop()
        try:
            while queue := self._waiting.get(source):
                accepted = queue.popleft()
                self._unknown.add(accepted)
                try:
                    await loop.connect_accepted_socket(
                        lambda: HostConnection(self._server, self._peers, loop),
                        accepted,
                        ssl=self._context,
                        ssl_handshake_timeout=HANDSHAKE,
                        ssl_shutdown_timeout=1.0,
                    )
                except OSError:
                    # No certificate of the authority, no TLS, or nothing in time. What was accepted is closed.
                    accepted.close()
                finally:
                    self._unknown.discard(accepted)
        finally:
            self._shaking[source] -= 1
            if not self._shaking[source]:
                del self._shaking[source]
                if not self._waiting.get(source):
                    self._waiting.pop(source, None)


def source_of(address: str) -> str:
    """Return what counts as one source of connections: an address of IPv4, or a /64 of IPv6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def connection_of(request: web.BaseRequest) -> HostConnection:
    """Return the connection of a request."""
    found: Any = request.protocol
    assert isinstance(found, HostConnection)
    return found

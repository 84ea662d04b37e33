"""Serves the page by uvicorn, in a thread of its own, and bounds what clients take.

uvicorn limits neither the time of a request nor that of a slow reader, and refuses new clients if there are too many.
Here, a connection has one request and a few seconds, and the oldest one leaves for a new one. The streams of open pages
are counted apart: who may open one has passed the checks of the application.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from functools import partial
from typing import Any

from reconciler.errors import HostError
from reconciler.watch.page.address import Listener, PageAddress
from reconciler.watch.page.application import Application
from reconciler.watch.page.board import Source
from reconciler.watch.share import Bucket

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
    raise HostError(
        f"--ui needs the Python package {error.name}, which is missing: install reconciler with its extra `ui`, "
        "such as `pip install '.[ui]'`"
    ) from error

# Clients at a time that have no page open, and pages that are open, each with a descriptor.
CLIENTS, STREAMS = 32, 16
# Seconds for a request and its answer, and for an open page to read what waits for it.
TIMEOUT = 5.0
# Bytes of a request without its body.
REQUEST = 8192
# Seconds that the server may compute, at once and for each second. After that, new clients wait.
WORK, WORK_SHARE = 2.0, 0.2
# The longest that they wait before the next one is accepted.
_PAUSE = 0.5
# Milliseconds after which a peer that acknowledges nothing is gone.
_SILENCE = 20_000
# Seconds that the end of the server may take.
_END = 1
OPEN = "other hosts can connect, without encryption: the token and the page can be read on the way (docs/page.md)"


class PageServer:
    """Serves the page on one address. HostError if that is impossible. `package`: as in Application."""

    def __init__(self, address: PageAddress, source: Source, package: str = "") -> None:
        self._listener = Listener(address)
        application = Application(self._listener.access, source, package)
        config = uvicorn.Config(
            application,
            http=partial(_Connection, _Clients()),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            loop="asyncio",
            interface="asgi3",
            log_config=None,
            # It warns of each request that is none. The application logs defects itself.
            log_level=logging.CRITICAL,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=128,
            h11_max_incomplete_event_size=REQUEST,
            timeout_graceful_shutdown=_END,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener.socket],), name="watch-page", daemon=True
        )
        self._thread.start()

    @property
    def is_public(self) -> bool:
        """Return whether other hosts can connect."""
        return self._listener.is_public

    @property
    def url(self) -> str:
        """Return where the page is."""
        return self._listener.url

    def close(self) -> None:
        """Stop serving, and end the thread."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class _Clients:
    """The clients of one server: those that have a page open, and the others, the oldest first."""

    def __init__(self) -> None:
        self.others: dict[_Connection, None] = {}
        self.streams: set[_Connection] = set()
        self._work = Bucket(WORK, WORK_SHARE, time.monotonic)
        self._seen = 0.0

    def add(self, client: _Connection) -> None:
        """Add a new one. The oldest one leaves if there are too many."""
        if len(self.others) >= CLIENTS:
            next(iter(self.others)).abort()
        self.others[client] = None
        seen, self._seen = self._seen, time.thread_time()
        # This thread, which also accepts clients, takes no more than its share, whatever they ask for.
        time.sleep(min(self._work.take(self._seen - seen), _PAUSE))

    def forget(self, client: _Connection) -> None:
        """Forget one that has left."""
        self.others.pop(client, None)
        self.streams.discard(client)


class _Connection(H11Protocol):
    """One client."""

    def __init__(self, clients: _Clients, **others: Any) -> None:
        super().__init__(**others)
        # The application gets its own connection.
        self.app_state = {"connection": self}
        self._clients = clients
        self._timer: asyncio.TimerHandle | None = None
        # What sends the events of an open page.
        self._stream: asyncio.Task[Any] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time of a new client."""
        super().connection_made(transport)
        self.is_open = True
        self._begin_timer()
        connection = transport.get_extra_info("socket")
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
        self._clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client that has left."""
        self._end()
        super().connection_lost(exc)

    def begin_stream(self) -> bool:
        """Let this client have a page open, for as long as it reads. Return False if too many have."""
        if not self.is_open or len(self._clients.streams) >= STREAMS:
            return False
        self._clients.forget(self)
        self._clients.streams.add(self)
        self._stream = asyncio.current_task()
        self._end_timer()
        return True

    def shutdown(self) -> None:
        """End: an open page would never end by itself."""
        if self in self._clients.streams:
            self.abort()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Begin the time in which an open page has to read what waits for it."""
        super().pause_writing()
        if self in self._clients.streams:
            self._begin_timer()

    def resume_writing(self) -> None:
        """End that time: it has read."""
        super().resume_writing()
        if self in self._clients.streams:
            self._end_timer()

    def abort(self) -> None:
        """Close the connection, without what was not sent yet."""
        self._end()
        self.transport.abort()

    def _end(self) -> None:
        self.is_open = False
        self._clients.forget(self)
        self._end_timer()
        if self._stream:
            self._stream.cancel()
            self._stream = None

    def _begin_timer(self) -> None:
        self._end_timer()
        self._timer = self.loop.call_later(TIMEOUT, self.abort)

    def _end_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

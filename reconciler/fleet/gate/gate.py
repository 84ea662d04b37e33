"""Runs a gate: serves hosts, follows the store, writes reports, and leads the rollout if it is the one that leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiohttp import web

from reconciler.fleet.gate.application import Application
from reconciler.fleet.gate.listener import HostConnection, Listener, make_context
from reconciler.fleet.gate.mirror import Mirror
from reconciler.fleet.gate.peers import Peers
from reconciler.fleet.gate.writer import Presence, Reports
from reconciler.fleet.store import Store, StoreError
from reconciler.values import NamedTuple
from reconciler.watch import log

# Seconds until a part of the gate that has failed begins anew.
_RETRY = 1.0
# Seconds that the end of the gate may take.
_END = 3.0


# What runs without end: its name, and what begins it.
Part = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


class Options(NamedTuple):
    """How to serve. `host`, `port`: where hosts connect. `certificate`, `key`: of the gate. `authority`: of hosts."""

    host: str
    port: int
    certificate: str
    key: str
    authority: str


class Gate:
    """A gate. It is made and run within one event loop. HostError if it cannot serve."""

    def __init__(self, store: Store, options: Options) -> None:
        self._store = store
        self.peers = Peers(self._note)
        self.mirror, self.reports = Mirror(store, self.peers), Reports(store)
        self.application = Application(store, self.peers, self.mirror, self.reports)
        server = web.Server(self.application, handler_cancellation=True)
        context = make_context(options.certificate, options.key, options.authority)
        self.listener = Listener(options.host, options.port, context, server, self.peers)
        self._server = server
        self.name = f"{socket.gethostname()}:{self.listener.port}"
        self._presence = Presence(store, self.peers, self.name)

    def _note(self, host: str) -> None:
        self.reports.forget(host)
        self._presence.note(host)

    async def run(self, others: Sequence[Part] = ()) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop, serving = asyncio.get_running_loop(), asyncio.ensure_future(self.serve(others))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    async def serve(self, others: Sequence[Part] = ()) -> None:
        """Serve until this is cancelled. `others`: what runs beside it."""
        loop = asyncio.get_running_loop()
        parts = (
            ("hosts", self.mirror.follow_hosts),
            ("desired", self.mirror.follow_desired),
            ("reports", self.reports.run),
            ("presence", self._presence.run),
            ("alive", self._presence.follow),
            ("listener", self.listener.run),
            *others,
        )
        tasks = [loop.create_task(_forever(*each), name=each[0]) for each in parts]
        log.emit("serving", gate=self.name, port=self.listener.port)
        try:
            await asyncio.Event().wait()
        finally:
            self.listener.close()
            for task in tasks:
                task.cancel()
            # First, whatever becomes of the rest: hosts go to another gate at once.
            await self._end_connections()
            await asyncio.wait(tasks, timeout=_END)
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_END):
                    await self._presence.end()
            log.emit("stopped")

    async def _end_connections(self) -> None:
        # aiohttp has no event for the end of all, and one may just have been accepted.
        for number in range(100):
            for connection in self._server.connections:
                if isinstance(connection, HostConnection):
                    connection.abort()
            await asyncio.sleep(0.01)
            if number > 3 and not self._server.connections:
                return


async def _forever(name: str, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part of the gate. If it fails or ends, it begins anew: the others go on meanwhile."""
    while True:
        try:
            await part()
        except StoreError as error:
            log.emit("alarm", level=logging.WARNING, part=name, problem=str(error))
        except Exception:
            logging.getLogger(__name__).exception("defect")
        await asyncio.sleep(_RETRY)

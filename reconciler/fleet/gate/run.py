"""Puts a gate together: the store, the gate, the leader, metrics and the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from reconciler.fleet.gate.gate import Gate, Options
from reconciler.fleet.leader import Leader
from reconciler.fleet.store import Store
from reconciler.values import NamedTuple
from reconciler.watch import log
from reconciler.watch.page.address import PageAddress


class Serving(NamedTuple):
    """What to serve. `store` opens the store, within the event loop. `metrics`, `page`: where to serve them."""

    store: Callable[[], Store]
    options: Options
    metrics: tuple[str, int] | None = None
    page: PageAddress | None = None


async def serve(serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT. HostError if that is impossible."""
    async with AsyncExitStack() as stack:
        store = serving.store()
        stack.push_async_callback(store.close)
        gate = Gate(store, serving.options)
        leader = Leader(store, gate.name, _report)
        if serving.metrics:
            _serve_metrics(serving.metrics, gate, stack)
        if serving.page:
            _serve_page(serving.page, store, stack)
        await gate.run([("leader", leader.run)])


def _serve_metrics(address: tuple[str, int], gate: Gate, stack: AsyncExitStack) -> None:
    # Only a gate with metrics pays for the import.
    from reconciler.fleet.gate.exposition import pages_of
    from reconciler.watch.metrics import OPEN, MetricsServer

    server = MetricsServer(*address, pages_of(gate))
    stack.callback(server.close)
    level, reason = (logging.WARNING, OPEN) if server.is_public else (logging.INFO, "")
    log.emit("metrics", level=level, host=address[0], port=server.port, reason=reason)


def _serve_page(address: PageAddress, store: Store, stack: AsyncExitStack) -> None:
    # Only a gate with a page pays for the import.
    from reconciler.fleet.gate.page import PACKAGE, FleetSource
    from reconciler.watch.page import server

    page = server.PageServer(address, FleetSource(store, asyncio.get_running_loop()), PACKAGE)
    stack.callback(page.close)
    level, reason = (logging.WARNING, server.OPEN) if page.is_public else (logging.INFO, "")
    log.emit("page", level=level, address=page.url, reason=reason)


def _report(words: str) -> None:
    log.emit("rollout", level=logging.INFO, what=words)

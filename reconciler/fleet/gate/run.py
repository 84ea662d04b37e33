"""Puts a gate together: the store, the gate, the leader, metrics and the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from reconciler.fleet.gate.gate import Gate, Options
from reconciler.fleet.leader import Leader
from reconciler.fleet.store import Store
from reconciler.watch import log


class Serving(NamedTuple):
    """What to serve. `store` opens the store, within the event loop. `metrics`: where to serve them."""

    store: Callable[[], Store]
    options: Options
    metrics: tuple[str, int] | None = None


async def serve(serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT. HostError if that is impossible."""
    async with AsyncExitStack() as stack:
        store = serving.store()
        stack.push_async_callback(store.close)
        gate = Gate(store, serving.options)
        leader = Leader(store, gate.name, _report)
        await gate.run([("leader", leader.run)])


def _report(words: str) -> None:
    log.emit("rollout", level=logging.INFO, what=words)

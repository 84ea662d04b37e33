"""Puts a gate together: the store over etcd, the gate, the leader, metrics and the page."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import NamedTuple

from reconciler.errors import HostError
from reconciler.fleet.etcd.client import Etcd
from reconciler.fleet.etcd.members import Credentials
from reconciler.fleet.gate.gate import Gate, Options
from reconciler.fleet.leader import Leader
from reconciler.watch import log


class Serving(NamedTuple):
    """What to serve, and with which store."""

    etcd: tuple[str, ...]
    credentials: Credentials
    options: Options
    metrics: tuple[str, int] | None = None


def read_credentials(authority: str, certificate: str, key: str) -> Credentials:
    """Return what etcd is shown, from files of PEM. HostError if one of them cannot be read."""
    return Credentials(*map(_read, (authority, certificate, key)))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


async def run(serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with AsyncExitStack() as stack:
        store = Etcd(serving.etcd, serving.credentials)
        stack.push_async_callback(store.close)
        gate = Gate(store, serving.options)
        leader = Leader(store, gate.name, _report)
        await gate.run([("leader", leader.run)])


def _report(words: str) -> None:
    log.emit("rollout", level=logging.INFO, what=words)

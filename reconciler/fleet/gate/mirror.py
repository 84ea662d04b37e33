"""What the gate knows of the store: the records of hosts, and what each host should be like. Both are followed.

A gate that has heard nothing of the store for a while knows nothing: it could neither learn that a host was revoked nor
what it should be like now. Then it answers nobody, and hosts ask another gate.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import aclosing, suppress

from reconciler.fleet import keys, records
from reconciler.fleet.gate.peers import Peers
from reconciler.fleet.records import Desired, HostRecord
from reconciler.fleet.store import Changes, Store
from reconciler.values import NamedTuple
from reconciler.watch import log

# Seconds without a sign of the store after which nothing is known any more.
LATE = 15.0


class Wanted(NamedTuple):
    """What a host should be like: the bytes that say so, their digest, and the digests of its files."""

    data: bytes
    digest: str
    release: str
    blobs: frozenset[str]


class Mirror:
    """Follows the store. Only the thread of the event loop uses it."""

    def __init__(self, store: Store, peers: Peers) -> None:
        self._store, self._peers = store, peers
        self._wanted: dict[str, Wanted] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        # When each prefix was last known to be complete.
        self._heard = {keys.HOSTS: -LATE, keys.ALL_DESIRED: -LATE}

    @property
    def age(self) -> float:
        """Return for how many seconds the store has not been heard of."""
        return time.monotonic() - min(self._heard.values())

    @property
    def is_current(self) -> bool:
        """Return whether what is known here is what the store has."""
        return self.age < LATE

    @property
    def waiting(self) -> int:
        """Return how many requests wait for news."""
        return sum(map(len, self._waiting.values()))

    async def follow_hosts(self) -> None:
        """Follow the records of hosts, without end."""
        await self._follow(keys.HOSTS, self._take_host)

    async def follow_desired(self) -> None:
        """Follow what hosts should be like, without end."""
        await self._follow(keys.ALL_DESIRED, self._take_desired)

    async def _follow(self, prefix: str, take: Callable[[str, bytes | None], None]) -> None:
        async with aclosing(self._store.follow(prefix)) as found:
            async for changes in found:
                self._take(changes, take)
                self._heard[prefix] = time.monotonic()

    def _take(self, changes: Changes, take: Callable[[str, bytes | None], None]) -> None:
        for event in changes.events:
            take(keys.last(event.key), event.pair.value if event.pair else None)

    def _take_host(self, host: str, value: bytes | None) -> None:
        record: HostRecord | None = None
        if value is not None:
            try:
                record = records.decode(HostRecord, value)
            except ValueError as error:
                # Whoever cannot be known is not let in.
                log.emit("alarm", level=logging.ERROR, host=host, problem=f"its record cannot be read: {error}")
        self._peers.set_record(host, record)

    def _take_desired(self, host: str, value: bytes | None) -> None:
        if value is None:
            # What a host has stays in force there.
            self._wanted.pop(host, None)
            return
        try:
            desired = records.decode(Desired, value)
        except ValueError as error:
            log.emit("alarm", level=logging.ERROR, host=host, problem=f"its desired state cannot be read: {error}")
            return
        blobs = frozenset(desired.files.values())
        self._wanted[host] = Wanted(value, hashlib.sha256(value).hexdigest(), desired.release, blobs)
        for each in self._waiting.pop(host, ()):
            if not each.done():
                each.set_result(None)

    def wanted(self, host: str) -> Wanted | None:
        """Return what a host should be like; None if nothing was ever said about it."""
        return self._wanted.get(host)

    async def await_news(self, host: str, seconds: float) -> None:
        """Return when what a host should be like has changed, or after so many seconds."""
        news = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, set()).add(news)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await news
        finally:
            found = self._waiting.get(host, set())
            found.discard(news)
            if not found:
                self._waiting.pop(host, None)

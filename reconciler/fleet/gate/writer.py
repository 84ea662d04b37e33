"""What the gate writes to the store: the reports of hosts, in batches, and which hosts are connected, on a lease."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress

from reconciler.fleet import keys, records
from reconciler.fleet.gate.peers import Peers
from reconciler.fleet.records import HostStatus
from reconciler.fleet.store import (
    MAX_BYTES,
    MAX_OPERATIONS,
    Compare,
    Delete,
    LeaseGoneError,
    Put,
    Store,
    StoreError,
    UnknownOutcomeError,
)
from reconciler.values import replace

# Seconds between two reports of a host that are written.
INTERVAL = 2.0
# Seconds after which a report is written again, although it says nothing new: the store may be an older one by then.
REPEAT = 300.0
# Seconds for which reports are collected into one transaction.
_COLLECT = 0.02
# Seconds of the gate's lease, and between two times that it is kept.
LEASE, KEEP = 10, 3.0
# Seconds for which a host that has left may come back before it counts as gone, and to the next try.
GONE, _RETRY = 5.0, 1.0


class Reports:
    """Writes the reports of hosts: those that say something new, at most one in INTERVAL seconds each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[str, tuple[HostStatus | None, float]] = {}
        self._busy: set[str] = set()
        self._next: list[tuple[Put, asyncio.Future[None]]] = []
        self._collected = asyncio.Event()
        # Reports that were written, and those that said nothing new.
        self.written = self.unchanged = 0

    async def write(self, host: str, found: HostStatus) -> bool:
        """Write what a host reports, and return once the store has it. Return False if one is being written still.

        StoreError if the store does not answer.
        """
        if host in self._busy:
            return False
        self._busy.add(host)
        try:
            before, when = self._written.get(host, (None, -INTERVAL))
            await asyncio.sleep(max(0.0, when + INTERVAL - time.monotonic()))
            if found == before and time.monotonic() - when < REPEAT:
                self.unchanged += 1
                return True
            await self._put(host, replace(found, when=time.time()))
            self._written[host] = found, time.monotonic()
            self.written += 1
        finally:
            self._busy.discard(host)
        return True

    def forget(self, host: str) -> None:
        """Write the next report of a host, whatever it says: another gate may have written one meanwhile."""
        if host in self._written:
            self._written[host] = None, self._written[host][1]

    async def _put(self, host: str, found: HostStatus) -> None:
        done = asyncio.get_running_loop().create_future()
        self._next.append((Put(keys.status(host), records.encode(found)), done))
        self._collected.set()
        await done

    async def run(self) -> None:
        """Write what is collected, without end."""
        while True:
            await self._collected.wait()
            await asyncio.sleep(_COLLECT)
            self._collected.clear()
            batch = self._take_batch()
            try:
                await self._store.commit([put for put, _ in batch])
            except StoreError as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    def _take_batch(self) -> list[tuple[Put, asyncio.Future[None]]]:
        """Take as many as a transaction may have: each host is in it once, as it writes one at a time."""
        batch: list[tuple[Put, asyncio.Future[None]]] = []
        size = 0
        while self._next and len(batch) < MAX_OPERATIONS and size < MAX_BYTES - records.MAX_STATUS:
            put, done = self._next.pop(0)
            # Whoever does not wait any more has left, and reports elsewhere.
            if not done.done():
                batch.append((put, done))
                size += len(put.value)
        if self._next:
            self._collected.set()
        return batch


class Presence:
    """Keeps a key for each host that is connected here, on the lease of this gate: when the gate ends, so do they."""

    def __init__(self, store: Store, peers: Peers, name: str) -> None:
        self._store, self._peers, self._name = store, peers, name
        self._lease = 0
        # Hosts that have come or left, and when: only then is the store asked.
        self._changed: dict[str, float] = {}
        self._present: dict[str, int] = {}
        self._wake = asyncio.Event()

    def note(self, host: str) -> None:
        """Note that a host has its first connection, or has lost its last one."""
        self._changed[host] = time.monotonic()
        self._wake.set()

    async def run(self) -> None:
        """Keep the lease and the keys, without end."""
        kept = -KEEP
        while True:
            try:
                if time.monotonic() - kept >= KEEP:
                    await self._keep()
                    kept = time.monotonic()
                await self._update()
                pause = min(KEEP, GONE) if not self._changed else 1.0
            except StoreError:
                await asyncio.sleep(_RETRY)
                continue
            self._wake.clear()
            if not any(map(self._peers.is_connected, self._changed)):
                with suppress(TimeoutError):
                    # Unlike `wait_for` of Python 3.11, this loses no cancellation.
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def follow(self) -> None:
        """Write keys anew that were deleted although their hosts are connected here, without end.

        A host may be connected with two gates. The key is that of the gate that has written it last, and goes with it.
        """
        async with aclosing(self._store.follow(keys.ALIVE)) as following:
            async for changes in following:
                for event in changes.events:
                    host = keys.last(event.key)
                    if event.pair is None and self._present.get(host, event.revision) < event.revision:
                        del self._present[host]
                        self.note(host)

    async def end(self) -> None:
        """Let all keys go at once."""
        if self._lease:
            await self._store.revoke(self._lease)

    async def _keep(self) -> None:
        if self._lease:
            try:
                await self._store.keep(self._lease)
                return
            except LeaseGoneError:
                pass
        self._lease = await self._store.grant(LEASE)
        now = time.monotonic()
        self._changed |= dict.fromkeys(self._present, now)
        self._present.clear()

    async def _update(self) -> None:
        here = [each for each in self._changed if self._peers.is_connected(each)]
        now = time.monotonic()
        for start in range(0, len(here), MAX_OPERATIONS):
            part = [each for each in here[start : start + MAX_OPERATIONS] if each not in self._present]
            if part:
                puts = [Put(keys.alive(each), self._name.encode(), self._lease) for each in part]
                outcome = await self._store.commit(puts)
                self._present |= dict.fromkeys(part, outcome.revision)
        for each in here:
            self._changed.pop(each, None)
        for host in [each for each, when in self._changed.items() if now - when >= GONE]:
            await self._remove(host)
            if not self._peers.is_connected(host):
                self._changed.pop(host, None)

    async def _remove(self, host: str) -> None:
        """Delete the key of a host that has left, unless another gate has written it since."""
        revision = self._present.pop(host, 0)
        if revision:
            try:
                await self._store.commit([Delete(keys.alive(host))], [Compare(keys.alive(host), modified=revision)])
            except UnknownOutcomeError:
                # If it is still there, it ends with the lease, or is written anew when the host comes back.
                self._present[host] = revision
                raise

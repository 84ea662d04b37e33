"""The store in memory of one process, for tests of logic: no claim about etcd is tested with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from reconciler.fleet.store import Changes, Compare, Delete, Event, LeaseGoneError, Listing, Outcome, Pair, Put


class Memory:
    """A store that is always reachable. A lease only ends if it is revoked: no time passes here."""

    def __init__(self) -> None:
        self._pairs: dict[str, Pair] = {}
        self._revision = 1
        self._leases: set[int] = set()
        self._granted = 0
        self._consumers: dict[asyncio.Queue[Changes], str] = {}

    async def read(self, key: str) -> Pair | None:
        """Return what a key has."""
        return self._pairs.get(key)

    async def read_several(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what those of several keys have that exist."""
        return {each: self._pairs[each].value for each in keys if each in self._pairs}

    async def list(self, prefix: str, *, keys_only: bool = False) -> Listing:
        """Return all keys that begin with a prefix."""
        found = [self._pairs[key] for key in sorted(self._pairs) if key.startswith(prefix)]
        return Listing(tuple(each._replace(value=b"") if keys_only else each for each in found), self._revision)

    async def commit(self, operations: Sequence[Put | Delete], conditions: Sequence[Compare] = ()) -> Outcome:
        """Carry out operations if all conditions hold."""
        if len({each.key for each in operations}) < len(operations):
            raise ValueError("a key is in two operations of one transaction")
        if not all(self._holds(each) for each in conditions):
            return Outcome(succeeded=False, revision=self._revision)
        for each in operations:
            if isinstance(each, Put) and each.lease and each.lease not in self._leases:
                raise LeaseGoneError("there is no such lease")
        self._change(operations)
        return Outcome(succeeded=True, revision=self._revision)

    def _holds(self, condition: Compare) -> bool:
        found = self._pairs.get(condition.key)
        created, modified = (found.created, found.modified) if found else (0, 0)
        return condition.created in {None, created} and condition.modified in {None, modified}

    def _change(self, operations: Sequence[Put | Delete]) -> None:
        revision = self._revision + 1
        events = tuple(self._events(operations, revision))
        if not events:
            return
        self._revision = revision
        for queue, prefix in self._consumers.items():
            if found := tuple(each for each in events if each.key.startswith(prefix)):
                queue.put_nowait(Changes(found, revision))

    def _events(self, operations: Sequence[Put | Delete], revision: int) -> Iterator[Event]:
        for each in operations:
            before = self._pairs.pop(each.key, None)
            if isinstance(each, Put):
                pair = Pair(each.key, each.value, before.created if before else revision, revision, each.lease)
                self._pairs[each.key] = pair
                yield Event(each.key, pair, revision)
            elif before:
                yield Event(each.key, None, revision)

    async def grant(self, seconds: int) -> int:
        """Return a new lease."""
        del seconds
        self._granted += 1
        self._leases.add(self._granted)
        return self._granted

    async def keep(self, lease: int) -> None:
        """Raise LeaseGoneError if a lease was revoked."""
        if lease not in self._leases:
            raise LeaseGoneError("the lease has ended")

    async def revoke(self, lease: int) -> None:
        """End a lease, which deletes its keys."""
        self._leases.discard(lease)
        self._change([Delete(key) for key, pair in self._pairs.items() if lease and pair.lease == lease])

    async def follow(self, prefix: str) -> AsyncGenerator[Changes, None]:
        """Yield what is below a prefix, and then each change."""
        queue: asyncio.Queue[Changes] = asyncio.Queue()
        self._consumers[queue] = prefix
        try:
            listing = await self.list(prefix)
            yield Changes(tuple(Event(each.key, each, each.modified) for each in listing.pairs), listing.revision)
            while True:
                yield await queue.get()
        finally:
            del self._consumers[queue]

    async def compact(self, revision: int) -> None:
        """Do nothing: no past is kept here."""

    async def close(self) -> None:
        """Do nothing."""

"""What the leader of rollouts knows: kept up to date by following the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from reconciler.fleet import keys, records
from reconciler.fleet.records import Desired, HostRecord, HostStatus, Rollout
from reconciler.fleet.store import Event, Store
from reconciler.values import NamedTuple

_KINDS: dict[str, type[Any] | None] = {
    keys.ROLLOUT: Rollout,
    keys.ALL_DESIRED: Desired,
    keys.STATUSES: HostStatus,
    keys.HOSTS: HostRecord,
    keys.ALIVE: None,
}
PREFIXES = tuple(_KINDS)


class Seen(NamedTuple):
    """A record, and the revision of its last change."""

    record: Any
    modified: int


class View:
    """What is known. `changed` is set after each change; the one who waits clears it."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.changed = asyncio.Event()
        # Prefix → last part of the key → what it has. The key of the rollout is a prefix as well.
        self.seen: dict[str, dict[str, Seen]] = {each: {} for each in PREFIXES}
        self._listed: set[str] = set()
        self._report = report

    @property
    def is_complete(self) -> bool:
        """Return whether all prefixes were listed."""
        return len(self._listed) == len(PREFIXES)

    async def run(self, store: Store) -> None:
        """Follow all prefixes until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for prefix in PREFIXES:
                group.create_task(self._follow(store, prefix))

    async def _follow(self, store: Store, prefix: str) -> None:
        async with aclosing(store.follow(prefix)) as following:
            async for changes in following:
                for event in changes.events:
                    self._take(prefix, event)
                if changes.events or prefix not in self._listed:
                    self._listed.add(prefix)
                    self.changed.set()

    def _take(self, prefix: str, event: Event) -> None:
        known, name = self.seen[prefix], keys.last(event.key)
        if name in known and event.revision < known[name].modified:
            # Older than what this process has written itself.
            return
        if event.pair is None:
            known.pop(name, None)
            return
        kind = _KINDS[prefix]
        try:
            record = records.decode(kind, event.pair.value) if kind else None
        except ValueError as error:
            self._report(f"{event.key} in etcd is ignored, as it is not what this version writes: {error}")
            known.pop(name, None)
            return
        known[name] = Seen(record, event.revision)

    def put(self, prefix: str, name: str, record: Any, revision: int) -> None:
        """Remember what this process has written, before the store tells it."""
        self.seen[prefix][name] = Seen(record, revision)

    def records(self, prefix: str) -> dict[str, Any]:
        """Return last part of the key → record."""
        return {name: each.record for name, each in self.seen[prefix].items()}

    def rollout(self) -> Seen | None:
        """Return the rollout; None before the first push."""
        return self.seen[keys.ROLLOUT].get(keys.last(keys.ROLLOUT))

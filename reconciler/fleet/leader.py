"""Leads rollouts: one of any number of processes does, as long as it keeps a lease.

Each transaction has the condition that the key of the leader is still the one that this process made. So one that was
frozen for longer than its lease changes nothing any more, whatever it believes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from reconciler.fleet import keys
from reconciler.fleet.known import read_plans, read_release
from reconciler.fleet.records import Desired, Plan, Release, Rollout, RolloutState, encode
from reconciler.fleet.store import Compare, LeaseGoneError, Put, Store, StoreError, UnknownOutcomeError
from reconciler.fleet.tidy import tidy
from reconciler.fleet.view import View
from reconciler.fleet.waves import Picture, Step, step

# Seconds of the lease, how often it is renewed, and how often others look whether there is a leader.
LEASE, _KEEP, _LOOK = 6, 2.0, 1.0
# Seconds: news that come together are looked at together; and without news, time alone may be a reason for a step.
_TOGETHER, _TICK = 0.02, 0.5
# Seconds between two changes of nothing but the reason of a rollout.
_REASON = 1.0
# Hosts told in one transaction: it has two conditions for each, and etcd allows 128.
_HOSTS = 60
# Seconds before old data is removed for the first time, and then between two times.
_FIRST_TIDY, _TIDY = 300.0, 3600.0

Report = Callable[[str], None]


class Leader:
    """A process that may lead. `name` is shown to people; `report` gets lines for the log."""

    def __init__(self, store: Store, name: str, report: Report) -> None:
        self._store, self._name, self._report = store, name, report
        self._view = View(report)
        self._release: Release | None = None
        self._edition = 0
        self._plans: dict[str, Plan] = {}
        self._reason_at = 0.0
        self._tidy_at = 0.0
        # The store's revision at the last time.
        self._compact_to = 0

    async def run(self) -> None:
        """Lead whenever no other process does, until this is cancelled."""
        following = asyncio.ensure_future(self._view.run(self._store))
        try:
            while not following.done():
                lease = 0
                try:
                    lease = await self._store.grant(LEASE)
                    fence = await self._win(lease)
                    self._report("leads rollouts")
                    await self._lead(lease, fence)
                    self._report("does not lead rollouts any more")
                except StoreError as error:
                    self._report(f"cannot lead rollouts: {error}")
                    await asyncio.sleep(_LOOK)
                finally:
                    await self._give_up(lease)
            await following
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def _give_up(self, lease: int) -> None:
        """Let another process lead at once, if the store can be reached."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_KEEP):
                await self._store.revoke(lease)

    async def _win(self, lease: int) -> Compare:
        """Wait until no other process leads; return the condition that this one does."""
        put = Put(keys.LEADER, self._name.encode(), lease)
        while True:
            with suppress(UnknownOutcomeError):
                await self._store.commit([put], [Compare(keys.LEADER, created=0)])
            found = await self._store.read(keys.LEADER)
            if found and found.lease == lease:
                return Compare(keys.LEADER, created=found.created)
            await self._store.keep(lease)
            await asyncio.sleep(_LOOK)

    async def _lead(self, lease: int, fence: Compare) -> None:
        """Do whatever is to be done, until another process leads."""
        keeping = asyncio.ensure_future(self._keep(lease))
        self._tidy_at = time.monotonic() + _FIRST_TIDY
        try:
            while not keeping.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._view.changed.wait()
                self._view.changed.clear()
                await asyncio.sleep(_TOGETHER)
                if not await self._advance(fence):
                    # What is known is behind, or the fence is down.
                    await asyncio.sleep(_TOGETHER)
                    found = await self._store.read(keys.LEADER)
                    if found is None or found.created != fence.created:
                        return
                await self._tidy(fence)
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _keep(self, lease: int) -> None:
        """Renew the lease until it is gone."""
        while True:
            await asyncio.sleep(_KEEP)
            try:
                await self._store.keep(lease)
            except LeaseGoneError:
                return
            except StoreError:
                continue

    async def _advance(self, fence: Compare) -> bool:
        """Do the next step, if there is one. Return whether all of it was carried out."""
        seen = self._view.rollout()
        if seen is None or not self._view.is_complete:
            return True
        rollout: Rollout = seen.record
        next_ = step(self._picture(await self._release_of(rollout), rollout))
        if next_.tell:
            return await self._tell(next_, seen.modified, fence)
        if next_.rollout == rollout or self._is_only_talk(rollout, next_.rollout):
            return True
        condition = Compare(keys.ROLLOUT, modified=seen.modified)
        outcome = await self._store.commit([Put(keys.ROLLOUT, encode(next_.rollout))], [fence, condition])
        if outcome.succeeded:
            self._view.put(keys.ROLLOUT, keys.last(keys.ROLLOUT), next_.rollout, outcome.revision)
            self._view.changed.set()
            self._report(_words(next_.rollout))
        return outcome.succeeded

    async def _release_of(self, rollout: Rollout) -> Release:
        """Return the release of a rollout, which is read once, with the plans of the hosts that it changes."""
        known = self._release
        if known is None or (known.name, self._edition) != (rollout.release, rollout.edition):
            known = await read_release(self._store, rollout.release)
            wanted = {host: known.plans[host] for wave in known.waves for host in wave}
            self._plans = await read_plans(self._store, wanted)
            self._release, self._edition = known, rollout.edition
        return known

    def _picture(self, release: Release, rollout: Rollout) -> Picture:
        view = self._view
        return Picture(
            release=release,
            rollout=rollout,
            plans=self._plans,
            desired=view.records(keys.ALL_DESIRED),
            statuses=view.records(keys.STATUSES),
            alive=view.seen[keys.ALIVE].keys(),
            hosts=view.records(keys.HOSTS),
            now=time.time(),
        )

    def _is_only_talk(self, before: Rollout, after: Rollout) -> bool:
        """Return whether only the reason has changed, and was written a moment ago: it follows each status."""
        if (before.state, before.wave) != (after.state, after.wave):
            return False
        now = time.monotonic()
        if now - self._reason_at < _REASON:
            return True
        self._reason_at = now
        return False

    async def _tell(self, next_: Step, revision: int, fence: Compare) -> bool:
        """Tell hosts what they should be like, each once, unless anything about them or the rollout has changed."""
        view = self._view
        for part in _parts(next_.tell):
            # The rollout changes along, so that a push that has read what hosts were told knows of it.
            operations = [
                Put(keys.ROLLOUT, encode(next_.rollout)),
                *(Put(keys.desired(host), encode(each)) for host, each in part.items()),
            ]
            conditions = [fence, Compare(keys.ROLLOUT, modified=revision)]
            for host in part:
                told, record = view.seen[keys.ALL_DESIRED].get(host), view.seen[keys.HOSTS][host]
                conditions.append(Compare(keys.desired(host), modified=told.modified if told else 0))
                conditions.append(Compare(keys.host(host), modified=record.modified))
            outcome = await self._store.commit(operations, conditions)
            if not outcome.succeeded:
                return False
            revision = outcome.revision
            view.put(keys.ROLLOUT, keys.last(keys.ROLLOUT), next_.rollout, revision)
            for host, each in part.items():
                view.put(keys.ALL_DESIRED, host, each, revision)
        view.changed.set()
        self._report(
            f"release {next_.rollout.release}: told {len(next_.tell):,} hosts of wave {next_.rollout.wave + 1}"
        )
        return True

    async def _tidy(self, fence: Compare) -> None:
        """Remove what no release needs any more, and old revisions, once an hour."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + _TIDY
        self._compact_to = await tidy(self._store, fence, self._compact_to)


def _parts(tell: dict[str, Desired]) -> Iterator[dict[str, Desired]]:
    """Yield what is told in each transaction: at most `_HOSTS` hosts, and plans of half a megabyte together."""
    part: dict[str, Desired] = {}
    size = 0
    for host, each in tell.items():
        length = len(encode(each))
        if part and (len(part) == _HOSTS or size + length > 1 << 19):
            yield part
            part, size = {}, 0
        part[host] = each
        size += length
    if part:
        yield part


def _words(rollout: Rollout) -> str:
    place = f" at wave {rollout.wave + 1}" if rollout.state != RolloutState.DONE else ""
    return f"release {rollout.release} is {rollout.state}{place}" + (f": {rollout.reason}" if rollout.reason else "")

"""What the store knows of a fleet at one time, read for a command."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TypeVar

from reconciler.fleet import keys, records
from reconciler.fleet.records import Desired, HostRecord, HostStatus, Plan, Release, Rollout
from reconciler.fleet.store import Pair, Store, StoreError
from reconciler.values import NamedTuple

_T = TypeVar("_T")


class Known(NamedTuple):
    """The newest release, and what hosts were told of it.

    `revision`: that of the rollout; 0 before the first push. Whatever the leader tells changes it. `strange`: host →
    the release that it has reported and that the store does not know, as it was restored from an older backup.
    """

    revision: int
    rollout: Rollout | None
    release: Release | None
    plans: dict[str, Plan]
    desired: dict[str, Desired]
    hosts: dict[str, HostRecord]
    statuses: dict[str, HostStatus]
    strange: dict[str, str]

    @property
    def name(self) -> str:
        """Return the name of the newest release; empty before the first push."""
        return self.release.name if self.release else ""

    def awaiting(self, other: str) -> list[str]:
        """Return the hosts that get sandboxes only once another host has given them up, and have not got them yet."""
        return [
            host
            for host, plan in self.plans.items()
            if other in plan.awaited.values()
            and not (host in self.desired and self.desired[host].release == plan.release)
        ]


class Report(NamedTuple):
    """What hosts have reported, and which of them a gate is connected with, by which gate."""

    statuses: dict[str, HostStatus]
    alive: dict[str, str]


def parse(kind: type[_T], pair: Pair) -> _T:
    """Return the record of a key. StoreError if it is none: another version, or another program wrote it."""
    try:
        return records.decode(kind, pair.value)
    except ValueError as error:
        raise StoreError(f"{pair.key} in etcd is not what this version writes: {error}") from None


async def read_all(store: Store, prefix: str, kind: type[_T]) -> dict[str, _T]:
    """Return last part of the key → record, of all keys below a prefix."""
    return {keys.last(each.key): parse(kind, each) for each in (await store.list(prefix)).pairs}


async def read_known(store: Store) -> Known:
    """Return what is known of the fleet. What changed meanwhile shows in the revision of the rollout at a commit."""
    pair = await store.read(keys.ROLLOUT)
    hosts, desired, statuses = await asyncio.gather(
        read_all(store, keys.HOSTS, HostRecord),
        read_all(store, keys.ALL_DESIRED, Desired),
        read_all(store, keys.STATUSES, HostStatus),
    )
    rollout = parse(Rollout, pair) if pair else None
    names = (rollout.release, *rollout.history) if rollout else ()
    strange = {host: each.release for host, each in statuses.items() if _is_strange(each.release, names)}
    if pair is None or rollout is None:
        return Known(0, None, None, {}, desired, hosts, statuses, strange)
    release = await read_release(store, rollout.release)
    plans = await read_plans(store, release.plans)
    return Known(pair.modified, rollout, release, plans, desired, hosts, statuses, strange)


def number_of(release: str) -> int:
    """Return the number in the name of a release; 0 if it has none. As a host may report it, it may be any text."""
    first = release.partition("-")[0]
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 10 else 0


def _is_strange(release: str, names: Sequence[str]) -> bool:
    """Return whether a release should be among the newest, by its number, and is not."""
    release = release.partition(".")[0]
    return bool(release) and release not in names and number_of(release) >= min(map(number_of, names), default=0)


async def read_release(store: Store, name: str) -> Release:
    """Return a release. StoreError if it is missing."""
    pair = await store.read(keys.release(name))
    if pair is None:
        raise StoreError(f"release {name} is missing in etcd")
    return parse(Release, pair)


async def read_plans(store: Store, plans: Mapping[str, str]) -> dict[str, Plan]:
    """Return the plan of each host. `plans`: host → the release that its plan was written with."""
    found: dict[str, Plan] = {}
    for release in sorted(set(plans.values())):
        wanted = {host for host, name in plans.items() if name == release}
        listed = await read_all(store, keys.plans(release), Plan)
        found |= {host: plan for host, plan in listed.items() if host in wanted}
    if missing := plans.keys() - found.keys():
        raise StoreError(f"the plans of {len(missing):,} hosts are missing in etcd, such as that of {min(missing)}")
    return found


async def read_fleet(store: Store) -> tuple[Known, Report, str]:
    """Return what is known of the fleet, what hosts have reported, and who leads rollouts: empty if nobody does."""
    known, alive, leader = await asyncio.gather(read_known(store), store.list(keys.ALIVE), store.read(keys.LEADER))
    gates = {keys.last(each.key): each.value.decode(errors="replace") for each in alive.pairs}
    return known, Report(known.statuses, gates), leader.value.decode(errors="replace") if leader else ""

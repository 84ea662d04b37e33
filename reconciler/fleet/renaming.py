"""Gives a host another name, with all that it has, in one transaction for whatever points at it."""

from __future__ import annotations

from reconciler.errors import RefusedError
from reconciler.fleet import keys
from reconciler.fleet.changing import unknown_host
from reconciler.fleet.known import parse, read_all, read_known
from reconciler.fleet.push import pushing
from reconciler.fleet.records import HostRecord, Release, Rollout, encode
from reconciler.fleet.store import Compare, Delete, Put, Store, StoreError
from reconciler.values import replace


async def rename(store: Store, old: str, new: str, fingerprint: str) -> None:
    """Rename a host. `fingerprint`: that of its new certificate; empty if it has none yet.

    RefusedError if the new name is taken. What it had under its old name is removed with other old data later.
    """
    async with pushing(store, f"rename of {old}") as mine:
        host, rollout = await store.read(keys.host(old)), await store.read(keys.ROLLOUT)
        if host is None:
            raise await unknown_host(store, old)
        if await store.read(keys.host(new)) is not None:
            raise RefusedError(f"the fleet has a host {new} already; remove that one first, or choose another name")
        if waiting := (await read_known(store)).awaiting(old):
            raise RefusedError(
                f"sandboxes move from {old} to {waiting[0]} at present; rename it when the rollout is done"
            )
        for pair in (await store.list(keys.blobs(old), keys_only=True)).pairs:
            blob = await store.read(pair.key)
            if blob is not None:
                await store.commit([Put(keys.blobs(new) + pair.key.removeprefix(keys.blobs(old)), blob.value)])
        releases = {
            name: each for name, each in (await read_all(store, keys.RELEASES, Release)).items() if old in each.plans
        }
        plans = {keys.plan(each.plans[old], old): keys.plan(each.plans[old], new) for each in releases.values()}
        for before, after in plans.items():
            plan = await store.read(before)
            if plan is not None:
                await store.commit([Put(after, plan.value)])
        newest = parse(Rollout, rollout).release if rollout else ""
        for name in releases.keys() - {newest}:
            # Only a rollback reads these.
            await store.commit([Put(keys.release(name), encode(_renamed(releases[name], old, new)))], [mine])
        desired = await store.read(keys.desired(old))
        record = replace(parse(HostRecord, host), fingerprint=fingerprint)
        operations: list[Put | Delete] = [
            Put(keys.host(new), encode(record)),
            *(Delete(each) for each in (keys.host(old), keys.desired(old), keys.status(old), keys.alive(old))),
            *([Put(keys.desired(new), desired.value)] if desired else []),
            *(Put(keys.release(newest), encode(_renamed(each, old, new))) for each in [releases.get(newest)] if each),
            *([Put(keys.ROLLOUT, encode(_newer(parse(Rollout, rollout))))] if rollout else []),
        ]
        conditions = [
            mine,
            Compare(keys.host(old), modified=host.modified),
            Compare(keys.host(new), created=0),
            Compare(keys.ROLLOUT, modified=rollout.modified if rollout else 0),
            Compare(keys.desired(old), modified=desired.modified if desired else 0),
        ]
        if not (await store.commit(operations, conditions)).succeeded:
            raise StoreError(f"{old} was changed by others meanwhile, and was not renamed; try again")


def _renamed(release: Release, old: str, new: str) -> Release:
    plans = {new if host == old else host: name for host, name in release.plans.items()}
    waves = tuple(tuple(new if host == old else host for host in wave) for wave in release.waves)
    return replace(release, plans=plans, waves=waves)


def _newer(rollout: Rollout) -> Rollout:
    return replace(rollout, edition=rollout.edition + 1)

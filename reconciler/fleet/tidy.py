"""Removes from the store what no release needs any more. Only the leader does."""

from __future__ import annotations

from reconciler.fleet import keys
from reconciler.fleet.known import parse, read_all, read_plans
from reconciler.fleet.push import batches
from reconciler.fleet.records import Desired, HostRecord, Release, Rollout, encode
from reconciler.fleet.store import Compare, Delete, Put, Store
from reconciler.values import replace

# Releases that a rollback can restore, the newest one among them; of older ones, `history` knows what they were.
KEPT = 3
# Operations of a transaction, beside its conditions.
_OPERATIONS = 100


async def tidy(store: Store, fence: Compare, compact_to: int) -> int:
    """Remove plans and files that nothing names, and forget what was before a revision. Return the revision now.

    While a push is under way, nothing is removed: what it has uploaded is not named yet.
    """
    pair = await store.read(keys.ROLLOUT)
    if pair is None:
        return 0
    rollout = parse(Rollout, pair)
    conditions = [fence, Compare(keys.PUSHING, created=0), Compare(keys.ROLLOUT, modified=pair.modified)]
    operations = await _garbage(store, rollout)
    for batch in batches(operations[: 50 * _OPERATIONS]):
        if not (await store.commit(batch, conditions)).succeeded:
            break
    if compact_to:
        await store.compact(compact_to)
    return (await store.list(keys.LEADER)).revision


async def _garbage(store: Store, rollout: Rollout) -> list[Put | Delete]:
    """Return what removes all that nothing needs."""
    releases = await read_all(store, keys.RELEASES, Release)
    kept = {name for name in (rollout.release, *rollout.history)[:KEPT] if name in releases}
    found: list[Put | Delete] = []
    for name, release in releases.items():
        if name != rollout.release and name not in rollout.history:
            found.append(Delete(keys.release(name)))
        elif name not in kept and release.plans:
            # It cannot be restored any more.
            found.append(Put(keys.release(name), encode(replace(release, plans={}, waves=()))))
    hosts = await read_all(store, keys.HOSTS, HostRecord)
    desired = {host: each for host, each in (await read_all(store, keys.ALL_DESIRED, Desired)).items() if host in hosts}
    plans = {keys.plan(release, host) for name in kept for host, release in releases[name].plans.items()}
    plans |= {keys.plan(each.release.partition(".")[0], host) for host, each in desired.items()}
    listed = (await store.list(keys.PLANS, keys_only=True)).pairs
    found += [Delete(each.key) for each in listed if each.key not in plans]
    blobs = {(host, digest) for host, each in desired.items() for digest in each.files.values()}
    for name in kept:
        for host, plan in (await read_plans(store, releases[name].plans)).items():
            blobs |= {(host, digest) for digest in plan.files.values()}
    for each in (await store.list(keys.BLOBS, keys_only=True)).pairs:
        host = each.key.removeprefix(keys.BLOBS).partition("/")[0]
        if (host, keys.digest_of(each.key)) not in blobs:
            found.append(Delete(each.key))
    return found

"""The transactions of a push: blobs before plans before the pointer, so that nothing is ever half seen.

While a push is under way, it keeps a key on a lease. So two of them never work at once, and what one has uploaded is
not removed before a plan names it. What a killed push leaves is named by nothing, and is removed later.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress

from reconciler.errors import RefusedError
from reconciler.fleet import blobs, keys
from reconciler.fleet.known import Known, number_of, read_known
from reconciler.fleet.proposal import Proposal, waves
from reconciler.fleet.records import Plan, Release, Rollout, RolloutState, encode
from reconciler.fleet.store import (
    MAX_BYTES,
    MAX_OPERATIONS,
    Compare,
    Delete,
    Put,
    Store,
    StoreError,
    UnknownOutcomeError,
)
from reconciler.values import NamedTuple, replace

# Seconds that the key of a push stays after it was killed, and how often it is renewed.
_LEASE, _KEEP = 10, 3
# Seconds that a push waits for another one.
_WAIT = 30.0
# Transactions at a time.
_AT_ONCE = 8
# Releases of which `history` still knows.
_REMEMBERED = 50
# Attempts to be the next after what is there: while a rollout is told, that changes all the time.
_ATTEMPTS = 60
_PAUSE = 0.25


class Terms(NamedTuple):
    """How a push is to be carried out. `sizes`: of the waves; `who`: who pushes; `restores`: which release, if any."""

    sizes: tuple[str, ...]
    bake: float
    stop_after: int
    who: str
    roots: tuple[str, ...] = ()
    restores: str = ""


Files = Mapping[str, Mapping[str, bytes]]


@asynccontextmanager
async def pushing(store: Store, who: str) -> AsyncIterator[Compare]:
    """Be the only push during the block; yield the condition that this is still so. RefusedError if one is under way.

    It waits for the end of another one, as long as a killed one takes to end.
    """
    lease = await store.grant(_LEASE)
    keeping = asyncio.ensure_future(_keep(store, lease))
    try:
        deadline = time.monotonic() + _WAIT
        while not (created := await _claim(store, who, lease)):
            if time.monotonic() > deadline:
                other = await store.read(keys.PUSHING)
                by = f", by {other.value.decode(errors='replace')}" if other else ""
                raise RefusedError(
                    f"another push is under way{by}; wait for its end, and look again with `reconciler fleet diff`"
                )
            await asyncio.sleep(_PAUSE)
        yield Compare(keys.PUSHING, created=created)
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        with suppress(StoreError):
            await store.revoke(lease)


async def _claim(store: Store, who: str, lease: int) -> int:
    """Put the key of a push, unless there is one. Return its revision if it is ours, else 0."""
    with suppress(UnknownOutcomeError):
        await store.commit([Put(keys.PUSHING, who.encode(), lease)], [Compare(keys.PUSHING, created=0)])
    found = await store.read(keys.PUSHING)
    return found.created if found and found.lease == lease else 0


async def _keep(store: Store, lease: int) -> None:
    """Renew the lease until it is gone. Then the last transaction does not succeed."""
    while True:
        await asyncio.sleep(_KEEP)
        try:
            await store.keep(lease)
        except StoreError:
            continue


async def push(
    store: Store, mine: Compare, propose: Callable[[Known], Proposal], files: Files, terms: Terms
) -> Release | None:
    """Carry out what `propose` makes of what is known. Return the new release; None if there is nothing to do.

    `files`: host → path → bytes, of the hosts whose plans are new; none if all are in the store already. If others
    change what is known meanwhile, it is proposed anew, so `propose` raises RefusedError if that makes a difference.
    """
    name = ""
    for _ in range(_ATTEMPTS):
        known = await read_known(store)
        proposal = propose(known)
        if proposal.plans == known.plans:
            return None
        name = name or _next_name(known.name)
        new = {host: plan for host, plan in proposal.plans.items() if not plan.release}
        await _upload(store, {host: files[host] for host in new if host in files})
        plans = {host: replace(plan, release=name) for host, plan in new.items()}
        await _write(store, (Put(keys.plan(name, host), encode(plan)) for host, plan in plans.items()))
        release = _release(name, {**proposal.plans, **plans}, proposal, terms)
        if await _publish(store, mine, known, release, terms):
            return release
        await asyncio.sleep(_PAUSE)
    raise StoreError("the rollout changes all the time; push again, or stop it before with `reconciler fleet pause`")


def _next_name(before: str) -> str:
    """Return the name of a release: a number that grows, and digits that no other push has."""
    return f"{number_of(before) + 1}-{secrets.token_hex(3)}"


def _release(name: str, plans: Mapping[str, Plan], proposal: Proposal, terms: Terms) -> Release:
    return Release(
        name=name,
        commit=proposal.commit,
        author=terms.who,
        fingerprint=proposal.fingerprint,
        when=time.time(),
        plans={host: plan.release for host, plan in plans.items()},
        waves=waves(proposal, terms.sizes),
        roots=terms.roots,
        restores=terms.restores,
    )


async def _publish(store: Store, mine: Compare, known: Known, release: Release, terms: Terms) -> bool:
    """Make a release the newest one. Return whether that succeeded: what is known has not changed meanwhile."""
    history = (known.name, *known.rollout.history)[:_REMEMBERED] if known.rollout else ()
    rollout = Rollout(
        release=release.name,
        wave=0,
        state=RolloutState.ROLLING,
        stop_after=terms.stop_after,
        bake=terms.bake,
        since=time.time(),
        history=history,
    )
    operations = [Put(keys.release(release.name), encode(release)), Put(keys.ROLLOUT, encode(rollout))]
    try:
        outcome = await store.commit(operations, [mine, Compare(keys.ROLLOUT, modified=known.revision)])
    except UnknownOutcomeError:
        return await store.read(keys.release(release.name)) is not None
    if not outcome.succeeded and await store.read(keys.PUSHING) is None:
        raise StoreError("this push took too long to renew its lease, and another may have begun; push again")
    return outcome.succeeded


async def _upload(store: Store, files: Files) -> None:
    """Put the files of hosts that are not there yet."""
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def missing(host: str, data: Mapping[str, bytes]) -> list[Put]:
        async with at_once:
            there = {each.key for each in (await store.list(keys.blobs(host), keys_only=True)).pairs}
        wanted = {blobs.digest(each): each for each in data.values()}
        return [put for digest, each in wanted.items() for put in _missing(host, digest, each, there)]

    found = await asyncio.gather(*(missing(host, data) for host, data in files.items()))
    await _write(store, (put for puts in found for put in puts))


def _missing(host: str, digest: str, data: bytes, there: AbstractSet[str]) -> list[Put]:
    """Return what puts a file. Nothing if it is there: all of its chunks, as a push may have been killed among them."""
    if len(data) < blobs.CHUNK // 2 and keys.blob(host, digest) in there:
        return []
    packed = blobs.pack(data)
    if len(packed) > blobs.MAX_PACKED:
        raise RefusedError(f"a file of host {host} has {len(packed) >> 20:,} MiB when packed, which is too much")
    chunks = {keys.chunk(host, digest, number): each for number, each in enumerate(blobs.chunks(packed))}
    return [] if chunks.keys() <= there else [Put(key, each) for key, each in chunks.items()]


async def _write(store: Store, puts: Iterable[Put]) -> None:
    """Carry out operations in transactions without conditions, several at a time."""
    running: set[asyncio.Future[object]] = set()
    try:
        for batch in batches(puts):
            running.add(asyncio.ensure_future(store.commit(batch)))
            if len(running) >= _AT_ONCE:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
        await asyncio.gather(*running)
    finally:
        for each in running:
            each.cancel()


def batches(operations: Iterable[Put | Delete]) -> Iterator[list[Put | Delete]]:
    """Yield operations in as few transactions as they fit into, in order."""
    batch: list[Put | Delete] = []
    size = 0
    for each in operations:
        bytes_ = len(each.key) + (len(each.value) if isinstance(each, Put) else 0)
        if batch and (len(batch) == MAX_OPERATIONS or size + bytes_ > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += bytes_
    if batch:
        yield batch

"""What a store does, in memory and in a real cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from reconciler.fleet.memory import Memory
from reconciler.fleet.store import MAX_OPERATIONS, Compare, Delete, Event, LeaseGoneError, Pair, Put, Store
from tests.fleet.cluster import Cluster

Try = Callable[[Callable[[Store], Awaitable[None]]], None]
A, B, C = (f"/reconciler/v1/{name}" for name in "abc")


@pytest.fixture(params=["memory", "etcd"])
def attempt(request: pytest.FixtureRequest) -> Try:
    """Return what runs a coroutine with a store."""

    def run(work: Callable[[Store], Awaitable[None]]) -> None:
        async def with_store() -> None:
            store: Store = Memory()
            if request.param == "etcd":
                cluster: Cluster = request.getfixturevalue("cluster")
                store = cluster.store()
            try:
                await work(store)
            finally:
                await store.close()

        if request.param == "etcd":
            request.getfixturevalue("cluster")
        asyncio.run(with_store())

    return run


def test_a_key_has_what_was_put_last(attempt: Try) -> None:
    async def work(store: Store) -> None:
        first = (await store.commit([Put(A, b"\0\xff")])).revision
        second = (await store.commit([Put(A, b"2"), Put(B, b"")])).revision
        assert await store.read(A) == Pair(A, b"2", first, second)
        assert await store.read(B) == Pair(B, b"", second, second)
        assert await store.read(C) is None
        await store.commit([Delete(A), Delete(C)])
        assert [each.key for each in (await store.list("/reconciler/v1/")).pairs] == [B]

    attempt(work)


def test_a_transaction_is_carried_out_whole_or_not_at_all(attempt: Try) -> None:
    async def work(store: Store) -> None:
        assert (await store.commit([Put(A, b"1")], [Compare(A, created=0, modified=0)])).succeeded
        found = await store.read(A)
        assert found is not None
        assert not (await store.commit([Put(A, b"2"), Put(B, b"2")], [Compare(A, created=0)])).succeeded
        assert await store.read(B) is None
        wrong = [Compare(A, modified=found.modified), Compare(B, created=5)]
        assert not (await store.commit([Put(A, b"2")], wrong)).succeeded
        assert (await store.read(A)) == found
        assert (await store.commit([Put(A, b"2")], [Compare(A, found.created, found.modified)])).succeeded
        assert not (await store.commit([Put(A, b"3")], [Compare(A, found.created, found.modified)])).succeeded

    attempt(work)


def test_several_keys_are_read_at_once(attempt: Try) -> None:
    large = bytes(range(256)) * 2048

    async def work(store: Store) -> None:
        assert await store.read_several([A, B]) == {}
        await store.commit([Put(A, large), Put(B, b"")])
        assert await store.read_several([B, "/reconciler/v1/c", A]) == {A: large, B: b""}
        names = [f"/reconciler/v1/{number}" for number in range(MAX_OPERATIONS)]
        await store.commit([Put(each, each.encode()) for each in names])
        assert await store.read_several(names) == {each: each.encode() for each in names}

    attempt(work)


def test_a_key_ends_with_its_lease(attempt: Try) -> None:
    async def work(store: Store) -> None:
        lease = await store.grant(60)
        await store.commit([Put(A, b"1", lease), Put(B, b"1")])
        await store.keep(lease)
        found = await store.read(A)
        assert found is not None
        assert found.lease == lease
        await store.revoke(lease)
        await store.revoke(lease)
        assert await store.read(A) is None
        assert await store.read(B) is not None
        with pytest.raises(LeaseGoneError):
            await store.keep(lease)
        with pytest.raises(LeaseGoneError):
            await store.commit([Put(A, b"1", lease)])

    attempt(work)


def test_a_consumer_gets_what_is_there_and_then_each_change(attempt: Try) -> None:
    async def work(store: Store) -> None:
        first = (await store.commit([Put(A, b"1"), Put("/reconciler/other", b"1")])).revision
        async with aclosing(store.follow("/reconciler/v1/")) as following:
            assert await anext(following) == ((Event(A, Pair(A, b"1", first, first), first),), first)
            await store.commit([Put("/reconciler/other", b"2")])
            second = (await store.commit([Put(A, b"2"), Put(B, b"2")])).revision
            third = (await store.commit([Delete(A)])).revision
            events: list[Event] = []
            while len(events) < 3:
                events += (await anext(following)).events
        assert sorted(events[:2]) == [
            Event(A, Pair(A, b"2", first, second), second),
            Event(B, Pair(B, b"2", second, second), second),
        ]
        assert events[2:] == [Event(A, None, third)]

    attempt(work)


def test_a_long_list_is_whole(attempt: Try) -> None:
    names = [f"/reconciler/v1/{number:05}" for number in range(1203)]

    async def work(store: Store) -> None:
        for start in range(0, len(names), 100):
            await store.commit([Put(name, name.encode()) for name in names[start : start + 100]])
        found = await store.list("/reconciler/v1/")
        assert [(each.key, each.value) for each in found.pairs] == [(name, name.encode()) for name in names]
        listed = await store.list("/reconciler/v1/0110", keys_only=True)
        assert [(each.key, each.value) for each in listed.pairs] == [(name, b"") for name in names[1100:1110]]

    attempt(work)

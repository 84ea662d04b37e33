"""What etcd's members and the way to them may do to us: nothing is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from reconciler.fleet.etcd.client import Etcd
from reconciler.fleet.store import Changes, Compare, Put, StoreError, UnknownOutcomeError
from tests.fleet.cluster import Cluster, Member
from tests.fleet.cut import Way, way

PREFIX = "/reconciler/v1/"
_SECONDS = 60


class View:
    """What a consumer knows: each key and its value."""

    def __init__(self, following: AsyncGenerator[Changes, None]) -> None:
        self._following = following
        self.pairs: dict[str, bytes] = {}
        self.answers = 0
        self._news = asyncio.Condition()

    async def run(self) -> None:
        async for changes in self._following:
            async with self._news:
                self.answers += 1
                for each in changes.events:
                    if each.pair is None:
                        del self.pairs[each.key]
                    else:
                        self.pairs[each.key] = each.pair.value
                self._news.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_SECONDS), self._news:
            await self._news.wait_for(holds)

    async def until_like(self, cluster: Cluster) -> None:
        """Wait until all is known that is in etcd, and nothing else, as another client reads it."""
        store = cluster.store()
        wanted = {each.key: each.value for each in (await store.list(PREFIX)).pairs}
        await store.close()
        await self.until(lambda: self.pairs == wanted)


@asynccontextmanager
async def viewing(store: Etcd) -> AsyncIterator[View]:
    """Yield a consumer's view, once it knows what is there."""
    view = View(store.follow(PREFIX))
    running = asyncio.ensure_future(view.run())
    try:
        await view.until(lambda: view.answers > 0)
        yield view
    finally:
        running.cancel()
        await asyncio.wait({running})
        await store.close()


async def write(store: Etcd, names: range) -> None:
    """Write keys, each with its own name as its value, 100 at a time."""
    for start in range(0, len(names), 100):
        part = names[start : start + 100]
        await store.commit([Put(f"{PREFIX}{number:05}", b"%d" % number) for number in part])


def _is_ahead(view: View, seen: dict[str, bytes]) -> bool:
    return all(int(view.pairs[key]) > int(value) for key, value in seen.items())


def test_no_acknowledged_write_is_lost_when_the_leader_is_killed(
    cluster: Cluster, repeats: Callable[[int], int]
) -> None:
    async def work() -> None:
        store, acknowledged = cluster.store(patience=30), dict[str, bytes]()

        async def keep_writing() -> None:
            number = 0
            while True:
                number += 1
                key, value = f"{PREFIX}{number % 50}", b"%d" % number
                await store.commit([Put(key, value)])
                acknowledged[key] = value

        async with viewing(cluster.store()) as view:
            for _ in range(repeats(4)):
                writing = asyncio.ensure_future(keep_writing())
                await view.until(lambda: len(view.pairs) == 50)
                leader = await asyncio.to_thread(cluster.leader)
                leader.kill()
                # Each key is written again after the kill.
                await view.until(partial(_is_ahead, view, dict(acknowledged)))
                cluster.run()
                writing.cancel()
                await asyncio.wait({writing})
                found = {each.key: each.value for each in (await store.list(PREFIX)).pairs}
                # The last one may have been carried out without an answer.
                assert {key for key in acknowledged if int(found[key]) < int(acknowledged[key])} == set()
                assert sum(found[key] != value for key, value in acknowledged.items()) <= 1
                acknowledged |= found
                await view.until_like(cluster)
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("is_leader", [True, False])
def test_changes_come_again_if_a_member_is_frozen(cluster: Cluster, is_leader: bool) -> None:
    async def work() -> None:
        found = await asyncio.to_thread(cluster.leader)
        frozen = found if is_leader else next(each for each in cluster.members if each is not found)
        others = [each.url for each in cluster.members if each is not frozen]
        store = Etcd([frozen.url], cluster.credentials)
        async with viewing(store) as view:
            # From now on it knows the others, too: it is at the one that freezes.
            store._members._targets += Etcd(others, cluster.credentials)._members._targets
            frozen.send(signal.SIGSTOP)
            writer = Etcd(others, cluster.credentials, patience=30)
            await write(writer, range(200))
            await view.until(lambda: len(view.pairs) == 200)
            frozen.send(signal.SIGCONT)
            await write(writer, range(300))
            await view.until_like(cluster)
            await writer.close()

    asyncio.run(work())


async def _cut_while_catching_up(cluster: Cluster, member: Member, *, compacted: bool) -> None:
    writer = cluster.store()
    await write(writer, range(200))
    async with way(cluster, member) as road, viewing(Etcd([road.url], cluster.credentials)) as view:
        await view.until(lambda: len(view.pairs) == 200)
        road.cut()
        await write(writer, range(100, 3100))
        gone = [f"{PREFIX}{number:05}" for number in range(50)]
        await _delete(writer, gone)
        if compacted:
            await writer.compact((await writer.list(f"{PREFIX}none")).revision)
        await _through(road, view)
        await view.until_like(cluster)
        assert len(view.pairs) == 3050
        assert not view.pairs.keys() & set(gone)
    await writer.close()


async def _through(road: Way, view: View) -> None:
    """Let through a few bytes more at a time, so that each attempt to catch up is cut at another place."""
    for most in range(6_000, 240_000, 26_000):
        road.mend(most)
        async with asyncio.timeout(_SECONDS):
            while not road.is_cut:
                await asyncio.sleep(0.01)
                if len(view.pairs) == 3050:
                    break
    road.mend()


async def _delete(store: Etcd, names: list[str]) -> None:
    from reconciler.fleet.store import Delete

    await store.commit([Delete(each) for each in names])


@pytest.mark.parametrize("compacted", [True, False])
def test_all_changes_come_after_an_absence(cluster: Cluster, compacted: bool) -> None:
    asyncio.run(_cut_while_catching_up(cluster, cluster.members[0], compacted=compacted))


def test_without_a_majority_a_call_fails_and_a_watch_waits(cluster: Cluster) -> None:
    async def work() -> None:
        store = cluster.store(patience=2)
        async with viewing(cluster.store()) as view:
            await write(store, range(10))
            await view.until_like(cluster)
            for each in cluster.members[:2]:
                each.kill()
            for call in (
                partial(store.commit, [Put(f"{PREFIX}x", b"1")]),
                partial(store.read, f"{PREFIX}x"),
                partial(store.grant, 5),
            ):
                with pytest.raises(StoreError, match="etcd"):
                    await call()
            with pytest.raises(StoreError, match="etcd"):
                await store.commit([Put(f"{PREFIX}y", b"1")], [Compare(f"{PREFIX}y", created=0)])
            assert len(view.pairs) == 10
            cluster.run()
            again = cluster.store(patience=30)
            await write(again, range(20))
            await again.close()
            await view.until_like(cluster)
        await store.close()

    asyncio.run(work())


def test_a_transaction_with_conditions_is_never_sent_twice(cluster: Cluster) -> None:
    async def work() -> None:
        async with way(cluster, cluster.members[0]) as road:
            store, key = Etcd([road.url], cluster.credentials, patience=5), f"{PREFIX}once"
            await store.read(key)
            # The request gets through, and its answer does not.
            road.mend(0)
            with pytest.raises(UnknownOutcomeError, match="did not say whether"):
                await store.commit([Put(key, b"1")], [Compare(key, created=0)])
            road.mend()
            found = await store.read(key)
            assert found is not None
            assert found.value == b"1"
            await store.close()

    asyncio.run(work())


def test_the_reason_of_each_member_is_told(cluster: Cluster) -> None:
    async def work() -> None:
        stranger = cluster.credentials._replace(ca=(cluster.folder / "client.pem").read_bytes())
        store = Etcd(["https://127.77.0.1:9", cluster.urls[0]], stranger, patience=0.5)
        with pytest.raises(StoreError, match="no member of etcd answers as it should") as caught:
            await store.read("/a")
        first, second = sorted(caught.value.lines[1:])
        assert "127.77.0.1:9: " in first
        assert "Connection refused" in first
        assert cluster.address in second
        await store.close()

    asyncio.run(work())


def test_after_a_restore_of_an_older_backup_a_consumer_knows_what_is_there(cluster: Cluster) -> None:
    async def work() -> None:
        store = cluster.store(patience=30)
        await write(store, range(50))
        async with viewing(cluster.store()) as view:
            await view.until_like(cluster)
            cluster.back_up()
            # The later state has more and other keys, and the revisions go back with the restore.
            await write(store, range(30, 200))
            await _delete(store, [f"{PREFIX}{number:05}" for number in range(10)])
            await view.until_like(cluster)
            cluster.restore()
            await view.until(lambda: len(view.pairs) == 50)
            await view.until_like(cluster)
            await write(store, range(60))
            await view.until_like(cluster)
        await store.close()

    asyncio.run(work())

"""Leaders that are killed and frozen at random points: whoever leads next finishes, and no host is told twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from reconciler.fleet import keys
from reconciler.fleet.known import read_release
from reconciler.fleet.records import Desired, Release, Rollout, RolloutState, decode
from reconciler.fleet.store import Store
from tests.fleet.cluster import Cluster
from tests.fleet.site import Site, manifest, played

NAMES = "abcdefghijklmnopqrst"
WAVES = "1,3,40%,70%,100%"


class Watcher:
    """Sees everything that hosts are told, in order, with the state of the rollout at that very revision."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._releases: dict[str, Release] = {}
        self._rollout: Rollout | None = None
        self._desired: dict[str, list[str]] = {}
        self.told = 0
        self.faults: list[str] = []

    async def run(self) -> None:
        async with aclosing(self._store.follow(keys.ROOT)) as following:
            async for changes in following:
                # What is written together has the state of the rollout in it.
                for each in sorted(changes.events, key=lambda event: (event.revision, event.key != keys.ROLLOUT)):
                    if each.pair is None:
                        continue
                    if each.key == keys.ROLLOUT:
                        self._rollout = decode(Rollout, each.pair.value)
                    elif each.key.startswith(keys.ALL_DESIRED):
                        await self._check(keys.last(each.key), decode(Desired, each.pair.value).release)

    async def _check(self, host: str, release: str) -> None:
        self.told += 1
        before = self._desired.setdefault(host, [])
        if release in before:
            self.faults.append(f"{host} was told {release} twice")
        before.append(release)
        rollout = self._rollout
        assert rollout
        if rollout.release not in self._releases:
            self._releases[rollout.release] = await read_release(self._store, rollout.release)
        waves = self._releases[rollout.release].waves[: rollout.wave + 1]
        if not any(host in wave for wave in waves) or rollout.state != RolloutState.ROLLING:
            self.faults.append(f"{host} was told {release} in wave {rollout.wave}, which is {rollout.state}")


@asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[Watcher]:
    store = cluster.store()
    watcher = Watcher(store)
    running = asyncio.ensure_future(watcher.run())
    try:
        yield watcher
    finally:
        running.cancel()
        await asyncio.wait({running})
        await store.close()


class Leaders:
    """Processes that lead, or would."""

    def __init__(self, cluster: Cluster, log: Path) -> None:
        self._cluster, self._log = cluster, log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._number = 0

    def start(self) -> None:
        self._number += 1
        name, cluster = f"leader-{self._number}", self._cluster
        words = [sys.executable, "-m", "tests.fleet.lead", name, ",".join(cluster.urls), str(cluster.authority.file)]
        with self._log.open("ab") as log:
            process = subprocess.Popen([*words, *map(str, cluster.client)], stdout=log, stderr=log)
        self._running[name] = process

    async def leading(self, store: Store) -> str:
        """Return the name of the one that leads, as soon as there is one of these."""
        async with asyncio.timeout(60):
            while True:
                found = await store.read(keys.LEADER)
                if found and found.value.decode() in self._running:
                    return found.value.decode()
                await asyncio.sleep(0.02)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def freeze(self, name: str) -> subprocess.Popen[bytes]:
        process = self._running[name]
        process.send_signal(signal.SIGSTOP)
        return process

    def end(self) -> None:
        for name in list(self._running):
            self.kill(name)


async def _finished(store: Store, name: str) -> None:
    """Wait until a release has reached all of its hosts."""
    async with asyncio.timeout(120):
        while True:
            pair = await store.read(keys.ROLLOUT)
            assert pair
            rollout = decode(Rollout, pair.value)
            assert rollout.state in {RolloutState.ROLLING, RolloutState.DONE}, rollout
            if rollout.release == name and rollout.state == RolloutState.DONE:
                return
            await asyncio.sleep(0.02)


def _try(cluster: Cluster, site: Site, log: Path, disturb: Callable[[Leaders, str], object], times: int) -> None:
    """Push again and again; while a release is rolled out, disturb the leader at a random point."""
    site.hosts(NAMES, sandboxes=1)
    site.push("--waves", "100%")

    async def run() -> None:
        store, leaders = cluster.store(patience=60), Leaders(cluster, log)
        try:
            async with watching(cluster) as watcher, played(store, NAMES, delay=0.2):
                for _ in range(2):
                    leaders.start()
                await _finished(store, await _newest(store))
                for number in range(times):
                    await _disturbed(site, store, leaders, disturb, number)
                assert watcher.faults == []
                assert watcher.told == (times + 1) * len(NAMES)
        finally:
            leaders.end()
            await store.close()

    asyncio.run(run())


async def _disturbed(
    site: Site, store: Store, leaders: Leaders, disturb: Callable[[Leaders, str], object], number: int
) -> None:
    site.write({f"{each}/{each}0.yaml": manifest(f"{each}0", f"change {number}") for each in NAMES})
    name = await asyncio.to_thread(site.push, "--waves", WAVES)
    await asyncio.sleep(random.uniform(0, 0.8))
    found = disturb(leaders, await leaders.leading(store))
    leaders.start()
    await _finished(store, name)
    if isinstance(found, subprocess.Popen):
        # It goes on where it was, and believes that it leads.
        found.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)


async def _newest(store: Store) -> str:
    pair = await store.read(keys.ROLLOUT)
    assert pair
    return decode(Rollout, pair.value).release


def test_a_leader_that_is_killed_is_replaced(
    cluster: Cluster, site: Site, tmp_path: Path, repeats: Callable[[int], int]
) -> None:
    _try(cluster, site, tmp_path / "log", Leaders.kill, repeats(4))


def test_a_leader_that_is_frozen_beyond_its_lease_changes_nothing(
    cluster: Cluster, site: Site, tmp_path: Path, repeats: Callable[[int], int]
) -> None:
    _try(cluster, site, tmp_path / "log", Leaders.freeze, repeats(4))

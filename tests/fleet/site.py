"""A tree of a test, the commands on it, and hosts that are played: they report what they were told."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.fleet import keys
from reconciler.fleet.records import Desired, HostStatus, Unusual, decode, encode
from reconciler.fleet.store import Delete, Put, Store

_MANIFEST = """apiVersion: reconciler/v1
sandbox: {name}
driver: {{netns: {{name: {name}}}}}
routes: []
"""
_AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def manifest(name: str, note: str = "") -> str:
    """Return a manifest of a sandbox."""
    return _MANIFEST.format(name=name) + (f"# {note}\n" if note else "")


class Site:
    """A repository, and `reconciler fleet` for it."""

    def __init__(self, folder: Path, output: pytest.CaptureFixture[str]) -> None:
        self.tree, self._output = folder / "tree", output
        self.tree.mkdir()
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.tree), *_AUTHOR, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by their paths, and commit all that is in the tree."""
        for name, text in files.items():
            file = self.tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.commit()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")

    def hosts(self, names: str, sandboxes: int = 2) -> None:
        """Write manifests such as a/a0.yaml for hosts, each of one letter, and add the hosts."""
        self.write({f"{each}/{each}{n}.yaml": manifest(f"{each}{n}") for each in names for n in range(sandboxes)})
        for each in names:
            self.fleet("host", "add", each)

    def run(self, *words: str) -> tuple[int, str]:
        """Return the exit code and all output of a command."""
        self._output.readouterr()
        code = main(["fleet", *words])
        captured = self._output.readouterr()
        return code, captured.out + captured.err

    def fleet(self, *words: str) -> str:
        """Return the output of a command that succeeds."""
        code, text = self.run(*words)
        assert code == 0, text
        return text

    def push(self, *options: str) -> str:
        """Push the tree; return the name of the release."""
        text = self.fleet("push", *options, str(self.tree))
        return text.split()[1].rstrip(":")


class Hosts:
    """Hosts that are played. `failing`: sandbox → its state, which is reported instead of `converged`.

    `mute`: hosts that report nothing. `holding`: host → the sandboxes that it really has; no two may have one.
    """

    def __init__(self, store: Store, delay: Callable[[], float] = lambda: 0.0) -> None:
        self._store, self._delay = store, delay
        self.failing: dict[str, str] = {}
        self.mute: set[str] = set()
        self.holding: dict[str, set[str]] = {}
        self.faults: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # Host → what it was told last, and whose turn it is.
        self._told: dict[str, Desired] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        async with aclosing(self._store.follow(keys.ALL_DESIRED)) as following:
            async for changes in following:
                for each in changes.events:
                    host = keys.last(each.key)
                    if each.pair is None:
                        self.holding.pop(host, None)
                        continue
                    self._told[host] = decode(Desired, each.pair.value)
                    task = asyncio.create_task(self._take(host))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _take(self, host: str) -> None:
        """Do what was told last, and report it."""
        async with self._turns.setdefault(host, asyncio.Lock()):
            await self._do(host, self._told[host])

    async def _do(self, host: str, desired: Desired) -> None:
        before = self.holding.setdefault(host, set())
        arriving = desired.sandboxes.keys() - before
        for other, held in self.holding.items():
            if other != host and held & arriving:
                self.faults.append(f"{host} was given {held & arriving}, which {other} has")
        before.update(arriving)
        await asyncio.sleep(self._delay())
        if host in self.mute:
            return
        before.intersection_update(desired.sandboxes)
        unusual = tuple(Unusual(each, self.failing[each]) for each in desired.sandboxes if each in self.failing)
        counts = {"converged": len(desired.sandboxes) - len(unusual), "failed": len(unusual)}
        status = HostStatus(desired.release, reached=True, counts=counts, unusual=unusual)
        await self._store.commit([Put(keys.status(host), encode(status))])


@asynccontextmanager
async def played(store: Store, names: str, delay: float = 0.0) -> AsyncIterator[Hosts]:
    """Play hosts during the block."""
    hosts = Hosts(store, lambda: random.uniform(0, delay))
    await store.commit([Put(keys.alive(each), b"gate") for each in names])
    running = asyncio.ensure_future(hosts.run())
    try:
        yield hosts
    finally:
        running.cancel()
        await asyncio.wait({running, *hosts._tasks})
        await store.commit([Delete(keys.alive(each)) for each in names])
        assert hosts.faults == []

"""Measures a whole fleet: `python -m tests.benchmarks.fleet [HOSTS,…] [SANDBOXES]`, with etcd (`make setup`).

A real cluster of three members with mTLS, two gates as processes, and hosts that `tests.fleet.simulated` plays, which
have TLS and certificates but no sandboxes: they report at once that all is converged. All of it shares this machine, so
the table also says which part of its processors was taken by what.

For each number of hosts (default: 100, 250, 500 and 1,000, each with 50 sandboxes), `fleet push` publishes a change of

- every manifest of each host, which is the first release;
- one manifest of one host, five times;
- one manifest of each host, at once. `fleet rollback` takes that back, with the waves of the default.

A time is from the moment at which etcd has the release, to the one at which it has the report of a host that all of it
is converged: both as a client that follows etcd sees them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.fleet import keys, records
from reconciler.fleet.gate.writer import INTERVAL
from reconciler.fleet.records import HostRecord, HostStatus, Rollout, RolloutState
from reconciler.fleet.store import Put, Store
from tests.benchmarks.measure import RECONCILER
from tests.fleet.cluster import Cluster, program
from tests.fleet.gates import Certificates

_STEPS, _SANDBOXES, _GATES, _PLAYERS, _ONES, _STATUSES = (100, 250, 500, 1000), 50, 2, 2, 5, 5
_ALL_AT_ONCE = ("--waves", "100%")
_SECONDS = 600.0
# The time of git is not measured.
_GIT = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "gc.auto=0", "-c", "core.compression=0")
_TICK = os.sysconf("SC_CLK_TCK")


class Times(NamedTuple):
    """What became of a push: seconds of the command, and of each host until it has reached the release."""

    push: float
    hosts: list[float]
    done: float

    def part(self, share: float) -> float:
        """Return the seconds that a share of the hosts took at most."""
        ordered = sorted(self.hosts)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        return (
            f"p50 {self.part(0.5):6.2f} s   p99 {self.part(0.99):6.2f} s   worst {max(self.hosts):6.2f} s   "
            f"rollout done {self.done:6.2f} s   (push {self.push:.1f} s)"
        )


class Observer:
    """Follows etcd, and notes when a release is there, and when each host has reached it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.released: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.reached: dict[str, dict[str, float]] = {}
        self.alive: set[str] = set()
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Follow, without end."""
        async with asyncio.TaskGroup() as group:
            for prefix in (keys.ROLLOUT, keys.STATUSES, keys.ALIVE):
                group.create_task(self._follow(prefix))

    async def _follow(self, prefix: str) -> None:
        async with aclosing(self._store.follow(prefix)) as following:
            async for changes in following:
                now = time.monotonic()
                for event in changes.events:
                    self._take(prefix, event.key, event.pair.value if event.pair else None, now)
                self.news.set()

    def _take(self, prefix: str, key: str, value: bytes | None, now: float) -> None:
        if prefix == keys.ALIVE:
            (self.alive.discard if value is None else self.alive.add)(keys.last(key))
        elif value is None:
            return
        elif prefix == keys.ROLLOUT:
            rollout = records.decode(Rollout, value)
            self.released.setdefault(rollout.release, now)
            if rollout.state == RolloutState.DONE:
                self.done.setdefault(rollout.release, now)
            assert rollout.state != RolloutState.STOPPED, rollout
        else:
            status = records.decode(HostStatus, value)
            if status.reached:
                self.reached.setdefault(status.release, {}).setdefault(keys.last(key), now)

    async def until(self, condition: Any) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(_SECONDS):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Tree:
    """The repository of a fleet."""

    def __init__(self, folder: Path, hosts: Sequence[str], sandboxes: int) -> None:
        self.folder, self._hosts, self._sandboxes = folder, hosts, sandboxes
        self._git("init", "--quiet")
        self._edition = 0

    def _git(self, *words: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *_GIT, *words], check=True, capture_output=True)

    def change(self, hosts: Sequence[str], sandboxes: int) -> None:
        """Write new manifests of the first sandboxes of hosts, and commit them."""
        self._edition += 1
        for host in hosts:
            (self.folder / host).mkdir(exist_ok=True)
            for number in range(sandboxes):
                name = f"{host}-{number}"
                (self.folder / host / f"{name}.yaml").write_text(_manifest(name, self._edition))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "a change")


def _manifest(name: str, edition: int) -> str:
    """Return a manifest of 2.5 KB with 36 routes."""
    head = f"apiVersion: reconciler/v1\nsandbox: {name}\ndriver: {{netns: {{name: {name}}}}}\nroutes:\n"
    route = "  - {{dest: 10.{}.{}.0/24, gateway: 192.0.2.{}, device: eth0, metric: {}}}\n"
    return head + "".join(route.format(edition % 250, n, n + 1, 1000 + n) for n in range(36))


class Used(NamedTuple):
    """What processes took since they were started: seconds of processors, MiB of memory now, and at most."""

    processor: float
    memory: float
    most: float


def _used(pids: Sequence[int]) -> list[Used]:
    found = []
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory, most = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        found.append(Used((int(fields[11]) + int(fields[12])) / _TICK, memory, most))
    return found


def _busy() -> list[float]:
    """Return what each processor of this machine has worked, in seconds."""
    lines = [each.split() for each in Path("/proc/stat").read_text().splitlines() if re.match(r"cpu\d", each)]
    # user, nice, system, irq, softirq and steal; neither idle nor iowait
    return [sum(int(fields[at]) for at in (1, 2, 3, 6, 7, 8)) / _TICK for fields in lines]


class Processes:
    """The processes of a fleet, by what they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: dict[str, list[subprocess.Popen[bytes]]] = {"gate": [], "hosts": []}
        self.others: dict[str, list[int]] = {}

    def start(self, kind: str, *words: str) -> Path:
        """Start one; return the file of its log."""
        log = self._folder / f"{kind}-{len(self.running[kind])}.log"
        with log.open("wb") as file:
            # It ends with this process, however that ends.
            command = ["setpriv", "--pdeathsig", "KILL", *words]
            self.running[kind].append(subprocess.Popen(command, stdout=file, stderr=file))
        return log

    @contextmanager
    def sharing(self) -> Iterator[list[str]]:
        """Fill a list with what each kind has taken of the processors during the block, and the command in it."""
        shares: list[str] = []
        before, own, begin, busy = self._processors(), os.times(), time.monotonic(), sum(_busy())
        yield shares
        took, now, after = time.monotonic() - begin, os.times(), self._processors()
        seconds = {kind: after[kind] - before[kind] for kind in after}
        seconds["command"] = now.children_user + now.children_system - own.children_user - own.children_system
        seconds["all else"] = sum(_busy()) - busy - sum(seconds.values())
        shares += [
            f"seconds of {len(_busy())} processors, of {took:.0f} each:",
            *(f"{kind} {each:.1f}" for kind, each in seconds.items()),
        ]

    def _processors(self) -> dict[str, float]:
        return {kind: sum(each.processor for each in found) for kind, found in self.used().items()}

    def used(self) -> dict[str, list[Used]]:
        """Return what each process has taken, by its kind."""
        pids = {kind: [each.pid for each in found] for kind, found in self.running.items()}
        return {kind: _used(each) for kind, each in {**pids, **self.others}.items()}

    def end(self) -> None:
        """End all of them."""
        for found in self.running.values():
            for each in found:
                each.kill()
                each.wait()


def _port(log: Path) -> int:
    """Return the port of a gate, as soon as its log has it."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            with suppress(ValueError):
                if (said := json.loads(line)).get("event") == "serving":
                    return int(said["port"])
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


class Bench:
    """A fleet of a size."""

    def __init__(self, tree: Tree, observer: Observer, processes: Processes, hosts: Sequence[str]) -> None:
        self._tree, self._observer, self._processes, self._hosts = tree, observer, processes, hosts

    async def _publish(self, *words: str) -> tuple[str, float]:
        """Make a release; return its name, and what that took."""
        begin = time.monotonic()
        command = [*RECONCILER, "fleet", *words, "--allow-delete", "all"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        assert process.returncode == 0, said
        return said.decode().split()[1].rstrip(":"), time.monotonic() - begin

    async def _roll_out(self, name: str, hosts: Sequence[str], *words: str) -> tuple[str, Times]:
        """Make a release that changes hosts, wait until all of them have reached it, and print what that took."""
        # A host reports at most every so often, and has reported what was before.
        await asyncio.sleep(INTERVAL)
        observer = self._observer
        with self._processes.sharing() as shares:
            release, took = await self._publish(*words)
            await observer.until(lambda: release in observer.done)
            await observer.until(lambda: len(observer.reached.get(release, {})) == len(hosts))
        begin, reached = observer.released[release], observer.reached[release]
        times = Times(took, [each - begin for each in reached.values()], observer.done[release] - begin)
        print(f"{name:26}{times}\n    {' '.join(shares)}", flush=True)
        return release, times

    async def run(self, sandboxes: int) -> None:
        """Measure all."""
        observer, hosts, tree = self._observer, self._hosts, self._tree
        begin = time.monotonic()
        await observer.until(lambda: len(observer.alive) == len(hosts))
        print(f"all hosts connected after {time.monotonic() - begin:.1f} s", flush=True)
        push = ("push", str(tree.folder))
        tree.change(hosts, sandboxes)
        await self._roll_out("every manifest of each", hosts, *push, *_ALL_AT_ONCE)
        for number in range(_ONES):
            tree.change(hosts[number : number + 1], 1)
            before, _ = await self._roll_out("one manifest of one host", hosts[number : number + 1], *push)
        tree.change(hosts, 1)
        await self._roll_out("one of each, at once", hosts, *push, *_ALL_AT_ONCE)
        await self._roll_out("one of each, in waves", hosts, "rollback", before)
        await self._status()
        for kind, found in self._processes.used().items():
            words = ", ".join(f"{each.memory:.0f} (at most {each.most:.0f})" for each in found)
            print(f"memory of {kind}, MiB: {words}", flush=True)

    async def _status(self) -> None:
        took = []
        for _ in range(_STATUSES):
            begin = time.monotonic()
            process = await asyncio.create_subprocess_exec(*RECONCILER, "fleet", "status", stdout=subprocess.PIPE)
            said, _ = await process.communicate()
            took.append(time.monotonic() - begin)
            assert process.returncode == 0, said
        print(f"fleet status              p50 {statistics.median(took):6.2f} s   worst {max(took):6.2f} s", flush=True)


@asynccontextmanager
async def _observing(cluster: Cluster) -> AsyncIterator[tuple[Store, Observer]]:
    store = cluster.store()
    observer = Observer(store)
    following = asyncio.ensure_future(observer.run())
    try:
        yield store, observer
    finally:
        following.cancel()
        await asyncio.wait({following})
        await store.close()


async def _measure(cluster: Cluster, folder: Path, count: int, sandboxes: int) -> None:
    names = [f"host-{number}" for number in range(count)]
    certificates, processes = Certificates(folder / "ca"), Processes(folder)
    processes.others["etcd"] = [each.process.pid for each in cluster.members if each.process]
    (folder / "tree").mkdir()
    made = {each: certificates.host(each) for each in names}
    async with _observing(cluster) as (store, observer):
        try:
            puts = [Put(keys.host(each), records.encode(HostRecord(made[each].fingerprint))) for each in names]
            for start in range(0, len(puts), 100):
                await store.commit(puts[start : start + 100])
            gate = certificates.gate()
            files = ("--cert", gate.certificate, "--key", gate.key, "--ca", certificates.authority)
            serve = (*RECONCILER, "fleet", "serve", "--log", "json", "--listen", "127.0.0.1:0", *files)
            ports = ",".join(str(_port(processes.start("gate", *serve))) for _ in range(_GATES))
            play = (sys.executable, "-m", "tests.fleet.simulated", certificates.authority, str(folder / "ca" / "hosts"))
            for number in range(_PLAYERS):
                processes.start("hosts", *play, ports, *names[number::_PLAYERS])
            await Bench(Tree(folder / "tree", names, sandboxes), observer, processes, names).run(sandboxes)
        finally:
            processes.end()


def main() -> None:
    """Measure each size, and print each figure as soon as it is known."""
    found = program()
    assert found, "needs etcd: `make setup` gets it"
    steps = [int(each) for each in sys.argv[1].split(",")] if len(sys.argv) > 1 else _STEPS
    sandboxes = int(sys.argv[2]) if len(sys.argv) > 2 else _SANDBOXES
    for count in steps:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "etcd").mkdir()
            cluster = Cluster(found, folder / "etcd")
            try:
                cluster.start()
                certificate, key = map(str, cluster.client)
                os.environ |= {"ETCDCTL_ENDPOINTS": ",".join(cluster.urls), "ETCDCTL_CERT": certificate}
                os.environ |= {"ETCDCTL_CACERT": str(cluster.authority.file), "ETCDCTL_KEY": key}
                print(f"\n{count:,} hosts with {sandboxes} sandboxes each", flush=True)
                asyncio.run(_measure(cluster, folder, count, sandboxes))
            finally:
                cluster.end()


if __name__ == "__main__":
    main()

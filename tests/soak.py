"""`make soak`: a watch for a long time, with edits, drift, kills, and thousands of namespaces that come and go.

    python -m tests.soak [MINUTES]

Ends with 0 if every sandbox is as its manifest says in the end, and the watcher holds no more than at the start.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.guest import launch
from reconciler.manifest.dump import dump
from tests.benchmarks.measure import RECONCILER
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.processes import of_machines
from tests.watch.running import OTHER, ROUTE, Kept, Running, put, reconciler, until, watching

NAMESPACES, MACHINES = 40, 2
# Those that come and go: at a time, and in all.
BATCH, COMING = 100, 10_000
# The watcher is killed in the first third only: what it may leak has to have time to show.
KILLS = 6
# What the watcher may hold more at the end than it held when it had settled.
MORE_DESCRIPTORS, MORE_THREADS, MORE_MEMORY = 8, 4, 24 << 20
SETTLE = 120.0
# Seconds that one route is fought over.
FIGHT = 600.0


class Sandbox:
    """A sandbox with a NIC, routes that change, and in machines a few IPVS rules."""

    def __init__(self, kernel: Kernel, folder: Path, number: int, machine: str = "") -> None:
        self.machine, self.device = machine, kernel.tap()
        self.name = machine or kernel.namespace()
        self.file = folder / f"{self.name}.yaml"
        self._hw_addr = f"02:00:00:00:00:{number:02x}"
        self._some = list(range(20))
        ip("link", "set", self.device, "up")
        if machine:
            self.start()
        self.edit()

    def start(self) -> None:
        self.guest = Guest(launch.start(self.machine, memory=256))

    def edit(self) -> None:
        """Write another manifest, which does not change so much that it is refused."""
        others = [each for each in range(200) if each not in self._some]
        some = self._some = [*random.sample(self._some, 15), *random.sample(others, 5)]
        nic = {"name": "eth0", "device": self.device, "hwAddr": self._hw_addr, "mtu": random.choice((1400, 1500))}
        data: dict[str, Any] = {
            "apiVersion": "reconciler/v1",
            "sandbox": self.name,
            "driver": {"vm" if self.machine else "netns": {"name": self.name}},
            "interfaces": [nic | {"addresses": ["10.0.0.2/16", f"10.1.{random.choice(some)}.1/24"]}],
            "routes": [{"dest": f"10.8.{each}.0/24", "gateway": "10.0.0.1", "device": "eth0"} for each in some],
        }
        if self.machine:
            rules = (f"-A -t 10.9.{each}.1:80 -s rr\n-a -t 10.9.{each}.1:80 -r 10.0.0.9:80 -m -w 1\n" for each in some)
            data["ipvs"] = {"rules": "".join(rules)}
        put(self.file, dump([data]))

    def drift(self) -> None:
        """Do something behind the back of the watch; it may come too late, or too early."""
        changes = [
            "ip route flush proto 200",
            "ip route add 10.77.0.0/16 dev lo proto 200",
            "ip link set eth0 down",
            "ip addr flush dev eth0",
            "ip link set eth0 mtu 1300",
            "ip route flush 10.8.0.0/17",
            *(["ipvsadm -C", "ipvsadm -d -t 10.9.1.1:80 -r 10.0.0.9:80"] if self.machine else []),
        ]
        change = random.choice(changes)
        if self.machine:
            try:
                self.guest.run("sh", "-c", change)
            except ReconcilerError as error:
                print(f"    {self.name}: {error}")
        else:
            run_ip(self.name, *change.split()[1:])

    def kill(self) -> None:
        """End the machine as a crash does, and start it again."""
        pid = self.guest.sandbox.pid()
        if pid:
            os.kill(pid, 9)
        self.start()


class Coming:
    """Namespaces that come and go, with their manifests."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.count = folder, 0
        self._now: list[str] = []

    def step(self) -> None:
        """Let those that are there go, and the next ones come."""
        for name in self._now:
            (self._folder / f"{name}.yaml").unlink()
        batch("delete", self._now)
        self._now = []
        if self.count < COMING:
            self._now = [f"soak{os.getpid()}x{self.count + number}" for number in range(BATCH)]
            self.count += BATCH
            batch("add", self._now)
            for name in self._now:
                data = {"apiVersion": "reconciler/v1", "sandbox": name, "driver": {"netns": {"name": name}}}
                put(
                    self._folder / f"{name}.yaml",
                    dump([data | {"routes": [{"dest": "10.5.0.0/16", "type": "blackhole"}]}]),
                )

    def end(self) -> None:
        self.count = COMING
        self.step()


def batch(word: str, names: list[str]) -> None:
    for name in names:
        ip("netns", word, name)


def held(running: Running) -> tuple[int, int, int]:
    """Give the watcher's descriptors, threads and bytes of memory, with those of the process of its machines."""
    folders = [Path(f"/proc/{each}") for each in (running.process.pid, *of_machines(running.process.pid))]
    pages = sum(int((each / "statm").read_text().split()[1]) for each in folders)
    descriptors, threads = (sum(len(list((each / name).iterdir())) for each in folders) for name in ("fd", "task"))
    return descriptors, threads, pages * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    seconds = float(sys.argv[1] if sys.argv[1:] else 20) * 60
    kernel = Kernel()
    with ExitStack() as stack:
        stack.callback(kernel.remove)
        above = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = above / "manifests"
        folder.mkdir()
        sandboxes = [Sandbox(kernel, folder, number) for number in range(NAMESPACES)]
        for number in range(MACHINES):
            name = f"soak-{os.getpid()}-{number}"
            stack.callback(launch.stop, name)
            sandboxes.append(Sandbox(kernel, folder, 128 + number, name))
        coming = Coming(folder)
        stack.callback(coming.end)
        return int(not (run(seconds, sandboxes, coming, folder) and fight(kernel, above / "fight", FIGHT)))


def run(seconds: float, sandboxes: list[Sandbox], coming: Coming, folder: Path) -> bool:
    """Disturb all; tell whether all is well in the end, and nothing has grown."""
    begin = time.monotonic()
    for kill in range(KILLS):
        with watching(folder) as running:
            disturb(sandboxes, coming, begin + seconds / 3 * (kill + 1) / KILLS)
            running.kill()
            print(f"{time.monotonic() - begin:5.0f} s: watcher killed", flush=True)
    with watching(folder) as running:
        early: tuple[int, int, int] | None = None
        while time.monotonic() < begin + seconds or coming.count < COMING:
            disturb(sandboxes, coming, time.monotonic() + 60)
            now = held(running)
            if early is None and time.monotonic() > begin + seconds / 3 + SETTLE:
                early = now
            words = f"{now[0]} descriptors, {now[1]} threads, {now[2] >> 20} MiB"
            print(f"{time.monotonic() - begin:5.0f} s: {coming.count:,} have come, {words}", flush=True)
        coming.end()
        # So much drift looks like fights, which would be waited for.
        running.signal(signal.SIGHUP)
        names = [each.name for each in sandboxes]
        until(lambda: set(running.status().sandboxes) == set(names), "those that came have gone", seconds=60)
        until(lambda: is_well(running, names), "all converged", seconds=200)
        # Threads of those that went end with the next tick.
        time.sleep(5)
        late = held(running)
    drifted = [each.name for each in sandboxes if reconciler("diff", str(each.file)).returncode]
    print(f"not as their manifests say: {', '.join(drifted) or 'none'}")
    assert early
    growth = [after - before for before, after in zip(early, late, strict=True)]
    print(f"more than early: {growth[0]} descriptors, {growth[1]} threads, {growth[2] / (1 << 20):.1f} MiB")
    grown = any(each > most for each, most in zip(growth, (MORE_DESCRIPTORS, MORE_THREADS, MORE_MEMORY), strict=True))
    return not drifted and not grown


def fight(kernel: Kernel, folder: Path, seconds: float) -> bool:
    """Delete one route every 100 ms.

    Return whether it was repaired ten times at most, all else at once, and it afterwards.
    """
    kept = Kept(kernel, folder, 0)
    kept.write(routes=[ROUTE, OTHER])
    others: list[float] = []
    with watching(folder) as running:
        running.await_state("converged", kept.name)
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            run_ip(kept.name, "route", "del", "10.8.0.0/16")
            # Once a minute another object as well: that is no fight.
            if time.monotonic() - begin > 60 * len(others) + 30:
                run_ip(kept.name, "route", "del", "10.9.0.0/16")
                at = time.monotonic()
                until(lambda: kept.has("10.9.0.0/16"), "the other route")
                others.append(time.monotonic() - at)
            time.sleep(0.1)
        state = running.status().sandboxes[kept.name]
        repairs = sum("10.8.0.0/16" in each["first"] for each in running.events("repaired"))
        at = time.monotonic()
        until(kept.has, "the route after the fight", seconds=130)
        recovered = time.monotonic() - at
    print(f"fight of {seconds:.0f} s: {repairs} repairs; {state['state']}: {state['detail']}")
    print(
        f"the other route was back after {max(others) * 1000:.0f} ms at most, "
        f"this one {recovered:.0f} s after the fight"
    )
    return repairs <= 10 and state["state"] == "fighting"


def run_ip(name: str, *words: str) -> None:
    """Run `ip`, which may find that there is nothing to do."""
    subprocess.run(["ip", "-n", name, *words], capture_output=True, check=False)


def is_well(running: Running, names: list[str]) -> bool:
    found = running.status().sandboxes
    return all(found[name]["state"] == "converged" for name in names)


def disturb(sandboxes: list[Sandbox], coming: Coming, until_: float) -> None:
    """Do this and that until a moment."""
    while time.monotonic() < until_:
        each = random.choice(sandboxes)
        what = random.random()
        if what < 0.3:
            each.edit()
        elif what < 0.9:
            each.drift()
        elif what < 0.92 and each.machine:
            each.kill()
        elif what > 0.97:
            coming.step()
        time.sleep(0.1)


if __name__ == "__main__":
    print(
        f"{' '.join(RECONCILER)} watch, {NAMESPACES} namespaces, {MACHINES} machines, {COMING:,} more that come and go"
    )
    sys.exit(main())

"""What a watch of good namespaces costs beside hostile machines: its repairs, its memory and its log."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.netlink.engine import Engine
from tests.benchmarks.measure import Figure
from tests.benchmarks.watch import Watch, await_, watch
from tests.conftest import Kernel, ip

GOOD, ROUNDS = 20, 25
# Seconds between two changes, and for one repair.
_PACE, _DEADLINE = 0.1, 30.0
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{netns: {{name: {name}}}}}
interfaces:
  - {{name: eth0, device: {device}, hwAddr: "02:00:00:00:00:{number:02x}", mtu: 1400, addresses: [10.1.0.2/16]}}
routes:
"""


class Cost(NamedTuple):
    """Seconds of each repair, in order; bytes of memory at most, and of the log for each minute."""

    repairs: list[float]
    memory: int
    log: float

    @property
    def p99(self) -> float:
        return self.repairs[int(len(self.repairs) * 0.99)]

    def __str__(self) -> str:
        median = self.repairs[len(self.repairs) // 2]
        return (
            f"p50 {median * 1000:.0f} ms, p99 {self.p99 * 1000:.0f} ms, {self.memory >> 20} MiB, "
            f"log {self.log / 1e6:.2f} MB a minute"
        )


@contextmanager
def hostile_machines(manifests: Path) -> Iterator[list[str]]:
    """Run a machine of each hostile kind; their manifests are in a folder as well. Yield their names."""
    with tempfile.TemporaryDirectory(prefix="hostile-", dir="/run") as folder:
        (Path(folder) / "manifests").symlink_to(manifests)
        words = [sys.executable, "-m", "tests.watch.hostile", folder]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                yield process.stdout.readline().split()
            finally:
                process.kill()


def good(kernel: Kernel, folder: Path, rounds: int) -> list[str]:
    """Make good namespaces, each with so many routes."""
    names = []
    for number in range(GOOD):
        name, device = kernel.namespace(), kernel.tap()
        routes = "".join(f"  - {{dest: 10.8.{each}.0/24, gateway: 10.1.0.1, device: eth0}}\n" for each in range(rounds))
        (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name, device=device, number=number) + routes)
        names.append(name)
    return names


def await_good(watcher: Watch, names: list[str]) -> None:
    """Wait until all good namespaces are as their manifests say."""
    await_(lambda: set(names) <= {each["sandbox"] for each in watcher.events("converged")})


def cost(watcher: Watch, names: list[str], rounds: int) -> Cost:
    """Delete each route of each namespace once, and time until it is there again."""
    times, memory = [], 0
    begin, size = time.monotonic(), watcher.log.stat().st_size
    for number in range(rounds):
        for name in names:
            times.append(_repair(name, f"10.8.{number}.0/24"))
            memory = max(memory, watcher.resident())
            time.sleep(_PACE)
    log = (watcher.log.stat().st_size - size) / (time.monotonic() - begin) * 60
    return Cost(sorted(times), memory, log)


def _repair(name: str, dest: str) -> float:
    """Delete a route; return the seconds until it is there again."""
    with open(f"/run/netns/{name}", "rb") as file:
        channel = LocalKernel(file.fileno()).open(ROUTE)
    try:
        engine = Engine(channel)
        index = next(link.index for link in engine.links() if link.name == "eth0")
        ip("route", "del", dest, namespace=name)
        begin = time.monotonic()
        while not any(each.dest == dest for each in engine.routes({"eth0": index}, ()).ours):
            if time.monotonic() > begin + _DEADLINE:
                raise RuntimeError(f"{dest} of {name} is not repaired in {_DEADLINE:.0f} s")
            time.sleep(0.001)
        return time.monotonic() - begin
    finally:
        channel.close()


def compared(kernel: Kernel, folder: Path, rounds: int) -> tuple[Cost, Cost]:
    """Return the cost without hostile machines, and beside one of each kind."""
    folder.mkdir(exist_ok=True)
    names = good(kernel, folder, 2 * rounds)
    with watch(folder) as watcher:
        await_good(watcher, names)
        alone = cost(watcher, names, rounds)
    with hostile_machines(folder) as hostile, watch(folder) as watcher:
        await_good(watcher, names)
        print(f"beside {len(hostile)} machines: {', '.join(hostile)}")
        beside = cost(watcher, names, rounds)
        # It would wait 30 s for the machines that answer nothing.
        watcher.process.kill()
    print(f"{GOOD} namespaces alone: {alone}\n{GOOD} namespaces beside hostile machines: {beside}")
    return alone, beside


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    alone, beside = compared(kernel, folder / "hostile", ROUNDS)
    return [
        Figure(
            name="p99 of a repair beside hostile machines, to that without",
            detail=f"{beside.p99 * 1000:.0f} ms and {alone.p99 * 1000:.0f} ms",
            ratio=beside.p99 / alone.p99,
            bar=2,
            aim=1.2,
        ),
        Figure(
            name="memory of the watch beside hostile machines, of 200 MiB",
            detail=f"{beside.memory >> 20} MiB",
            ratio=beside.memory / (200 << 20),
            bar=1,
            aim=0.5,
        ),
        Figure(
            name="log of the watch beside hostile machines, of 1 MB a minute",
            detail=f"{beside.log / 1e6:.2f} MB",
            ratio=beside.log / 1e6,
            bar=1,
            aim=0.2,
        ),
    ]

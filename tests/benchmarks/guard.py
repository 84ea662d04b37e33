"""How many active connections live through a flush of a watched machine, on a host whose cores are all busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.guest import launch
from tests.benchmarks.flush import CONNECTIONS, PATIENCE, find_pace, table
from tests.benchmarks.ipvs import HEAD
from tests.benchmarks.measure import RECONCILER, Figure, seconds
from tests.conftest import Kernel
from tests.machine import Guest
from tests.traffic.world import PACE, World, world
from tests.watch.running import watching

# The sandbox of HEAD, and what its manifest says of the guard.
SANDBOX = "bench"
GUARDS = ("services", "nft")


@contextmanager
def busy() -> Iterator[None]:
    """Have a loop on each core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def run(_: Kernel, folder: Path) -> list[Figure]:
    name = f"guard-{os.getpid()}"
    manifests = folder / "guarded"
    manifests.mkdir()
    guest = Guest(launch.start(name))
    lost = {}
    try:
        with world(guest) as clients:
            print(f"{CONNECTIONS:,} active connections, flush of 20,000 rules, a busy loop on each core:")
            for guard in GUARDS:
                manifest = manifests / "guard.yaml"
                rules = "".join(f"    {line}\n" for line in table())
                manifest.write_text(f"{HEAD.format(name=name)}  guard: {guard}\n  rules: |\n{rules}")
                lost[guard] = measure(guest, clients, manifest)
    finally:
        launch.stop(name)
    return [
        Figure(
            name="active connections lost in a flush of a guarded machine on a busy host, with nftables",
            detail=f"{lost['nft']:,} of {CONNECTIONS:,}; {lost['services']:,} without",
            ratio=lost["nft"] / CONNECTIONS,
            bar=0.005,
            aim=0,
        )
    ]


def measure(guest: Guest, clients: World, manifest: Path) -> int:
    """Return how many connections are lost."""
    seconds([*RECONCILER, "apply", str(manifest)])
    clients.begin("ack", "active", CONNECTIONS, 80, PACE)
    pace = find_pace(clients)
    with watching(manifest.parent, "--look", "1s") as running, busy():
        running.await_state("converged", SANDBOX)
        running.await_event("shield") if "guard: nft" in manifest.read_text() else time.sleep(2)
        begin = time.monotonic()
        guest.output("ipvsadm", "-C")
        running.await_event("repaired", sandbox=SANDBOX)
        taken = time.monotonic() - begin
        found = clients.prove("active", seconds=PATIENCE)
    clients.end_all()
    words = manifest.read_text().partition("guard: ")[2].split()[0]
    print(
        f"    guard: {words}: {found.answered:,} live; longest stall {found.stall:.1f} s "
        f"(repaired after {taken:.1f} s, a byte every {pace:.0f} ms)",
        flush=True,
    )
    return CONNECTIONS - found.answered

"""What a flush need not cost: connections that wait for the next apply."""

from __future__ import annotations

from typing import Any

from tests.ipvs.place import MachineTable
from tests.ipvs.rules import rules
from tests.traffic.world import PORT, S1, S2, SERVERS6, VIP, VIP6, World

# Among others, in the middle of a few hundred rules.
OURS = [
    f"-A -t {VIP}:80 -s rr",
    *(f"-a -t {VIP}:80 -r {each}:{PORT} -m -w 1" for each in (S1, S2)),
    f"-A -t [{VIP6}]:80 -s rr",
    *(f"-a -t [{VIP6}]:80 -r [{each}]:{PORT} -m -w 1" for each in SERVERS6),
]
STAYS = ["-A -t 10.99.0.1:80 -s rr", "-A -t [fd99::1]:80 -s rr"]
LINES = [*rules(80), *OURS, *rules(80, first=80), *STAYS]
COUNT = 50


def begin(director: MachineTable, clients: World) -> dict[str, Any]:
    manifest = {"rules": "\n".join(LINES)}
    director.apply(**manifest)
    clients.connect("active", COUNT, 80)
    clients.connect("idle", COUNT, 80, pace=0)
    clients.connect("active6", 5, 80, vip=VIP6)
    clients.connect("idle6", 5, 80, vip=VIP6, pace=0)
    return manifest


def test_all_connections_live_through_a_flush_from_which_one_service_of_the_family_is_left(
    director: MachineTable, clients: World
) -> None:
    manifest = begin(director, clients)
    left = {line.split()[2] for line in STAYS}
    gone = [line.split()[2] for line in LINES if line.startswith("-A") and line.split()[2] not in left]
    director.load("".join(f"-D -t {key}\n" for key in gone))
    assert len(director.saved()) == len(STAYS)
    director.apply(**manifest)
    for group in ("active", "idle", "active6", "idle6"):
        assert clients.prove(group).alive, group


def test_idle_connections_live_through_a_full_flush(director: MachineTable, clients: World) -> None:
    """Active ones that send before the first service is back get a reset from the director itself."""
    manifest = begin(director, clients)
    director.clear()
    director.apply(**manifest)
    for group in ("idle", "idle6"):
        assert clients.prove(group).alive, group
    # Whoever was reset connects again.
    clients.reset("active")
    assert clients.connect("again", COUNT, 80).alive

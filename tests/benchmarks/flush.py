"""How many connections live through a flush of 20,000 rules and the apply after it, and how long they stand still."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.guest import launch
from reconciler.model.ipvs import Service
from reconciler.netlink import ipvs
from reconciler.operations.ipvs import AddService, DeleteService
from tests.benchmarks.ipvs import HEAD, rules
from tests.benchmarks.measure import RECONCILER, Figure, seconds
from tests.conftest import Kernel
from tests.machine import Guest
from tests.traffic.world import PACE, PORT, SERVERS, VIP, Fared, World, world

# So many connections that are silent, and that send.
CONNECTIONS = 1_000
# Seconds to look at how often they really send, and until those that live have answered.
LOOK, PATIENCE = 3, 120
# nlmsghdr and genlmsghdr of what `ipvsadm -C` sends: NLM_F_REQUEST, IPVS_CMD_FLUSH, version 1.
FLUSH = struct.pack("=IHHIIBBxx", 20, 0, 1, 0, 0, 17, 1)
# Takes rules away, puts one service back if it is told after how many seconds, and times when there is one.
FLUSHER = """
import os, sys, time
from reconciler.guest import agent

def load(name):
    data, family, at, found = open(name, "rb").read(), agent.find_ipvs().to_bytes(2, "little"), 0, []
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "little")
        found.append(data[at:at + 4] + family + data[at + 6:at + size])
        at += size
    return [b"".join(found[i:i + 500]) for i in range(0, len(found), 500)]

gone, (first,), channel = load("/tmp/gone"), load("/tmp/first"), agent.open_netlink(agent.GENERIC)
if gone:
    for batch in gone:
        channel.send(batch)
else:
    os.waitpid(os.posix_spawnp("ipvsadm", ["ipvsadm", "-C"], os.environ), 0)
begin = time.monotonic()
took = 0.0
if sys.argv[1:]:
    time.sleep(max(0.0, begin + float(sys.argv[1]) - time.monotonic()))
    channel.send(first)
    took = time.monotonic() - begin
if os.fork():
    os._exit(0)
os.setsid()
for descriptor in (0, 1, 2):
    os.close(descriptor)
# A read of this file never gives more than a page.
while open("/proc/net/ip_vs", "rb", 0).read(512).count(b"\\n") < 4:
    time.sleep(0.001)
with open("/tmp/took", "w") as file:
    file.write(str(took or time.monotonic() - begin))
"""


class Case(NamedTuple):
    """What is done: `first`: seconds until a service is back, by whoever notices; None: when `apply` comes to it."""

    nodest: int
    first: float | None = None
    stays: bool = False


CASES = (
    *(Case(0, first) for first in (0.0, 0.03, 0.1, None)),
    Case(0, stays=True),
    Case(1, None),
    Case(1, stays=True),
)


class Found(NamedTuple):
    """How the connections fared: seconds to the first service and of the apply, milliseconds between two bytes."""

    idle: Fared
    active: Fared
    first: float
    taken: float
    pace: float

    def lost(self, case: Case) -> int:
        """Count those that need not have been lost: the kernel keeps them, whatever packets come meanwhile."""
        groups = () if case.nodest else (self.idle, self.active) if case.stays else (self.idle,)
        return sum(group.calls - group.answered for group in groups)

    def words(self, case: Case) -> str:
        what = "one service stayed" if case.stays else f"{self.first * 1000:.0f} ms to the first service"
        by = ", by apply" if case.first is None and not case.stays else ""
        stall = f"; longest stall {self.active.stall:.1f} s" if self.active.answered else ""
        return (
            f"expire_nodest_conn {case.nodest}, {what}{by}: {self.idle.answered:,} idle and {self.active.answered:,} "
            f"active live{stall} (apply {self.taken:.1f} s, a byte every {self.pace:.0f} ms)"
        )


def table() -> list[str]:
    """Give 20,000 rules, those of the connections in the middle."""
    lines = list(rules())
    middle = len(lines) // 8 * 4
    servers = [f"-a -t {VIP}:80 -r {server}:{PORT + 1} -m -w 1" for server in SERVERS]
    lines[middle : middle + 4] = [f"-A -t {VIP}:80 -s rr", *servers]
    return lines


def write(guest: Guest, name: str, messages: Iterable[bytes]) -> None:
    guest.run("dd", f"of=/tmp/{name}", "bs=64k", stdin=b"".join(messages))


def run(_: Kernel, folder: Path) -> list[Figure]:
    name = f"flush-{os.getpid()}"
    lines = table()
    manifest = folder / "flush.yaml"
    manifest.write_text(f"{HEAD.format(name=name)}  rules: |\n" + "".join(f"    {line}\n" for line in lines))
    services = list(parse_rules("\n".join(lines), lambda *_: None))
    guest = Guest(launch.start(name))
    lost = safe = 0
    try:
        with world(guest) as clients:
            print(f"{CONNECTIONS:,} idle and {CONNECTIONS:,} active connections, flush of {len(lines):,} rules, apply:")
            for case in CASES:
                found = measure(guest, clients, case, manifest, services)
                print(f"    {found.words(case)}", flush=True)
                lost += found.lost(case)
                safe += 0 if case.nodest else CONNECTIONS * (1 + case.stays)
    finally:
        launch.stop(name)
    return [
        Figure(
            name="lost in a flush, of idle connections and of those that have a service of their family left",
            detail=f"{lost:,} of {safe:,}, with expire_nodest_conn 0",
            ratio=lost / safe,
            bar=0,
            aim=0,
        )
    ]


def measure(guest: Guest, clients: World, case: Case, manifest: Path, services: list[Service]) -> Found:
    apply = [*RECONCILER, "apply", str(manifest)]
    seconds(apply)
    begun = [clients.begin("ack", group, CONNECTIONS, 80, pace) for group, pace in (("idle", 0), ("active", PACE))]
    if not all(fared.alive for fared in begun):
        raise RuntimeError(f"not all connections could be made: {begun}")
    pace = find_pace(clients)
    write(guest, "first", [ipvs.encode(AddService(service=services[0]), 0, 0)])
    if case.stays:
        write(guest, "gone", (ipvs.encode(DeleteService(service=each), 0, 0) for each in services[1:]))
    else:
        write(guest, "gone", [FLUSH] if case.first is not None else [])
    guest.output("sysctl", "-qw", f"net.ipv4.vs.expire_nodest_conn={case.nodest}")
    words = [] if case.first is None else [str(case.first)]
    ran = guest.run("python3.11", "-I", "-S", "-", *words, stdin=FLUSHER.encode())
    if ran.status or ran.stderr:
        raise RuntimeError(f"the rules could not be taken away: {ran}")
    taken = seconds(apply)
    idle, active = (clients.prove(group, seconds=PATIENCE) for group in ("idle", "active"))
    first = float(guest.output("cat", "/tmp/took"))
    guest.output("sysctl", "-qw", "net.ipv4.vs.expire_nodest_conn=0")
    clients.end_all()
    return Found(idle, active, first, taken, pace)


def find_pace(clients: World) -> float:
    """Give the milliseconds between two bytes of a connection: a guest may not have the speed for what it is asked."""
    before, begin = clients.look("active"), time.monotonic()
    time.sleep(LOOK)
    after, end = clients.look("active"), time.monotonic()
    return (end - begin) * 1000 * CONNECTIONS / (after.sent - before.sent)

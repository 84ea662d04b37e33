"""Under every scheduler: while a server drains, no new connection is refused, and no old one is lost.

Clients of many addresses connect all the time, as mh, sh and dh choose a server by the client's or the service's. What
the real ipvsadm lists is compared with the manifest at the end: what is on for the time of a drain must be off again.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest

from reconciler.model.ipvs import SCHEDULERS
from tests.ipvs.place import MachineTable
from tests.resumed import USUAL
from tests.traffic.process import kill_at, waiting
from tests.traffic.world import (
    FOLDER,
    PATIENCE,
    PORT,
    RENEWAL,
    S1,
    S2,
    S3,
    SERVERS6,
    SOURCES,
    SOURCES6,
    VIP,
    VIP6,
    World,
    server,
)

# 6.1 does not have it.
THERE = [each for each in SCHEDULERS if USUAL.kernel != "6.1" or each != "twos"]
# With their own flags they need no help, and with sh-port a client is at another server with each connection.
FLAGGED = [("mh", ("mh-port",)), ("sh", ("sh-fallback", "sh-port"))]
LONG, CLIENTS, OLD = 600, 4, 3
# Milliseconds between two bytes of an old connection: an echo takes a guest a millisecond, and there are a hundred.
OLD_PACE = 3000
# Below a third of all servers drain at once; more would have to be allowed.
REST = {"tcp": f"{VIP}:99", "servers": [server(f"10.71.0.{number}") for number in range(100, 140)]}


class Case(NamedTuple):
    """A service with a scheduler, at a port of its own."""

    port: int
    scheduler: str
    flags: tuple[str, ...]
    vip: str = VIP
    addresses: tuple[str, ...] = (S1, S2, S3)

    @property
    def name(self) -> str:
        return f"{self.scheduler}{self.port}"

    @property
    def source(self) -> str:
        return SOURCES6 if ":" in self.vip else SOURCES

    @property
    def where(self) -> str:
        return f"[{self.vip}]:{self.port}" if ":" in self.vip else f"{self.vip}:{self.port}"

    def service(self, without: str = "", quiet: str = "") -> dict[str, Any]:
        # With equal small weights, each server has an equal share of the table of sh; ovf counts connections by them.
        weight = 1 if self.scheduler == "sh" else 100
        listed = [server(each, weight=weight * (each != quiet)) for each in self.addresses if each != without]
        flags = {"schedulerFlags": list(self.flags)} if self.flags else {}
        return {"tcp": self.where, "scheduler": self.scheduler, "servers": listed} | flags


CASES = [
    *(Case(100 + number, scheduler, ()) for number, scheduler in enumerate(THERE)),
    *(Case(130 + number, scheduler, flags) for number, (scheduler, flags) in enumerate(FLAGGED)),
    *(Case(140 + number, scheduler, (), VIP6, SERVERS6) for number, scheduler in enumerate(("mh", "sh", "dh"))),
]
CANNOT_DRAIN = {"dh"}
MH = Case(150, "mh", ("mh-port",))


def begun(director: MachineTable, clients: World, cases: list[Case]) -> dict[Case, str]:
    """Have clients at all services; give the server of each that most of its old ones are with."""
    director.apply(services=[*(case.service() for case in cases), REST], drain=LONG)
    leaving = {}
    for case in cases:
        old = clients.begin("tcp", f"old{case.name}", OLD, case.port, OLD_PACE, case.vip, case.source)
        assert old.errors == {}
        leaving[case] = max(old.spread, key=lambda address: old.spread[address])
        assert clients.renew(f"new{case.name}", CLIENTS, case.port, case.source, case.vip).errors == {}
    return leaving


def manifest(director: MachineTable, leaving: dict[Case, str], **more: Any) -> str:
    services = [*(case.service(address) for case, address in leaving.items()), REST]
    return director.manifest(services=services, **({"drain": LONG} | more))


def refused(clients: World, cases: dict[Case, str], seconds: float, *, left: bool) -> dict[str, Any]:
    """Tell which new connections of some seconds failed; and, if servers have been left, who still gets new ones."""
    time.sleep(seconds)
    found: dict[str, Any] = {}
    for case, address in cases.items():
        tried, begin = clients.tried(f"new{case.name}"), time.monotonic()
        while not tried.servers and not tried.errors:
            # A slow guest has not tried yet.
            assert time.monotonic() < begin + PATIENCE, case
            time.sleep(RENEWAL / 1000)
            tried = clients.tried(f"new{case.name}")
        if tried.errors:
            found[case.name] = tried.errors
        if left and address in tried.servers:
            found[case.name] = tried.servers
    return found


def ours(director: MachineTable) -> list[str]:
    return sorted(line for line in director.saved() if ":99 " not in line)


def test_nobody_is_refused_while_a_server_drains(director: MachineTable, clients: World) -> None:
    leaving = begun(director, clients, CASES)
    path = manifest(director, leaving)
    drains = {case: address for case, address in leaving.items() if case.scheduler not in CANNOT_DRAIN}
    with waiting(path) as apply:
        assert refused(clients, leaving, 1.5, left=False) == {}
        assert refused(clients, leaving, 2.0, left=True) == {}
        apply.kill()
    ran = director.reconciler("diff", path)
    assert (ran.status, f"{len(drains)} IPVS servers still draining" in ran.stdout) == (0, True), ran
    for case in drains:
        assert clients.prove(f"old{case.name}").alive, case
    with waiting(path) as apply:
        for case in drains:
            clients.reset(f"old{case.name}")
        apply.ends_well()
    # Who connected at the moment in which a server went that cannot drain gets no answer.
    assert refused(clients, drains, 1.5, left=True) == {}
    assert "in sync" in director.reconciler("diff", path).stdout
    left = ours(director)
    director.clear()
    director.apply(services=[case.service(address) for case, address in leaving.items()])
    assert left == ours(director)


@pytest.mark.parametrize("case", [MH, MH._replace(scheduler="sh", flags=())], ids=["mh", "sh"])
def test_killed_at_every_step_it_ends_as_the_manifest_says(director: MachineTable, clients: World, case: Case) -> None:
    director.apply(services=[case.service(S1), REST], drain=LONG)
    expected = ours(director)
    leaving = dict.fromkeys(begun(director, clients, [case]), S1)
    path = manifest(director, leaving)
    for operation in ("EditService", "DrainServer"):
        for moment in ("before", "after"):
            kill_at(moment, operation, path)
            assert refused(clients, leaving, 1.2, left=False) == {}
    clients.reset(f"old{case.name}")
    kill_at("before", "DeleteServer", path)
    # Both are one message to the kernel; somebody can come in between only like this.
    director.output("ipvsadm", "-d", "-t", case.where, "-r", f"{S1}:{PORT}")
    for moment in ("before", "after"):
        kill_at(moment, "StopFallback", path)
        assert refused(clients, leaving, 1.2, left=True) == {}
    assert director.reconciler("apply", path).status == 0
    assert ours(director) == expected


def test_who_is_refused_at_weight_0_was_warned_of(director: MachineTable, clients: World) -> None:
    # Of one kind, five warnings are shown.
    cases = [each for each in CASES if each.vip == VIP and (each.flags or each.scheduler in {"mh", "sh", "dh", "wlc"})]
    leaving = begun(director, clients, cases)
    services = [case.service(quiet=address) for case, address in leaving.items()]
    ran = director.reconciler("apply", director.manifest(services=[*services, REST]))
    assert ran.status == 0, ran
    warned = {case.name for number, case in enumerate(cases) if f"services[{number}].servers[" in ran.stderr}
    refused(clients, leaving, 1.2, left=False)
    found, begin = set(refused(clients, leaving, 2.0, left=False)), time.monotonic()
    while not found >= warned and time.monotonic() < begin + PATIENCE:
        # On a busy host, not each has tried a server of weight 0 yet.
        found |= refused(clients, leaving, 1.0, left=False).keys()
    assert found == warned


# The director is a server as well, at an address of its own and at one of lo.
_SERVE = f"""
cd {FOLDER}
python=$(command -v python3.11 || command -v python3)
$python -I -S peer.py serve {PORT} 127.0.0.1 10.70.0.1 >director.log 2>&1 </dev/null &
echo $! >>pids
tries=0
until [ "$(grep -c ' 0A ' /proc/net/tcp)" -ge 4 ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || exit 1
    sleep 0.1
done
"""


def test_what_was_warned_of_gets_no_answer_and_what_is_beside_it_does(director: MachineTable, clients: World) -> None:
    """A server at a loopback address, and answers to single packets."""
    director.shell(_SERVE)
    single = {"onePacket": True, "servers": [server(S1)]}
    expected: dict[int, tuple[dict[str, Any], str]] = {
        80: ({"servers": [server("127.0.0.1")]}, "servers[0].address"),
        81: ({"servers": [server("10.70.0.1")]}, ""),
        82: (single, "onePacket"),
        83: ({"servers": [server(S1)]}, ""),
    }
    services = [{"udp": f"{VIP}:{port}"} | fields for port, (fields, _) in expected.items()]
    ran = director.reconciler("apply", director.manifest(services=services))
    assert ran.status == 0, ran
    warned = {line.split(": ")[2] for line in ran.stderr.splitlines()}
    fields = [(f"ipvs.services[{index}].{field}", field) for index, (_, field) in enumerate(expected.values())]
    assert warned == {path for path, field in fields if field}
    for port, (_, field) in expected.items():
        clients.flow(f"flow{port}", 2, port)
        assert clients.prove(f"flow{port}", seconds=3 if field else 60).answered == 2 * (not field), port

"""What `diff` says that a change of a director cuts is what its clients then lose."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.ipvs.place import ID, MachineTable
from tests.traffic.world import S1, S2, S3, VIP, World, servers
from tests.uml import Ran
from tests.watch.running import until

COUNT, FLOWS = 50, 10
# Seconds that those have to answer whose server is gone, and how often those that live are asked again.
SILENCE, TRIES = 2, 30
# Whatever earlier tests have left: see `cost`.
CUTS = r"cuts 25 connections( \([0-9]+ more are closing\))?"


def section(web: list[str], *, closed: bool = False) -> list[dict[str, Any]]:
    """Return a service with these servers, and another one unless it is closed; and one of UDP."""
    tls = [] if closed else [{"tcp": f"{VIP}:81", "scheduler": "rr", "servers": servers(S1)}]
    web_ = {"tcp": f"{VIP}:80", "scheduler": "rr", "servers": servers(*web)}
    return [web_, *tls, {"udp": f"{VIP}:53", "scheduler": "rr", "servers": servers(S1, S3)}]


def cost(director: MachineTable, **sections: Any) -> dict[str, Any]:
    """Return what `diff` says that a manifest of these sections cuts, without connections that end by themselves.

    The kernel keeps connections of a server that was removed, and counts them once it is there again. So a server may
    have some that earlier tests have closed, for up to two minutes (FIN_WAIT and TIME_WAIT of net/netfilter/ipvs), and
    templates of persistent services that such tests had.
    """
    ran = director.reconciler("diff", "-o", "json", director.manifest(**sections))
    assert ran.status == 1, ran
    (sandbox,) = json.loads(ran.stdout)["sandboxes"]
    found: dict[str, Any] = sandbox["cuts"]
    found.pop("closing", None)
    found.pop("persistent", None)
    return found


def living(clients: World, group: str, expected: int) -> int:
    """Return how many still answer, once as many as expected have."""
    for _ in range(TRIES):
        found = clients.prove(group, seconds=SILENCE).answered
        if found >= expected:
            break
    return found


def test_servers_and_services_cost_what_is_lost(director: MachineTable, clients: World) -> None:
    director.apply(services=section([S1, S2]))
    clients.connect("web", COUNT, 80, pace=0)
    clients.connect("tls", FLOWS, 81, pace=0)
    clients.flow("dns", FLOWS, 53, pace=0)
    assert clients.prove("web", "tls", "dns").alive

    # 25 of 50 connections are at the server that goes.
    fewer = section([S1])
    assert cost(director, services=fewer) == {"connections": COUNT // 2, "least": COUNT // 2, "most": COUNT // 2}
    said = director.reconciler("diff", director.manifest(services=fewer)).stdout
    assert re.search(rf" {{6}}# {CUTS}\n", said), said
    assert re.search(r"\n1 sandbox: 0 to add, 0 to change, 1 to delete; cuts 25 connections\. Fingerprint ", said), said
    saved = director.saved()
    refused = director.reconciler("apply", "--max-cut", "24", director.manifest(services=fewer))
    assert refused.status == 3, refused
    said = refused.stderr.splitlines()[0]
    assert re.fullmatch(rf"{ID}: refused: this plan {CUTS}, and --max-cut allows 24\.", said), said
    assert director.saved() == saved
    director.apply("--max-cut", "25", services=fewer)
    assert living(clients, "web", COUNT // 2) == COUNT // 2

    closed = section([S1], closed=True)
    assert cost(director, services=closed)["connections"] == FLOWS
    director.apply("--max-cut", str(FLOWS), services=closed)
    assert living(clients, "tls", 0) == 0

    without = closed[:-1]
    assert cost(director, services=without)["connections"] == FLOWS
    drained = cost(director, services=without, drain=60)
    assert (drained["connections"], drained["least"], drained["most"]) == (None, 0, FLOWS)
    director.apply(services=without)
    assert living(clients, "dns", 0) == 0
    assert living(clients, "web", COUNT // 2) == COUNT // 2


def test_a_route_takes_connections_of_a_director_and_its_own(director: MachineTable, clients: World) -> None:
    director.apply(services=section([S1, S2]))
    clients.connect("web", COUNT, 80, pace=0)
    assert clients.prove("web").alive
    text = director.text(services=section([S1, S2]))
    routes = f"routes:\n  - {{dest: {S2}/32, type: blackhole}}\n"
    path = director.file("routes.yaml", text + routes)
    back = director.file("back.yaml", text + "routes: []\n")
    try:
        # Those of earlier tests, which clients have ended, are still listed for a while.
        until(
            lambda: int(director.shell(f"ipvsadm -Lnc | grep -c ' {S2}:'")) == COUNT // 2, "connections are forgotten"
        )
        ran = director.reconciler("diff", "-o", "json", path)
        (sandbox,) = json.loads(ran.stdout)["sandboxes"]
        # It forwards what its servers answer, so nobody knows what else goes through it.
        assert sandbox["cuts"]["least"] == COUNT // 2
        assert sandbox["cuts"]["most"] is None
        assert sandbox["cuts"]["unknown"] == [
            "it has forwarded packets, and the connections of others that go through it are not listed"
        ]
        refused: Ran = director.reconciler("apply", "--max-cut", "1000", path)
        assert refused.status == 3, refused
        assert director.reconciler("apply", path).status == 0
        assert living(clients, "web", COUNT // 2) == COUNT // 2
    finally:
        assert director.reconciler("apply", "--allow-delete", "all", back).status == 0
    assert living(clients, "web", COUNT) == COUNT

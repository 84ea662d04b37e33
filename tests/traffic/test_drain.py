"""Servers that are removed while clients are with them (`ipvs.drain`)."""

from __future__ import annotations

from typing import Any

from tests.ipvs.place import ID, MachineTable
from tests.traffic.process import kill_at, waiting
from tests.traffic.world import PORT, S1, S2, S3, VIP, World, server, servers

# One that is in the table for as long as no client ends by itself, and one that is over soon.
LONG, SHORT = 600, 5
FIRST = server(S1, weight=3, upperThreshold=900, lowerThreshold=5)
KEPT = server(S2, weight=3)
OTHER = {"tcp": f"{VIP}:81", "servers": servers(S3)}


def web(*listed: dict[str, Any], port: int = 80) -> dict[str, Any]:
    # A server that comes back to a service has the connections again that the kernel remembers.
    return {"tcp": f"{VIP}:{port}", "scheduler": "rr", "servers": listed}


def threshold(director: MachineTable, address: str) -> tuple[int, int] | None:
    """Give weight and upper threshold of a server, as the real ipvsadm tells them; None if it has gone."""
    rows = [line.split() for line in director.thresholds() if f"> {address}:" in line]
    weights = [line.split()[-1] for line in director.saved() if line.startswith("-a") and f" {address}:" in line]
    return (int(weights[0]), int(rows[0][2])) if rows else None


def test_a_draining_server_is_left_by_its_clients_only_however_often_apply_is_killed(
    director: MachineTable, clients: World
) -> None:
    before = {"services": [web(FIRST, KEPT), OTHER], "drain": LONG}
    director.apply(**before)
    assert clients.connect("old", 4, 80).spread == {S1: 2, S2: 2}
    path = director.manifest(services=[web(KEPT), OTHER], drain=LONG)

    kill_at("before", "DrainServer", path)
    assert threshold(director, S1) == (3, 900)
    kill_at("after", "DrainServer", path)
    began = threshold(director, S1)
    assert began
    assert began[0] == 0
    assert began[1] >= 1 << 30
    ran = director.reconciler("diff", path)
    assert (ran.status, "1 IPVS server still draining" in ran.stdout) == (0, True), ran

    with waiting(path) as apply:
        assert f"{ID}: waiting for 1 IPVS server to drain" in apply.said
        assert clients.connect("new", 4, 80).spread == {S2: 4}
        assert clients.prove("old").spread == {S1: 2, S2: 2}
        apply.kill()
    assert threshold(director, S1) == began

    # Back, in one edit, and out again.
    assert director.diff(**before) == [f"ipvsadm -e -t {VIP}:80 -r {S1}:{PORT} -m -w 3 -x 900 -y 5"]
    director.apply(**before)
    assert threshold(director, S1) == (3, 900)
    assert clients.connect("back", 4, 80).spread == {S1: 2, S2: 2}
    assert clients.prove("old").alive


def test_a_draining_server_goes_as_soon_as_its_connections_have_ended(director: MachineTable, clients: World) -> None:
    director.apply(services=[web(FIRST, KEPT, port=82), OTHER], drain=LONG)
    clients.connect("old", 4, 82)
    with waiting(director.manifest(services=[web(KEPT, port=82), OTHER], drain=LONG)) as apply:
        # What says farewell is remembered for two minutes.
        clients.reset("old")
        assert f"{ID}: applied 2 operations" in apply.ends_well()
    assert threshold(director, S1) is None
    assert threshold(director, S2) == (3, 0)


def test_at_the_deadline_what_drains_goes_although_clients_stay(director: MachineTable, clients: World) -> None:
    """Of a service that stays, and of one that is removed, which then goes as well; killed just before, by the next."""
    director.apply(services=[web(FIRST, KEPT), OTHER], drain=SHORT)
    clients.connect("old", 4, 80)
    clients.connect("other", 2, 81)
    path = director.manifest(services=[web(KEPT)], drain=SHORT)
    with waiting(path, killing=("before", "DeleteServer")) as apply:
        assert f"{ID}: waiting for 2 IPVS servers to drain" in apply.said
        began = [threshold(director, each) for each in (S1, S3)]
        assert all(each and each[0] == 0 for each in began)
        # Nobody else is there for new ones.
        assert clients.connect("late", 2, 81).errors == {"ECONNREFUSED": 2}
        assert clients.prove("other").alive
        apply.dies()
    assert [threshold(director, each) for each in (S1, S3)] == began
    assert clients.prove("old").alive
    ran = director.reconciler("apply", path)
    assert ran.status == 0, ran
    assert "drain" not in ran.stderr
    assert sorted(director.saved()) == [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {S2}:{PORT} -m -w 3"]
    assert "in sync" in director.reconciler("diff", path).stdout


def test_a_client_that_belongs_to_a_server_leaves_one_that_drains(director: MachineTable, clients: World) -> None:
    persistent = web(FIRST, KEPT) | {"persistent": 300}
    settings = {"sysctls": {"expire_quiescent_template": 1}, "drain": LONG}
    director.apply(services=[persistent], **settings)
    (its,) = clients.connect("old", 3, 80).spread
    (other,) = {S1, S2} - {its}
    left = [each for each in (FIRST, KEPT) if each["address"] == f"{other}:{PORT}"]
    with waiting(director.manifest(services=[persistent | {"servers": left}], **settings)) as apply:
        assert clients.connect("new", 3, 80).spread == {other: 3}
        assert clients.prove("old").spread == {its: 3}
        apply.kill()

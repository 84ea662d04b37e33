"""Flows of UDP, which nothing ends: that none is left with a server that is gone.

The clients keep sending from the same ports; the real ipvsadm and conntrack tell what the kernel remembers of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.values import dataclass
from tests.ipvs.place import MachineTable
from tests.traffic.process import kill_at, waiting
from tests.traffic.world import S1, S2, S3, VIP, World, servers
from tests.watch.running import until

# What keeps the kernel tracking connections at all: its helper for FTP needs that.
FTP = {"tcp": f"{VIP}:21", "servers": servers(S3)}
TCP = {"tcp": f"{VIP}:80", "scheduler": "rr", "servers": servers(S2, S3)}
# The kernel remembers flows for minutes, those of other tests too.
_ports = itertools.count(5300)


@dataclass
class Flows:
    """A service of UDP, and what is remembered of its clients."""

    director: MachineTable
    tracking: int
    port: int

    def service(self, *addresses: str) -> dict[str, Any]:
        return {"udp": f"{VIP}:{self.port}", "scheduler": "rr", "servers": servers(*addresses)}

    def manifest(self, *services: dict[str, Any], drain: int = 0) -> dict[str, Any]:
        return {"services": [*services, TCP, FTP], "sysctls": {"conntrack": self.tracking}, "drain": drain}

    def apply(self, *services: dict[str, Any], drain: int = 0) -> None:
        self.director.apply(**self.manifest(*services, drain=drain))
        assert self.nodest() == 0

    def nodest(self) -> int:
        return int(self.director.shell("cat /proc/sys/net/ipv4/vs/expire_nodest_conn"))

    def remembered(self, *addresses: str) -> tuple[list[str], list[str]]:
        """Give what IPVS and connection tracking know of flows with servers."""
        text = self.director.shell("ipvsadm -Lnc; echo ==; conntrack -L -p udp 2>/dev/null")
        connections, _, entries = text.partition("==")
        return (
            [
                s
                for s in connections.splitlines()
                if f" {VIP}:{self.port} " in s and any(f" {a}:" in s for a in addresses)
            ],
            [
                s
                for s in entries.splitlines()
                if f" dport={self.port} " in s and any(f" src={a} " in s for a in addresses)
            ],
        )

    def await_remembered(self, address: str, count: int) -> None:
        """Wait until so many flows with a server are listed: the kernel's listing can miss one while others expire."""
        until(lambda: [len(each) for each in self.remembered(address)] == [count, count * self.tracking])


@pytest.fixture(params=[0, 1], ids=["conntrack-0", "conntrack-1"])
def flows(request: pytest.FixtureRequest, director: MachineTable) -> Iterator[Flows]:
    director.shell("modprobe nf_conntrack_netlink; conntrack -F 2>/dev/null")
    yield Flows(director, request.param, next(_ports))
    director.shell("conntrack -F 2>/dev/null")


def test_flows_of_a_removed_server_reach_another_at_once_and_those_of_present_ones_stay(
    clients: World, flows: Flows
) -> None:
    flows.apply(flows.service(S1, S2))
    clients.connect("tcp", 6, 80)
    clients.connect("idle", 2, 80, pace=0)
    clients.flow("flows", 8, flows.port)
    began = clients.prove("flows")
    assert began.spread == {S1: 4, S2: 4}
    flows.await_remembered(S1, 4)
    flows.apply(flows.service(S2, S3))
    assert flows.remembered(S1) == ([], [])
    fared = clients.prove("flows")
    assert fared.alive
    for had, has in zip(began.servers, fared.servers, strict=True):
        assert has in ({S2} if had == S2 else {S2, S3})
    assert flows.remembered(S1) == ([], [])
    for group in ("tcp", "idle"):
        assert clients.prove(group).alive, group


@pytest.mark.parametrize("stays", [True, False], ids=["without servers", "removed"])
def test_flows_end_with_the_last_server_and_reach_the_next_one_at_once(
    clients: World, flows: Flows, *, stays: bool
) -> None:
    flows.apply(flows.service(S1, S2))
    clients.connect("tcp", 6, 80)
    clients.flow("flows", 4, flows.port)
    assert clients.prove("flows").alive
    flows.apply(*([flows.service()] if stays else []))
    # They go on sending.
    assert clients.prove("flows", seconds=1).answered == 0
    assert flows.remembered(S1, S2) == ([], [])
    flows.apply(flows.service(S3))
    fared = clients.prove("flows")
    assert fared.alive
    assert fared.spread == {S3: 4}
    flows.await_remembered(S3, 4)
    assert clients.prove("tcp").alive


@pytest.mark.parametrize("flows", [1], indirect=True)
def test_what_a_killed_apply_left_half_done_is_finished_by_the_next(clients: World, flows: Flows) -> None:
    flows.apply(flows.service(S1, S2))
    clients.flow("flows", 4, flows.port)
    assert clients.prove("flows").alive
    after = flows.manifest(flows.service(S2, S3))
    kill_at("after", "StartExpiring", flows.director.manifest(**after))
    assert flows.nodest() == 2
    flows.apply(flows.service(S2, S3))
    assert flows.remembered(S1) == ([], [])
    assert clients.prove("flows").alive


@pytest.mark.parametrize("flows", [1], indirect=True)
def test_flows_stay_with_a_server_that_drains_and_leave_it_at_the_deadline(clients: World, flows: Flows) -> None:
    flows.apply(flows.service(S1, S2))
    clients.flow("flows", 4, flows.port)
    clients.prove("flows")
    with waiting(flows.director.manifest(**flows.manifest(flows.service(S2), drain=4))) as apply:
        clients.flow("new", 2, flows.port)
        assert clients.prove("new").spread == {S2: 2}
        apply.ends_well()
    assert flows.nodest() == 0
    assert flows.remembered(S1) == ([], [])
    assert clients.prove("flows").spread == {S2: 4}


def test_a_flow_that_is_silent_for_a_while_is_not_left_with_a_removed_server(clients: World, flows: Flows) -> None:
    flows.apply(flows.service(S1, S2))
    clients.flow("silent", 4, flows.port, pace=0)
    assert clients.prove("silent").spread == {S1: 2, S2: 2}
    flows.apply(flows.service(S2, S3))
    found = flows.remembered(S1)
    fared = clients.prove("silent")
    assert (found, fared.answered) == (([], []), 4)


@pytest.mark.parametrize("flows", [0], indirect=True)
def test_flows_end_with_the_last_service_of_their_family(director: MachineTable, clients: World, flows: Flows) -> None:
    director.apply(services=[flows.service(S1, S2)])
    clients.flow("flows", 4, flows.port)
    assert clients.prove("flows").alive
    director.apply("--allow-delete", "all", services=[])
    found = flows.remembered(S1, S2)
    director.apply(services=[flows.service(S3)])
    fared = clients.prove("flows")
    assert (found, fared.answered) == (([], []), 4)

"""Connections by TCP: where they go, and that they live through whatever an apply does besides."""

from __future__ import annotations

from typing import Any

from tests.ipvs.place import MachineTable
from tests.traffic.world import S1, S2, S3, SERVERS6, VIP, VIP6, World, server, servers

RR: dict[str, Any] = {"tcp": f"{VIP}:80", "scheduler": "rr", "servers": servers(S1, S2)}
WRR: dict[str, Any] = {
    "tcp": f"{VIP}:81",
    "scheduler": "wrr",
    "servers": [server(S1, weight=3), server(S2, weight=1)],
}
RR6: dict[str, Any] = {"tcp": f"[{VIP6}]:80", "scheduler": "rr", "servers": servers(*SERVERS6)}


def test_connections_are_spread_as_the_scheduler_says(director: MachineTable, clients: World) -> None:
    director.apply(services=[RR, WRR, RR6])
    assert clients.connect("rr", 8, 80).spread == {S1: 4, S2: 4}
    assert clients.connect("wrr", 8, 81).spread == {S1: 6, S2: 2}
    assert clients.connect("rr6", 8, 80, vip=VIP6).spread == {SERVERS6[0]: 4, SERVERS6[1]: 4}
    director.apply(services=[RR, WRR | {"servers": [server(S1, weight=1), server(S2, weight=3)]}, RR6])
    assert clients.connect("changed", 8, 81).spread == {S1: 2, S2: 6}
    for group in ("rr", "wrr", "rr6", "changed"):
        assert clients.prove(group).alive


def test_no_edit_breaks_a_connection(director: MachineTable, clients: World) -> None:
    """Of its own server and service, or of another; the connections send all the while, and are answered."""
    other = {"udp": f"{VIP}:53", "servers": servers(S1)}
    director.apply(services=[RR, RR6, other])
    began = clients.connect("four", 20, 80)
    clients.connect("six", 4, 80, vip=VIP6)
    changed = RR | {"scheduler": "wrr", "servers": [server(S1, weight=0), server(S2, weight=9, upperThreshold=500)]}
    for services in (
        # Another one: its settings, its servers, all of it.
        [RR, RR6, other | {"scheduler": "sh", "servers": [server(S2, weight=7), *servers(S3)]}],
        [RR, RR6],
        # Its own.
        [changed, RR6],
        [changed | {"persistent": 60, "netmask": "255.255.0.0"}, RR6],
        [RR | {"servers": servers(S3, S2, S1)}, RR6 | {"scheduler": "lc"}],
    ):
        director.apply(services=services)
        for group in ("four", "six"):
            fared = clients.prove(group)
            assert fared.alive, services
        assert clients.look("four").servers == began.servers

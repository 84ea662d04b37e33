"""Every kind of link, and every field that a link, its addresses and routes can have: killed at each step of a change.

From nothing to one state, to another one, and to nothing again. What others have there stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from reconciler.model.made import KINDS
from reconciler.model.metric import METRICS
from tests.conftest import Kernel
from tests.machine import Machine
from tests.made.conftest import state_of
from tests.system.box import MACS, VmBox, differences
from tests.system.test_kill import kill_after_each

NOTHING: dict[str, Any] = {name: [] for name in ("interfaces", "neighbours", "routes", "rules")}
FIRST: dict[str, Any] = {
    "interfaces": [
        {
            "name": "base",
            "dummy": {},
            "hwAddr": MACS[0],
            "alias": "uplink to rack 7",
            "altnames": ["one", "two"],
            "txQueueLen": 77,
            "gsoMaxSize": 30000,
            "arp": True,
            "allmulticast": True,
            "addresses": [
                {"address": "10.1.0.2/24", "label": "base:a", "metric": 7},
                {"address": "10.1.1.2/24", "noprefixroute": True},
                {"address": "10.1.2.2", "peer": "10.1.2.9/32"},
                {"address": "fd01::2", "peer": "fd01::9/64", "dad": False},
                {"address": "fd01:1::2/64", "metric": 7, "dad": False},
            ],
        },
        {"name": "over", "vlan": {"link": "bond1", "id": 7}, "addresses": ["10.7.0.2/24"]},
        {"name": "bond1", "bond": {"mode": "active-backup"}, "mtu": 1400},
        {"name": "slave", "dummy": {}, "hwAddr": MACS[1], "master": "bond1"},
        {"name": "red", "vrf": {"table": 1000}, "addresses": ["10.61.0.1/32"]},
        {"name": "routed", "dummy": {}, "master": "red", "addresses": ["10.60.0.2/24"]},
        {"name": "mv1", "macvlan": {"link": "base"}, "addresses": ["10.8.0.2/24"]},
        {"name": "br1", "bridge": {"vlanFiltering": True}, "addresses": ["10.9.0.1/24"]},
        {"name": "port", "dummy": {}, "master": "br1", "state": "down"},
    ],
    "neighbours": [
        {"address": "10.1.0.1", "device": "base", "hwAddr": MACS[7]},
        {"address": "10.60.0.1", "device": "routed", "hwAddr": MACS[7]},
    ],
    "routes": [
        {
            "dest": "10.70.0.0/16",
            "gateway": "10.7.0.1",
            "device": "over",
            "mtu": 1300,
            "mtuLock": True,
            "advmss": 1200,
            "window": 9000,
            "initcwnd": 20,
            "initrwnd": 30,
            "rtoMin": 40,
            "quickack": True,
            "congctl": "reno",
            "features": ["ecn"],
            "hoplimit": 7,
        },
        {"dest": "10.71.0.0/16", "gateway": "10.60.0.1", "device": "routed", "table": 1000},
        {"dest": "10.72.0.0/16", "gateway": "fd01::7", "device": "base", "onLink": True},
        {"dest": "10.73.0.0/16", "device": "base", "tos": 8, "scope": "host"},
        {"dest": "10.74.0.0/16", "type": "throw", "table": 100},
        {"dest": "10.75.0.1/32", "type": "local", "device": "br1", "table": 255},
        {"dest": "239.1.0.0/16", "type": "multicast", "device": "br1", "table": 255},
        {"dest": "fd72::/64", "gateway": "fd01:1::1", "device": "base", "pref": "high"},
    ],
    "rules": [{"priority": 100, "iif": "over", "table": 100}],
}
SECOND: dict[str, Any] = {
    "interfaces": [
        {
            "name": "base",
            "dummy": {},
            "hwAddr": MACS[2],
            "mtu": 1450,
            "alias": "",
            "altnames": ["two"],
            "txQueueLen": 1000,
            "gsoMaxSize": 65536,
            "arp": False,
            "allmulticast": False,
            "addresses": [
                {"address": "10.1.0.2/24", "metric": 300},
                {"address": "10.1.1.2/24", "label": "base:b", "scope": "link"},
                {"address": "10.1.2.2", "peer": "10.1.2.8/32"},
                {"address": "fd01::2", "peer": "fd01::8/64", "dad": False},
                {"address": "fd01:1::2/64", "noprefixroute": True, "dad": False},
            ],
        },
        # On another link; its name is an alternative one of another link first.
        {"name": "over", "vlan": {"link": "base", "id": 7, "protocol": "802.1ad"}, "addresses": ["10.7.0.2/24"]},
        {"name": "bond1", "bond": {"mode": "balance-xor", "miimon": 200, "minLinks": 1}, "state": "down"},
        {"name": "slave", "dummy": {}, "hwAddr": MACS[1], "master": "br1"},
        {"name": "red", "vrf": {"table": 1001}},
        {"name": "port", "dummy": {}, "master": "red", "addresses": ["10.60.0.2/24"]},
        {"name": "routed", "dummy": {}, "altnames": ["one"], "state": "down", "addresses": ["10.62.0.2/24"]},
        {"name": "mv1", "macvlan": {"link": "br1", "mode": "private"}, "addresses": ["10.8.0.2/24"]},
        {"name": "br1", "bridge": {"stp": True, "ageingTime": 60}, "addresses": ["10.9.0.1/24"]},
    ],
    "neighbours": [
        {"address": "10.9.0.7", "device": "br1", "hwAddr": MACS[7]},
        {"address": "10.60.0.1", "device": "port", "hwAddr": MACS[7]},
    ],
    "routes": [
        {"dest": "10.70.0.0/16", "gateway": "10.7.0.1", "device": "over", "congctl": "cubic", "rtoMin": 50},
        {"dest": "10.71.0.0/16", "gateway": "10.60.0.1", "device": "port", "table": 1001},
        {"dest": "10.72.0.0/16", "gateway": "10.9.0.7", "device": "br1", "mtu": 1300},
        {"dest": "10.73.0.0/16", "device": "base", "tos": 16, "scope": "site"},
        {"dest": "10.74.0.0/16", "type": "blackhole", "table": 100},
        {"dest": "10.75.0.1/32", "type": "local", "device": "mv1", "table": 255},
        {"dest": "fd72::/64", "gateway": "fd01:1::1", "device": "base", "onLink": True, "pref": "low"},
    ],
    "rules": [{"priority": 100, "iif": "mv1", "table": 100}],
}
# Of others: a link of each role, on which all else can be.
THEIRS = f"""
link add theirs up type dummy
link set theirs address {MACS[9]} alias theirs
link property add dev theirs altname ours
link add theirs.7 link theirs up type vlan id 7
link add bundle type bond
link add blue up type vrf table 2000
link add member up type dummy
link set member master blue
address add 10.1.0.99/24 dev theirs metric 99
route add 10.70.0.0/16 via 10.1.0.98 dev theirs metric 9
route add 10.74.0.0/16 via 10.1.0.98 dev theirs table 100 metric 9
rule add priority 90 iif theirs table 100
neighbour add 10.1.0.98 lladdr {MACS[8]} dev theirs nud permanent
"""


def test_everything_is_in_a_state() -> None:
    assert {metric.field for metric in METRICS} <= {*FIRST["routes"][0]}
    assert KINDS.keys() <= {field for each in FIRST["interfaces"] for field in each}


def test_killed_after_each_operation_in_turn_and_run_again(
    machine: Machine, tmp_path: Path, repeats: Callable[[int], int]
) -> None:
    box = VmBox(Kernel(), tmp_path / "box.yaml", machine)
    box.write()
    box.ip("-batch", "-", stdin=THEIRS)
    theirs = state_of(box)
    try:
        # After one of five operations in a row: `make soak` takes each.
        counts = kill_after_each(
            box, FIRST, SECOND, NOTHING, state=partial(state_of, box), stride=max(1, 5 // repeats(4))
        )
        box.write()
        assert differences(state_of(box), theirs) == []
    finally:
        box.empty()
    assert min(counts) > 10

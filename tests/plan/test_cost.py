"""What a plan costs, by connections that are made up: what no kernel can be brought to show quickly."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from reconciler.errors import RefusedError
from reconciler.model.cost import Cut, End, Flow, Traffic, together
from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Ipvs, Load, Server, Service
from reconciler.model.machine import Machine, Plugged, Slot
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import PROTOCOL_KERNEL, NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import (
    KataAddress,
    LibvirtAddress,
    NetnsAddress,
    Observed,
    Sandbox,
    Surroundings,
    VmAddress,
)
from reconciler.operations.interface import MoveOperation
from reconciler.operations.ipvs import IpvsOperation
from reconciler.operations.machine import MachineOperation
from reconciler.operations.network import NetworkOperation
from reconciler.operations.runtime import RuntimeOperation
from reconciler.operations.sysctl import SetNetworkSysctl
from reconciler.plan import plan
from reconciler.plan.cost import Cost, cost, cutting, needs_traffic
from reconciler.safety import check_cut
from reconciler.values import replace

ETH0, ETH1 = (
    Interface(
        name=f"eth{n}",
        device=f"tap{n}",
        hw_addr=f"02:00:00:00:00:0{n}",
        mtu=1500,
        addresses=(Address(address=address),),
    )
    for n, address in enumerate(("10.0.0.2/24", "10.1.0.2/24"))
)
CONNECTED = [
    Route(dest=f"10.{n}.0.0/24", nexthops=(NextHop(device=f"eth{n}"),), source=f"10.{n}.0.2", protocol=PROTOCOL_KERNEL)
    for n in (0, 1)
]
DEFAULT = Route(dest="0.0.0.0/0", nexthops=(NextHop(device="eth0", gateway="10.0.0.1"),))
BOX = Sandbox(
    id="box", driver=NetnsAddress(name="box"), interfaces=(ETH0, ETH1), routes=(DEFAULT,), rules=(), neighbours=()
)
FAR = Flow("far", "10.0.0.2", (End("203.0.113.9", DEFAULT),))
NEAR = Flow("near", "10.1.0.2", (End("10.1.0.9", CONNECTED[1]),))
LOCAL = Flow("local", "10.0.0.2", (End("10.0.0.2", Route(dest="10.0.0.2/32", type="local", table=255)),))
TRAFFIC = Traffic((FAR, NEAR, LOCAL))
WEB = Service(protocol="tcp", address="10.0.0.2", port=80, marked=True, servers=(Server(address="10.1.0.9", port=80),))


def observed(sandbox: Sandbox = BOX, **around: Any) -> Observed:
    return Observed(sandbox=sandbox, around=Surroundings(routes=tuple(CONNECTED), devices={}, **around))


def price(desired: Sandbox, found: Observed, traffic: Traffic = TRAFFIC) -> Cost:
    made = plan(desired, found)
    operations = cutting(made, found)
    return cost(made, found, operations, traffic)


def total(traffic: Traffic = TRAFFIC, **changes: Any) -> tuple[int, int | None]:
    found = price(replace(BOX, **changes), observed(), traffic).total
    return found.least, found.most


RULE = Rule(family="ipv4", priority=100, from_="10.0.0.0/24", table=100)
NEIGHBOUR = Neighbour(address="10.0.0.1", device="eth0", hw_addr="02:00:00:00:00:99")
SPECIFIC = Route(dest="203.0.113.0/24", nexthops=(NextHop(device="eth1", gateway="10.1.0.1"),))


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"routes": ()}, 1, 1),
        ({"routes": (replace(DEFAULT, metric=5),)}, 0, 0),
        ({"routes": (replace(DEFAULT, mtu=1400),)}, 0, 0),
        ({"routes": (replace(DEFAULT, type="prohibit", nexthops=()),)}, 1, 1),
        ({"routes": (DEFAULT, SPECIFIC)}, 0, 1),
        ({"routes": (DEFAULT, replace(SPECIFIC, type="blackhole", nexthops=()))}, 1, 1),
        ({"routes": (DEFAULT, replace(SPECIFIC, dest="198.51.100.0/24"))}, 0, 0),
        ({"routes": (DEFAULT, replace(SPECIFIC, table=100))}, 0, 1),
        # Two that cut the same connection cut it once.
        ({"routes": (), "interfaces": (replace(ETH0, addresses=()), ETH1)}, 2, 2),
        ({"interfaces": (ETH0,)}, 1, 1),
        ({"interfaces": (ETH0, replace(ETH1, up=False))}, 0, 1),
        (
            {
                "interfaces": (replace(ETH0, name="wan"), ETH1),
                "routes": (replace(DEFAULT, nexthops=(NextHop(device="wan", gateway="10.0.0.1"),)),),
            },
            0,
            0,
        ),
        ({"rules": (RULE,)}, 0, 1),
        ({"rules": (replace(RULE, from_="10.9.0.0/24"),)}, 0, 0),
        ({"neighbours": (NEIGHBOUR,)}, 0, 1),
        ({"neighbours": (replace(NEIGHBOUR, address="10.0.0.77"),)}, 0, 0),
        # The far end is an address of the sandbox from now on.
        ({"interfaces": (ETH0, replace(ETH1, addresses=(*ETH1.addresses, Address(address="203.0.113.9/32"))))}, 1, 1),
        ({"interfaces": (ETH0, replace(ETH1, addresses=(*ETH1.addresses, Address(address="203.0.113.1/24"))))}, 0, 1),
        ({"sysctls": (("net.ipv4.ip_forward", 0),)}, 0, 0),
    ],
)
def test_each_change(changes: dict[str, Any], least: int, most: int) -> None:
    assert total(**changes) == (least, most)


def test_what_nobody_knows_is_unknown_and_is_refused() -> None:
    traffic = replace_unknown(TRAFFIC, "it has forwarded packets")
    assert total(traffic, routes=()) == (1, None)
    assert total(traffic) == (0, 0)
    with pytest.raises(RefusedError, match="cuts 1 connection, and an unknown number of others"):
        check_cut(price(replace(BOX, routes=()), observed(), traffic), 1000)
    check_cut(price(replace(BOX, routes=()), observed()), 1)
    check_cut(None, 0)


def test_too_many_comparisons_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.plan.cost._WORK", 2)
    # Those that take a route are found by it; an address is compared with all.
    assert total(routes=()) == (1, 1)
    found = price(replace(BOX, interfaces=(ETH0,)), observed()).total
    assert (found.least, found.most) == (0, None)
    assert found.unknown == ("too many operations and connections to compare them all",)


def replace_unknown(traffic: Traffic, *reasons: str) -> Traffic:
    return traffic._replace(unknown=reasons)


@pytest.mark.parametrize(
    ("service", "drain", "load", "expected"),
    [
        (WEB, 0, Load(5, 3, 2), Cut(5, 5, closing=3, persistent=2)),
        (replace(WEB, protocol="udp"), 0, Load(0, 9), Cut(9, 9)),
        (replace(WEB, protocol="fwmark", address="0.0.0.0"), 0, Load(5, 3), Cut(5, 8)),
        (WEB, 60, Load(5), Cut(0, 5, unknown=("those that are left when the drain ends",))),
        (WEB, 0, None, Cut(0, None, unknown=("the kernel's count of the connections was not read",))),
    ],
)
def test_a_server_of_ipvs(service: Service, drain: int, load: Load | None, expected: Cut) -> None:
    place = (service.key, service.servers[0].key)
    there = observed(replace(BOX, ipvs=Ipvs(services=(service,))), connections={place: load} if load else {})
    desired = replace(BOX, ipvs=Ipvs(services=(replace(service, servers=()),), drain=drain))
    found = cutting(plan(desired, there), there)
    assert not needs_traffic(found)
    assert price(desired, there, Traffic()).total == expected


def test_a_connection_whose_server_and_address_go_is_counted_once() -> None:
    flow = Flow(
        "ipvs", "10.0.0.2", (End("203.0.113.9", DEFAULT), End("10.1.0.9", CONNECTED[1])), (*WEB.key, "10.1.0.9", 80)
    )
    there = observed(replace(BOX, ipvs=Ipvs(services=(WEB,))), connections={(WEB.key, ("10.1.0.9", 80)): Load(1)})
    desired = replace(BOX, interfaces=(replace(ETH0, addresses=()), ETH1), routes=(), ipvs=Ipvs(services=()))
    assert price(desired, there, Traffic((flow,))).total[:2] == (1, 1)
    assert price(replace(desired, ipvs=Ipvs(services=(WEB,))), there, Traffic((flow,))).total[:2] == (1, 1)


def test_behind_kata_runtime_it_is_unknown_for_a_reason() -> None:
    there = Observed(sandbox=replace(BOX, driver=KataAddress(id="box"), rules=None, neighbours=None))
    desired = replace(there.sandbox, routes=())
    found = price(desired, there, Traffic())
    assert found.total == Cut(0, None, unknown=("kata-runtime lists no connections",))
    assert found.total.words() == "cuts an unknown number of connections (kata-runtime lists no connections)"


def test_what_can_cut_nothing_asks_nothing() -> None:
    fresh = observed(replace(BOX, interfaces=(), routes=()))
    fresh = Observed(sandbox=fresh.sandbox, around=replace(fresh.around, routes=()))
    assert cutting(plan(replace(BOX, interfaces=(), routes=()), fresh), fresh) == []
    assert cutting(plan(replace(BOX, interfaces=None), fresh), fresh) == []
    assert cutting(plan(BOX, observed()), observed()) == []


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (Cut(), ""),
        (Cut(1, 1), "cuts 1 connection"),
        (Cut(0, 1), "may cut up to 1 connection"),
        (Cut(2, 1200), "cuts 2 to 1,200 connections"),
        (Cut(0, None), "cuts an unknown number of connections"),
        (Cut(3, 3, closing=2, persistent=1), "cuts 3 connections (2 more are closing; 1 persistent client forgotten)"),
        (
            together([Cut(1, 1), Cut(2, None, unknown=("a",)), Cut(0, 0, unknown=("a",))]),
            "cuts 3 connections, and an unknown number of others (a)",
        ),
    ],
)
def test_words(cut: Cut, words: str) -> None:
    assert cut.words() == words


# Each kind of operation is in one of these: whether it can cut connections is decided for each.
CAN_CUT = {
    *("AddAddress", "AddItem", "AddRoute", "DeleteAddress", "DeleteItem", "DeleteRoute", "ReplaceItem", "ReplaceRoute"),
    *("DetachInterface", "DeleteDevice", "DetachNic", "UnplugInterface", "DeleteContainerRoute", "SetNetworkSysctl"),
    *("SetLink", "ChangeLink", "DeleteLink"),
    *("DeleteServer", "DeleteService", "DrainServer", "ImportedRule", "RuleCommand"),
}
CUTS_NOTHING = {
    *("AddContainerRoute", "AddDevice", "AddNetdev", "AddServer", "AddService", "AdoptDevices", "AdoptInterfaces"),
    *("AdoptNics", "AttachInterface", "AttachNic", "AwaitAddress", "DeleteNetdev", "EditServer", "EditService"),
    *(
        "MarkService",
        "NameInterface",
        "PlugInterface",
        "RenameInterface",
        "ReplaceAddress",
        "SetSysctl",
        "AddLink",
        "MarkLink",
        "AddAltnames",
        "DeleteAltnames",
    ),
    *("SetTimeouts", "SetUnmanaged", "StartExpiring", "StopExpiring", "StopFallback"),
    # Those of servers that are deleted, which are counted there.
    "DeleteConntrack",
}


def kinds(union: Any) -> set[str]:
    parts = get_args(union)
    return set().union(*map(kinds, parts)) if parts else {union.__name__}


def test_each_kind_of_operation_is_judged() -> None:
    found = kinds(NetworkOperation | SetNetworkSysctl | MoveOperation | IpvsOperation | MachineOperation) | kinds(
        RuntimeOperation
    )
    assert found == CAN_CUT | CUTS_NOTHING
    assert not CAN_CUT & CUTS_NOTHING


PLUGGED = {nic.device: Plugged(nic.hw_addr, 1, None, Slot("BUS", str(n))) for n, nic in enumerate((ETH0, ETH1))}


@pytest.mark.parametrize("address", [VmAddress(name="box"), LibvirtAddress(domain="box")])
def test_a_nic_that_is_unplugged_cuts_what_left_by_it(address: VmAddress | LibvirtAddress) -> None:
    box = replace(BOX, driver=address)
    observed = Observed(sandbox=box, around=Surroundings(machine=Machine(plugged=PLUGGED)))
    made = plan(replace(box, interfaces=(ETH1,), routes=()), observed)
    (unplug,) = (each for each in cutting(made, observed) if each.kind in {"DeleteDevice", "DetachNic"})
    found = cost(made, observed, cutting(made, observed), Traffic(flows=(FAR,)))
    assert (found.cuts[unplug].least, found.cuts[unplug].most) == (1, 1)

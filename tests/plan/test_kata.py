"""Plans for kata-runtime: nothing changes in place, and what is in the way goes first."""

from __future__ import annotations

import pytest

from reconciler.errors import HostError
from reconciler.model.identity import HostDevice, Listed, Nic
from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Ipvs, Server, Service
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import KataAddress, Observed, Sandbox
from reconciler.operations.ipvs import AddServer, AddService, DeleteConntrack, DeleteServer, DeleteService, EditService
from reconciler.operations.runtime import (
    AddContainerRoute,
    DeleteContainerRoute,
    ImportedRule,
    PlugInterface,
    RuleCommand,
    RuleOperation,
    UnplugInterface,
)
from reconciler.operations.segment import Imports, RuleCommands
from reconciler.plan import Deletion, Plan, plan
from reconciler.values import replace
from tests.segments import segments

DRIVER = KataAddress(id="6ec7a98")
ETH0 = Interface(
    name="eth0",
    device="tap0",
    hw_addr="02:42:20:6f:a3:69",
    mtu=1500,
    addresses=(Address(address="10.0.0.2/16"),),
)
ETH1 = replace(ETH0, name="eth1", device="tap1", hw_addr="02:42:20:6f:a3:70")
DIRECT = Route(dest="10.9.0.0/16", nexthops=(NextHop(device="eth0"),))
FAR = Route(dest="0.0.0.0/0", nexthops=(NextHop(device="eth0", gateway="10.9.0.1"),))
OTHER = Route(dest="10.8.0.0/16", nexthops=(NextHop(device="eth1"),))


def planned(wanted: Sandbox, *had: Interface, routes: tuple[Route, ...] = (), ipvs: Ipvs | None = None) -> Plan:
    found = Sandbox(id="box", driver=DRIVER, interfaces=had, routes=routes, ipvs=ipvs)
    return plan(wanted, Observed(sandbox=found))


def sandbox(
    interfaces: tuple[Interface, ...] | None = None, routes: tuple[Route, ...] | None = None, ipvs: Ipvs | None = None
) -> Sandbox:
    return Sandbox(id="box", driver=DRIVER, interfaces=interfaces, routes=routes, ipvs=ipvs)


def plug(interface: Interface) -> PlugInterface:
    return PlugInterface(container="6ec7a98", interface=interface)


def unplug(name: str) -> UnplugInterface:
    return UnplugInterface(container="6ec7a98", name=name)


def add(route: Route) -> AddContainerRoute:
    return AddContainerRoute(container="6ec7a98", route=route)


def delete(route: Route) -> DeleteContainerRoute:
    return DeleteContainerRoute(container="6ec7a98", route=route)


def rule(operation: RuleOperation) -> RuleCommand:
    return RuleCommand(container="6ec7a98", operation=operation)


def test_what_is_as_wanted_is_left() -> None:
    assert planned(sandbox((ETH0,), (DIRECT,)), ETH0, routes=(DIRECT,)) == Plan((), (), ())
    assert planned(sandbox(), ETH0, routes=(DIRECT,)) == Plan((), (), ())


def test_interfaces_come_before_routes_and_gateways_after_what_reaches_them() -> None:
    assert planned(sandbox((ETH0,), (FAR, DIRECT))).operations == (
        plug(ETH0),
        add(DIRECT),
        add(FAR),
    )


@pytest.mark.parametrize(
    "change", [{"mtu": 1400}, {"hw_addr": "02:42:20:6f:a3:99"}, {"addresses": ()}, {"name": "net0"}, {"queues": 2}]
)
def test_a_change_of_an_interface_plugs_it_anew(change: dict[str, object]) -> None:
    after = replace(ETH0, **change)  # type: ignore[arg-type]
    shown = planned(sandbox((after, ETH1)), ETH0, ETH1, routes=(OTHER,))
    assert shown == Plan(segments((unplug("eth0"), plug(after))), (), ())


def test_routes_of_an_interface_that_is_plugged_anew_come_back() -> None:
    after = replace(ETH0, mtu=1400)
    expected = (
        delete(DIRECT),
        delete(FAR),
        unplug("eth0"),
        plug(after),
        add(DIRECT),
        add(FAR),
    )
    for routes in (None, (DIRECT, FAR, OTHER)):
        shown = planned(sandbox((after, ETH1), routes), ETH0, ETH1, routes=(DIRECT, FAR, OTHER))
        assert shown == Plan(segments(expected), (), ())


def test_routes_follow_a_new_name_where_nothing_is_said_of_them() -> None:
    after = replace(ETH0, name="net0")
    shown = planned(sandbox((after, ETH1)), ETH0, ETH1, routes=(DIRECT, OTHER))
    there = replace(DIRECT, nexthops=(NextHop(device="net0"),))
    operations = (delete(DIRECT), unplug("eth0"), plug(after), add(there))
    assert shown == Plan(segments(operations), (), ())


def test_an_interface_goes_with_its_routes() -> None:
    shown = planned(sandbox((ETH1,)), ETH0, ETH1, routes=(FAR, OTHER))
    assert shown == Plan(
        segments((delete(FAR), unplug("eth0"))),
        (Deletion(kind="interface", count=1, total=2), Deletion(kind="route", count=1, total=2)),
        ("IPv4",),
    )


def test_a_route_in_the_way_goes_first_and_others_last() -> None:
    after = replace(FAR, nexthops=(NextHop(device="eth0", gateway="10.9.0.2"),))
    shown = planned(sandbox(None, (after,)), ETH0, ETH1, routes=(FAR, OTHER))
    assert shown == Plan(
        segments((delete(FAR), add(after), delete(OTHER))),
        (Deletion(kind="route", count=1, total=2),),
        (),
    )


def test_the_device_of_an_interface_that_is_to_come_back_has_to_be_known() -> None:
    with pytest.raises(
        HostError, match="kata-runtime does not report the host device of eth0; add the interface to the manifest"
    ):
        planned(sandbox((replace(ETH0, device="?eth0"),)))
    assert planned(sandbox((replace(ETH0, device="?eth0"),)), replace(ETH0, device="?eth0")).operations == ()


def test_the_table_changes_by_commands_and_udp_connections_are_cleaned_up() -> None:
    one, two = Server(address="10.0.0.8", port=53), Server(address="10.0.0.9", port=53)
    before = Service(protocol="udp", address="10.1.0.1", port=53, servers=(one,))
    after = replace(before, scheduler="rr", servers=(two,))
    expected = (
        rule(EditService(service=after, before=before)),
        rule(AddServer(service=before.key, server=two)),
        rule(DeleteServer(service=before.key, server=one)),
        rule(DeleteConntrack(address="10.1.0.1", protocol="udp")),
    )
    shown = planned(sandbox(ipvs=Ipvs(services=(after,))), ipvs=Ipvs(services=(before,)))
    assert shown.segments == segments(expected)


def balanced(port: int, *servers: Server) -> Service:
    return Service(protocol="tcp", address="10.2.0.1", port=port, servers=servers)


def test_new_services_are_imported_at_once_if_they_are_many() -> None:
    one, two = Server(address="10.0.0.8", port=80), Server(address="10.0.0.9", port=80)
    first, last, gone = balanced(1, one), balanced(9000, one), balanced(9001, one)
    after = (replace(first, servers=(one, two)), *(balanced(port, one) for port in range(2, 7)))
    more, less = (*after, replace(last, servers=(two,))), (*after[:5], replace(last, servers=(two,)))
    had = Ipvs(services=(first, last, gone))
    adds = [
        operation
        for each in after[1:]
        for operation in (AddService(service=each), AddServer(service=each.key, server=one))
    ]
    before = AddServer(service=first.key, server=two)
    rest: tuple[RuleOperation, ...] = (
        AddServer(service=last.key, server=two),
        DeleteServer(service=last.key, server=one),
        DeleteService(service=gone),
    )
    assert planned(sandbox(ipvs=Ipvs(services=more)), ipvs=had).segments == (
        RuleCommands((rule(before),)),
        Imports(tuple(ImportedRule(container="6ec7a98", operation=each) for each in adds)),
        RuleCommands(tuple(map(rule, rest))),
    )
    # One service less, and each rule has a command of its own.
    assert planned(sandbox(ipvs=Ipvs(services=less)), ipvs=had).segments == (
        RuleCommands(tuple(map(rule, (before, *adds[:-2], *rest)))),
    )


def test_the_commands_are_those_of_a_shell() -> None:
    said = '{"device":"tap0","name":"eth0","IPAddresses":[{"address":"10.0.0.2","mask":"16"}],"mtu":1500,'
    assert plug(ETH0).command == (
        f'kata-runtime kata-network add-iface 6ec7a98 - <<<\'{said}"hwAddr":"02:42:20:6f:a3:69"}}\''
    )
    assert unplug("eth0").command == """kata-runtime kata-network del-iface 6ec7a98 - <<<'{"name":"eth0"}'"""
    said = '{"dest":"10.8.0.0/16","gateway":"","device":"eth1"}'
    assert add(OTHER).command == f"kata-runtime kata-network add-route 6ec7a98 - <<<'{said}'"
    assert delete(OTHER).command == f"kata-runtime kata-network del-route 6ec7a98 - <<<'{said}'"
    server = AddServer(service=("tcp", "10.2.0.1", 80), server=Server(address="fd00::8", port=80))
    words = "-a -t 10.2.0.1:80 -r [fd00::8]:80 -m -w 1"
    assert rule(server).command == f"kata-runtime kata-ipvs ipvsadm --parameters '{words}' 6ec7a98"
    assert ImportedRule(container="6ec7a98", operation=server).command == (
        f"kata-runtime kata-ipvs ipvsadm --restore - 6ec7a98 <<<'{words}'"
    )
    assert rule(DeleteConntrack(address="10.1.0.1", protocol="udp")).command == (
        "kata-runtime kata-ipvs cleanup --parameters '--orig-dst 10.1.0.1 --protonum udp' 6ec7a98"
    )


def test_a_command_is_about_what_it_changes() -> None:
    assert (plug(ETH0).subject, unplug("eth0").subject) == (HostDevice("tap0"), Nic("eth0"))
    assert add(OTHER).subject == delete(OTHER).subject == Listed("routes", OTHER.key)
    assert add(OTHER).needs == {Nic("eth1")}
    assert plug(ETH0).provides == {HostDevice("tap0"), Nic("eth0")}
    server = AddServer(service=("tcp", "10.2.0.1", 80), server=Server(address="10.0.0.8", port=80))
    service = DeleteService(service=balanced(80))
    for each in (server, service):
        shown = rule(each)
        assert (shown.kind, shown.sign, shown.comment) == (each.kind, each.sign, each.comment)
        assert (shown.subject, shown.needs, shown.provides) == (each.subject, each.needs, each.provides)
    shown_import = ImportedRule(container="6ec7a98", operation=server)
    assert (shown_import.kind, shown_import.sign) == ("AddServer", "+")
    assert shown_import.comment == "one import of all new services and their servers"

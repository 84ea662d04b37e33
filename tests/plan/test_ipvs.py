"""What is planned for an IPVS table: the fewest operations, in an order that costs no connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from reconciler.model.ipvs import DRAINING, Ipvs, Load, Server, ServerKey, Service, ServiceKey, Timeouts
from reconciler.model.route import Route
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    MarkService,
    SetSysctl,
    SetTimeouts,
    StartExpiring,
    StopExpiring,
    StopFallback,
)
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.plan import Deletion, Plan, plan
from reconciler.plan.ipvs import RESTORE
from reconciler.safety import Allowance, check_deletions
from reconciler.values import dataclass, field, replace
from tests.examples import examples
from tests.formats.strategies import services
from tests.plan.sandboxes import DRIVER, found, hop, nic, route
from tests.segments import segments

NOW = 1_800_000_000.0
S1, S2, S3 = (Server(address=f"172.16.0.{number}", port=8080, weight=100) for number in (1, 2, 3))
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr", servers=(S1, S2))
TLS = Service(protocol="tcp", address="10.10.0.1", port=443, servers=(S3,))
DNS = Service(protocol="udp", address="10.10.0.1", port=53, servers=(S1, S2))
MARK = Service(protocol="fwmark", address="0.0.0.0", port=7, servers=(S1,))
WEB6 = Service(protocol="tcp", address="fd00:10::1", port=80, servers=(Server(address="fd00:16::1", port=80),))
DNS6 = Service(protocol="udp", address="fd00:10::1", port=53, servers=(Server(address="fd00:16::1", port=53),))
FRESH = S3.draining(NOW + 60)
PAST = S3.draining(NOW)

Counted = tuple[tuple[str, int, int], ...]


def sandbox(*services: Service, **fields: Any) -> Sandbox:
    section = Ipvs(**{"services": services, **fields})
    return Sandbox(id="box", driver=DRIVER, ipvs=section)


def table(
    *services: Service,
    foreign: Iterable[Service] = (),
    connections: Mapping[tuple[ServiceKey, ServerKey], Load] | None = None,
    expiring: bool = False,
    **fields: Any,
) -> Observed:
    around = Surroundings(services=tuple(foreign), connections=connections or {}, expiring=expiring, now=NOW)
    section = {"timeouts": Timeouts(900, 120, 300), "sysctls": (("conntrack", 0), ("expire_nodest_conn", 0)), **fields}
    return Observed(sandbox=sandbox(*services, **section), around=around)


def planned(*operations: Operation, deletions: Counted = (), draining: int = 0) -> Plan:
    counted = [
        Deletion(kind=f"IPVS {kind}", count=count, total=total, never_all=kind == "service")
        for kind, count, total in deletions
    ]
    return Plan(segments(operations), tuple(counted), (), draining)


def servers_of(service: Service, *servers: Server) -> Service:
    return replace(service, servers=servers)


# The fewest operations.


@pytest.mark.parametrize("each", [WEB, DNS, MARK, WEB6, replace(WEB, servers=())])
def test_a_table_that_is_right_is_left(each: Service) -> None:
    assert plan(sandbox(each), table(each)) == planned()
    assert plan(sandbox(each), table(replace(each, servers=each.servers[::-1]))) == planned()


def test_what_nothing_is_said_of_is_left() -> None:
    everything = table(replace(WEB, marked=False), DNS, foreign=[TLS], sysctls=(("expire_nodest_conn", 1),))
    for desired in (Sandbox(id="box", driver=DRIVER), Sandbox(id="box", driver=DRIVER, ipvs=Ipvs())):
        assert plan(desired, everything) == planned()
    assert plan(sandbox(WEB), Observed(sandbox=Sandbox(id="box", driver=DRIVER))) == planned()


def test_a_new_service_is_added_and_at_once_its_servers() -> None:
    assert plan(sandbox(WEB, DNS), table()) == planned(
        AddService(service=WEB),
        AddServer(service=WEB.key, server=S1),
        AddServer(service=WEB.key, server=S2),
        AddService(service=DNS),
        AddServer(service=DNS.key, server=S1),
        AddServer(service=DNS.key, server=S2),
    )


SETTINGS: dict[str, dict[str, Any]] = {
    "scheduler": {"scheduler": "wrr"},
    "flags": {"scheduler_flags": ("flag-1",)},
    "persistent": {"persistent": 300},
    "netmask": {"persistent": 300, "netmask": "255.255.255.0"},
    "engine": {"persistence_engine": "sip"},
    "one packet": {"one_packet": True},
}


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_a_changed_setting_is_one_edit_of_the_service_both_ways(change: dict[str, Any]) -> None:
    other = replace(DNS, **change)
    for before, after in ((DNS, other), (other, DNS)):
        assert plan(sandbox(WEB, after), table(WEB, before)) == planned(EditService(service=after, before=before))


FIELDS: dict[str, dict[str, Any]] = {
    "weight": {"weight": 0},
    "forward": {"forward": "dr"},
    "upper": {"upper_threshold": 5},
    "thresholds": {"upper_threshold": 5, "lower_threshold": 2},
    "tunnel": {"forward": "tunnel", "tun_type": "gue", "tun_port": 6080},
    "checksum": {"forward": "tunnel", "tun_type": "gre", "tun_checksum": "csum"},
}


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS)
def test_a_changed_server_is_one_edit_of_it_both_ways(change: dict[str, Any]) -> None:
    other = replace(S2, **change)
    for before, after in ((S2, other), (other, S2)):
        observed = table(servers_of(WEB, S1, before), TLS)
        assert plan(sandbox(servers_of(WEB, S1, after), TLS), observed) == planned(
            EditServer(service=WEB.key, server=after, before=before)
        )


@pytest.mark.parametrize("change", [{"address": "172.16.9.9"}, {"port": 81}])
def test_another_address_or_port_is_another_server_that_comes_before_the_old_one_goes(change: dict[str, Any]) -> None:
    other = replace(S2, **change)
    assert plan(sandbox(servers_of(WEB, S1, other)), table(WEB)) == planned(
        AddServer(service=WEB.key, server=other),
        DeleteServer(service=WEB.key, server=S2),
        deletions=(("server", 1, 2),),
    )


@pytest.mark.parametrize(
    "change",
    [{"address": "10.10.0.2"}, {"port": 81}, {"protocol": "sctp"}, {"address": "fd00::1", "servers": WEB6.servers}],
)
def test_another_key_is_another_service_that_comes_before_the_old_one_goes(change: dict[str, Any]) -> None:
    other = replace(WEB, **change)
    assert plan(sandbox(other), table(WEB)) == planned(
        AddService(service=other),
        *[AddServer(service=other.key, server=each) for each in other.servers],
        DeleteService(service=WEB),
        deletions=(("service", 1, 1), ("server", 2, 2)),
    )


def test_everything_at_once_is_service_by_service_and_deletions_come_last() -> None:
    edited, grown = replace(WEB, scheduler="wrr", servers=(replace(S1, weight=1), S3)), servers_of(TLS, S3, S1)
    observed = table(WEB, MARK, TLS, WEB6)
    assert plan(sandbox(DNS, edited, grown, WEB6), observed) == planned(
        AddService(service=DNS),
        AddServer(service=DNS.key, server=S1),
        AddServer(service=DNS.key, server=S2),
        EditService(service=edited, before=WEB),
        EditServer(service=WEB.key, server=replace(S1, weight=1), before=S1),
        AddServer(service=WEB.key, server=S3),
        AddServer(service=TLS.key, server=S1),
        StartExpiring(),
        DeleteServer(service=WEB.key, server=S2),
        DeleteService(service=MARK),
        StopExpiring(),
        deletions=(("service", 1, 4), ("server", 2, 5)),
    )


def test_services_of_others_are_left() -> None:
    assert plan(sandbox(), table(foreign=[WEB, DNS])) == planned()


def test_a_service_without_our_mark_is_marked_and_nothing_else() -> None:
    for each in (WEB, TLS, replace(WEB, servers=())):
        bare = replace(each, marked=False)
        assert plan(sandbox(each, DNS), table(bare, DNS)) == planned(MarkService(service=each))
        assert plan(sandbox(each), table(bare)) == planned(MarkService(service=each))


def test_a_mark_goes_with_an_edit() -> None:
    other = replace(WEB, scheduler="wrr")
    bare = replace(WEB, marked=False)
    assert plan(sandbox(other), table(bare)) == planned(EditService(service=other, before=bare))


# Weights of others.

HEEDING = replace(WEB, ignore=("weight",))


@pytest.mark.parametrize("weights", [(100, 100), (0, 7), (65535, 0)])
def test_weights_that_are_somebody_elses_are_left(weights: tuple[int, int]) -> None:
    there = servers_of(WEB, *[replace(each, weight=weight) for each, weight in zip((S1, S2), weights, strict=True)])
    assert plan(sandbox(HEEDING), table(there)) == planned()


def test_another_field_is_changed_and_the_weight_sent_as_it_is() -> None:
    wish = replace(HEEDING, servers=(replace(S1, upper_threshold=9), S2, S3))
    there = servers_of(WEB, replace(S1, weight=3), replace(S2, weight=4))
    assert plan(sandbox(wish), table(there)) == planned(
        EditServer(service=WEB.key, server=replace(S1, weight=3, upper_threshold=9), before=replace(S1, weight=3)),
        AddServer(service=WEB.key, server=S3),
    )


def test_a_server_that_drained_and_comes_back_has_its_own_weight_again() -> None:
    drained = S2.draining(NOW + 60)
    assert plan(sandbox(HEEDING), table(servers_of(WEB, S1, drained))) == planned(
        EditServer(service=WEB.key, server=S2, before=drained)
    )


def test_ignoring_the_weights_of_one_service_ignores_no_others() -> None:
    there = servers_of(TLS, replace(S3, weight=1))
    assert plan(sandbox(HEEDING, TLS), table(servers_of(WEB, replace(S1, weight=9), S2), there)) == planned(
        EditServer(service=TLS.key, server=S3, before=replace(S3, weight=1))
    )


# Settings.


@pytest.mark.parametrize(
    ("wish", "changed"),
    [
        (Timeouts(), None),
        (Timeouts(900, 120, 300), None),
        (Timeouts(900), None),
        (Timeouts(tcp=60), Timeouts(60, None, None)),
        (Timeouts(900, 60, 300), Timeouts(None, 60, None)),
        (Timeouts(1, 2, 3), Timeouts(1, 2, 3)),
        (Timeouts(0, 0, 0), None),
    ],
)
def test_only_timeouts_that_differ_are_set(wish: Timeouts, changed: Timeouts | None) -> None:
    operations = [SetTimeouts(timeouts=changed, before=Timeouts(900, 120, 300))] if changed else []
    assert plan(sandbox(timeouts=wish, services=None), table()) == planned(*operations)


def test_only_settings_that_differ_are_set_and_before_all_else() -> None:
    desired = sandbox(WEB, sysctls=(("conn_reuse_mode", 1), ("conntrack", 0), ("drop_entry", 3)), timeouts=Timeouts(1))
    observed = table(sysctls=(("conn_reuse_mode", 0), ("conntrack", 0), ("expire_nodest_conn", 0)))
    assert plan(desired, observed).operations[:4] == (
        SetSysctl(name="conn_reuse_mode", value=1, before=0),
        SetSysctl(name="drop_entry", value=3, before=None),
        SetTimeouts(timeouts=Timeouts(1), before=Timeouts(900, 120, 300)),
        AddService(service=WEB),
    )


# Draining.


def connected(service: Service, server: Server, count: int = 5) -> dict[tuple[ServiceKey, ServerKey], Load]:
    return {(service.key, server.key): Load(inactive=count)}


def test_a_removed_server_is_drained_until_a_moment() -> None:
    until = replace(S2, weight=0, upper_threshold=DRAINING | (int(NOW) + 60 & DRAINING - 1), lower_threshold=0)
    assert plan(sandbox(servers_of(WEB, S1), drain=60), table(WEB, connections=connected(WEB, S2))) == planned(
        DrainServer(service=WEB.key, server=until, before=S2), deletions=(("server", 1, 2),), draining=1
    )


def test_a_server_with_thresholds_and_a_tunnel_keeps_all_else_as_it_drains() -> None:
    thick = replace(S2, forward="tunnel", tun_type="gue", tun_port=6080, upper_threshold=9, lower_threshold=2)
    (operation,) = plan(sandbox(servers_of(WEB, S1), drain=9), table(servers_of(WEB, S1, thick))).operations
    drained = thick.draining(NOW + 9)
    assert operation == DrainServer(service=WEB.key, server=drained, before=thick)
    assert (drained.key, drained.forward, drained.tun_type, drained.tun_port) == (thick.key, "tunnel", "gue", 6080)


def test_a_draining_server_with_connections_is_waited_for() -> None:
    there = table(servers_of(WEB, S1, FRESH), connections=connected(WEB, FRESH))
    assert plan(sandbox(servers_of(WEB, S1), drain=60), there) == planned(draining=1)


@pytest.mark.parametrize("drain", [1, 60, 86400])
@pytest.mark.parametrize("count", [0, 5])
def test_a_draining_server_goes_with_its_connections_or_at_its_deadline(drain: int, count: int) -> None:
    drained = PAST if count else FRESH
    there = table(servers_of(WEB, S1, drained), connections=connected(WEB, drained, count))
    assert plan(sandbox(servers_of(WEB, S1), drain=drain), there) == planned(
        DeleteServer(service=WEB.key, server=drained)
    )


def test_one_that_is_waited_for_does_not_hold_up_the_others() -> None:
    one, two, three = (each.draining(NOW + 60) for each in (S1, S2, S3))
    there = table(servers_of(WEB, one, two, three), connections=connected(WEB, two))
    assert plan(sandbox(servers_of(WEB), drain=60), there) == planned(
        DeleteServer(service=WEB.key, server=one), DeleteServer(service=WEB.key, server=three), draining=1
    )


@pytest.mark.parametrize("drained", [FRESH, PAST])
@pytest.mark.parametrize("drain", [0, 60])
def test_a_draining_server_that_is_wanted_again_is_restored_in_one_edit(drained: Server, drain: int) -> None:
    wish = replace(S3, upper_threshold=9, lower_threshold=2)
    there = table(servers_of(WEB, S1, drained), connections=connected(WEB, drained))
    assert plan(sandbox(servers_of(WEB, S1, wish), drain=drain), there) == planned(
        EditServer(service=WEB.key, server=wish, before=drained)
    )


MH = replace(WEB, scheduler="mh", scheduler_flags=("mh-port",), servers=(S1, S2))
SH, DH = replace(MH, scheduler="sh", scheduler_flags=()), replace(MH, scheduler="dh", scheduler_flags=())


@pytest.mark.parametrize("each", [MH, SH])
def test_a_scheduler_that_goes_by_a_hash_falls_back_while_servers_drain(each: Service) -> None:
    left, during = servers_of(each, S1), servers_of(replace(each, draining=True), S1)
    drained = S2.draining(NOW + 60)
    there = table(each, connections=connected(each, S2))
    assert plan(sandbox(left, drain=60), there) == planned(
        EditService(service=during, before=each),
        DrainServer(service=each.key, server=drained, before=S2),
        deletions=(("server", 1, 2),),
        draining=1,
    )
    waiting = table(servers_of(during, S1, drained), connections=connected(each, S2))
    assert plan(sandbox(left, drain=60), waiting) == planned(draining=1)
    over = table(servers_of(during, S1, drained))
    ends = planned(DeleteServer(service=each.key, server=drained), StopFallback(service=left))
    assert plan(sandbox(left, drain=60), over) == ends
    assert plan(sandbox(left), waiting) == ends
    # Killed in between; or somebody else has deleted the server.
    assert plan(sandbox(left, drain=60), table(during)) == planned(StopFallback(service=left))
    # Switched off by somebody else.
    lost = table(servers_of(each, S1, drained), connections=connected(each, S2))
    assert plan(sandbox(left, drain=60), lost) == planned(
        EditService(service=during, before=servers_of(each, S1, drained)), draining=1
    )
    # The server is wanted again: first its weight.
    assert plan(sandbox(each, drain=60), waiting) == planned(
        EditServer(service=each.key, server=S2, before=drained), StopFallback(service=each)
    )


def test_a_fallback_that_the_manifest_has_stays() -> None:
    flagged = replace(MH, scheduler_flags=("mh-fallback", "mh-port"))
    left, drained = servers_of(flagged, S1), S2.draining(NOW + 60)
    there = table(flagged, connections=connected(MH, S2))
    assert plan(sandbox(left, drain=60), there) == planned(
        DrainServer(service=MH.key, server=drained, before=S2), deletions=(("server", 1, 2),), draining=1
    )
    # It comes into the manifest while it is on anyway.
    waiting = servers_of(replace(MH, draining=True), S1, drained)
    assert plan(sandbox(left, drain=60), table(waiting, connections=connected(MH, S2))) == planned(
        EditService(service=left, before=waiting), draining=1
    )


def test_with_dh_a_server_is_deleted_at_once_unless_its_service_is_removed() -> None:
    there = table(DH, TLS, connections=connected(DH, S2))
    left = servers_of(DH, S1)
    assert plan(sandbox(left, TLS, drain=60), there) == planned(
        DeleteServer(service=DH.key, server=S2), deletions=(("server", 1, 3),)
    )
    assert plan(sandbox(TLS, drain=60), there).draining == 2


def test_servers_of_a_removed_service_drain_before_it_goes() -> None:
    there = table(WEB, TLS, connections=connected(WEB, S2))
    one, two = S1.draining(NOW + 60), S2.draining(NOW + 60)
    assert plan(sandbox(TLS, drain=60), there) == planned(
        DrainServer(service=WEB.key, server=one, before=S1),
        DrainServer(service=WEB.key, server=two, before=S2),
        deletions=(("service", 1, 2), ("server", 2, 3)),
        draining=2,
    )
    there = table(servers_of(WEB, one, two), TLS, connections=connected(WEB, two))
    assert plan(sandbox(TLS, drain=60), there) == planned(draining=1)
    there = table(servers_of(WEB, one, two), TLS)
    assert plan(sandbox(TLS, drain=60), there) == planned(DeleteService(service=servers_of(WEB, one, two)))


def test_a_removed_service_without_servers_goes_at_once() -> None:
    empty = servers_of(WEB)
    assert plan(sandbox(TLS, drain=60), table(empty, TLS)) == planned(
        DeleteService(service=empty), deletions=(("service", 1, 2),)
    )


def test_a_service_that_drained_and_is_wanted_again_is_as_it_was() -> None:
    one, two = S1.draining(NOW + 60), S2.draining(NOW - 5)
    there = table(servers_of(WEB, one, two), connections=connected(WEB, one))
    assert plan(sandbox(WEB, drain=60), there) == planned(
        EditServer(service=WEB.key, server=S1, before=one), EditServer(service=WEB.key, server=S2, before=two)
    )


def test_without_a_drain_what_drains_goes_at_once_and_is_not_counted_again() -> None:
    there = servers_of(WEB, S1, FRESH)
    assert plan(sandbox(servers_of(WEB, S1)), table(there, connections=connected(WEB, FRESH))) == planned(
        DeleteServer(service=WEB.key, server=FRESH)
    )
    gone = servers_of(WEB, S1.draining(NOW + 9), FRESH)
    assert plan(sandbox(TLS), table(gone, TLS)) == planned(DeleteService(service=gone))


def test_a_server_of_weight_0_with_a_threshold_drains_nothing() -> None:
    quiet = replace(S2, weight=0, upper_threshold=DRAINING - 1)
    assert quiet.deadline is None
    (operation,) = plan(sandbox(servers_of(WEB, S1), drain=60), table(servers_of(WEB, S1, quiet))).operations
    assert isinstance(operation, DrainServer)


# Connections whose server is gone.

CUT_DNS = servers_of(DNS, S1)


@pytest.mark.parametrize("each", [DNS, DNS6, MARK])
def test_flows_of_a_removed_server_are_freed(each: Service) -> None:
    removed = each.servers[-1]
    assert plan(sandbox(servers_of(each, *each.servers[:-1])), table(each)) == planned(
        StartExpiring(),
        DeleteServer(service=each.key, server=removed),
        StopExpiring(),
        deletions=(("server", 1, len(each.servers)),),
    )
    assert plan(sandbox(WEB), table(WEB, each)) == planned(
        StartExpiring(),
        DeleteService(service=each),
        StopExpiring(),
        deletions=(("service", 1, 2), ("server", len(each.servers), 2 + len(each.servers))),
    )


@pytest.mark.parametrize("protocol", ["tcp", "sctp"])
def test_connections_that_know_an_end_are_not(protocol: str) -> None:
    each = replace(WEB, protocol=protocol)
    assert StartExpiring() not in plan(sandbox(servers_of(each, S1), TLS), table(each, TLS)).operations
    assert StartExpiring() not in plan(sandbox(TLS), table(each, TLS)).operations


def test_flows_are_not_freed_where_the_kernel_does_it() -> None:
    on: dict[str, Any] = {"sysctls": (("conntrack", 0), ("expire_nodest_conn", 1))}
    assert StartExpiring() not in plan(sandbox(CUT_DNS), table(DNS, **on)).operations
    # It will do so, or will not any more.
    wanted = plan(sandbox(CUT_DNS, sysctls=(("expire_nodest_conn", 1),)), table(DNS)).operations
    assert wanted == (
        SetSysctl(name="expire_nodest_conn", value=1, before=0),
        DeleteServer(service=DNS.key, server=S2),
    )
    unwanted = plan(sandbox(CUT_DNS, sysctls=(("expire_nodest_conn", 0),)), table(DNS, **on)).operations
    assert unwanted == (
        SetSysctl(name="expire_nodest_conn", value=0, before=1),
        StartExpiring(),
        DeleteServer(service=DNS.key, server=S2),
        StopExpiring(),
    )


LEFT_BEHIND: dict[str, Any] = {"expiring": True}


@pytest.mark.parametrize("sysctls", [(), (("expire_nodest_conn", 0),)])
def test_what_a_killed_run_left_on_is_put_back(sysctls: tuple[tuple[str, int], ...]) -> None:
    for wishes in ((WEB,), None):
        desired = Sandbox(id="box", driver=DRIVER, ipvs=Ipvs(services=wishes, sysctls=sysctls))
        assert plan(desired, table(WEB, **LEFT_BEHIND)) == planned(StopExpiring())


def test_what_a_killed_run_left_on_and_is_to_be_on_is_set() -> None:
    assert plan(sandbox(WEB, sysctls=(("expire_nodest_conn", 1),)), table(WEB, **LEFT_BEHIND)) == planned(
        SetSysctl(name="expire_nodest_conn", value=1, before=0)
    )


TRACKING: dict[str, Any] = {"sysctls": (("conntrack", 1), ("expire_nodest_conn", 1))}


@pytest.mark.parametrize("each", [DNS, DNS6])
def test_entries_of_connection_tracking_are_deleted_with_a_server(each: Service) -> None:
    for desired in (sandbox(servers_of(each), WEB), sandbox(WEB)):
        operations = plan(desired, table(each, WEB, **TRACKING)).operations
        assert operations[-1] == DeleteConntrack(address=each.address, protocol="udp")
        assert sum(isinstance(operation, DeleteConntrack) for operation in operations) == 1


def test_entries_from_before_there_was_a_service_or_a_server_are_deleted() -> None:
    entry = DeleteConntrack(address=DNS.address, protocol="udp")
    for there in (table(**TRACKING), table(servers_of(DNS), **TRACKING)):
        assert plan(sandbox(DNS), there).operations[-1] == entry
    assert entry not in plan(sandbox(servers_of(DNS)), table(**TRACKING)).operations
    assert entry not in plan(sandbox(DNS), table(servers_of(DNS, S1), **TRACKING)).operations


def test_each_address_is_named_once_and_only_those_of_udp() -> None:
    other = replace(DNS, port=54)
    operations = plan(sandbox(DNS, MARK), table(other, WEB, TLS, **TRACKING)).operations
    assert [each for each in operations if isinstance(each, DeleteConntrack)] == [
        DeleteConntrack(address=DNS.address, protocol="udp")
    ]


@pytest.mark.parametrize(
    ("had", "wish", "expected"), [(0, 1, True), (1, 0, False), (0, 0, False), (1, 1, True), (1, None, True)]
)
def test_connection_tracking_counts_as_it_will_be(had: int, wish: int | None, expected: bool) -> None:
    sysctls = (("conntrack", had), ("expire_nodest_conn", 1))
    desired = sandbox(CUT_DNS, sysctls=() if wish is None else (("conntrack", wish),))
    operations = plan(desired, table(DNS, sysctls=sysctls)).operations
    assert any(isinstance(each, DeleteConntrack) for each in operations) == expected


def test_flows_are_freed_when_a_drain_is_cut_short_and_not_before() -> None:
    drained = S2.draining(NOW + 60)
    there = table(servers_of(DNS, S1, drained), connections=connected(DNS, S2))
    assert plan(sandbox(CUT_DNS, drain=60), there) == planned(draining=1)
    assert plan(sandbox(CUT_DNS), there) == planned(
        StartExpiring(), DeleteServer(service=DNS.key, server=drained), StopExpiring()
    )
    # Its deadline is over, and flows are left.
    late = replace(S2.draining(NOW - 1))
    there = table(servers_of(DNS, S1, late), connections=connected(DNS, S2))
    assert plan(sandbox(CUT_DNS, drain=60), there) == planned(
        StartExpiring(), DeleteServer(service=DNS.key, server=late), StopExpiring()
    )
    # It has none.
    assert plan(sandbox(CUT_DNS, drain=60), table(servers_of(DNS, S1, drained))) == planned(
        DeleteServer(service=DNS.key, server=drained)
    )
    # As it begins, nothing is cut yet.
    assert [type(each) for each in plan(sandbox(CUT_DNS, drain=60), table(DNS)).operations] == [DrainServer]


# Restoring a table.


def many(count: int, *, ipv6_from: int = 10**9, servers: int = 2) -> list[Service]:
    return [
        Service(
            protocol="tcp",
            address=f"fd00:10::{number:x}" if number >= ipv6_from else f"10.11.{number >> 8}.{number & 255}",
            port=80,
            servers=tuple(
                Server(address=f"fd00::{n + 1:x}" if number >= ipv6_from else f"172.16.1.{n + 1}", port=80)
                for n in range(servers)
            ),
        )
        for number in range(count)
    ]


def restored(services: list[Service], heads: list[int]) -> list[Operation]:
    first = [services[place] for place in heads]
    rest = [each for each in services if each not in first]
    return [
        *[AddService(service=each) for each in (*first, *rest)],
        *[AddServer(service=each.key, server=server) for each in services for server in each.servers],
    ]


def in_turn(services: list[Service]) -> list[Operation]:
    operations: list[Operation] = []
    for each in services:
        operations += [AddService(service=each), *[AddServer(service=each.key, server=s) for s in each.servers]]
    return operations


def test_a_restore_begins_with_a_service_of_each_family_and_servers_come_last() -> None:
    services = many(300, ipv6_from=200)
    operations = list(plan(sandbox(*services), table()).operations)
    assert operations in (restored(services, [0, 200]), restored(services, [200, 0]))
    assert list(plan(sandbox(*services[:280]), table()).operations[:2]) in (operations[:2], operations[1::-1])


def test_a_restore_of_one_family_is_in_the_order_of_the_manifest() -> None:
    services = many(300)
    assert list(plan(sandbox(*services), table()).operations) == restored(services, [0])


@pytest.mark.parametrize(
    ("present", "is_restore"), [(0, True), (RESTORE // 10, True), (RESTORE // 10 + 1, False), (RESTORE, False)]
)
@pytest.mark.parametrize("foreign", [False, True])
def test_it_is_a_restore_if_hardly_any_server_is_there(present: int, is_restore: bool, foreign: bool) -> None:
    services = many(RESTORE // 2)
    there = [Service(protocol="tcp", address="10.99.0.1", port=port, servers=(S1,)) for port in range(1, present + 1)]
    observed = table(foreign=there) if foreign else table(*there)
    desired = sandbox(*services) if foreign else sandbox(*there, *services)
    expected = restored(services, [0]) if is_restore else in_turn(services)
    assert list(plan(desired, observed).operations) == expected


@pytest.mark.parametrize(("count", "is_restore"), [(RESTORE - 1, False), (RESTORE, True)])
def test_it_is_a_restore_from_so_many_servers_on(count: int, is_restore: bool) -> None:
    services = many(count, servers=1)
    expected = restored(services, [0]) if is_restore else in_turn(services)
    assert list(plan(sandbox(*services), table()).operations) == expected


def test_in_a_restore_services_that_are_there_are_edited_and_deletions_still_come_last() -> None:
    services = many(RESTORE, servers=1)
    there = replace(services[3], scheduler="rr", servers=())
    operations = list(plan(sandbox(*services), table(there, WEB6)).operations)
    added = restored([each for each in services if each is not services[3]], [0])
    assert operations[: RESTORE - 1] == added[: RESTORE - 1]
    assert operations[-1] == DeleteService(service=WEB6)
    assert [each for each in operations if isinstance(each, EditService)] == [
        EditService(service=services[3], before=there)
    ]
    place = operations.index(EditService(service=services[3], before=there))
    assert operations[place + 1] == AddServer(service=services[3].key, server=services[3].servers[0])


# What may be deleted.


def refusal(desired: Sandbox, observed: Observed, allowance: Allowance | None = None) -> str | None:
    try:
        check_deletions(plan(desired, observed), allowance)
    except RefusedError as refused:
        return str(refused).splitlines()[0]
    return None


LIMIT = "; the limit is 30 % (and always 10)."


@pytest.mark.parametrize("drain", [0, 60])
def test_the_last_service_is_not_deleted_unasked(drain: int) -> None:
    assert refusal(sandbox(drain=drain), table(WEB)) == "this would delete the only IPVS service."
    assert refusal(sandbox(drain=drain), table(WEB, TLS)) == "this would delete all 2 IPVS services."
    # Also if others come.
    assert refusal(sandbox(MARK, drain=drain), table(WEB)) == "this would delete the only IPVS service."
    assert refusal(sandbox(WEB, drain=drain), table(WEB, TLS)) is None
    assert refusal(sandbox(drain=drain), table(WEB), Allowance(count=2)) is None
    assert refusal(sandbox(drain=drain), table(foreign=[WEB])) is None


@pytest.mark.parametrize("drain", [0, 60])
def test_too_many_services_and_servers_are_named_together(drain: int) -> None:
    services = many(40)
    assert refusal(sandbox(*services[:30], drain=drain), table(*services)) is None
    assert refusal(sandbox(*services[:27], drain=drain), table(*services)) == (
        f"this would delete 13 of 40 IPVS services and 26 of 80 IPVS servers{LIMIT}"
    )
    (half,) = many(1, servers=22)
    assert refusal(sandbox(servers_of(half, *half.servers[11:]), drain=drain), table(half)) == (
        f"this would delete 11 of 22 IPVS servers{LIMIT}"
    )


def test_what_drains_was_counted_as_it_began() -> None:
    services = many(40)
    drained = [servers_of(each, *[server.draining(NOW - 1) for server in each.servers]) for each in services[10:]]
    for drain in (0, 60):
        assert refusal(sandbox(*services[:10], drain=drain), table(*services[:10], *drained)) is None
        planned_ = plan(sandbox(*services[:10], drain=drain), table(*services[:10], *drained))
        assert [type(each) for each in planned_.operations] == [DeleteService] * 30
        assert planned_.deletions == ()


def test_a_service_of_which_a_server_drains_counts_as_it_is_removed_and_once() -> None:
    partly, wholly = servers_of(WEB, S1, FRESH), servers_of(WEB, S1.draining(NOW + 9), FRESH)
    assert refusal(sandbox(drain=60), table(partly)) == "this would delete the only IPVS service."
    assert refusal(sandbox(drain=60), table(wholly, connections=connected(WEB, FRESH))) is None


def test_a_restore_deletes_nothing() -> None:
    services = many(600)
    assert plan(sandbox(*services), table(foreign=[WEB])).deletions == ()


def test_other_deletions_are_counted_beside_those_of_ipvs() -> None:
    gone = route("10.1.0.0/16", hop("eth0", "192.0.2.1"))
    observed = found([nic("eth0", "192.0.2.10/24")], [gone])
    observed = Observed(
        sandbox=replace(observed.sandbox, ipvs=table(WEB, TLS).sandbox.ipvs), around=replace(observed.around, now=NOW)
    )
    desired = replace(observed.sandbox, routes=(), ipvs=Ipvs(services=(TLS,)))
    assert plan(desired, observed) == Plan(
        segments((DeleteService(service=WEB), DeleteRoute(route=gone))),
        (
            Deletion(kind="route", count=1, total=1),
            Deletion(kind="IPVS service", count=1, total=2, never_all=True),
            Deletion(kind="IPVS server", count=2, total=3),
        ),
        (),
        0,
    )


def test_routes_come_before_the_servers_they_lead_to_and_go_after_them() -> None:
    hops = [hop("eth0", "192.0.2.1"), hop("eth0", "192.0.2.2")]
    old, new, changed = (
        route("10.1.0.0/16", hops[0]),
        route("10.2.0.0/16", hops[0]),
        Route(dest="10.3.0.0/16", nexthops=(hops[0],)),
    )
    observed = found([nic("eth0", "192.0.2.10/24")], [old, changed])
    observed = replace(observed, sandbox=replace(observed.sandbox, ipvs=table(WEB).sandbox.ipvs))
    moved = replace(changed, nexthops=(hops[1],))
    desired = replace(observed.sandbox, routes=(new, moved), ipvs=Ipvs(services=(servers_of(WEB, S1),)))
    assert plan(desired, observed).operations == (
        AddRoute(route=new),
        ReplaceRoute(route=moved, before=changed),
        DeleteServer(service=WEB.key, server=S2),
        DeleteRoute(route=old),
    )


# All of it, against a table in memory.


@dataclass
class Simulator:
    """A table that operations change; what cannot be is an error."""

    services: dict[ServiceKey, Service] = field(default_factory=dict)

    def observed(self, now: float = NOW) -> Observed:
        observed = table(*self.services.values())
        return replace(observed, around=replace(observed.around, now=now))

    def execute(self, operation: Operation) -> None:
        match operation:
            case AddService(service=service):
                assert service.key not in self.services
                self.services[service.key] = replace(service, servers=(), ignore=())
            case EditService(service=service, before=before):
                assert self.services[service.key] == before
                assert before != replace(service, servers=before.servers)
                self.services[service.key] = replace(service, servers=before.servers, ignore=())
            case MarkService(service=service):
                before = self.services[service.key]
                assert not before.marked
                assert replace(service, servers=before.servers, ignore=()) == replace(before, marked=True)
                self.services[service.key] = replace(before, marked=True)
            case StopFallback(service=service):
                before = self.services[service.key]
                assert before == replace(service, servers=before.servers, ignore=(), draining=True)
                self.services[service.key] = replace(before, draining=False)
            case DeleteService(service=service):
                assert self.services.pop(service.key) == service
            case AddServer(service=key, server=server):
                servers = self._servers(key)
                assert server.key not in servers
                self._put(key, {**servers, server.key: server})
            case (
                EditServer(service=key, server=server, before=before)
                | DrainServer(service=key, server=server, before=before)
            ):
                servers = self._servers(key)
                assert servers[server.key] == before != server
                self._put(key, {**servers, server.key: server})
            case DeleteServer(service=key, server=server):
                servers = self._servers(key)
                assert servers.pop(server.key) == server
                self._put(key, servers)
            case StartExpiring() | StopExpiring() | DeleteConntrack():
                pass
            case _:
                pytest.fail(f"{operation} is not planned here")

    def _servers(self, key: ServiceKey) -> dict[ServerKey, Server]:
        return {each.key: each for each in self.services[key].servers}

    def _put(self, key: ServiceKey, servers: Mapping[ServerKey, Server]) -> None:
        self.services[key] = replace(self.services[key], servers=tuple(servers.values()))

    def families(self) -> set[bool]:
        return {each.is_ipv6 for each in self.services.values()}


def contents(services: Iterable[Service]) -> dict[ServiceKey, tuple[Service, frozenset[Server]]]:
    return {each.key: (replace(each, servers=(), ignore=()), frozenset(each.servers)) for each in services}


@st.composite
def states(draw: st.DrawFn) -> list[Service]:
    """Tables in which some servers drain."""
    return [
        servers_of(
            replace(each, marked=draw(st.booleans())),
            *[draw(st.sampled_from((s, s, s.draining(NOW - 1), s.draining(NOW + 9)))) for s in each.servers],
        )
        for each in draw(services())
    ]


@settings(deadline=None, max_examples=examples(100))
@given(states(), services())
def test_what_is_planned_makes_the_table_what_it_should_be(before: list[Service], wishes: list[Service]) -> None:
    simulator = Simulator({each.key: each for each in before})
    had, kept = simulator.families(), simulator.families() & {each.is_ipv6 for each in wishes}
    with_servers = {each.key for each in before if each.servers} & {each.key for each in wishes if each.servers}
    for operation in plan(sandbox(*wishes), simulator.observed()).operations:
        simulator.execute(operation)
        assert kept <= simulator.families() or not had
        assert all(simulator.services[key].servers for key in with_servers)
    assert contents(simulator.services.values()) == contents(wishes)
    assert plan(sandbox(*wishes), simulator.observed()) == planned()


@settings(deadline=None, max_examples=examples(50))
@given(states(), services())
def test_nothing_is_done_to_what_stays_as_it_is(before: list[Service], wishes: list[Service]) -> None:
    there, wanted = contents(before), contents(wishes)
    seen: list[object] = []
    for operation in plan(sandbox(*wishes), table(*before)).operations:
        match operation:
            case AddService(service=service) | EditService(service=service) | DeleteService(service=service):
                seen.append(service.key)
                assert there.get(service.key, (None,))[0] != wanted.get(service.key, (None,))[0]
            case (
                AddServer(service=key, server=server)
                | EditServer(service=key, server=server)
                | DeleteServer(service=key, server=server)
            ):
                seen.append((key, server.key))
                both = (there.get(key, (None, frozenset()))[1], wanted.get(key, (None, frozenset()))[1])
                matching = [{each for each in side if each.key == server.key} for side in both]
                assert matching[0] != matching[1]
            case _:
                pass
    assert len(seen) == len(set(seen))


@settings(deadline=None, max_examples=examples(50))
@given(states(), services(), st.integers(1, 100))
def test_draining_takes_at_most_two_plans(before: list[Service], wishes: list[Service], drain: int) -> None:
    """What is wanted is right after one plan; what is not is gone after the next one once all has ended."""
    simulator = Simulator({each.key: each for each in before})
    first = plan(sandbox(*wishes, drain=drain), simulator.observed())
    for operation in first.operations:
        simulator.execute(operation)
    wanted = contents(wishes)
    for key, (settings_, servers) in wanted.items():
        # A fallback is on while servers drain.
        assert replace(contents(simulator.services.values())[key][0], draining=False) == settings_
        assert servers <= contents(simulator.services.values())[key][1]
    left = [
        s for each in simulator.services.values() for s in each.servers if s not in wanted.get(each.key, ((), ()))[1]
    ]
    assert len(left) >= first.draining
    assert all(each.deadline is not None for each in left)
    second = plan(sandbox(*wishes, drain=drain), simulator.observed(now=NOW + drain))
    assert (second.deletions, second.draining) == ((), 0)
    for operation in second.operations:
        assert isinstance(operation, DeleteServer | DeleteService | StartExpiring | StopExpiring | StopFallback)
        simulator.execute(operation)
    assert contents(simulator.services.values()) == wanted

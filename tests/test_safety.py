from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from reconciler.model.interface import Interface
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service, Timeouts
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox
from reconciler.operations.ipvs import AddServer, DeleteServer
from reconciler.operations.runtime import ImportedRule, RuleCommand
from reconciler.operations.segment import Imports, RuleCommands
from reconciler.plan import Deletion, Plan, plan
from reconciler.safety import Allowance, check_deletions, combine, fingerprint, parse_allowance, plain
from reconciler.values import dataclass, replace

ADVICE = "Look again with `reconciler diff`; if it is what you want: --allow-delete all"
LIMIT = "; the limit is 30 % (and always 10)"


def deleting(*deletions: tuple[str, int, int], lost: tuple[str, ...] = ()) -> Plan:
    return Plan(
        segments=(),
        deletions=tuple(Deletion(kind=kind, count=count, total=total) for kind, count, total in deletions),
        lost_defaults=lost,
    )


@pytest.mark.parametrize(
    ("count", "total"),
    [(1, 1), (10, 10), (10, 11), (11, 37), (30, 100), (300, 1000), (3, 10)],
)
def test_ten_of_a_kind_or_thirty_percent_are_allowed(count: int, total: int) -> None:
    check_deletions(deleting(("route", count, total)), None)


@pytest.mark.parametrize(
    ("kind", "count", "total", "words"),
    [
        ("route", 11, 11, "11 of 11 routes"),
        ("route", 11, 36, "11 of 36 routes"),
        ("route", 31, 100, "31 of 100 routes"),
        ("route", 301, 1000, "301 of 1,000 routes"),
        ("address", 14998, 15000, "14,998 of 15,000 addresses"),
        ("interface", 11, 12, "11 of 12 interfaces"),
    ],
)
def test_more_than_that_is_refused(kind: str, count: int, total: int, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_deletions(deleting((kind, count, total)), None)
    assert str(caught.value) == f"this would delete {words}{LIMIT}.\n{ADVICE}"


def test_kinds_are_counted_apart_and_named_together() -> None:
    check_deletions(deleting(("interface", 10, 10), ("address", 10, 10), ("route", 10, 10)), None)
    with pytest.raises(RefusedError) as caught:
        check_deletions(deleting(("interface", 10, 10), ("address", 11, 11), ("route", 5000, 5000)), None)
    assert str(caught.value) == f"this would delete 11 of 11 addresses and 5,000 of 5,000 routes{LIMIT}.\n{ADVICE}"


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (("IPv4",), "the last IPv4 default route"),
        (("IPv6",), "the last IPv6 default route"),
        (("IPv4", "IPv6"), "the last IPv4 default route and the last IPv6 default route"),
    ],
)
def test_the_last_default_route_of_a_family_is_refused_by_itself(lost: tuple[str, ...], words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_deletions(deleting(("route", 1, 1), lost=lost), None)
    assert str(caught.value) == f"this would delete {words}.\n{ADVICE}"


def test_a_default_route_beside_too_many_others_is_named_as_well() -> None:
    with pytest.raises(RefusedError) as caught:
        check_deletions(deleting(("route", 20, 20), lost=("IPv4",)), None)
    assert str(caught.value) == (f"this would delete 20 of 20 routes and the last IPv4 default route{LIMIT}.\n{ADVICE}")


@pytest.mark.parametrize(
    ("allowance", "count", "total", "allowed"),
    [
        (Allowance(), 5000, 5000, True),
        (Allowance(count=12), 12, 12, True),
        (Allowance(count=12), 13, 1000, False),
        (Allowance(count=0), 1, 1000, False),
        (Allowance(percent=50), 50, 100, True),
        (Allowance(percent=50), 51, 100, False),
        (Allowance(percent=33), 1, 3, False),
        (Allowance(percent=34), 1, 3, True),
        (Allowance(percent=100), 7, 7, True),
        # It is what is allowed, and not more than the limit by itself allows.
        (Allowance(percent=0), 1, 1000, False),
    ],
)
def test_an_allowance_takes_the_place_of_the_limit(
    allowance: Allowance, count: int, total: int, *, allowed: bool
) -> None:
    planned = deleting(("route", count, total))
    if allowed:
        check_deletions(planned, allowance)
        return
    with pytest.raises(RefusedError) as caught:
        check_deletions(planned, allowance)
    assert str(caught.value) == (f"this would delete {count:,} of {total:,} routes; that is not allowed.\n{ADVICE}")


def test_who_allows_deletions_allows_that_of_the_default_route() -> None:
    check_deletions(deleting(("route", 1, 9), lost=("IPv4", "IPv6")), Allowance(count=1))


@pytest.mark.parametrize(
    ("text", "allowance"),
    [
        ("all", Allowance()),
        ("0", Allowance(count=0)),
        ("14998", Allowance(count=14998)),
        ("999999999", Allowance(count=999999999)),
        ("0%", Allowance(percent=0)),
        ("50%", Allowance(percent=50)),
        ("100%", Allowance(percent=100)),
    ],
)
def test_an_allowance_is_a_number_a_percentage_or_all(text: str, allowance: Allowance) -> None:
    assert parse_allowance(text) == allowance


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.5", "101%", "1 %", " 1", "1\n", "ALL", "%", "1e3", "0x10", "٣", "1%%", "9999999999"]
)
def test_anything_else_is_no_allowance(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number") as caught:
        parse_allowance(text)
    assert str(caught.value) == f'"{text}" is not a number such as 20, a percentage up to 100%, or "all"'


NIC = Interface(name="eth0", device="tap0", hw_addr="02:00:00:00:00:01", mtu=1500)
ROUTES = tuple(
    Route(dest=f"10.{number}.0.0/16", nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),)) for number in range(4)
)
DESIRED = Sandbox(id="box", driver=NetnsAddress(name="box"), interfaces=(NIC,), routes=ROUTES[:3])
OBSERVED = Sandbox(id="box", driver=NetnsAddress(name="box"), interfaces=(NIC,), routes=ROUTES[1:3])


def planned(desired: Sandbox, observed: Sandbox) -> Plan:
    return plan(desired, Observed(sandbox=observed))


PLANNED = planned(DESIRED, OBSERVED)
SAME = fingerprint(DESIRED, OBSERVED, PLANNED)


def test_a_fingerprint_is_short() -> None:
    assert re.fullmatch(r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}", SAME)


def test_a_fingerprint_is_the_same_for_equal_things() -> None:
    desired = replace(DESIRED, routes=tuple(map(replace, ROUTES[:3])))
    assert fingerprint(desired, replace(OBSERVED), planned(desired, OBSERVED)) == SAME


OTHERS = {
    "ID": {"id": "other"},
    "driver": {"driver": NetnsAddress(name="other")},
    "interface": {"interfaces": (replace(NIC, mtu=1400),)},
    "no interface": {"interfaces": ()},
    "interfaces absent": {"interfaces": None},
    "route": {"routes": (replace(ROUTES[1], mtu=1400), *ROUTES[2:3])},
    "one route more": {"routes": ROUTES},
    "no route": {"routes": ()},
    "routes absent": {"routes": None},
}


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
def test_a_fingerprint_changes_with_what_is_desired_or_found(fields: dict[str, object]) -> None:
    desired, observed = replace(DESIRED, **fields), replace(OBSERVED, **fields)  # type: ignore[arg-type]
    assert fingerprint(desired, OBSERVED, PLANNED) != SAME
    assert fingerprint(DESIRED, observed, PLANNED) != SAME
    assert fingerprint(desired, OBSERVED, PLANNED) != fingerprint(DESIRED, observed, PLANNED)


def test_a_fingerprint_changes_with_the_plan() -> None:
    prints = {
        fingerprint(DESIRED, OBSERVED, PLANNED),
        fingerprint(DESIRED, OBSERVED, planned(DESIRED, replace(OBSERVED, routes=()))),
        fingerprint(DESIRED, OBSERVED, planned(replace(DESIRED, routes=()), OBSERVED)),
        fingerprint(DESIRED, OBSERVED, planned(OBSERVED, OBSERVED)),
    }
    assert len(prints) == 4


@settings(deadline=None)
@given(st.permutations(ROUTES), st.integers(0, 4))
def test_a_fingerprint_does_not_change_with_the_order_in_which_routes_are_found(
    routes: list[Route], wanted: int
) -> None:
    desired = replace(DESIRED, routes=ROUTES[:wanted])
    prints = {
        fingerprint(desired, observed, planned(desired, observed))
        for observed in (replace(DESIRED, routes=ROUTES), replace(DESIRED, routes=tuple(routes)))
    }
    assert len(prints) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterRoute(Route):
    """A route of a later release, which has a field more."""

    colour: int = 0
    labels: tuple[str, ...] = ()


def later(route: Route, **fields: Any) -> LaterRoute:
    return LaterRoute(dest=route.dest, nexthops=route.nexthops, mtu=route.mtu, **fields)


def changed(*routes: Route) -> str:
    """The fingerprint of a change of the MTU of each of these routes."""
    desired = replace(DESIRED, routes=tuple(replace(each, mtu=1400) for each in routes))
    observed = replace(OBSERVED, routes=tuple(routes))
    assert len(planned(desired, observed).operations) == len(routes)
    return fingerprint(desired, observed, planned(desired, observed))


def test_a_new_field_changes_no_fingerprint_of_what_does_not_use_it() -> None:
    assert changed(*map(later, ROUTES)) == changed(*ROUTES)
    assert changed(*(later(each, colour=0, labels=()) for each in ROUTES)) == changed(*ROUTES)
    assert changed(*(later(each, colour=7) for each in ROUTES)) != changed(*ROUTES)
    assert changed(*(later(each, labels=("x",)) for each in ROUTES)) != changed(*ROUTES)


def test_a_field_with_its_default_is_left_out() -> None:
    assert plain(ROUTES[0]) == {"dest": "10.0.0.0/16", "nexthops": [{"device": "eth0", "gateway": "192.0.2.1"}]}
    assert plain(replace(ROUTES[0], mtu=1400, opaque=("realms 1",))) == plain(ROUTES[0]) | {
        "mtu": 1400,
        "opaque": ["realms 1"],
    }
    assert plain(Timeouts(900)) == {"tcp": 900}
    assert plain(AddServer(service=WEB.key, server=WEB.servers[0])) == {
        "service": ["tcp", "10.10.0.1", 80],
        "server": {"address": "172.16.0.1", "port": 80},
    }


def test_a_fingerprint_knows_what_a_runtime_is_told_to_do() -> None:
    add = AddServer(service=WEB.key, server=WEB.servers[0])
    rules = [
        RuleCommand(container="box", operation=add),
        RuleCommand(container="box", operation=DeleteServer(service=add.service, server=add.server)),
        RuleCommand(container="other", operation=add),
        RuleCommand(container="box", operation=replace(add, server=replace(add.server, weight=2))),
    ]
    prints = {fingerprint(DESIRED, OBSERVED, Plan((RuleCommands((each,)),))) for each in rules}
    assert len(prints) == 4
    # It is the same change, whichever command carries it out.
    imported = Plan((Imports((ImportedRule(container="box", operation=add),)),))
    assert fingerprint(DESIRED, OBSERVED, imported) in prints


def test_the_fingerprint_of_one_sandbox_is_that_of_all() -> None:
    assert combine([SAME]) == SAME


def test_the_fingerprint_of_several_does_not_depend_on_their_order_and_does_on_each() -> None:
    one, other, third = "0000-0000-0001", "0000-0000-0002", "0000-0000-0003"
    together = combine([one, other])
    assert re.fullmatch(r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}", together)
    assert combine([other, one]) == together
    assert len({together, combine([one, third]), combine([one, other, third]), one, other}) == 5


def ending_all(*deletions: tuple[str, int, int]) -> Plan:
    """A plan that deletes of kinds of which a few are many."""
    return Plan(
        segments=(),
        deletions=tuple(
            Deletion(kind=kind, count=count, total=total, never_all=True) for kind, count, total in deletions
        ),
        lost_defaults=(),
    )


@pytest.mark.parametrize(
    ("count", "total", "words"),
    [
        (1, 1, "the only IPVS service"),
        (2, 2, "all 2 IPVS services"),
        (10, 10, "all 10 IPVS services"),
        (5000, 5000, "all 5,000 IPVS services"),
        (11, 36, "11 of 36 IPVS services"),
    ],
)
def test_all_of_a_kind_of_which_few_are_many_are_refused(count: int, total: int, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_deletions(ending_all(("IPVS service", count, total)), None)
    limit = LIMIT if count < total else ""
    assert str(caught.value) == f"this would delete {words}{limit}.\n{ADVICE}"


@pytest.mark.parametrize(("count", "total"), [(1, 2), (9, 10), (10, 11), (11, 37)])
def test_some_of_them_are_not(count: int, total: int) -> None:
    check_deletions(ending_all(("IPVS service", count, total)), None)


def test_who_allows_so_many_allows_all() -> None:
    for allowance in (Allowance(), Allowance(count=2), Allowance(percent=100)):
        check_deletions(ending_all(("IPVS service", 2, 2)), allowance)
    with pytest.raises(RefusedError) as caught:
        check_deletions(ending_all(("IPVS service", 2, 2)), Allowance(count=1))
    assert str(caught.value) == f"this would delete all 2 IPVS services; that is not allowed.\n{ADVICE}"


WEB = Service(protocol="tcp", address="10.10.0.1", port=80, servers=(Server(address="172.16.0.1", port=80),))
BALANCED = replace(DESIRED, ipvs=Ipvs(services=(WEB,)))

OTHER_SECTIONS = {
    "absent": None,
    "services absent": Ipvs(),
    "no service": Ipvs(services=()),
    "service": Ipvs(services=(replace(WEB, scheduler="rr"),)),
    "server": Ipvs(services=(replace(WEB, servers=(replace(WEB.servers[0], weight=0),)),)),
    "ignore": Ipvs(services=(replace(WEB, ignore=("weight",)),)),
    "timeouts": Ipvs(services=(WEB,), timeouts=Timeouts(900)),
    "sysctls": Ipvs(services=(WEB,), sysctls=(("conntrack", 1),)),
    "exclude": Ipvs(services=(WEB,), exclude=(Excluded(fwmark=1),)),
    "drain": Ipvs(services=(WEB,), drain=1),
}


@pytest.mark.parametrize("section", OTHER_SECTIONS.values(), ids=OTHER_SECTIONS)
def test_a_fingerprint_changes_with_all_that_is_said_of_ipvs(section: Ipvs | None) -> None:
    other = replace(BALANCED, ipvs=section)
    same = fingerprint(BALANCED, BALANCED, PLANNED)
    prints = {same, fingerprint(other, BALANCED, PLANNED), fingerprint(BALANCED, other, PLANNED)}
    assert len(prints) == 3
    assert fingerprint(BALANCED, replace(BALANCED, ipvs=Ipvs(services=(replace(WEB),))), PLANNED) == same


TABLE = tuple(
    replace(WEB, port=port, servers=tuple(Server(address=f"172.16.0.{number}", port=80) for number in range(1, 4)))
    for port in range(80, 83)
)
OLD = (replace(TABLE[0], servers=TABLE[0].servers[:2]), replace(WEB, port=90), replace(WEB, port=91))


@st.composite
def shuffled(draw: st.DrawFn, services: tuple[Service, ...]) -> tuple[Service, ...]:
    """The same services in any order, each with its servers in any order."""
    mixed = draw(st.permutations(services))
    return tuple(replace(each, servers=tuple(draw(st.permutations(each.servers)))) for each in mixed)


@settings(deadline=None)
@given(shuffled(TABLE), shuffled(OLD), st.permutations(ROUTES[:3]), st.permutations(ROUTES[1:]))
def test_a_fingerprint_does_not_change_with_any_order(
    services: tuple[Service, ...], old: tuple[Service, ...], routes: list[Route], old_routes: list[Route]
) -> None:
    prints = set()
    for wanted, found, wanted_routes, found_routes in (
        (TABLE, OLD, ROUTES[:3], ROUTES[1:]),
        (services, old, tuple(routes), tuple(old_routes)),
    ):
        desired = replace(DESIRED, ipvs=Ipvs(services=wanted), routes=wanted_routes)
        observed = replace(OBSERVED, ipvs=Ipvs(services=found), routes=found_routes)
        prints.add(fingerprint(desired, observed, planned(desired, observed)))
    assert len(prints) == 1

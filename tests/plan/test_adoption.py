"""Which foreign objects count as ours, and what the plan does to them."""

from __future__ import annotations

import pytest

from reconciler.model.neighbour import Neighbour
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox, Surroundings
from reconciler.plan import plan
from reconciler.plan.adoption import adopted
from reconciler.values import replace

BOOT, STATIC = 3, 4
ROUTE = Route(dest="10.8.0.0/16", nexthops=(NextHop(device="eth0", gateway="10.0.0.1"),))
RULE = Rule(family="ipv4", priority=100, from_="10.1.0.0/16", table=100)
NARROW = replace(RULE, iif="eth0")
ELSEWHERE = replace(RULE, from_="10.2.0.0/16", table=200)
NEIGHBOUR = Neighbour(address="10.0.0.1", device="eth0", hw_addr="02:00:00:00:00:01")


def commands(desired: Sandbox, ours: Sandbox, around: Surroundings) -> list[str]:
    observed = Observed(sandbox=ours, around=around)
    return [each.command for each in plan(desired, adopted(desired, observed, adopt=True)).operations]


def sandbox(
    *, routes: tuple[Route, ...] = (), rules: tuple[Rule, ...] = (), neighbours: tuple[Neighbour, ...] = ()
) -> Sandbox:
    return Sandbox(id="web", driver=NetnsAddress(name="web"), routes=routes, rules=rules, neighbours=neighbours)


@pytest.mark.parametrize("protocol", [0, BOOT, STATIC, 16, 42])
def test_a_route_is_replaced_by_itself(protocol: int) -> None:
    around = Surroundings(routes=(replace(ROUTE, protocol=protocol),))
    assert commands(sandbox(routes=(ROUTE,)), sandbox(), around) == [
        "ip route replace 10.8.0.0/16 via 10.0.0.1 dev eth0 proto 200"
    ]


@pytest.mark.parametrize("protocol", [1, 2, 9], ids=["redirect", "kernel", "router advertisement"])
def test_what_the_kernel_makes_again_stays_its_own(protocol: int) -> None:
    around = Surroundings(routes=(replace(ROUTE, protocol=protocol),))
    assert commands(sandbox(routes=(ROUTE,)), sandbox(), around) == []


def test_one_of_two_routes_with_a_key_stays_foreign() -> None:
    """The kernel replaces the first, whichever that is."""
    other = replace(ROUTE, nexthops=(NextHop(device="eth0", gateway="10.0.0.9"),), protocol=BOOT)
    around = Surroundings(routes=(other, replace(ROUTE, protocol=BOOT)))
    assert commands(sandbox(routes=(ROUTE,)), sandbox(), around) == []


def test_a_rule_of_ours_comes_before_the_other_one_goes() -> None:
    around = Surroundings(rules=(replace(RULE, protocol=STATIC),))
    assert commands(sandbox(rules=(RULE,)), sandbox(), around) == [
        "ip rule add priority 100 from 10.1.0.0/16 lookup 100 protocol 200",
        "ip rule del priority 100 from 10.1.0.0/16 lookup 100 protocol static",
    ]


def test_rules_keep_their_order() -> None:
    """Both are of one priority and lead elsewhere: the first one applies."""
    wide = replace(RULE, from_=None, table=200)
    around = Surroundings(rules=(replace(RULE, protocol=0), replace(wide, protocol=0)))
    assert commands(sandbox(rules=(wide, RULE)), sandbox(), around)[:2] == [
        "ip rule add priority 100 from 10.1.0.0/16 lookup 100 protocol 200",
        "ip rule add priority 100 from all lookup 200 protocol 200",
    ]


def test_what_a_killed_run_left_goes() -> None:
    """The rule of ours has come, and the other one is still there."""
    around = Surroundings(rules=(replace(RULE, protocol=0),))
    assert commands(sandbox(rules=(RULE,)), sandbox(rules=(RULE,)), around) == [
        "ip rule del priority 100 from 10.1.0.0/16 lookup 100 protocol 0"
    ]


@pytest.mark.parametrize(
    ("ours", "foreign"),
    [
        ((), (ELSEWHERE,)),
        ((ELSEWHERE,), ()),
        # A request to delete the rule would be met by it.
        ((), (NARROW,)),
    ],
    ids=["foreign", "ours", "narrower"],
)
def test_a_rule_stays_foreign_beside_one_that_stays(ours: tuple[Rule, ...], foreign: tuple[Rule, ...]) -> None:
    around = Surroundings(rules=(*(replace(each, protocol=0) for each in foreign), replace(RULE, protocol=0)))
    assert commands(sandbox(rules=(RULE, *ours)), sandbox(rules=ours), around) == []


def test_the_kernels_own_rules_stay() -> None:
    own = Rule(family="ipv4", priority=32766, table=254)
    around = Surroundings(rules=(replace(own, protocol=2),))
    assert commands(sandbox(rules=(own,)), sandbox(), around) == []


def test_a_neighbour_is_replaced_by_itself() -> None:
    around = Surroundings(neighbours=(replace(NEIGHBOUR, protocol=0),))
    assert commands(sandbox(neighbours=(NEIGHBOUR,)), sandbox(), around) == [
        "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent protocol 200"
    ]


def test_nothing_that_differs_is_adopted() -> None:
    around = Surroundings(
        rules=(replace(RULE, dport=(80, 80), protocol=0),),
        neighbours=(replace(NEIGHBOUR, address="10.0.0.2", protocol=0),),
        routes=(replace(ROUTE, metric=7, protocol=BOOT),),
    )
    desired = sandbox(routes=(ROUTE,), rules=(RULE,), neighbours=(NEIGHBOUR,))
    observed = Observed(sandbox=sandbox(), around=around)
    assert adopted(desired, observed, adopt=True) == observed


def test_an_undo_gives_back_what_was_marked() -> None:
    """It is the plan to what was observed: with the protocols of the former owners."""
    had = sandbox(routes=(replace(ROUTE, protocol=STATIC),), rules=(replace(RULE, protocol=STATIC),))
    now = Observed(sandbox=sandbox(routes=(ROUTE,), rules=(RULE,)))
    assert [each.command for each in plan(had, now).operations] == [
        "ip route replace 10.8.0.0/16 via 10.0.0.1 dev eth0 proto 4",
        "ip rule add priority 100 from 10.1.0.0/16 lookup 100 protocol static",
        "ip rule del priority 100 from 10.1.0.0/16 lookup 100 protocol 200",
    ]
    # The run was killed before the other rule was gone.
    both = replace(now, around=Surroundings(rules=(replace(RULE, protocol=STATIC),)))
    assert [each.command for each in plan(had, both).operations][1:] == [
        "ip rule del priority 100 from 10.1.0.0/16 lookup 100 protocol 200"
    ]

"""How routes are told apart, and what reaches a gateway."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model.route import NextHop, OnLink, Route, canonical_hops
from reconciler.values import replace

HOP = NextHop(device="eth0", gateway="10.0.0.1")
ROUTE = Route(dest="0.0.0.0/0", nexthops=(HOP,))


def test_a_route_is_the_same_by_table_destination_and_metric() -> None:
    other = Route(
        dest="0.0.0.0/0",
        type="blackhole",
        mtu=1400,
        metrics=(("advmss", 1360),),
        source="10.0.0.2",
        opaque=("realms 7",),
    )
    assert ROUTE.key == other.key == (254, "0.0.0.0/0", 0, 0, None)
    changes: list[dict[str, Any]] = [{"dest": "::/0"}, {"table": 7}, {"metric": 7}, {"tos": 8}, {"from_": "fd00::/8"}]
    assert len({each.key for each in (ROUTE, *(replace(ROUTE, **change) for change in changes))}) == 6


def test_who_made_a_route_does_not_matter_where_it_serves() -> None:
    assert replace(ROUTE, protocol=2) == ROUTE


@pytest.mark.parametrize(
    ("route", "is_default", "is_ipv6"),
    [
        (ROUTE, True, False),
        (replace(ROUTE, dest="::/0", nexthops=(NextHop(device="eth0"),)), True, True),
        (replace(ROUTE, metric=100), True, False),
        (replace(ROUTE, table=100), False, False),
        (Route(dest="::/0", type="unreachable"), False, True),
        (replace(ROUTE, dest="0.0.0.0/1"), False, False),
    ],
)
def test_default_routes_are_those_that_carry_traffic(route: Route, is_default: bool, is_ipv6: bool) -> None:
    assert (route.is_default, route.is_ipv6) == (is_default, is_ipv6)


def test_the_order_of_next_hops_says_nothing() -> None:
    hops = (
        NextHop(device="eth0"),
        NextHop(device="eth0", gateway="10.0.0.1", weight=9),
        NextHop(device="eth0", gateway="10.0.0.9"),
        NextHop(device="eth1", gateway="10.0.0.1"),
    )
    assert [canonical_hops(order) for order in (hops, hops[::-1], hops[2:] + hops[:2])] == [hops] * 3


@pytest.mark.parametrize(
    ("hops", "devices", "needs_gateway"),
    [
        ((), set(), False),
        ((NextHop(device="eth0"),), {"eth0"}, False),
        ((HOP,), {"eth0"}, True),
        ((replace(HOP, on_link=True),), {"eth0"}, False),
        ((replace(HOP, on_link=True), NextHop(device="eth1", gateway="10.0.0.1")), {"eth0", "eth1"}, True),
    ],
)
def test_what_a_route_goes_through(hops: tuple[NextHop, ...], devices: set[str], needs_gateway: bool) -> None:
    route = replace(ROUTE, nexthops=hops)
    assert (route.devices, route.needs_gateway) == (devices, needs_gateway)


@pytest.mark.parametrize(
    ("hop", "reached"),
    [
        (NextHop(device="eth0"), True),
        (HOP, True),
        (replace(HOP, gateway="10.0.0.255"), True),
        (replace(HOP, gateway="10.0.1.0"), False),
        (replace(HOP, gateway="10.0.1.0", on_link=True), True),
        (replace(HOP, gateway="fd00::1"), True),
        (replace(HOP, gateway="fd00:1::1"), False),
        (replace(HOP, gateway="fe80::1"), True),
        (replace(HOP, gateway="febf::1"), True),
        (replace(HOP, gateway="fec0::1"), False),
        (replace(HOP, gateway="::10.0.0.1"), False),
    ],
)
def test_what_reaches_a_gateway(hop: NextHop, reached: bool) -> None:
    assert OnLink({"eth0": ["10.0.0.2/24", "fd00::2/64"]}, ()).reaches(hop, 7) == reached

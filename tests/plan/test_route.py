from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from reconciler.model.interface import Address
from reconciler.model.route import Route
from reconciler.operations.address import AwaitAddress
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.plan import Deletion, Plan, plan
from reconciler.values import replace
from tests.plan.sandboxes import found, hop, nic, planned_commands, route, wanted
from tests.segments import segments

ETH0 = nic("eth0", "192.0.2.10/24", "2001:db8::10/64")
VIA_1, VIA_2 = hop("eth0", "192.0.2.1"), hop("eth0", "192.0.2.2")
PLAIN = route("10.1.0.0/16", VIA_1)
PLAIN6 = route("2001:db8:8::/48", hop("eth0", "2001:db8::1"))

both_families = pytest.mark.parametrize("wish", [PLAIN, PLAIN6], ids=["IPv4", "IPv6"])


@both_families
def test_a_route_that_is_there_is_left(wish: Route) -> None:
    assert plan(wanted([ETH0], [wish]), found([ETH0], [replace(wish)])) == ((), (), (), 0)


@both_families
def test_a_route_that_is_missing_is_added(wish: Route) -> None:
    planned = plan(wanted([ETH0], [wish]), found([ETH0]))
    assert planned == Plan(segments((AddRoute(route=wish),)))


@both_families
def test_a_route_that_is_too_much_is_deleted_and_counted(wish: Route) -> None:
    planned = plan(wanted([ETH0], []), found([ETH0], [wish]))
    assert planned == Plan(segments((DeleteRoute(route=wish),)), (Deletion(kind="route", count=1, total=1),))


CHANGES = {
    "gateway": (PLAIN, replace(PLAIN, nexthops=(VIA_2,))),
    "device": (PLAIN, replace(PLAIN, nexthops=(hop("lo"),))),
    "type": (PLAIN, route("10.1.0.0/16", type="blackhole")),
    "source": (PLAIN, replace(PLAIN, source="192.0.2.10")),
    "mtu": (PLAIN, replace(PLAIN, mtu=1400)),
    "advmss": (PLAIN, replace(PLAIN, metrics=(("advmss", 1360),))),
    "onlink": (PLAIN, replace(PLAIN, nexthops=(replace(VIA_1, on_link=True),))),
    "weight": (
        replace(PLAIN, nexthops=(VIA_1, VIA_2)),
        replace(PLAIN, nexthops=(VIA_1, replace(VIA_2, weight=2))),
    ),
    "another next hop": (PLAIN, replace(PLAIN, nexthops=(VIA_1, VIA_2))),
    "what no manifest can say": (replace(PLAIN, opaque=("realms 1",)), PLAIN),
    "IPv6 gateway": (PLAIN6, replace(PLAIN6, nexthops=(hop("eth0", "2001:db8::2"),))),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_whatever_changes_of_a_route_it_is_replaced_and_never_missing(before: Route, after: Route) -> None:
    planned = plan(wanted([ETH0], [after]), found([ETH0], [before]))
    assert planned == Plan(segments((ReplaceRoute(route=after, before=before),)))


@pytest.mark.parametrize(
    ("before", "after"),
    [(PLAIN, replace(PLAIN, metric=5)), (PLAIN, replace(PLAIN, table=100)), (PLAIN6, replace(PLAIN6, metric=5))],
    ids=["metric", "table", "IPv6 metric"],
)
def test_another_metric_or_table_is_another_route_that_comes_before_the_old_one_goes(
    before: Route, after: Route
) -> None:
    planned = plan(wanted([ETH0], [after]), found([ETH0], [before]))
    assert planned == Plan(
        segments((AddRoute(route=after), DeleteRoute(route=before))),
        (Deletion(kind="route", count=1, total=1),),
        (),
        0,
    )


def test_routes_without_a_gateway_come_first_and_go_last() -> None:
    direct, through = route("203.0.113.7/32", hop("eth0")), route("10.1.0.0/16", hop("eth0", "203.0.113.7"))
    on_link = route("10.2.0.0/16", hop("eth0", "198.51.100.1", on_link=True))
    many = route("10.3.0.0/16", VIA_1, hop("eth0", "198.51.100.1", on_link=True))
    reject = route("10.4.0.0/16", type="blackhole")
    wishes = [through, many, direct, on_link, reject]
    assert plan(wanted([ETH0], wishes), found([ETH0])).operations == (
        AddRoute(route=direct),
        AddRoute(route=on_link),
        AddRoute(route=reject),
        AddRoute(route=through),
        AddRoute(route=many),
    )
    assert plan(wanted([ETH0], []), found([ETH0], wishes)).operations == (
        DeleteRoute(route=through),
        DeleteRoute(route=many),
        DeleteRoute(route=direct),
        DeleteRoute(route=on_link),
        DeleteRoute(route=reject),
    )


def test_a_change_to_a_route_without_a_gateway_comes_before_what_it_reaches() -> None:
    before = route("203.0.113.7/32", VIA_1)
    direct, through = route("203.0.113.7/32", hop("eth0")), route("10.1.0.0/16", hop("eth0", "203.0.113.7"))
    assert plan(wanted([ETH0], [through, direct]), found([ETH0], [before])).operations == (
        ReplaceRoute(route=direct, before=before),
        AddRoute(route=through),
    )


@st.composite
def tables(draw: st.DrawFn) -> list[Route]:
    """Routes with keys of their own, with and without a gateway."""
    keys = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1)), unique=True, max_size=8))
    hops = st.sampled_from((hop("eth0"), VIA_1, VIA_2, hop("lo")))
    return [route(f"10.{number}.0.0/16", draw(hops), metric=metric) for number, metric in keys]


@settings(deadline=None)
@given(tables(), tables())
def test_what_is_planned_makes_the_table_what_it_should_be(before: list[Route], after: list[Route]) -> None:
    planned = plan(wanted([ETH0], after), found([ETH0], before))
    table = {each.key: each for each in before}
    for operation in planned.operations:
        match operation:
            case AddRoute(route=each):
                assert each.key not in table
                table[each.key] = each
            case ReplaceRoute(route=each, before=old):
                assert table[each.key] == old
                table[each.key] = each
            case DeleteRoute(route=each):
                assert table.pop(each.key) == each
            case _:
                pytest.fail(f"{operation} is no operation on a route")
    assert table == {each.key: each for each in after}
    gone = len({each.key for each in before} - {each.key for each in after})
    assert planned.deletions == ((Deletion(kind="route", count=gone, total=len(before)),) if gone else ())


def test_a_second_route_of_a_key_is_deleted() -> None:
    # IPv4 has a list of routes for one key, which other programs can append to.
    second = replace(PLAIN, nexthops=(VIA_2,))
    assert plan(wanted([ETH0], [PLAIN]), found([ETH0], [PLAIN, second])).operations == (DeleteRoute(route=second),)


TWIN = route("10.1.0.0/16", VIA_2)


def test_a_foreign_route_in_the_place_of_a_new_one_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        plan(wanted([ETH0], [PLAIN]), found([ETH0], foreign=[TWIN]))
    assert str(caught.value) == (
        "route 10.1.0.0/16 via 192.0.2.1 dev eth0: the route 10.1.0.0/16 via 192.0.2.2 dev eth0 is in its place "
        "and is not ours; delete it in the sandbox, or choose another metric"
    )


def test_a_foreign_route_beside_one_that_has_to_be_replaced_is_refused() -> None:
    changed = replace(PLAIN, mtu=1400)
    with pytest.raises(RefusedError) as caught:
        plan(wanted([ETH0], [PLAIN]), found([ETH0], [changed], foreign=[TWIN]))
    assert str(caught.value) == (
        "route 10.1.0.0/16 via 192.0.2.1 dev eth0: the route 10.1.0.0/16 via 192.0.2.2 dev eth0 is in its place "
        "and is not ours; delete it in the sandbox, or choose another metric"
    )


def test_a_foreign_route_beside_ours_is_left() -> None:
    assert plan(wanted([ETH0], [PLAIN]), found([ETH0], [PLAIN], foreign=[TWIN])).operations == ()


def test_a_foreign_route_that_is_the_same_is_enough() -> None:
    assert plan(wanted([ETH0], [PLAIN]), found([ETH0], foreign=[replace(PLAIN)])).operations == ()
    assert plan(wanted([ETH0], [PLAIN]), found([ETH0], foreign=[TWIN, replace(PLAIN)])).operations == ()


@pytest.mark.parametrize("other", [replace(TWIN, metric=100), replace(TWIN, table=100)], ids=["metric", "table"])
def test_a_foreign_route_of_another_key_is_in_nobodys_way(other: Route) -> None:
    assert plan(wanted([ETH0], [PLAIN]), found([ETH0], foreign=[other])).operations == (AddRoute(route=PLAIN),)


def test_a_foreign_route_beside_one_that_goes_is_left() -> None:
    planned = plan(wanted([ETH0], []), found([ETH0], [PLAIN], foreign=[TWIN]))
    assert planned.operations == (DeleteRoute(route=PLAIN),)


CONNECTED = route("192.0.2.0/24", hop("eth0"), source="192.0.2.10")


@pytest.mark.parametrize("wish", [CONNECTED, replace(CONNECTED, source=None)], ids=["with its source", "without"])
def test_a_connected_route_may_be_written_down(wish: Route) -> None:
    assert plan(wanted([ETH0], [wish]), found([ETH0], foreign=[CONNECTED])) == ((), (), (), 0)


@pytest.mark.parametrize("wish", [CONNECTED, replace(CONNECTED, source=None)], ids=["with its source", "without"])
def test_a_connected_route_may_be_written_down_before_its_address_is_there(wish: Route) -> None:
    bare = nic("eth0")
    assert planned_commands(wanted([ETH0], [wish]), found([bare])) == [
        "ip address add 192.0.2.10/24 dev eth0",
        "ip address add 2001:db8::10/64 dev eth0",
    ]


def test_a_source_of_somebody_elses_gateway_route_is_part_of_it() -> None:
    theirs = replace(PLAIN, source="192.0.2.10")
    with pytest.raises(RefusedError) as caught:
        plan(wanted([ETH0], [PLAIN]), found([ETH0], foreign=[theirs]))
    assert str(caught.value) == (
        "route 10.1.0.0/16 via 192.0.2.1 dev eth0: the route 10.1.0.0/16 via 192.0.2.1 dev eth0 src 192.0.2.10 "
        "is in its place and is not ours; delete it in the sandbox, or choose another metric"
    )


def test_a_section_that_is_absent_is_left_alone() -> None:
    assert plan(wanted([ETH0], None), found([ETH0], [PLAIN, PLAIN6])) == ((), (), (), 0)
    assert plan(wanted(None, None), found([ETH0], [PLAIN, PLAIN6])) == ((), (), (), 0)


def test_an_empty_section_means_none_of_ours() -> None:
    planned = plan(wanted([ETH0], []), found([ETH0], [PLAIN, PLAIN6], foreign=[replace(TWIN, metric=9), CONNECTED]))
    assert planned == Plan(
        segments((DeleteRoute(route=PLAIN), DeleteRoute(route=PLAIN6))),
        (Deletion(kind="route", count=2, total=2),),
        (),
        0,
    )


DEFAULT4 = route("0.0.0.0/0", VIA_1)
DEFAULT6 = route("::/0", hop("eth0", "2001:db8::1"))


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ([DEFAULT4], [], ("IPv4",)),
        ([DEFAULT6], [], ("IPv6",)),
        ([DEFAULT4, DEFAULT6], [PLAIN], ("IPv4", "IPv6")),
        ([DEFAULT4, DEFAULT6], [DEFAULT6], ("IPv4",)),
        ([DEFAULT4, replace(DEFAULT4, metric=100)], [DEFAULT4], ()),
        ([DEFAULT4], [replace(DEFAULT4, metric=100)], ()),
        ([DEFAULT4], [replace(DEFAULT4, nexthops=(VIA_2,))], ()),
        # None of these carries traffic to everywhere.
        ([replace(DEFAULT4, table=100)], [], ()),
        ([route("0.0.0.0/0", type="unreachable")], [], ()),
        # And none of these takes the place of one that does.
        ([DEFAULT4], [replace(DEFAULT4, table=100)], ("IPv4",)),
        ([DEFAULT4], [route("0.0.0.0/0", type="unreachable")], ("IPv4",)),
        ([], [DEFAULT4], ()),
    ],
)
def test_a_family_that_loses_its_last_default_route_is_told(
    before: list[Route], after: list[Route], lost: tuple[str, ...]
) -> None:
    assert plan(wanted([ETH0], after), found([ETH0], before)).lost_defaults == lost


SOURCED = replace(PLAIN6, source="2001:db8::99")
WAIT = AwaitAddress(device="eth0", address=Address(address="2001:db8::99/64"))


@pytest.mark.parametrize(
    ("address", "wish", "waits"),
    [
        ("2001:db8::99/64", SOURCED, True),
        ("2001:db8::99/64", replace(SOURCED, nexthops=(hop("lo"),)), True),
        ("2001:db8::99/64 nodad", SOURCED, False),
        ("2001:db8::98/64", SOURCED, False),
        ("2001:db8::99/64", PLAIN6, False),
        ("192.0.2.99/24", replace(PLAIN, source="192.0.2.99"), False),
    ],
    ids=["source", "source of a route through another NIC", "no detection", "another address", "no source", "IPv4"],
)
def test_a_route_waits_for_an_address_that_only_just_came_and_is_its_source(
    address: str, wish: Route, *, waits: bool
) -> None:
    operations = plan(wanted([nic("eth0", address)], [wish]), found([nic("eth0")])).operations
    text, _, option = address.partition(" ")
    assert [operation.command for operation in operations[:1]] == [
        f"ip address add {text} dev eth0{' nodad' * bool(option)}"
    ]
    assert operations[1:] == ((WAIT,) if waits else ()) + (AddRoute(route=wish),)


def test_an_address_is_waited_for_once_however_many_routes_name_it() -> None:
    wishes = [SOURCED, replace(SOURCED, metric=7)]
    operations = plan(wanted([nic("eth0", "2001:db8::99/64")], wishes), found([nic("eth0")])).operations
    assert operations[1:] == (WAIT, *(AddRoute(route=wish) for wish in wishes))


def test_an_address_that_is_there_is_waited_for_while_it_is_tentative() -> None:
    had = nic("eth0", "2001:db8::99/64")
    tentative = frozenset({("eth0", "2001:db8::99/64")})
    add = AddRoute(route=SOURCED)
    assert plan(wanted([had], [SOURCED]), found([had])).operations == (add,)
    assert plan(wanted([had], [SOURCED]), found([had], tentative=tentative)).operations == (WAIT, add)
    # Nothing is written, so nothing waits.
    assert plan(wanted([had], [SOURCED]), found([had], [SOURCED], tentative=tentative)).operations == ()


def test_a_tentative_address_is_waited_for_under_the_new_name_of_its_nic() -> None:
    had, wish = nic("a", "2001:db8::99/64", device="tap1"), nic("eth0", "2001:db8::99/64", device="tap1")
    observed = found([had], tentative=frozenset({("a", "2001:db8::99/64")}))
    assert plan(wanted([wish], [SOURCED]), observed).operations[1:] == (WAIT, AddRoute(route=SOURCED))

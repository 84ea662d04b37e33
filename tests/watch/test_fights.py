"""A repair that is reverted again and again backs off by itself, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.interface import Address
from reconciler.model.ipvs import Server
from reconciler.model.route import NextHop, Route
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress
from reconciler.operations.ipvs import AddServer, EditServer
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.operations.runtime import RuleCommand
from reconciler.values import replace
from reconciler.watch.fights import FIGHT, MEMORY, MOST, Fights
from tests.watch.clock import Clock

TICK = 0.125


def route(number: int) -> Operation:
    dest = f"10.{number >> 8}.{number & 255}.0/24"
    return AddRoute(route=Route(dest=dest, nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),)))


ROUTE, OTHER = route(1), route(2)
ADDRESS = AddAddress(device="eth0", address=Address(address="10.0.0.2/24"))
FLUSHED = [route(number) for number in range(300)]


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def fights(clock: Clock) -> Fights:
    return Fights(clock)


def undo(
    fights: Fights, clock: Clock, seconds: float, each: Callable[[], None] = lambda: None, every: float = TICK
) -> list[float]:
    """Revert ROUTE again and again for so many seconds; return the times at which it was repaired."""
    times, end = [], clock.now + seconds
    while clock.now < end:
        if not fights.postpones(ROUTE):
            fights.record([ROUTE])
            times.append(clock.now)
        each()
        clock.now += every
    return times


def test_what_was_never_repaired_is_not_postponed(fights: Fights) -> None:
    assert (fights.postpones(ROUTE), fights.next_due(), fights.current()) == (False, None, [])


def test_pauses_become_longer_up_to_the_most(fights: Fights, clock: Clock) -> None:
    assert undo(fights, clock, 600) == [0, 1, 4, 13, 40, 121, 241, 361, 481]


def test_nothing_else_is_postponed_meanwhile(fights: Fights, clock: Clock) -> None:
    def others() -> None:
        assert not fights.postpones(OTHER)
        assert not fights.postpones(ADDRESS)

    undo(fights, clock, 600, others)


def test_after_the_end_it_is_repaired_within_the_longest_pause(fights: Fights, clock: Clock) -> None:
    undo(fights, clock, 600)
    end = clock.now
    while fights.postpones(ROUTE):
        clock.now += TICK
    assert clock.now - end <= MOST


@settings(deadline=None)
@given(steps=st.lists(st.integers(1, 8), min_size=1, max_size=1200))
def test_however_often_it_is_undone_it_is_repaired_a_few_times(steps: list[int]) -> None:
    clock = Clock(0.0)
    fights = Fights(clock)
    times = []
    for step in steps:
        if not fights.postpones(ROUTE):
            fights.record([ROUTE])
            times.append(clock.now)
        assert not fights.postpones(OTHER)
        clock.now += step * TICK
    assert len(times) <= 5 + clock.now / MOST
    pauses = [after - before for before, after in pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, [1, 3, 9, 27, 81] + [120] * 20, strict=False))


def test_it_is_a_fight_from_the_fourth_repair_on(fights: Fights, clock: Clock) -> None:
    seen: list[tuple[float, int]] = []

    def look() -> None:
        repairs = [count for command, count in fights.current() if command == ROUTE.command]
        if repairs and (not seen or seen[-1][1] != repairs[0]):
            seen.append((clock.now, repairs[0]))

    undo(fights, clock, 100, look)
    assert (FIGHT, seen) == (4, [(13, 4), (40, 5)])


def test_a_fight_is_over_after_twice_its_pause(fights: Fights, clock: Clock) -> None:
    undo(fights, clock, 14)
    last, pause = 13, 27
    clock.now = last + 2 * pause
    assert fights.current() == [(ROUTE.command, 4)]
    clock.now += TICK
    assert fights.current() == []
    assert not fights.postpones(ROUTE)


def test_a_repair_is_remembered_for_a_while(fights: Fights, clock: Clock) -> None:
    """Somebody may undo it only now and then."""
    fights.record([ROUTE])
    for pause in (3, 9, 27):
        clock.now += MEMORY / 4
        fights.record([ROUTE])
        clock.now += pause - TICK
        assert fights.postpones(ROUTE)
        clock.now += TICK
        assert not fights.postpones(ROUTE)
    clock.now += MEMORY + 1
    fights.record([ROUTE])
    clock.now += 1
    assert not fights.postpones(ROUTE)


def test_an_edit_of_the_manifest_begins_anew(fights: Fights, clock: Clock) -> None:
    undo(fights, clock, 14)
    assert fights.postpones(ROUTE)
    fights.reset()
    assert (fights.postpones(ROUTE), fights.next_due(), fights.current()) == (False, None, [])


def test_the_next_is_due_when_the_first_pause_is_over(fights: Fights, clock: Clock) -> None:
    undo(fights, clock, 14)
    clock.now = 20.0
    fights.record([OTHER])
    assert fights.next_due() == 1
    clock.now = 21.5
    assert (fights.postpones(OTHER), fights.postpones(ROUTE), fights.next_due()) == (False, True, 18.5)


def test_an_object_that_is_repaired_twice_at_once_was_repaired_once(fights: Fights, clock: Clock) -> None:
    fights.record([ROUTE, ROUTE])
    clock.now += 1
    assert not fights.postpones(ROUTE)


def test_a_flush_of_many_is_one_event(fights: Fights, clock: Clock) -> None:
    for _ in range(4):
        assert not fights.postpones(FLUSHED[0])
        fights.record(FLUSHED)
        assert all(map(fights.postpones, FLUSHED))
        assert not fights.postpones(ADDRESS)
        clock.now += fights.next_due() or 0
    assert fights.current() == [("ip route …", 4)]


def test_of_a_flush_of_few_each_is_told_apart(fights: Fights, clock: Clock) -> None:
    few = FLUSHED[:200]
    for _ in range(4):
        fights.record(few)
        clock.now += fights.next_due() or 0
    assert fights.current() == [(each.command, 4) for each in few]


def test_other_kinds_of_a_repair_are_told_apart_beside_a_flush(fights: Fights) -> None:
    servers = [
        AddServer(service=("tcp", "10.0.0.1", 80), server=Server(address="10.0.1.1", port=port)) for port in range(1, 3)
    ]
    fights.record([*FLUSHED, servers[0]])
    assert (fights.postpones(servers[0]), fights.postpones(servers[1]), fights.postpones(FLUSHED[0])) == (
        True,
        False,
        True,
    )


def test_what_was_repaired_before_is_postponed_with_the_flush(fights: Fights, clock: Clock) -> None:
    fights.record([FLUSHED[0]])
    clock.now += 2
    fights.record(FLUSHED)
    clock.now += 0.5
    assert [fights.postpones(FLUSHED[0]), fights.postpones(FLUSHED[1])] == [True, True]


def test_an_object_is_the_same_whatever_is_done_to_it(fights: Fights, clock: Clock) -> None:
    """Another value each time, a deletion and an addition: it is one fight, shown by what was done last."""
    plain = Route(dest="10.0.1.0/24", nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),))
    shown: list[Operation] = [
        AddRoute(route=plain),
        ReplaceRoute(route=plain, before=replace(plain, mtu=1400)),
        DeleteRoute(route=plain),
        AddRoute(route=replace(plain, mtu=1280)),
    ]
    for operation in shown:
        assert not fights.postpones(operation)
        fights.record([operation])
        assert all(map(fights.postpones, shown))
        assert not fights.postpones(AddRoute(route=replace(plain, metric=5)))
        clock.now += fights.next_due() or 0
    assert fights.current() == [(shown[-1].command, 4)]


def test_a_rule_is_the_same_for_whatever_program_changes_it(fights: Fights) -> None:
    server = Server(address="10.0.1.1", port=80)
    add = AddServer(service=("tcp", "10.0.0.1", 80), server=server)
    fights.record([RuleCommand(container="6ec7a98", operation=add)])
    assert fights.postpones(EditServer(service=add.service, server=replace(server, weight=5), before=server))
    assert not fights.postpones(AddServer(service=("udp", "10.0.0.1", 80), server=server))


def test_many_are_told_by_their_kind_whatever_their_commands_begin_with(fights: Fights) -> None:
    six = [AddRoute(route=Route(dest=f"fd00:{number:x}::/64", type="blackhole")) for number in range(150)]
    fights.record([*FLUSHED[:150], *six])
    assert all(map(fights.postpones, (*FLUSHED, *six)))
    assert not fights.postpones(DeleteRoute(route=six[0].route))

"""When a sandbox is looked at: when it is asked for, now and then, and later after each failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.watch import agenda as module
from reconciler.watch.agenda import FIRST, GAP, MOST, Agenda
from tests.watch.clock import Clock

FULL_LOOK = 600.0


@pytest.fixture(autouse=True)
def _even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_jitter", lambda: 1.0)
    monkeypatch.setattr(module, "_shortened", lambda: 1.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agenda(clock: Clock) -> Agenda:
    """One whose first look was a moment ago; the next is due in 5 seconds."""
    made = Agenda(FULL_LOOK, clock)
    assert made.begin_look() is True
    assert made.end_look(5.0, took=0.0, full=True) == 5.0
    return made


def test_the_first_look_is_a_full_one_at_once(clock: Clock) -> None:
    agenda = Agenda(FULL_LOOK, clock)
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (0.0, True)


def test_a_look_that_is_due_is_not_before_its_time(agenda: Agenda, clock: Clock) -> None:
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (5.0, None)
    clock.now += 4.75
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (0.25, None)
    clock.now += 0.25
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (0.0, False)


def test_everything_is_looked_at_now_and_then(agenda: Agenda, clock: Clock) -> None:
    begin = clock.now
    full: list[float] = []
    while len(full) < 3:
        clock.now += agenda.seconds_to_next()
        look = agenda.begin_look()
        assert look is not None
        if look:
            full.append(clock.now - begin)
        agenda.end_look(7.0, took=0.0, full=look)
    assert full == [600.0, 1200.0, 1800.0]


def test_a_full_look_is_due_although_no_other_is(agenda: Agenda, clock: Clock) -> None:
    clock.now += 5
    assert agenda.begin_look() is False
    assert agenda.end_look(10_000.0, took=0.0, full=False) == agenda.seconds_to_next() == 595.0


def test_sandboxes_that_began_together_drift_apart(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    waits = set()
    for _ in range(20):
        agenda = Agenda(FULL_LOOK, clock)
        assert agenda.begin_look()
        waits.add(agenda.end_look(10_000.0, took=0.0, full=True))
    assert len(waits) > 10
    assert all(450 <= each <= 750 for each in waits)


def test_a_change_is_looked_at_after_a_gap(agenda: Agenda, clock: Clock) -> None:
    agenda.request_look()
    assert agenda.seconds_to_next() == pytest.approx(GAP)
    assert agenda.begin_look() is None
    clock.now += GAP
    assert agenda.begin_look() is False
    assert agenda.begin_look() is None


def test_changes_take_no_more_than_half_of_the_time(agenda: Agenda, clock: Clock) -> None:
    clock.now += 5
    agenda.begin_look()
    clock.now += 2
    agenda.end_look(40.0, took=2.0, full=False)
    agenda.request_look()
    assert agenda.seconds_to_next() == 2.0


def test_a_change_during_a_look_is_looked_at_after_it(agenda: Agenda, clock: Clock) -> None:
    clock.now += 5
    agenda.begin_look()
    agenda.request_look()
    agenda.end_look(100.0, took=0.0, full=False)
    assert agenda.seconds_to_next() == pytest.approx(GAP)


def test_an_urge_waits_for_nothing(agenda: Agenda) -> None:
    agenda.request_full_look()
    assert (agenda.seconds_to_next(), agenda.begin_look(), agenda.begin_look()) == (0.0, True, None)


def test_an_urge_ends_the_waiting_after_failures(agenda: Agenda) -> None:
    agenda.end_failed_look(30.0)
    agenda.request_look()
    assert agenda.seconds_to_next() == 30.0
    agenda.request_full_look()
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (0.0, True)


@pytest.mark.parametrize("full", [True, False])
def test_an_urge_during_a_look_is_a_full_look_after_it(full: bool, agenda: Agenda, clock: Clock) -> None:
    clock.now += FULL_LOOK if full else 5
    assert agenda.begin_look() is full
    agenda.request_full_look()
    agenda.end_look(100.0, took=0.0, full=full)
    assert (agenda.seconds_to_next(), agenda.begin_look()) == (0.0, True)


def test_what_was_lost_is_a_full_look_after_the_gap(agenda: Agenda, clock: Clock) -> None:
    agenda.request_look(full=True)
    assert agenda.seconds_to_next() == pytest.approx(GAP)
    clock.now += GAP
    # Lost again during that look.
    assert agenda.begin_look() is True
    agenda.request_look(full=True)
    agenda.end_look(100.0, took=2.0, full=True)
    assert agenda.seconds_to_next() == 2.0
    clock.now += 2.0
    assert agenda.begin_look() is True
    agenda.request_look(full=True)
    agenda.end_failed_look(30.0)
    assert agenda.seconds_to_next() == 30.0


# Everything that a look can end with.
_ENDS: dict[str, Callable[[Agenda, bool], object]] = {
    "done, and the next is due at once": lambda agenda, full: agenda.end_look(0.0, took=0.0, full=full),
    "failed": lambda agenda, _: agenda.end_failed_look(),
    "busy": lambda agenda, _: agenda.end_failed_look(1.0),
}


@settings(deadline=None)
@given(
    ends=st.lists(st.sampled_from(list(_ENDS)), min_size=1, max_size=30),
    asked=st.sampled_from(["nothing", "a change", "something lost"]),
)
def test_no_end_of_a_look_begins_the_next_one_without_a_wait(ends: list[str], asked: str) -> None:
    clock = Clock()
    agenda = Agenda(FULL_LOOK, clock)
    for end in ends:
        full = agenda.begin_look()
        assert full is not None
        if asked != "nothing":
            agenda.request_look(full=asked == "something lost")
        _ENDS[end](agenda, full)
        assert agenda.begin_look() is None
        assert agenda.seconds_to_next() >= GAP - 1e-9
        clock.now += agenda.seconds_to_next() + 1e-9


def test_failures_mount_up_until_a_look_succeeds(agenda: Agenda, clock: Clock) -> None:
    def fail() -> float:
        wait = agenda.end_failed_look()
        assert agenda.seconds_to_next() == wait
        clock.now += wait
        assert agenda.begin_look() is True
        return wait

    assert [fail() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    agenda.end_look(5.0, took=0.0, full=True)
    assert fail() == 1


def test_no_wait_is_longer_than_documented(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for _ in range(20):
        agenda = Agenda(FULL_LOOK, clock)
        for most in (1, 2, 4, 8, 16, 32, 60, 60):
            assert 0.75 * most <= agenda.end_failed_look() <= most


def test_a_wait_that_is_given_is_no_part_of_that(agenda: Agenda) -> None:
    assert [agenda.end_failed_look(wait) for wait in (None, 1.0, 1.0, None, 7.0, None)] == [1, 1, 1, 2, 7, 4]


def test_thousands_of_failures_are_like_a_few(agenda: Agenda) -> None:
    assert {agenda.end_failed_look() for _ in range(5000)} == {1, 2, 4, 8, 16, 32, MOST}


_STEPS = st.lists(
    st.one_of(
        st.just(("poke", 0.0)),
        st.just(("urge", 0.0)),
        st.just(("fail", 0.0)),
        # Eighths of a second, so that sums are exact.
        st.tuples(st.sampled_from(["pass", "settle", "fail in"]), st.integers(0, 800).map(lambda each: each / 8)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=_STEPS)
def test_nothing_is_due_before_its_time_unless_it_is_urged(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    agenda = Agenda(FULL_LOOK, clock)
    urged, asked, held_until, failures = True, False, 0.0, 0
    for step, number in steps:
        match step:
            case "poke":
                agenda.request_look()
                asked = True
            case "urge":
                agenda.request_full_look()
                urged = True
            case "pass":
                clock.now += number
            case _:
                wait, look = agenda.seconds_to_next(), agenda.begin_look()
                assert (wait <= 0) == (look is not None)
                if look is None:
                    assert not urged
                    assert not (asked and clock.now >= held_until)
                    continue
                assert urged or clock.now >= held_until
                urged = asked = False
                if step == "settle":
                    held_until, failures = clock.now + max(GAP, 0.25), 0
                    assert 0 <= agenda.end_look(number, took=0.25, full=look) <= number
                else:
                    wait = agenda.end_failed_look(number if step == "fail in" else None)
                    held_until = clock.now + wait
                    if step == "fail":
                        assert wait == min(FIRST * 2**failures, MOST)
                        failures += 1


@settings(deadline=None)
@given(waits=st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=50))
def test_no_full_look_is_forgotten(waits: list[float]) -> None:
    clock = Clock()
    agenda = Agenda(FULL_LOOK, clock)
    last = clock.now
    for wait in waits:
        look = agenda.begin_look()
        assert look is not None
        last = clock.now if look else last
        agenda.end_look(wait, took=0.0, full=look)
        while (left := agenda.seconds_to_next()) > 0:
            # More than the least that a sum can tell.
            clock.now += left + 1e-9
        assert clock.now <= last + FULL_LOOK + GAP + 1e-6

"""Few threads compute at a time, and none that waits, computes for long or is stuck holds up the others."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice

import pytest

from reconciler.netlink import turn
from reconciler.netlink.turn import Claim, Line, Turn, Turns
from reconciler.watch.wake import Wake
from tests.watch.running import until


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End no turn early, however busy the machine is."""
    monkeypatch.setattr(turn, "HEAVY", math.inf)
    monkeypatch.setattr(turn, "LONG", math.inf)


def begun(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_never_do_more_compute_than_there_are_turns(patient: None) -> None:
    turns, inside, most = Turns(3), set[int](), 0

    def work(number: int) -> None:
        nonlocal most
        own = Turn(turns, Wake())
        for _ in range(50):
            with own:
                inside.add(number)
                most = max(most, len(inside))
                # Whoever waits is not among those who compute. Another may compute as soon as this one waits.
                inside.discard(number)
                with turn.waiting() if number % 2 else nullcontext():
                    pass

    threads = [begun(lambda number=number: work(number)) for number in range(30)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert 0 < most <= 3


def test_who_has_gone_without_for_the_longest_is_next(patient: None) -> None:
    turns, order = Turns(1), list[str]()
    holder, recent, older, never = (Turn(turns, Wake()) for _ in range(4))
    for each in (older, recent):
        with each:
            pass

    def take(own: Turn, name: str) -> None:
        with own:
            order.append(name)

    threads = []
    with holder:
        for count, (own, name) in enumerate(((recent, "recent"), (older, "older"), (never, "never")), 1):
            threads.append(begun(lambda own=own, name=name: take(own, name)))  # type: ignore[misc]
            until(lambda count=count: len(turns._waiting) == count)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == ["never", "older", "recent"]


def test_events_come_first_and_hold_up_nobody_for_good() -> None:
    line, turns = Line(), Turns(1)
    names = {Turn(turns, Wake()): name for name in ("first look", "reload", "hurried", "event", "late event", "begun")}
    by_name = {name: each for each, name in names.items()}
    for name, claim, rank in (
        ("first look", Claim.OTHER, 0.0),
        ("reload", Claim.OTHER, 2.0),
        ("hurried", Claim.OTHER, 1.0),
        ("late event", Claim.EVENT, 5.0),
        ("event", Claim.EVENT, 3.0),
        ("begun", Claim.BEGUN, 9.0),
    ):
        line.add(by_name[name], claim, rank)
    # Something changes in a sandbox that waits already; for the others, nothing changes by that.
    line.hurry(by_name["hurried"])
    line.hurry(by_name["event"])
    line.hurry(by_name["begun"])
    taken = iter(line.next, None)
    order = [names[each] for each in islice(taken, 3)]
    # It has another place now, and not its old one as well.
    line.add(by_name["hurried"], Claim.OTHER, 9.0)
    assert len(line) == 4
    assert order + [names[each] for each in taken] == [
        "begun",
        "hurried",
        "first look",
        "event",
        "reload",
        "late event",
        "hurried",
    ]
    assert not line


def compute(until_set: threading.Event) -> None:
    while not until_set.is_set():
        sum(range(1000))


def block(until_set: threading.Event) -> None:
    until_set.wait()


def wait(until_set: threading.Event) -> None:
    with turn.waiting():
        until_set.wait()


@pytest.mark.parametrize("busy", [compute, block, wait])
def test_those_that_take_long_hold_up_nobody(busy: Callable[[threading.Event], None]) -> None:
    turns, other_had_a_turn = Turns(2), threading.Event()

    def hold() -> None:
        with Turn(turns, Wake()):
            busy(other_had_a_turn)

    threads = [begun(hold) for _ in range(5)]
    with Turn(turns, Wake()):
        other_had_a_turn.set()
    for thread in threads:
        thread.join()
    # Turns that ended early and those that ended by themselves are all there again.
    assert not turns._taken


def test_a_thread_without_a_turn_only_sleeps() -> None:
    turn.sleep(0)

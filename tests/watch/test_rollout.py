"""Changed manifests take effect so many at a time, each once, and no more of them after failures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.manifest.load import Manifest
from reconciler.model.route import Route
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.watch.rollout import Pace, Rollout, parse_at_once

no_deadline = settings(deadline=None)


def manifest(name: str, version: int = 0) -> Manifest:
    """Return the manifest of a sandbox that has as many routes as its version says."""
    routes = tuple(Route(dest=f"10.{each}.0.0/16", type="blackhole") for each in range(version))
    return Manifest(f"{name}.yaml", "", 0, Sandbox(id=name, driver=NetnsAddress(name=name), routes=routes))


def manifests(names: str) -> list[Manifest]:
    return [manifest(name) for name in names]


def names(begun: Sequence[Manifest]) -> str:
    return "".join(each.sandbox.id for each in begun)


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("1", Pace(number=1)),
        ("250", Pace(number=250)),
        ("1%", Pace(percent=1)),
        ("100%", Pace(percent=100)),
        ("999999999", Pace(number=999_999_999)),
    ],
)
def test_a_pace_is_a_number_or_a_percentage(text: str, pace: Pace) -> None:
    assert parse_at_once(text) == pace


@pytest.mark.parametrize(
    "text",
    ["", "0", "0%", "-1", "+1", "01", "1.5", "101%", "1000%", "%", "1 %", " 1", "1\n", "all", "1e3", "٣", "9" * 10],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number such as 20, or a percentage up to 100%") as raised:
        parse_at_once(text)
    assert str(raised.value) == f'"{text}" is not a number such as 20, or a percentage up to 100%'


@pytest.mark.parametrize(
    ("pace", "total", "at_once"),
    [
        (Pace(), 300, 300),
        (Pace(), 0, 1),
        (Pace(number=7), 300, 7),
        (Pace(number=7), 3, 7),
        (Pace(percent=10), 300, 30),
        (Pace(percent=10), 301, 31),
        (Pace(percent=1), 5, 1),
        (Pace(percent=1), 0, 1),
        (Pace(percent=100), 300, 300),
    ],
)
def test_at_once_is_one_at_least(pace: Pace, total: int, at_once: int) -> None:
    assert pace.limit(total) == at_once


def test_without_a_pace_all_begin_at_once() -> None:
    rollout = Rollout(Pace())
    rollout.add(manifests("abc"))
    assert (names(rollout.begin(3)), rollout.waiting, rollout.begin(3)) == ("abc", (), [])


def test_one_after_the_other() -> None:
    rollout = Rollout(Pace(number=1))
    rollout.add(manifests("abc"))
    assert (names(rollout.begin(3)), names(rollout.begin(3)), rollout.waiting) == ("a", "", ("b", "c"))
    rollout.end("a", succeeded=True)
    assert (names(rollout.begin(3)), names(rollout.begin(3)), rollout.waiting) == ("b", "", ("c",))


def test_the_end_of_what_is_not_under_way_makes_no_room() -> None:
    rollout = Rollout(Pace(number=1, stop_after=1))
    rollout.add(manifests("ab"))
    rollout.begin(2)
    rollout.end("b", succeeded=False)
    rollout.end("c", succeeded=False)
    assert (rollout.begin(2), rollout.stopped) == ([], ())


def test_a_newer_manifest_takes_the_place_of_the_one_that_waits() -> None:
    rollout = Rollout(Pace(number=1))
    rollout.add([manifest("a"), manifest("b", 1)])
    rollout.begin(2)
    rollout.add([manifest("b", 2)])
    rollout.end("a", succeeded=True)
    assert (rollout.begin(2), rollout.waiting) == ([manifest("b", 2)], ())


def test_a_newer_manifest_of_what_is_under_way_waits_and_lets_others_pass() -> None:
    rollout = Rollout(Pace(number=2))
    rollout.add([manifest("a", 1)])
    assert rollout.begin(2) == [manifest("a", 1)]
    rollout.add([manifest("a", 2), manifest("b")])
    assert (rollout.begin(2), rollout.waiting) == ([manifest("b")], ("a",))
    rollout.end("a", succeeded=True)
    assert rollout.begin(2) == [manifest("a", 2)]


def test_what_is_gone_is_not_begun_and_makes_room() -> None:
    rollout = Rollout(Pace(number=1))
    rollout.add(manifests("abc"))
    rollout.begin(3)
    rollout.drop("b")
    rollout.drop("a")
    assert (names(rollout.begin(3)), rollout.waiting) == ("c", ())


def test_failures_stop_it_and_are_named() -> None:
    rollout = Rollout(Pace(number=1, stop_after=2))
    rollout.add(manifests("abcde"))
    for name, well in (("a", False), ("b", True), ("c", False)):
        assert (names(rollout.begin(5)), rollout.stopped) == (name, ())
        rollout.end(name, succeeded=well)
    assert (rollout.begin(5), rollout.stopped, rollout.waiting) == ([], ("a", "c"), ("d", "e"))


def test_failures_stop_nothing_where_nothing_waits() -> None:
    rollout = Rollout(Pace(stop_after=1))
    rollout.add(manifests("a"))
    rollout.begin(1)
    rollout.end("a", succeeded=False)
    assert rollout.stopped == ()


def test_a_change_lets_it_go_on_and_what_is_said_again_does_not() -> None:
    rollout = Rollout(Pace(number=1, stop_after=1))
    rollout.add(manifests("abc"))
    rollout.begin(3)
    rollout.end("a", succeeded=False)
    rollout.add(manifests("bc"))
    assert (rollout.begin(3), rollout.stopped) == ([], ("a",))
    rollout.add([manifest("a", 1)])
    assert (rollout.stopped, names(rollout.begin(3)), rollout.waiting) == ((), "b", ("c", "a"))


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.sampled_from("abcdefgh"), max_size=8)),
        st.tuples(st.sampled_from(["well", "badly", "drop", "begin"]), st.sampled_from("abcdefgh")),
    ),
    max_size=80,
)
_PACES = st.builds(Pace, number=st.integers(1, 5), stop_after=st.integers(0, 3)) | st.builds(
    Pace, percent=st.integers(1, 100), stop_after=st.integers(0, 3)
)


@no_deadline
@given(pace=_PACES, total=st.integers(0, 20), steps=_STEPS)
def test_never_more_at_once_than_allowed_and_only_the_newest(
    pace: Pace, total: int, steps: list[tuple[str, str | list[str]]]
) -> None:
    rollout = Rollout(pace)
    waiting: dict[str, Manifest] = {}
    under_way: set[str] = set()
    for version, (step, subject) in enumerate(steps):
        if step == "add":
            added = {name: manifest(name, version) for name in subject}
            rollout.add(added.values())
            waiting |= added
        elif step == "begin":
            stopped, begun = rollout.stopped, rollout.begin(total)
            assert not (stopped and begun)
            for each in begun:
                assert each.sandbox.id not in under_way
                assert waiting.pop(each.sandbox.id) == each
                under_way.add(each.sandbox.id)
            assert len(under_way) <= pace.limit(total)
            # Whoever waits does so for a reason.
            assert rollout.stopped or len(under_way) == pace.limit(total) or waiting.keys() <= under_way
        else:
            name = str(subject)
            under_way.discard(name)
            if step == "drop":
                rollout.drop(name)
                waiting.pop(name, None)
            else:
                rollout.end(name, succeeded=step == "well")
        assert set(rollout.waiting) == waiting.keys()


@no_deadline
@given(data=st.data(), pace=_PACES.map(lambda pace: pace._replace(stop_after=0)), count=st.integers(0, 30))
def test_all_that_is_added_is_begun_once(data: st.DataObject, pace: Pace, count: int) -> None:
    rollout = Rollout(pace)
    to_come = [manifest(f"s{number}") for number in range(count)]
    expected = {each.sandbox.id for each in to_come}
    begun: list[str] = []
    under_way: list[str] = []
    while to_come or rollout.waiting or under_way:
        size = data.draw(st.integers(0, len(to_come)))
        rollout.add(to_come[:size])
        del to_come[:size]
        new = [each.sandbox.id for each in rollout.begin(count)]
        begun += new
        under_way += new
        assert under_way or not rollout.waiting
        if under_way:
            rollout.end(
                under_way.pop(data.draw(st.integers(0, len(under_way) - 1))), succeeded=data.draw(st.booleans())
            )
    assert (len(begun), set(begun)) == (count, expected)


@no_deadline
@given(at_once=st.integers(1, 6), stop_after=st.integers(1, 6), count=st.integers(0, 30))
def test_so_many_failures_and_what_was_under_way_is_all_that_a_mistake_costs(
    at_once: int, stop_after: int, count: int
) -> None:
    rollout = Rollout(Pace(number=at_once, stop_after=stop_after))
    rollout.add(manifest(f"s{number}") for number in range(count))
    under_way: list[str] = []
    begun = 0
    while True:
        new = [each.sandbox.id for each in rollout.begin(count)]
        begun += len(new)
        under_way += new
        if not under_way:
            break
        rollout.end(under_way.pop(0), succeeded=False)
    assert begun == min(count, stop_after + at_once - 1)
    assert bool(rollout.stopped) == (begun < count)

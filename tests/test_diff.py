from __future__ import annotations

import copy
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.diff import Change, diff
from reconciler.values import dataclass


@dataclass(frozen=True)
class Thing:
    key: int
    value: int


def desired_things() -> st.SearchStrategy[list[Thing]]:
    """Keys are unique among what is desired."""
    return st.lists(st.builds(Thing, st.integers(0, 9), st.integers(0, 3)), unique_by=lambda thing: thing.key)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Thing], list[Thing]]:
    """What is desired and what is observed: other things, equal ones, and some of the very objects that are desired."""
    desired = draw(desired_things())
    others = draw(st.lists(st.builds(Thing, st.integers(0, 9), st.integers(0, 3))))
    equal = [copy.copy(thing) for thing in draw(st.lists(st.sampled_from(desired)) if desired else st.just([]))]
    same = draw(st.lists(st.sampled_from(desired), unique_by=id) if desired else st.just([]))
    return desired, draw(st.permutations([*others, *equal, *same]))


def apply(changes: list[Change[Thing]], observed: list[Thing]) -> Counter[Thing]:
    things = Counter(observed)
    for change in changes:
        if change.before is not None:
            assert things[change.before] > 0
            things[change.before] -= 1
        if change.after is not None:
            things[change.after] += 1
    return +things


@settings(deadline=None)
@given(pairs())
def test_the_changes_make_of_what_is_observed_what_is_desired(pair: tuple[list[Thing], list[Thing]]) -> None:
    desired, observed = pair
    assert apply(diff(desired, observed), observed) == Counter(desired)


@settings(deadline=None)
@given(pairs())
def test_a_second_diff_is_empty(pair: tuple[list[Thing], list[Thing]]) -> None:
    desired, observed = pair
    assert diff(desired, apply(diff(desired, observed), observed).elements()) == []


@settings(deadline=None)
@given(pairs())
def test_what_is_the_same_object_changes_nothing_in_the_result(pair: tuple[list[Thing], list[Thing]]) -> None:
    desired, observed = pair
    copies = [copy.copy(thing) for thing in observed]
    assert Counter(diff(desired, observed)) == Counter(diff(desired, copies))


@settings(deadline=None)
@given(pairs())
def test_no_change_is_idle_and_none_changes_a_key(pair: tuple[list[Thing], list[Thing]]) -> None:
    for change in diff(*pair):
        assert change.before != change.after
        assert change.before is None or change.after is None or change.before.key == change.after.key


@settings(deadline=None)
@given(pairs())
def test_nothing_is_deleted_and_added_that_could_be_changed(pair: tuple[list[Thing], list[Thing]]) -> None:
    changes = diff(*pair)
    deleted = {change.before.key for change in changes if change.before and change.after is None}
    added = {change.after.key for change in changes if change.after and change.before is None}
    assert deleted & added == set()


@settings(deadline=None)
@given(pairs())
def test_the_order_is_that_of_what_is_desired_with_deletions_last(pair: tuple[list[Thing], list[Thing]]) -> None:
    desired, observed = pair
    afters = [change.after for change in diff(desired, observed)]
    kept = [after for after in afters if after is not None]
    assert afters == kept + [None] * (len(afters) - len(kept))
    assert kept == [thing for thing in desired if thing in kept]


@settings(deadline=None)
@given(desired_things(), st.randoms(use_true_random=False))
def test_equal_things_in_any_order_are_no_change(desired: list[Thing], random: Random) -> None:
    observed = [copy.copy(thing) for thing in desired]
    random.shuffle(observed)
    assert diff(desired, observed) == []
    assert diff(desired, reversed(desired)) == []


def test_a_change_has_both_sides() -> None:
    one, other = Thing(1, 1), Thing(1, 2)
    assert diff([other], [one]) == [Change(one, other)]


def test_an_observed_key_that_appears_again_is_a_deletion_of_its_own() -> None:
    wish = Thing(1, 0)
    one, other, third = Thing(1, 1), Thing(1, 2), Thing(1, 3)
    assert diff([wish], [one, other, third]) == [Change(one, wish), Change(other, None), Change(third, None)]
    assert diff([wish], [one, Thing(1, 0), other]) == [Change(one, None), Change(other, None)]
    assert diff([wish], [one, wish, other]) == [Change(one, None), Change(other, None)]
    assert diff([], [one, other]) == [Change(one, None), Change(other, None)]

"""Our classes of values, beside those of the standard library: what both do with the same class body is the same."""

from __future__ import annotations

import copy
import dataclasses as standard
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import lazyclass
from reconciler.errors import Problem
from reconciler.model.route import NextHop, Route
from reconciler.values import NamedTuple

OPTIONS = [
    {"frozen": frozen, "slots": slots, "kw_only": kw_only}
    for frozen in (True, False)
    for slots in (True, False)
    for kw_only in (True, False)
]


class Point(NamedTuple):
    x: int
    y: int = 1


VALUES = (
    st.builds(Point, st.integers(0, 1))
    | st.none()
    | st.integers(0, 2)
    | st.text("ab", max_size=2)
    | st.tuples(st.integers(0, 1))
)


def _shape(hand: Any, options: dict[str, bool]) -> type:
    """Return a class made by one hand, that inherits fields, and has each kind of default."""

    @hand.dataclass(**options)
    class Base:
        kind: ClassVar[str] = "base"
        first: Any
        second: Any = 2

        @property
        def pair(self) -> tuple[Any, Any]:
            return self.first, self.second

    @hand.dataclass(**options)
    class Value(Base):
        items: list[Any] = hand.field(default_factory=list)
        silent: Any = hand.field(default=7, compare=False)

    Base.__qualname__, Value.__qualname__ = "Base", "Value"
    return Value


def _told(act: Callable[[], Any]) -> Any:
    """Return the result of a call, or that it was refused: the standard library's own error for that has a fault."""
    try:
        return act()
    except (AttributeError, TypeError, ValueError):
        return "refused"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(one=st.tuples(VALUES, VALUES, VALUES), other=st.tuples(VALUES, VALUES, VALUES))
def test_both_hands_do_the_same(options: dict[str, bool], one: Any, other: Any) -> None:
    told = []
    hands: tuple[Any, ...] = (standard, lazyclass)
    for hand in hands:
        kind: Any = _shape(hand, options)
        a, b = (kind(first=each[0], second=each[1], silent=each[2]) for each in (one, other))
        renewed: Any = hand.replace(a, second=other[1])
        told.append(
            (
                repr(a),
                kind.__match_args__,
                a.pair,
                a.kind,
                [(each.name, getattr(a, each.name)) for each in hand.fields(kind)],
                a == b,
                a != b,
                a == 1,
                a == renewed,
                repr(renewed),
                hand.asdict(a),
                a.items is b.items,
                _told(lambda a=a: {a: 1}),  # type: ignore[misc]
                _told(lambda a=a: setattr(a, "first", 3)),  # type: ignore[misc]
                _told(lambda a=a: delattr(a, "second")),  # type: ignore[misc]
                _told(lambda a=a: setattr(a, "unknown", 3)),  # type: ignore[misc]
                _told(lambda kind=kind: repr(kind(1))),  # type: ignore[misc]
                _told(lambda kind=kind: repr(kind(1, 2, [3], 4))),  # type: ignore[misc]
                _told(lambda kind=kind: kind(second=1)),  # type: ignore[misc]
                _told(lambda kind=kind: kind(first=1, unknown=1)),  # type: ignore[misc]
                hasattr(a, "__dict__"),
            )
        )
    assert told[0] == told[1]


@given(one=st.tuples(VALUES, VALUES), other=st.tuples(VALUES, VALUES))
def test_named_tuples_are_the_same(one: Any, other: Any) -> None:
    told = []
    hands: tuple[Any, ...] = (typing.NamedTuple, lazyclass.NamedTuple)
    for hand in hands:

        class Pair(hand):  # type: ignore[misc, valid-type]
            """Two values."""

            first: Any
            second: Any = 2

            @property
            def turned(self) -> Any:
                return Pair(self.second, self.first)

        Pair.__qualname__ = "Pair"
        a, b = Pair(*one), Pair(second=other[1], first=other[0])
        first, second = a
        told.append(
            (
                repr(a),
                str(b.turned),
                a == b,
                a == one,
                hash(a) == hash(one),
                (first, second, a[0], a.second, len(a), tuple(a)),
                a._asdict(),
                a._replace(second=5),
                Pair._make([1, 2]),
                (Pair._fields, Pair._field_defaults, Pair.__match_args__, Pair.__doc__, Pair.__name__),
                _told(lambda pair=Pair: pair()),  # type: ignore[misc]
                _told(lambda pair=Pair: pair(1, 2, 3)),  # type: ignore[misc]
                _told(lambda pair=Pair: pair(1, first=3)),  # type: ignore[misc]
                _told(lambda pair=Pair: pair(1, third=3)),  # type: ignore[misc]
                _told(lambda a=a: a._replace(third=3)),  # type: ignore[misc]
                _told(lambda a=a: setattr(a, "first", 3)),  # type: ignore[misc]
                _told(lambda a=a: setattr(a, "third", 3)),  # type: ignore[misc]
                copy.copy(a) == a,
            )
        )
    assert told[0] == told[1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_compiled_makes_the_same_values(options: dict[str, bool]) -> None:
    class Pair(lazyclass.NamedTuple):
        first: Any
        second: Any = 2

    kind: Any = _shape(lazyclass, options)
    pair: Any = Pair
    made = [(kind(first=1, silent=3), pair(1), pair(first=1, second=2)) for _ in range(3 * lazyclass._MANY)]
    assert {repr(each) for each in made} == {repr(made[0])}
    assert len({id(each[0].items) for each in made}) == len(made)
    for bad in ({}, {"first": 1, "unknown": 2}):
        with pytest.raises(TypeError):
            kind(**bad)
        with pytest.raises(TypeError):
            pair(**bad)


@given(first=VALUES, second=VALUES)
def test_equal_values_have_one_hash(first: Any, second: Any) -> None:
    kind: Any = _shape(lazyclass, OPTIONS[0])
    # A list has no hash.
    made = [kind(first=first, second=second, items=(1,), silent=each) for each in (1, 2)]
    assert len(set(made)) == 1


def test_a_value_goes_to_another_process_and_back() -> None:
    route = Route(dest="192.0.2.0/24", nexthops=(NextHop(device="eth0", gateway="198.51.100.1"),), metric=7)
    assert pickle.loads(pickle.dumps(route)) == route
    assert hash(pickle.loads(pickle.dumps(route))) == hash(route)
    problem = Problem("a.yaml", 1, 2, "routes", "is wrong")
    assert pickle.loads(pickle.dumps(problem)) == problem


def test_what_is_no_class_of_ours_is_refused() -> None:
    for value in (1, Exception, standard.make_dataclass("Other", ["first"])(1)):
        assert not lazyclass.is_dataclass(value)
        with pytest.raises(TypeError, match="is no dataclass"):
            lazyclass.fields(value)


def test_a_small_command_loads_neither_dataclasses_nor_inspect() -> None:
    script = (
        "import sys; from reconciler.cli.main import main; main(['diff', '/dev/null']);"
        "print(sorted({'dataclasses', 'inspect'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"

"""Values and keys are found again in the text they were read from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.manifest.compose import Location, compose, locate
from reconciler.manifest.dump import dump
from reconciler.manifest.finding import Path
from tests.examples import examples
from tests.manifest.plain import data

TEXT = """\
# first
a: 1
b:
- x
- {c: "two", "d e": [~]}
- - 1
東京: &t
  東: ö
g: *t
h: |
  text
i:
j: {k}
"""

PLACES: dict[Path, Location] = {
    (): Location((1, 0, 0), None),
    ("a",): Location((1, 3, 4), (1, 0, 1)),
    ("b",): Location((3, 0, 1), (2, 0, 1)),
    ("b", 0): Location((3, 2, 3), None),
    ("b", 1): Location((4, 2, 3), None),
    ("b", 1, "c"): Location((4, 6, 11), (4, 3, 4)),
    ("b", 1, "d e"): Location((4, 20, 21), (4, 13, 18)),
    ("b", 1, "d e", 0): Location((4, 21, 22), None),
    ("b", 2, 0): Location((5, 4, 5), None),
    ("東京",): Location((6, 4, 5), (6, 0, 2)),
    ("東京", "東"): Location((7, 5, 6), (7, 2, 3)),
    ("g",): Location((8, 3, 5), (8, 0, 1)),
    ("h",): Location((9, 3, 4), (9, 0, 1), "text\n"),
    ("i",): Location((11, 2, 2), (11, 0, 1)),
    ("j", "k"): Location((12, 5, 5), (12, 4, 5)),
}


@pytest.mark.parametrize(("path", "place"), PLACES.items(), ids=str)
def test_values_and_keys_have_places(path: Path, place: Location) -> None:
    assert locate(TEXT, {0: [path]})[0][path] == place


def test_all_above_is_found_with_it_and_nothing_else() -> None:
    wanted: list[Path] = [("b", 1, "c"), ("g",)]
    assert set(locate(TEXT, {0: wanted})[0]) == {(), ("b",), ("b", 1), ("b", 1, "c"), ("g",)}


@pytest.mark.parametrize("path", [("g", "東"), ("a", "b"), ("b", 3), ("b", "0"), ("z",)], ids=str)
def test_what_stands_nowhere_is_left_out(path: Path) -> None:
    assert set(locate(TEXT, {0: [path]})[0]) == {
        path[:length] for length in range(len(path)) if path[:length] in PLACES
    }


@pytest.mark.parametrize("value", ["&it |\n  text", ">\n  text", "'text'", '"text\\n"', "text", "[text]"])
def test_only_a_literal_text_has_lines(value: str) -> None:
    assert locate(f"a: {value}\n", {0: [("a",)]})[0]["a",].literal is None


def test_documents_are_told_apart() -> None:
    text = "a: 1\n---\n---\n# third\na: 2\n"
    expected = {
        0: {(): Location((0, 0, 0), None), ("a",): Location((0, 3, 4), (0, 0, 1))},
        1: {(): Location((2, 0, 0), None)},
        2: {(): Location((4, 0, 0), None), ("a",): Location((4, 3, 4), (4, 0, 1))},
    }
    assert locate(text, {number: [("a",)] for number in expected}) == expected
    assert locate(text, {2: [("a",)]}) == {2: expected[2]}
    assert locate(text, {}) == {}


def paths(value: Any, above: Path = ()) -> list[Path]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(path for step, child in children for path in paths(child, (*above, step)))]


@given(st.lists(data(), min_size=1, max_size=3), st.data())
@settings(max_examples=examples(100), deadline=None)
def test_every_path_of_what_dump_writes_has_a_place(documents: list[Any], draw: st.DataObject) -> None:
    text = dump(documents)
    number = draw.draw(st.integers(0, len(documents) - 1))
    wanted = paths(documents[number])
    places = locate(text, {number: wanted})[number]
    assert set(places) == set(wanted)
    lines = text.splitlines()
    for path, place in places.items():
        value: Any = documents[number]
        for step in path:
            value = value[step]
        if type(value) is int:
            line, column, end = place.value
            assert compose(lines[line][column:end]) == [value]

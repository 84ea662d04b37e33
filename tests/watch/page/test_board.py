"""What is sent to whom: the events of a board, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.watch.page import board
from reconciler.watch.page.board import Board, harmless
from tests.watch.page.conftest import Watched


def sent(made: Board, last: str) -> tuple[list[str], dict[str, Any], int]:
    """Return the rows and the end that a client gets, and how many events that are."""
    events = [each.decode() for each in made.events(made.position(last), 7.0)]
    data = [json.loads(each.partition("data: ")[2]) for each in events]
    return [row["sandbox"] for each in data[:-1] for row in each["rows"]], data[-1], len(events)


def last(made: Board) -> str:
    *_, end = made.events(-1, 7.0)
    return end.decode().partition("id: ")[2].partition("\n")[0]


def test_nothing_is_sent_again(watched: Watched) -> None:
    watched.add("a")
    watched.add("b")
    made = Board(watched)
    made.refresh()
    assert sent(made, "")[0] == ["a", "b"]
    position, version = last(made), made.version
    made.refresh()
    assert made.version == version
    assert sent(made, position)[0] == []


def test_of_removed_sandboxes_a_bounded_number_is_remembered(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_REMOVED", 2)
    for name in "abcd":
        watched.add(name)
    made = Board(watched)
    made.refresh()
    positions = [last(made)]
    for name in "abc":
        del watched.standings[name]
        made.refresh()
        positions.append(last(made))
    assert [sent(made, each)[1]["gone"] for each in positions[1:]] == [["b", "c"], ["c"], []]
    # Who was away for too long gets everything, and drops what is not in it.
    assert (sent(made, positions[0])[0], sent(made, positions[0])[1]["all"]) == (["d"], True)


def test_one_that_comes_back_is_not_gone(watched: Watched) -> None:
    watched.add("a")
    made = Board(watched)
    made.refresh()
    position = last(made)
    del watched.standings["a"]
    made.refresh()
    watched.add("a")
    made.refresh()
    rows, end, _ = sent(made, position)
    assert (rows, end["gone"]) == (["a"], [])


def test_an_event_is_bounded(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "CHUNK", 1000)
    for number in range(30):
        watched.add(f"web-{number}")
    made = Board(watched)
    made.refresh()
    rows, _, count = sent(made, "")
    assert sorted(rows) == sorted(watched.standings)
    assert count > 10
    assert max(map(len, made.events(-1, 7.0))) < 1200


def test_what_is_harmless() -> None:
    assert harmless({"a": ["\n\u202e", "x" * 5000], "b": (1, 2.5, None, True)}) == {
        "a": ["\\n\\u202e", f"{'x' * 4000}… (5,000 characters)"],
        "b": [1, 2.5, None, True],
    }
    assert harmless(list(range(300)))[-1] == "… and 100 more"

"""What a look has left as it was, as the commands that `diff` prints."""

from __future__ import annotations

from reconciler.cli.output import Line
from reconciler.cli.render import render_plan
from reconciler.converge import Failure, Result
from reconciler.errors import HostError
from reconciler.operations.listing import PlanLine
from reconciler.operations.route import ReplaceRoute
from reconciler.remaining import Difference
from reconciler.watch.outstanding import Outstanding, of_comparison, of_plan, of_repair
from tests.cli.test_render import MANIFEST, added, preview, route

FIRST, SECOND = added(2)
REPLACED = ReplaceRoute(before=route(1), route=route(1, "192.0.2.9"))


def words(found: Outstanding) -> list[str]:
    return [f"{each.text}{each.comment}" for each in found.lines]


def whole(line: Line) -> str:
    return line if isinstance(line, str) else f"{line.text}{line.after}"


def test_a_plan_has_the_lines_of_diff() -> None:
    found = preview([*added(20), REPLACED])
    assert words(of_comparison(found, [], 7.0)) == list(map(whole, render_plan(MANIFEST, found, verbose=False)))[1:]
    command = "ip route replace 10.0.1.0/24 via 192.0.2.9 dev eth0 proto 200"
    was = "10.0.1.0/24 via 192.0.2.1 dev eth0"
    assert words(of_plan([REPLACED], 7.0)) == [f"  ~ {command}      # was {was}"]


def test_of_a_long_plan_the_rest_is_counted() -> None:
    # No two that follow each other are of one kind, so nothing is folded.
    mixed = [each for add in added(150) for each in (add, REPLACED)]
    found = of_plan(mixed, 7.0)
    assert (len(found.lines), found.more) == (200, 100)


def test_a_repair_that_did_everything_leaves_nothing() -> None:
    assert of_repair([FIRST], Result((FIRST,), 0.1), 7.0) == Outstanding(7.0)


def test_what_a_repair_postponed_is_left() -> None:
    found = of_repair([FIRST, SECOND], Result((FIRST,), 0.1, (SECOND,)), 7.0)
    assert words(found) == [f"  + {SECOND.command}"]


def test_what_failed_is_left_and_why() -> None:
    failure = Failure(frozenset(), HostError("no device tap-web-1"))
    found = of_repair([FIRST, SECOND], Result((FIRST,), 0.1, failure=failure), 7.0)
    assert words(found) == [f"  + {SECOND.command}", "    no device tap-web-1"]


def test_a_failure_without_an_operation_is_not_nothing() -> None:
    failure = Failure(frozenset(), HostError("no device tap-web-1"))
    assert words(of_repair([], Result((), 0.1, failure=failure), 7.0)) == ["    no device tap-web-1"]


def test_differences_that_no_operation_removes_are_named() -> None:
    found = of_comparison(preview([]), [Difference("route 10.0.0.0/24 has another mark", frozenset())], 7.0)
    assert found.lines == (PlanLine("", "    no operation removes: route 10.0.0.0/24 has another mark"),)


def test_nothing_differs() -> None:
    assert of_comparison(preview([]), [], 7.0) == Outstanding(7.0)

"""Where kinds of operations are told apart, a new kind cannot be forgotten: the type checker finds it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "reconciler"
# What is matched on there, by its last name.
SUBJECTS = {"operation", "segment", "item"}


def matches() -> Iterator[tuple[str, ast.Match]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Match) and ast.unparse(node.subject).rpartition(".")[2] in SUBJECTS:
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", node


def is_complete(match: ast.Match) -> bool:
    last = match.cases[-1]
    return ast.unparse(last.pattern) == "_" and ast.unparse(last.body[0]).startswith("assert_never(")


def test_every_match_over_operations_ends_in_assert_never() -> None:
    found = dict(matches())
    assert len(found) > 10
    assert [place for place, match in found.items() if not is_complete(match)] == []

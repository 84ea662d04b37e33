"""Output that all commands share: colour, plain data, and the problems of manifests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from reconciler.errors import Problem, bounded
from reconciler.wording import plural

_COLORS = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[1;31m", "^": "\x1b[31m"}
_RESET = "\x1b[0m"


def choose_color(wanted: bool, stream: TextIO) -> bool:
    """Return whether to print in colour: only on a terminal, and only if NO_COLOR is not set (no-color.org)."""
    return wanted and not os.environ.get("NO_COLOR") and stream.isatty()


def paint(text: str, color: str, enabled: bool) -> str:
    """Return a text in the colour of a sign, or unchanged if colour is not enabled."""
    return f"{_COLORS[color]}{text}{_RESET}" if enabled else text


def print_data(data: Any, form: str) -> None:
    """Print plain data on stdout; `form` is `json` or `yaml`."""
    if form == "json":
        import json

        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        from reconciler.manifest.dump import dump

        print(dump([data]), end="")


def render_problems(problems: Sequence[Problem], color: bool) -> str:
    """Return the text of problems: each with its source line if the file could be read, then their number."""
    enabled = choose_color(color, sys.stderr)
    lines = []
    for problem in problems:
        lines.append(str(problem))
        if problem.line and problem.excerpt:
            lines += _excerpt(problem, enabled)
    files = len({problem.file for problem in problems if problem.file})
    count = sum(problem.times for problem in problems)
    lines.append(f"{count:,} {plural('problem', count)} in {files} {plural('file', files)}.")
    return "\n".join(lines)


def print_warnings(problems: Iterable[Problem]) -> None:
    """Print warnings on stderr: what is valid but will hardly work."""
    for line in render_warnings(problems):
        print(line, file=sys.stderr)


def render_warnings(problems: Iterable[Problem]) -> Iterator[str]:
    """Yield the lines of warnings."""
    for problem in bounded(list(problems)):
        path = f"{problem.path}: " if problem.path else ""
        yield str(problem._replace(path="", message=f"warning: {path}{problem.message}"))


def _excerpt(problem: Problem, color: bool) -> Iterator[str]:
    # Replace each character by one, so that the marks below stay aligned.
    shown = "".join(each if each.isprintable() else " " for each in problem.excerpt)
    yield f"{problem.line:5} | {shown}"
    indent = " " * (problem.column - 1 - problem.start)
    yield f"      | {indent}{paint('^' * min(problem.width, len(shown) - len(indent) or 1), '^', color)}"

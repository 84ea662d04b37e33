"""Statements and blocks of a keepalived.conf, whose lines `reader` evaluates. What they mean is not known here.

As in keepalived, a statement ends with its line or at a brace outside double quotes, and quotes cannot be escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reconciler.values import NamedTuple

# The words of a brace. They are compared by identity, because a quoted word may be a brace too.
OPEN, CLOSE = ["{"], ["}"]
BRACES: dict[str, list[str]] = {"": [], "{": OPEN, "}": CLOSE}
# What has braces that begin no block: quotes, names that only keepalived's host knows, and undefined names. keepalived
# would read those of the last kind as a block, which nobody means.
_BRACE = re.compile(r'"[^"]*(?:"|\Z)|\$\{_(?:ENV|INSTANCE|RANDOM)\b[^{}"]*\}|(\$\{[^{}"]*\})|([{}])')
# One that is not closed is dropped, with what follows it.
_WORD = re.compile(r'"([^"]*)"|([^ \t\f\v\r\n"]+)|"')

UNDEFINED = "uses an undefined name"


class Position(NamedTuple):
    """The file and the line, from 1, where something begins."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Statement(NamedTuple):
    """The words of a statement, or a brace, and where they begin.

    `fault`: a verb phrase that says why nobody knows here what keepalived would read in its place; "" if it is known.
    """

    position: Position
    words: list[str]
    fault: str = ""

    def __str__(self) -> str:
        return shorten(" ".join(self.words))


class StatementError(ValueError):
    """A text cannot be read as statements: where, and why."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position


# Receives a position and a message about it.
Report = Callable[[Position, str], None]


def shorten(text: str) -> str:
    """Return a text for a message."""
    return text if len(text) <= 80 else f"{text[:80]}…"


def cut(line: str) -> tuple[str, str, str]:
    """Cut a line at its first brace: what comes first (text, or a brace), the rest, and the fault of the former."""
    fault = ""
    for match in _BRACE.finditer(line):
        if match[1]:
            fault = UNDEFINED
        elif match[2]:
            at = match.start() or 1
            return line[:at].rstrip(" \t"), line[at:].strip(" \t"), fault
    return line, "", fault


def split(text: str) -> list[str]:
    """Split a text without braces into words."""
    words = []
    for match in _WORD.finditer(text):
        if match[0] == '"':
            break
        words.append(match[1] if match[2] is None else match[2])
    return words


class Blocks:
    """Statements one by one, each with the block that may follow it.

    The first brace that is missing or too much is reported to `on_problem`. Reading goes on as in keepalived: a brace
    too much is ignored, and a missing one is taken as read.
    """

    def __init__(self, statements: Iterator[Statement], on_problem: Report) -> None:
        self._statements, self._on_problem = statements, on_problem
        self._wrong = False
        self._next = next(statements, None)

    def _report(self, statement: Statement, message: str) -> None:
        if not self._wrong:
            self._on_problem(statement.position, message)
        self._wrong = True

    def _take(self) -> Statement | None:
        taken, self._next = self._next, next(self._statements, None)
        return taken

    def _enter_block(self, owner: Statement) -> None:
        if self.has_block():
            self._take()
        else:
            self._report(owner, f"{owner}: no block follows")

    def has_block(self) -> bool:
        """Return whether the statement that was just yielded has a block."""
        return self._next is not None and self._next.words is OPEN

    def top(self) -> Iterator[Statement]:
        """Yield the statements outside all blocks."""
        while (each := self._take()) is not None:
            if each.words is OPEN or each.words is CLOSE:
                self._report(each, f"a {each.words[0]} that belongs to no block")
            else:
                yield each

    def body(self, owner: Statement) -> Iterator[Statement]:
        """Yield the statements in the block of a statement that was just yielded."""
        self._enter_block(owner)
        while (each := self._take()) is not None:
            if each.words is CLOSE:
                return
            if each.words is OPEN:
                self._report(each, "a { that belongs to no block")
            else:
                yield each
        self._report(owner, f"{owner}: its block is not closed")

    def inside(self, owner: Statement) -> Iterator[Statement]:
        """Yield all statements in the block of a statement that was just yielded, also those of blocks within it."""
        self._enter_block(owner)
        depth = 1
        while (each := self._take()) is not None:
            if each.words is OPEN or each.words is CLOSE:
                depth += 1 if each.words is OPEN else -1
                if not depth:
                    return
            else:
                yield each
        self._report(owner, f"{owner}: its block is not closed")

    def skip(self, owner: Statement) -> None:
        """Skip the block of a statement that was just yielded, if it has one."""
        if self.has_block():
            for _ in self.inside(owner):
                pass

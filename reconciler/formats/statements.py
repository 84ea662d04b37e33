"""The text of a keepalived.conf as statements: handles comments, quotes, braces, definitions and includes.

This module does not know what a statement means. As in keepalived, a statement ends with its line or at a brace, and
`#` and `!` begin a comment anywhere outside double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

# Bounds of a file together with all that it includes. 20,000 servers with health checks are 300,000 statements.
DEPTH_MAX = 16
FILES_MAX = 1_000
CHARACTERS_MAX = 32 << 20
STATEMENTS_MAX = 1_000_000
# keepalived itself accepts lines of 1,024 bytes.
LINE_MAX = 4096
REPLACEMENTS_MAX = 100

# Most lines: words, and then perhaps a brace.
_PLAIN = re.compile(r'([^{}"#!$\\@~]*)([{}]?)')
# Found one after the other, not matched as a whole: a line may have millions of them.
_QUOTE_OR_COMMENT = re.compile(r'\\.|(["#!])')
# What ends a word. `${…}` that no definition replaces is part of a word, not a block.
_SEPARATOR = re.compile(r'\$\{[^{}"]*\}|\\.|(["{}\\]|\s+)')
_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*(.*)")
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)(?=[ \t,)]|$))")
_INCLUDE = re.compile(r"include[rmwba]?[ \t]+(.*)")

# The words of a brace. They are compared by identity, because a quoted word may be a brace too.
OPEN, CLOSE = ["{"], ["}"]
_BRACES: dict[str, list[str]] = {"": [], "{": OPEN, "}": CLOSE}


class Position(NamedTuple):
    """The file and the line, from 1, where something begins."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Statement(NamedTuple):
    """The words of a statement, or a brace, and where they begin."""

    position: Position
    words: list[str]

    def __str__(self) -> str:
        text = " ".join(self.words)
        return text if len(text) <= 80 else f"{text[:80]}…"


class StatementError(ValueError):
    """A text cannot be read as statements and blocks: where, and why."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position


# Takes a pattern and the file that includes it. Returns the names and texts of the matching files. ValueError if they
# cannot be read.
FindIncluded = Callable[[str, str], Iterable[tuple[str, str]]]
# Receives a position and a message about it.
Report = Callable[[Position, str], None]


class Reader:
    """Reads a text and what it includes. Each part that is skipped is reported to `on_skipped`."""

    def __init__(self, find_included: FindIncluded, on_skipped: Report) -> None:
        self._find_included, self._on_skipped = find_included, on_skipped
        self._definitions: dict[str, str] = {}
        # The files that are being read, each included by the one before it.
        self._nested: list[str] = []
        self._files = self._characters = self._statements = 0

    def read(self, file: str, text: str) -> Iterator[Statement]:
        """Yield the statements and braces of a text in their order. StatementError at the first line that has none."""
        self._count_file(file, text)
        self._nested.append(file)
        defining = False
        for number, raw in enumerate(text.split("\n"), start=1):
            line = raw.strip()
            if defining:
                defining = line.endswith("\\")
                continue
            position = Position(file, number)
            match = _PLAIN.fullmatch(line)
            if match is None:
                line = _without_comment(position, line)
                if definition := _DEFINITION.fullmatch(line):
                    defining = self._define(position, *definition.groups())
                    continue
                line = self._replace(position, line)
                if line.startswith(("@", "~")):
                    self._on_skipped(position, f"{_shorten(line)}: not imported because it is conditional or repeated")
                    continue
            if line.startswith("include") and (included := _INCLUDE.fullmatch(line)):
                yield from self._read_included(position, included[1])
                continue
            for words in [match[1].split(), _BRACES[match[2]]] if match else _split(line):
                if words:
                    self._statements += 1
                    yield Statement(position, words)
            if self._statements > STATEMENTS_MAX:
                raise StatementError(position, f"more than {STATEMENTS_MAX:,} statements")
        self._nested.pop()

    def _count_file(self, file: str, text: str) -> None:
        self._files += 1
        self._characters += len(text)
        if self._files > FILES_MAX:
            raise StatementError(Position(file, 1), f"more than {FILES_MAX:,} files are included")
        if self._characters > CHARACTERS_MAX:
            raise StatementError(Position(file, 1), f"all files together are larger than {CHARACTERS_MAX >> 20} MiB")

    def _define(self, position: Position, name: str, value: str) -> bool:
        """Store a definition. Return whether it continues on the next line; such a definition is skipped."""
        if not value.endswith("\\"):
            self._definitions[name] = value
            return False
        self._definitions.pop(name, None)
        self._on_skipped(position, f"${name}: not imported because it has several lines")
        return True

    def _replace(self, position: Position, line: str) -> str:
        """Replace names by their definitions. A name without a definition stays."""
        start = replaced = 0
        while match := _USE.search(line, start):
            value = self._definitions.get(match[1] or match[2])
            if value is None:
                start = match.end()
                continue
            # The value may contain names as well.
            start = match.start()
            line = line[:start] + value + line[match.end() :]
            replaced += 1
            if replaced > REPLACEMENTS_MAX or len(line) > LINE_MAX:
                message = f"definitions make this line endless, or longer than {LINE_MAX:,} characters"
                raise StatementError(position, message)
        return _without_comment(position, line) if replaced else line

    def _read_included(self, position: Position, pattern: str) -> Iterator[Statement]:
        if "{" in pattern or "$" in pattern:
            message = f"include {_shorten(pattern)}: not followed because the pattern has braces or definitions"
            self._on_skipped(position, message)
            return
        if len(self._nested) > DEPTH_MAX:
            raise StatementError(position, f"includes nest deeper than {DEPTH_MAX} files")
        found = False
        for file, text in self._included_by(position, pattern):
            found = True
            if file in self._nested:
                raise StatementError(position, f"{file} includes itself")
            yield from self.read(file, text)
        if not found:
            self._on_skipped(position, f"include {_shorten(pattern)}: no such file")

    def _included_by(self, position: Position, pattern: str) -> Iterator[tuple[str, str]]:
        try:
            yield from self._find_included(pattern, position.file)
        except ValueError as error:
            raise StatementError(position, f"include {pattern}: {error}") from None


class Blocks:
    """Statements one by one, each with the block that may follow it."""

    def __init__(self, statements: Iterator[Statement]) -> None:
        self._statements = statements
        self._next = next(statements, None)

    def _take(self) -> Statement | None:
        taken, self._next = self._next, next(self._statements, None)
        return taken

    def _enter_block(self) -> bool:
        if self._next is None or self._next.words is not OPEN:
            return False
        self._take()
        return True

    def top(self) -> Iterator[Statement]:
        """Yield the statements outside all blocks. StatementError at a brace that belongs to none."""
        while (each := self._take()) is not None:
            if each.words is OPEN or each.words is CLOSE:
                raise StatementError(each.position, f"a {each.words[0]} that belongs to no block")
            yield each

    def body(self, owner: Statement) -> Iterator[Statement]:
        """Yield the statements in the block of a statement that was just yielded. StatementError if it has no block."""
        if not self._enter_block():
            raise StatementError(owner.position, f"{owner}: no block follows")
        while (each := self._take()) is not None:
            if each.words is CLOSE:
                return
            if each.words is OPEN:
                raise StatementError(each.position, "a { that belongs to no block")
            yield each
        raise _unclosed(owner)

    def skip(self, owner: Statement) -> None:
        """Skip the block of a statement that was just yielded, if it has one."""
        depth = int(self._enter_block())
        while depth:
            each = self._take()
            if each is None:
                raise _unclosed(owner)
            depth += (each.words is OPEN) - (each.words is CLOSE)


def _unclosed(owner: Statement) -> StatementError:
    return StatementError(owner.position, f"{owner}: its block is not closed")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _without_comment(position: Position, line: str) -> str:
    """Return a line without its comment. StatementError if a quote is not closed."""
    quoted = False
    for match in _QUOTE_OR_COMMENT.finditer(line):
        if match[1] == '"':
            quoted = not quoted
        elif match[1] and not quoted:
            return line[: match.start()].rstrip()
    if quoted:
        raise StatementError(position, "a quote is not closed on its line")
    return line.rstrip()


def _split(line: str) -> Iterator[list[str]]:
    """Split a line whose quotes are all closed into statements and braces."""
    words: list[str] = []
    start, quoted = 0, False
    for match in _SEPARATOR.finditer(line):
        separator = match[1]
        if separator is None or (quoted and separator != '"'):
            continue
        if quoted or start < match.start():
            words.append(line[start : match.start()])
        # A backslash with nothing after it is a word of its own.
        start = match.start() if separator == "\\" else match.end()
        if separator == '"':
            quoted = not quoted
        elif separator in _BRACES:
            yield words
            yield _BRACES[separator]
            words = []
    if start < len(line):
        words.append(line[start:])
    yield words

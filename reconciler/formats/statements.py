"""The text of a keepalived.conf as statements: comments, quotes, braces, definitions and includes are dealt with here.

What a statement means is not known here. As keepalived has it, a statement ends with its line or at a brace, and `#` and
`!` begin a comment anywhere outside double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

# Bounds of a file with all that it includes. 20,000 servers with their health checks are 300,000 statements.
DEPTH_MAX = 16
FILES_MAX = 1_000
CHARACTERS_MAX = 32 << 20
STATEMENTS_MAX = 1_000_000
# keepalived itself takes lines of 1,024 bytes.
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

# The words of a brace: these very lists, as a word in quotes may be a brace.
OPEN, CLOSE = ["{"], ["}"]


class Place(NamedTuple):
    """Where something stands: the file's name, and the line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Statement(NamedTuple):
    """The words of a statement, or a brace, and where they begin."""

    place: Place
    words: list[str]

    def __str__(self) -> str:
        text = " ".join(self.words)
        return text if len(text) <= 80 else f"{text[:80]}…"


class StatementError(ValueError):
    """A text is no sequence of statements and blocks: where, and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


# Of a pattern and the file that includes it: the names and texts of the files that are meant. ValueError says why not.
Include = Callable[[str, str], Iterable[tuple[str, str]]]
# Told what is left out: where it stands, and what or why it is.
Leave = Callable[[Place, str], None]


class Reader:
    """Reads a text and what it includes. What is left out is told to `leave`."""

    def __init__(self, include: Include, leave: Leave) -> None:
        self._include, self._leave = include, leave
        self._definitions: dict[str, str] = {}
        self._open: list[str] = []
        self._files = self._characters = self._statements = 0

    def read(self, file: str, text: str) -> Iterator[Statement]:
        """Give the statements and braces of a text in their order. StatementError at the first that is none."""
        self._count_file(file, text)
        self._open.append(file)
        defining = False
        for number, raw in enumerate(text.split("\n"), start=1):
            line = raw.strip()
            if defining:
                defining = line.endswith("\\")
                continue
            place = Place(file, number)
            match = _PLAIN.fullmatch(line)
            if match is None:
                line = _code(place, line)
                if definition := _DEFINITION.fullmatch(line):
                    defining = self._define(place, *definition.groups())
                    continue
                line = self._replace(place, line)
                if line.startswith(("@", "~")):
                    self._leave(place, f"{_short(line)}: a conditional or repeated line, not taken over")
                    continue
            if line.startswith("include") and (included := _INCLUDE.fullmatch(line)):
                yield from self._read_included(place, included[1])
                continue
            for words in [match[1].split(), _BRACES[match[2]]] if match else _tokens(line):
                if words:
                    self._statements += 1
                    yield Statement(place, words)
            if self._statements > STATEMENTS_MAX:
                raise StatementError(place, f"more than {STATEMENTS_MAX:,} statements")
        self._open.pop()

    def _count_file(self, file: str, text: str) -> None:
        self._files += 1
        self._characters += len(text)
        if self._files > FILES_MAX:
            raise StatementError(Place(file, 1), f"more than {FILES_MAX:,} files are included")
        if self._characters > CHARACTERS_MAX:
            raise StatementError(Place(file, 1), f"all files together are larger than {CHARACTERS_MAX >> 20} MiB")

    def _define(self, place: Place, name: str, value: str) -> bool:
        """Keep a definition. Tell whether it goes on in the lines after; such a one is left out."""
        if not value.endswith("\\"):
            self._definitions[name] = value
            return False
        self._definitions.pop(name, None)
        self._leave(place, f"${name}: a definition of several lines, not taken over")
        return True

    def _replace(self, place: Place, line: str) -> str:
        """Put the values of definitions in place of their names; a name that has none stays as it is."""
        start = replaced = 0
        while match := _USE.search(line, start):
            value = self._definitions.get(match[1] or match[2])
            if value is None:
                start = match.end()
                continue
            # The value may hold names as well.
            start = match.start()
            line = line[:start] + value + line[match.end() :]
            replaced += 1
            if replaced > REPLACEMENTS_MAX or len(line) > LINE_MAX:
                raise StatementError(place, f"definitions make this line longer than {LINE_MAX:,} letters, or endless")
        return _code(place, line) if replaced else line

    def _read_included(self, place: Place, pattern: str) -> Iterator[Statement]:
        if "{" in pattern or "$" in pattern:
            self._leave(place, f"include {_short(pattern)}: braces and definitions in a pattern, not followed")
            return
        if len(self._open) > DEPTH_MAX:
            raise StatementError(place, f"includes nest deeper than {DEPTH_MAX} files")
        found = False
        for file, text in self._find(place, pattern):
            found = True
            if file in self._open:
                raise StatementError(place, f"{file} includes itself")
            yield from self.read(file, text)
        if not found:
            self._leave(place, f"include {_short(pattern)}: no such file")

    def _find(self, place: Place, pattern: str) -> Iterator[tuple[str, str]]:
        try:
            yield from self._include(pattern, place.file)
        except ValueError as error:
            raise StatementError(place, f"include {pattern}: {error}") from None


class Blocks:
    """Statements one by one, each with the block that may follow it."""

    def __init__(self, statements: Iterator[Statement]) -> None:
        self._statements = statements
        self._next = next(statements, None)

    def _take(self) -> Statement | None:
        taken, self._next = self._next, next(self._statements, None)
        return taken

    def _opens(self) -> bool:
        if self._next is None or self._next.words is not OPEN:
            return False
        self._take()
        return True

    def top(self) -> Iterator[Statement]:
        """Give the statements that are in no block."""
        while (each := self._take()) is not None:
            if each.words is OPEN or each.words is CLOSE:
                raise StatementError(each.place, f"a {each.words[0]} that belongs to no block")
            yield each

    def body(self, owner: Statement) -> Iterator[Statement]:
        """Give the statements of the block of the statement before."""
        if not self._opens():
            raise StatementError(owner.place, f"{owner}: no block follows")
        while (each := self._take()) is not None:
            if each.words is CLOSE:
                return
            if each.words is OPEN:
                raise StatementError(each.place, "a { that belongs to no block")
            yield each
        raise _unclosed(owner)

    def skip(self, owner: Statement) -> None:
        """Go past the block of the statement before, if it has one."""
        depth = int(self._opens())
        while depth:
            each = self._take()
            if each is None:
                raise _unclosed(owner)
            depth += (each.words is OPEN) - (each.words is CLOSE)


def _unclosed(owner: Statement) -> StatementError:
    return StatementError(owner.place, f"{owner}: its block is not closed")


_BRACES: dict[str, list[str]] = {"": [], "{": OPEN, "}": CLOSE}


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _code(place: Place, line: str) -> str:
    """Return a line without its comment. StatementError if a quote is not closed."""
    quoted = False
    for match in _QUOTE_OR_COMMENT.finditer(line):
        if match[1] == '"':
            quoted = not quoted
        elif match[1] and not quoted:
            return line[: match.start()].rstrip()
    if quoted:
        raise StatementError(place, "a quote that does not end on its line")
    return line.rstrip()


def _tokens(line: str) -> Iterator[list[str]]:
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

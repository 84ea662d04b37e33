"""The lines of a keepalived.conf and of what it includes → statements: comments, conditions, definitions, repetitions.

keepalived evaluates a line where it reads it, and what follows a brace as a line of its own. Lines that a definition or
a repetition brings come before the next line of a file; an included file begins after them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from reconciler.formats.keepalived.definitions import LINE_MAX, Definitions, read_definition
from reconciler.formats.keepalived.sequences import Repetition, read_repetition
from reconciler.formats.keepalived.statements import (
    BRACES,
    CLOSE,
    OPEN,
    Position,
    Statement,
    StatementError,
    cut,
    shorten,
    split,
)

# Bounds of a file together with all that it includes. 20,000 servers with health checks are 300,000 statements.
DEPTH_MAX = 16
FILES_MAX = 1_000
CHARACTERS_MAX = 32 << 20
STATEMENTS_MAX = 1_000_000
# Lines that definitions and repetitions bring.
REPEATED_MAX = 400_000

# Most lines: words, and then perhaps a brace.
_PLAIN = re.compile(r'([^{}"#!$\\@~\x00-\x08\x0a-\x1f\x7f-\U0010ffff]*)([{}]?)')
# Found one after the other, not matched as a whole.
_QUOTE_OR_COMMENT = re.compile(r'\\.|(["#!\\])')
_CONDITION = re.compile(r"@(\^?)([^ \t]*)(?:[ \t]+(.*))?", re.DOTALL)
_INCLUDE = re.compile(r"include[rmwba]?[ \t\f\v\r]+(.*)", re.DOTALL)
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_BLANKS = " \t"

NO_FILE = "finds no such file"
_DIFFER = "comes from a definition, and versions of keepalived read that differently"

# Takes a pattern and the file that includes it. Returns the names and texts of the matching files. ValueError if they
# cannot be read.
FindIncluded = Callable[[str, str], Iterable[tuple[str, str]]]


class Reader:
    """Reads a text and what it includes, for one configuration ID; None stands for an ID that no line names."""

    def __init__(self, find_included: FindIncluded, config_id: str | None) -> None:
        self._find_included, self._config_id = find_included, config_id
        self._definitions = Definitions(config_id)
        # The files that are being read, the innermost last, and their names.
        self._files: list[Iterator[str]] = []
        self._names: list[str] = []
        # What is read before the next line of a file, the last first.
        self._pending: list[Iterator[str]] = []
        self._position = Position("", 0)
        self._defining = False
        # A condition or repetition that a definition brought. keepalived 2.2 and 2.4 do not always evaluate it.
        self._doubtful = ""
        self._counts = dict.fromkeys((FILES_MAX, CHARACTERS_MAX, STATEMENTS_MAX, REPEATED_MAX), 0)
        # The configuration IDs that lines name.
        self.config_ids: set[str] = set()

    def read(self, file: str, text: str) -> Iterator[Statement]:
        """Yield the statements and braces of a text in their order. StatementError at the first line that has none."""
        self._files.append(self._lines([(file, text)]))
        try:
            while (line := self._next_line()) is not None:
                yield from self._statements(line)
        except StatementError:
            raise
        except ValueError as error:
            raise StatementError(self._position, str(error)) from None

    @property
    def characters(self) -> int:
        """Return how many characters have been read."""
        return self._counts[CHARACTERS_MAX]

    def _count(self, most: int, what: str, number: int = 1) -> None:
        self._counts[most] += number
        if self._counts[most] > most:
            raise StatementError(self._position, f"more than {most:,} {what}")

    def _lines(self, files: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield the lines of files, without what surrounds them."""
        for file, text in files:
            if file in self._names:
                raise StatementError(self._position, f"{file} includes itself")
            self._count(FILES_MAX, "files are included")
            self._count(CHARACTERS_MAX, "characters in all files together", len(text))
            self._names.append(file)
            for number, line in enumerate(text.split("\n"), start=1):
                self._position = Position(file, number)
                if len(line) > LINE_MAX or (not line.isascii() and len(line.encode()) > LINE_MAX):
                    raise StatementError(
                        self._position, f"longer than {LINE_MAX:,} bytes, which keepalived cannot read"
                    )
                stripped = line.strip(_BLANKS + "\r")
                # An empty line matters only to a definition, which it ends.
                if stripped or self._defining:
                    yield stripped
            self._names.pop()

    def _next_line(self) -> str | None:
        """Return the next line without its comment; None at the end."""
        while self._pending:
            line = next(self._pending[-1], None)
            if line is not None:
                self._count(REPEATED_MAX, "lines by definitions and repetitions")
                return line
            self._pending.pop()
        while self._files:
            line = next(self._files[-1], None)
            if line is None:
                self._files.pop()
            elif _PLAIN.fullmatch(line):
                return line
            else:
                # keepalived removes comments into a copy, and reads the copy as it reads a file.
                return _without_comment(_without_comment(line, defining=self._defining))
        return None

    def _statements(self, line: str) -> Iterator[Statement]:
        """Yield what a line leads to before the next one is read."""
        if (match := _PLAIN.fullmatch(line)) and not line.startswith("include"):
            for words in (match[1].split(), BRACES[match[2]]):
                if words:
                    yield self._statement(words)
            return
        line = self._evaluate(line)
        if self._doubtful:
            yield self._statement(split(self._doubtful), _DIFFER)
            self._doubtful = ""
        if included := _INCLUDE.fullmatch(line):
            yield from self._include(included[1])
            return
        text, rest, fault = cut(line)
        if rest:
            self._pending.append(iter([rest]))
        if text in {"{", "}"}:
            yield self._statement(OPEN if text == "{" else CLOSE)
        elif words := split(text):
            yield self._statement(words, fault)

    def _statement(self, words: list[str], fault: str = "") -> Statement:
        self._count(STATEMENTS_MAX, "statements")
        return Statement(self._position, words, fault)

    def _evaluate(self, line: str) -> str:
        """Return what a line says once its condition and names are replaced; "" if it says nothing by itself."""
        while line:
            if line.startswith("@"):
                line = self._meet(line)
            if definition := read_definition(line):
                self._define(*definition)
                return ""
            if line.startswith(("~SEQ", "~LST")):
                repetition = read_repetition(line, self._replace_all)
                self._pending.append(self._repeat(repetition))
                return ""
            replaced = None if line.startswith("~") else self._definitions.replace(line)
            if replaced is None:
                return line
            self._pending += map(iter, replaced.following)
            line = _without_comment(replaced.text)
            if line.startswith(("@", "~SEQ", "~LST")):
                self._doubtful = line
            if "$" not in line and not line.startswith("@"):
                return line
        return line

    def _meet(self, line: str) -> str:
        """Return a conditional line without its condition; "" if that is not met."""
        match = _CONDITION.fullmatch(line)
        if match is None or match[3] is None:
            return ""
        self.config_ids.add(match[2])
        return match[3] if (match[2] == self._config_id) != bool(match[1]) else ""

    def _define(self, name: str, value: str) -> None:
        if not value.endswith("\\"):
            self._definitions.define(name, value)
            return
        lines = [value[:-1].rstrip(_BLANKS)]
        self._defining = True
        # A line with nothing but a comment ends it as an empty one does.
        while line := self._next_line():
            if _INCLUDE.match(line):
                raise ValueError("keepalived cannot include a file within a definition")
            lines.append(line.removesuffix("\\").rstrip(_BLANKS))
            if not line.endswith("\\"):
                break
        self._defining = False
        self._definitions.define_lines(name, [each for each in lines if each])

    def _replace_all(self, text: str) -> str:
        replaced = self._definitions.replace(text)
        return replaced.text if replaced else text

    def _repeat(self, repetition: Repetition) -> Iterator[str]:
        for definitions in repetition.definitions:
            for name, value in definitions.items():
                self._definitions.define(name, value)
            yield repetition.text

    def _include(self, pattern: str) -> Iterator[Statement]:
        """Begin to read files after the lines that wait. Yield a statement with a fault if a file is missing."""
        if len(self._files) > DEPTH_MAX:
            raise StatementError(self._position, f"includes nest deeper than {DEPTH_MAX} files")
        found: list[Iterable[tuple[str, str]]] = []
        for number, each in enumerate(_alternatives(pattern)):
            if number == FILES_MAX:
                raise StatementError(self._position, f"include {shorten(pattern)}: more than {FILES_MAX:,} patterns")
            files = self._find(each, self._position)
            first = next(files, None)
            if first is not None:
                found.append(chain([first], files))
            elif not set(each) & set("*?["):
                yield self._statement(["include", pattern], NO_FILE)
        self._files.append(self._lines(chain.from_iterable(found)))

    def _find(self, pattern: str, position: Position) -> Iterator[tuple[str, str]]:
        try:
            yield from self._find_included(pattern, position.file)
        except ValueError as error:
            raise StatementError(position, f"include {pattern}: {error}") from None


def _without_comment(line: str, *, defining: bool = False) -> str:
    """Return a line without its comment, and without the backslash of an escaped `#` or `!`.

    A backslash at the end stays, right behind the text. `defining`: it matters even if there is no text. ValueError if
    a quote is not closed, or if versions of keepalived differ.
    """
    kept, quoted, end, continued = [], False, 0, False
    for match in _QUOTE_OR_COMMENT.finditer(line):
        if match[0] in {"\\#", "\\!"} and not quoted:
            kept.append(line[end : match.start()])
            end = match.start() + 1
        elif match[1] == '"':
            quoted = not quoted
        elif match[1] == "\\":
            continued = True
            line = line[: match.start()]
        elif match[1] and not quoted:
            if len(line) - len(line.rstrip("\\")) & 1 and (defining or line[: match.start()].strip(_BLANKS)):
                raise ValueError("keepalived 2.3 and 2.4 differ over a \\ that ends a comment; remove one of both")
            line = line[: match.start()]
            break
    if quoted:
        raise ValueError("a quote is not closed on its line")
    return ("".join(kept) + line[end:]).strip(_BLANKS) + ("\\" if continued else "")


def _alternatives(pattern: str) -> Iterator[str]:
    """Yield the patterns that one with braces stands for, as csh has it."""
    match = _ALTERNATIVES.search(pattern)
    if match is None:
        yield pattern
        return
    for each in match[1].split(","):
        yield from _alternatives(pattern[: match.start()] + each + pattern[match.end() :])

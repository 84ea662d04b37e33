"""Common mistakes of YAML, in words. libyaml only reports that something does not fit, and often at a later line.

A mistake is reported only if the text can be read further once it is mended: so its line and the advice are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import yaml

from reconciler.model.address import split_prefix

# Lines before an error in which its reason is searched. Few values cover more lines.
_LINES = 8
# Characters that are read again, all tries together.
_READ = 1 << 20
_WORD = r"(?<![^\s\[{,])(%s)(?=[\s,\]}]|$)"
_ADDRESS = re.compile(_WORD % r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:./]*")
_ENDPOINT = re.compile(_WORD % r"\[[0-9A-Fa-f:.]+\]:[0-9]+")
_NO_SPACE = re.compile(r"(?<![^\s\[{,])([A-Za-z][A-Za-z0-9_]*):(?=[^\s:/])")


class Mistake(NamedTuple):
    """What is wrong in a text, and its line and column, from 0."""

    message: str
    line: int
    column: int


def find_mistake(text: str, line: int, column: int) -> Mistake | None:
    """Return the mistake behind a syntax error that libyaml reports at a line and column, from 0, if it is known."""
    lines = text.split("\n")
    if line >= len(lines):
        return None
    if lines[line][column : column + 1] == "\t":
        return Mistake("a tab in the indentation; YAML allows only spaces there", line, column)
    tries = 0
    for pattern, mend in _MENDS:
        mended = lines.copy()
        for number in range(line, max(line - _LINES, -1), -1):
            matches = [each for each in pattern.finditer(lines[number]) if mend(each[1])]
            if not matches:
                continue
            mended[number] = pattern.sub(partial(_mended, mend), lines[number])
            tries += 1
            if tries * len(text) > _READ:
                return None
            if _reads_further(lines, mended, line, column):
                _, message = mend(matches[0][1]) or ("", "")
                return Mistake(message, number, matches[0].start())
    return None


def misread_key(key: str) -> str | None:
    """Return the mistake behind the only key of a mapping, if it is known: with its colon it is an address."""
    mended = _address(f"{key}:")
    return mended and mended[1]


def misread_text(text: str) -> str | None:
    """Return the mistake behind a text that should be a field, if it is known: its colon has no space after it."""
    match = _NO_SPACE.match(text)
    return _spaced(match[1])[1] if match else None


# What mends a part of a line: the part as it should be, and the words about it; None if nothing is wrong with it.
_Mend = Callable[[str], "tuple[str, str] | None"]


def _address(text: str) -> tuple[str, str] | None:
    if not (text.startswith(":") or text.partition("/")[0].endswith(":")):
        return None
    try:
        split_prefix(text)
    except ValueError:
        return None
    return f'"{text}"', f'{text} begins or ends with a colon, so YAML needs quotes around it: "{text}"'


def _endpoint(text: str) -> tuple[str, str]:
    return f'"{text}"', f'{text} begins like a list of YAML; it needs quotes around it: "{text}"'


def _spaced(key: str) -> tuple[str, str]:
    return f"{key}: ", f'a space is missing after "{key}:"'


_MENDS: tuple[tuple[re.Pattern[str], _Mend], ...] = ((_ADDRESS, _address), (_ENDPOINT, _endpoint), (_NO_SPACE, _spaced))


def _mended(mend: _Mend, match: re.Match[str]) -> str:
    mended = mend(match[1])
    return mended[0] if mended else match[0]


def _reads_further(lines: list[str], mended: list[str], line: int, column: int) -> bool:
    """Return whether libyaml reads further than a line and column once lines are mended."""
    try:
        for _ in yaml.parse("\n".join(mended), Loader=yaml.CSafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None or mark.line >= len(mended):
            return mark is not None
        # What was mended may have moved the rest of its line.
        left = len(mended[mark.line]) - mark.column
        return bool(mark.line > line or (mark.line == line and left < len(lines[line]) - column))
    return True

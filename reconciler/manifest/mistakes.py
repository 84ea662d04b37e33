"""Common mistakes of YAML, in words. libyaml only reports that something does not fit, and often at a later line.

A mistake is reported only if the text can be read further once it is mended: so its line and the advice are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from reconciler.manifest.libyaml import parse
from reconciler.values import NamedTuple

# It loads what follows without the rest of PyYAML.
# isort: split
from yaml.error import MarkedYAMLError

from reconciler.model.address import split_prefix

# Lines before an error in which its reason is searched. Few values cover more lines.
_LINES = 8
# Characters that are read again, all tries together.
_READ = 1 << 20
_WORD = r"(?<![^\s\[{,])(%s)(?=[\s,\]}]|$)"
_ADDRESS = re.compile(_WORD % r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:./]*")
_ENDPOINT = re.compile(_WORD % r"\[[0-9A-Fa-f:.]+\]:[0-9]+")
# The only or the last word of a line.
_NO_COLON = re.compile(r"(?<![^ -])([A-Za-z][A-Za-z0-9_]*)(?=\s*$)")
_NO_SPACE = re.compile(r"(?<![^\s\[{,])([A-Za-z][A-Za-z0-9_]*):(?=[^\s:/])")


# Words of ip(8), ipvsadm(8), netplan and kata-runtime, in lower case → the fields of ours that they may stand for.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "via": ("gateway",),
    "gw": ("gateway",),
    "nexthop": ("gateway", "nexthops"),
    "to": ("dest",),
    "dst": ("dest",),
    "network": ("dest",),
    "dev": ("device",),
    "iface": ("device",),
    "interface": ("device", "interfaces"),
    "src": ("source",),
    "mac": ("hwAddr",),
    "macaddress": ("hwAddr",),
    "lladdr": ("hwAddr",),
    "ip": ("addresses", "address"),
    "ipaddresses": ("addresses",),
    "name": ("sandbox",),
    "id": ("sandbox",),
    "namespace": ("netns",),
    "ns": ("netns",),
    "pref": ("priority",),
    "lookup": ("table",),
    "algorithm": ("scheduler",),
    "backends": ("servers",),
    "endpoints": ("servers",),
    "realservers": ("servers",),
    "realserver": ("address",),
    "method": ("forward",),
}

_NEEDS_QUOTES = "a text that begins with this character needs quotes"
_NO_COLUMN = "this begins in column {column}, and nothing that it could belong to begins there; check the indentation"
# What libyaml says → the same in words, by what it is about. `line`: where a mapping or a list begins.
_SYNTAX = {
    "did not find expected key": _NO_COLUMN,
    "did not find expected '-' indicator": _NO_COLUMN,
    "did not find expected ',' or '}'": (
        "a `,` or `}}` is missing before {where}, in the mapping that begins with `{{` in line {line}"
    ),
    "did not find expected ',' or ']'": (
        "a `,` or `]` is missing before {where}, in the list that begins with `[` in line {line}"
    ),
    "mapping values are not allowed in this context": (
        "this is indented below a value that is complete already; begin it in the column of the field above it"
    ),
    "block sequence entries are not allowed in this context": "no list can begin here: give each `-` a line of its own",
    "found character that cannot start any token": _NEEDS_QUOTES,
    "mapping keys are not allowed in this context": _NEEDS_QUOTES,
    "did not find expected comment or line break": "the text that `|` or `>` begins follows in the next line",
    "did not find expected <document start>": (
        "this is below the end of the manifest; the next one begins with `---` on a line of its own"
    ),
    "did not find expected node content": "a value is missing before {where}",
    "found unknown escape character": (
        "no escape has this name; a backslash begins one in double quotes, and is itself in single quotes"
    ),
}
# The same, where the reason is not where libyaml notices it, but where it began to read.
_BEGUN = {
    "could not find expected ':'": (
        "a colon is missing; a field is written `name: value`, or `name:` above what belongs to it"
    ),
    # Anchors, aliases and directives, which nobody means.
    "did not find expected alphabetic or numeric character": _NEEDS_QUOTES,
    "could not find expected directive name": _NEEDS_QUOTES,
    "found unexpected non-alphabetical character": _NEEDS_QUOTES,
    "found unexpected end of stream": "the quotes that begin here do not end",
    "found unexpected document indicator": "the quotes that begin here do not end",
}


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
    for number in range(line, max(line - _LINES, -1), -1):
        if lines[number].startswith(("<<<<<<< ", ">>>>>>> ")):
            return Mistake("a conflict that git marked here is not resolved", number, 0)
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


def describe(text: str, error: MarkedYAMLError) -> Mistake:
    """Return a syntax error in words, where its reason is; in those of libyaml if it is none of the usual ones."""
    start, noticed, problem = error.context_mark, error.problem_mark, error.problem or ""
    mark = noticed or start
    if mark is None:
        return Mistake(f"YAML: {problem}", 0, 0)
    if problem in _BEGUN and start:
        return Mistake(_BEGUN[problem], start.line, start.column)
    lines = text.split("\n")
    # libyaml knows further ends of lines.
    line = lines[mark.line] if mark.line < len(lines) else ""
    before, rest = line[: mark.column], line[mark.column :]
    if problem == "did not find expected key" and before.strip():
        return Mistake("nothing can follow here: the value before this is complete", mark.line, mark.column)
    if problem == "did not find expected key" and rest.startswith("- "):
        message = "a list cannot go on among fields: the `-` of all of its items stand in one column"
        return Mistake(message, mark.line, mark.column)
    if problem == "mapping values are not allowed in this context" and ": " in before:
        message = "a second `: ` in a line; give each field a line of its own, and put a text with `: ` in it in quotes"
        return Mistake(message, mark.line, mark.column)
    where, column = "this", mark.column + 1
    if start and not (rest + "".join(lines[mark.line + 1 :])).strip():
        # There is nothing to point at any more.
        where, mark = "the end", start
    if problem in _SYNTAX:
        message = _SYNTAX[problem].format(where=where, line=start.line + 1 if start else 0, column=column)
    else:
        message = f"YAML: {', '.join(filter(None, (error.context, problem)))}"
    return Mistake(message, mark.line, mark.column)


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


def _named(key: str) -> tuple[str, str]:
    return f"{key}:", f'a colon is missing after "{key}"'


_MENDS: tuple[tuple[re.Pattern[str], _Mend], ...] = (
    (_ADDRESS, _address),
    (_ENDPOINT, _endpoint),
    (_NO_SPACE, _spaced),
    (_NO_COLON, _named),
)


def _mended(mend: _Mend, match: re.Match[str]) -> str:
    mended = mend(match[1])
    return mended[0] if mended else match[0]


def _reads_further(lines: list[str], mended: list[str], line: int, column: int) -> bool:
    """Return whether libyaml reads further than a line and column once lines are mended."""
    try:
        for _ in parse("\n".join(mended)):
            pass
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None or mark.line >= len(mended):
            return mark is not None
        # What was mended may have moved the rest of its line.
        left = len(mended[mark.line]) - mark.column
        return bool(mark.line > line or (mark.line == line and left < len(lines[line]) - column))
    return True

"""`~SEQ(…)` and `~LST(…)`, which repeat the rest of their line: keepalived.conf(5), "Sequence blocks" and below."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reconciler.values import NamedTuple

_SEQUENCE = re.compile(r"~SEQ(x?)[ \t]*\([ \t]*([^ \t,){][^ \t,)]*)[ \t]*,[ \t]*([^)]*)\)[ \t]*(.*)", re.DOTALL)
# As C's strtol reads it: 0x begins a number of base 16, 0 one of base 8.
_NUMBER = re.compile(r"[ \t]*([+-]?)(0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]*)[ \t]*")
_LIST = re.compile(r"~LST[ \t]*\([ \t]*(.*)", re.DOTALL)
_NAME = re.compile(r"[^ \t,}]*")
_VALUE = re.compile(r"[^ \t,})]*")
_BLANKS = re.compile(r"[ \t]*")
_NUMBER_MAX = 1 << 31


class Repetition(NamedTuple):
    """A line that is read again and again, and what names stand for each time."""

    text: str
    definitions: Iterator[dict[str, str]]


def read_repetition(line: str, replace: Callable[[str], str]) -> Repetition:
    """Read a line that begins with ~SEQ or ~LST; `replace` replaces names in numbers. ValueError if it is wrong."""
    return _read_sequence(line, replace) if line.startswith("~SEQ") else _read_list(line)


def _read_sequence(line: str, replace: Callable[[str], str]) -> Repetition:
    match = _SEQUENCE.fullmatch(line)
    if match is None:
        raise ValueError("not a ~SEQ; expected one such as ~SEQ(NAME, 1, 9)")
    hexadecimal, name, text, rest = match.groups()
    numbers = [_read_number(each) for each in replace(text).split(",")]
    match numbers:
        case [end]:
            start, step = (-1 if end < 0 else 1), (-1 if end < 1 else 1)
        case [start, end]:
            step = 1 if start <= end else -1
        case [start, step, end]:
            if not step or (end - start) * step < 0:
                raise ValueError(f"~SEQ: steps of {step} do not lead from {start} to {end}")
        case _:
            raise ValueError("~SEQ: expected at most three numbers: the first, the step, and the last")
    if hexadecimal and (start < 0 or end < 0):
        raise ValueError("~SEQx: expected no negative number")
    values = range(start, end + (1 if step > 0 else -1), step)
    return Repetition(rest, ({name: f"{value:x}" if hexadecimal else str(value)} for value in values))


def _read_number(text: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or len(match[2]) > 20:
        raise ValueError(f'~SEQ: "{text.strip()}" is not a number')
    sign, digits = match.groups()
    octal = len(digits) > 1 and digits.isdecimal() and digits[0] == "0"
    number = int(digits, 8 if octal else 0)
    if number >= _NUMBER_MAX:
        raise ValueError(f"~SEQ: {digits} is too large")
    return -number if sign == "-" else number


def _read_list(line: str) -> Repetition:
    match = _LIST.fullmatch(line)
    if match is None:
        raise ValueError("not a ~LST; expected one such as ~LST(NAME, a, b)")
    scan = _Scan(match[1])
    names = scan.group(_NAME)
    scan.expect(",")
    groups = []
    while True:
        values = scan.group(_VALUE)
        if len(values) > len(names):
            raise ValueError(f"~LST: {len(values)} values for {len(names)} names")
        groups.append(values + [""] * (len(names) - len(values)))
        if scan.found(")"):
            break
        scan.expect(",")
    return Repetition(scan.rest, (dict(zip(names, values, strict=True)) for values in groups))


class _Scan:
    """What is left of a ~LST."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.rest)
        found = match[0] if match else ""
        self.rest = self.rest[len(found) :]
        return found

    def found(self, character: str) -> bool:
        """Skip a character and the blanks behind it. Return whether it was there."""
        if not self.rest.startswith(character):
            return False
        self.rest = self.rest[1:]
        self._skip(_BLANKS)
        return True

    def expect(self, character: str) -> None:
        """Skip a character. ValueError if it is not there."""
        if not self.found(character):
            raise ValueError(f'~LST: expected "{character}" before "{self.rest[:20]}"')

    def group(self, item: re.Pattern[str]) -> list[str]:
        """Read one item, or several between braces."""
        several = self.found("{")
        items = [self._item(item)]
        while several and not self.found("}"):
            self.expect(",")
            items.append(self._item(item))
        return items

    def _item(self, pattern: re.Pattern[str]) -> str:
        item = self._skip(pattern)
        self._skip(_BLANKS)
        return item

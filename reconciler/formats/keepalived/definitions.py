"""`$NAME=value` in a keepalived.conf, and the replacement of names: keepalived.conf(5), "Parameter substitution"."""

from __future__ import annotations

import re

from reconciler.values import NamedTuple

# keepalived reads a line with its end into a buffer of 1,024 bytes.
LINE_MAX = 1022
REPLACEMENTS_MAX = 100

_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*(.*)", re.DOTALL)
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)(?=[ \t,)]|\Z))")


class Definition(NamedTuple):
    """What a name stands for: a line, or several of them. A name for several is replaced only at the end of a line."""

    lines: list[str]
    several: bool = False


class Replaced(NamedTuple):
    """A line in which at least one name was replaced; and the lines that follow it, the first of each list first.

    The last list comes first.
    """

    text: str
    following: list[list[str]]


class Definitions:
    """The definitions so far. One that changes later counts where its name is used."""

    def __init__(self, config_id: str | None) -> None:
        # Includes start from the folder of their file, and nothing else that is imported has a folder in it.
        self._known = {"_PWD": Definition(["."]), "_HASH": Definition(["#"]), "_BANG": Definition(["!"])}
        if config_id is not None:
            self.define("_INSTANCE", config_id)

    def define(self, name: str, value: str) -> None:
        """Store a definition of one line."""
        self._known[name] = Definition([value])

    def define_lines(self, name: str, lines: list[str]) -> None:
        """Store a definition of several lines."""
        self._known[name] = Definition(lines, several=True) if lines else Definition([""])

    def replace(self, text: str) -> Replaced | None:
        """Replace names by what they stand for, also in what took their place. None if there was nothing to replace.

        ValueError if the line has no end.
        """
        following: list[list[str]] = []
        start = replaced = 0
        while match := _USE.search(text, start):
            definition = self._known.get(match[1] or match[2])
            if definition is None or (definition.several and match.end() != len(text)):
                start = match.start() + 1
                continue
            value, *rest = definition.lines
            start = match.start()
            text = text[:start] + value + text[match.end() :]
            if definition.several:
                following.append(rest)
            replaced += 1
            if replaced > REPLACEMENTS_MAX or len(text) > LINE_MAX:
                raise ValueError(f"definitions make this line endless, or longer than {LINE_MAX:,} characters")
            if value.lstrip(" \t").startswith("~"):
                break
        return Replaced(text, following) if replaced else None


def read_definition(line: str) -> tuple[str, str] | None:
    """Return the name and the value of a line that is a definition."""
    match = _DEFINITION.fullmatch(line)
    return (match[1], match[2]) if match else None

"""What a terminal can show: which characters, in how many columns.

A pipe or a file gets UTF-8 whatever the locale is, as its reader may be anything. A terminal that says that it has no
Unicode gets ASCII: our own signs become similar ones, and any other character an escape.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import TextIO

from reconciler.wording import printable

# The size of a terminal that does not report any.
_COLUMNS, _ROWS = 80, 24
# Our own signs → what ASCII has for them.
_SIGNS = {"·": "-", "…": "...", "█": "#", "░": "."}
_ERRORS = "reconciler.signs"
# The categories of Unicode that take no column of their own: marks. The directions of what is written from the right.
_MARKS, _FROM_RIGHT = "M", {"R", "AL", "AN"}


def adapt(stream: TextIOWrapper) -> None:
    """Make a stream write what its reader can show."""
    if stream.isatty() and not has_unicode(_environment()):
        codecs.register_error(_ERRORS, _replace)
        stream.reconfigure(encoding="ascii", errors=_ERRORS)
    else:
        # Names of files can be bytes that are no UTF-8.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def has_unicode(environment: Mapping[str, str]) -> bool:
    """Return whether a terminal shows UTF-8, by TERM and by the locale: LC_ALL, else LC_CTYPE, else LANG.

    Where none of them is set, nothing says that it does not.
    """
    names = (environment.get(each) for each in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, names), "UTF-8")
    return not is_dumb(environment) and re.search(r"utf-?8(@|$)", locale, re.IGNORECASE) is not None


def is_dumb(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a terminal obeys nothing: no colour, and no movement of the cursor."""
    return environment.get("TERM") == "dumb"


def _environment() -> Mapping[str, str]:
    """Return the environment that this process was started with: Python sets LC_CTYPE to UTF-8 in the locale C."""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = os.fsdecode(file.read()).split("\0")
    except OSError:
        return os.environ
    return dict(each.split("=", 1) for each in pairs if "=" in each)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for what a stream cannot write, and where it goes on: signs of ours, or escapes as JSON has them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def is_ascii(stream: TextIO) -> bool:
    """Return whether a stream writes nothing but ASCII."""
    return getattr(stream, "errors", None) == _ERRORS


def columns(stream: TextIO) -> int | None:
    """Return how many columns a terminal has; None if a stream is no terminal."""
    return (_size(stream)[0] or _COLUMNS) if stream.isatty() else None


def help_width() -> int:
    """Return in how many columns help is written, as argparse counts them: by COLUMNS, else by standard output."""
    named = os.environ.get("COLUMNS", "")
    wanted = int(named) if named.isdecimal() else 0
    return (wanted or (_size(sys.__stdout__)[0] if sys.__stdout__ else 0) or _COLUMNS) - 2


def rows_of(stream: TextIO) -> int:
    """Return how many rows a terminal has."""
    return _size(stream)[1] or _ROWS


def _size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows; 0 where a terminal does not report them."""
    try:
        return os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 0, 0


def aligned(text: str, stream: TextIO) -> str:
    """Return text for a column: as the stream shows it, and without what `width` cannot count.

    Marks, which are shown above other characters, and characters that are written from the right become escapes.
    """
    if text.isascii():
        return printable(text)
    text = "".join(each if _has_place(each) else _in_ascii(each) for each in printable(text))
    return "".join(each if each.isascii() else _in_ascii(each) for each in text) if is_ascii(stream) else text


def _has_place(character: str) -> bool:
    import unicodedata

    return not (
        unicodedata.category(character).startswith(_MARKS) or unicodedata.bidirectional(character) in _FROM_RIGHT
    )


def width(text: str) -> int:
    """Return how many columns text takes that `aligned` has returned: characters of East Asia take two."""
    if text.isascii():
        return len(text)
    import unicodedata

    return len(text) + sum(unicodedata.east_asian_width(each) in {"W", "F"} for each in text)


def cut(text: str, most: int, stream: TextIO) -> str:
    """Return text of at most so many columns, `aligned`."""
    text = aligned(text, stream)[: max(most, 0)]
    while width(text) > most:
        text = text[:-1]
    return text

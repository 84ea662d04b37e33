"""Words of messages: plurals, times, text as it leaves this process, and suggestions for unknown names.

Text that came from outside (names in a namespace or a guest, answers of other programs, names of files) is raw
everywhere within. It is made harmless once, by the functions here, where it leaves the process for people or a log.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

# Names that a message lists.
_LISTED = 40
# Characters of a name that are compared with the known names.
_COMPARED = 100
# Characters of a line for people, and of a value in the log. A route with 60 next hops is as long.
LONGEST = 4000


def plural(noun: str, count: int) -> str:
    """Return a noun in the form for a count: 1 route, 2 routes, 2 sandboxes, 2 addresses."""
    if count == 1:
        return noun
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def seconds(text: str) -> float:
    """Read a time such as `0.5s`, `90s`, `15min`, `1h` or `2d`. Raise ValueError if it is none."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|min|h|d)", text)
    if match is None or not float(match[1]):
        raise ValueError(f'"{text}" is not a time such as 90s, 15min, 1h or 2d')
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[match[2]]


def reason(error: OSError) -> str:
    """Return why the operating system refused something, and what to do if only the user is the reason."""
    words = error.strerror or str(error)
    return f"{words}; run this as root" if isinstance(error, PermissionError) and os.geteuid() != 0 else words


def failure(error: OSError) -> str:
    """Return which file an error of the operating system is about, if any, and its reason."""
    return f"{error.filename}: {reason(error)}" if error.filename else reason(error)


def printable(text: str) -> str:
    """Return text in which all characters are escaped that a terminal could obey, or that no person could see.

    These are control characters, also those that end a line or reverse the direction of writing, and bytes that are no
    UTF-8. The escapes are those of Python, and of a string of YAML in double quotes.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Return text of several lines of our own, each one printable."""
    # One call of C for text of any length is enough, if nothing has to be escaped.
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def shorten(text: str, most: int = LONGEST) -> str:
    """Return text of at most `most` characters, and how many it had if there are more."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def shown(value: Any) -> str:
    """Return a value of a file as a message shows it: text in quotes, shortened to 60 characters."""
    words = f'"{value}"' if isinstance(value, str) else str(value)
    return words if len(words) <= 60 else f"{words[:60]}…"


def to_json(
    data: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None, ascii_only: bool = False
) -> str:
    """Return data as JSON that a terminal can show. What is not JSON becomes its text."""
    import json

    text = json.dumps(data, ensure_ascii=ascii_only, indent=indent, separators=separators, default=str)
    if text.replace("\n", "").isprintable():
        return text
    # JSON leaves one control character of ASCII as it is.
    return json.dumps(data, indent=indent, separators=separators, default=str).replace("\x7f", "\\u007f")


def quote(word: str) -> str:
    """Return a word as every POSIX shell reads it back, also one that cannot be printed as it is."""
    if word.isprintable():
        return shlex.quote(word)
    data = b"".join(_encoded(each) for each in word)
    octal = "".join(chr(each) if chr(each).isalnum() and each < 128 else f"\\{each:03o}" for each in data)
    return f"\"$(printf '{octal}')\""


def _encoded(character: str) -> bytes:
    # A byte that is no UTF-8 was decoded as a surrogate (PEP 383).
    is_byte = "\udc80" <= character <= "\udcff"
    return character.encode(errors="surrogateescape" if is_byte else "surrogatepass")


def select(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the names that match one of these patterns, in their own order; wildcards are those of a shell."""
    from fnmatch import translate

    matches = re.compile("|".join(map(translate, patterns))).match
    return [name for name in names if matches(name)]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is close to an unknown one, if there is one."""
    from difflib import get_close_matches

    by_lower = {word.lower(): word for word in known}
    asked = name[:_COMPARED].lower()
    # Two letters that changed places are half of a short word.
    swapped = [each for each in by_lower if sorted(each) == sorted(asked)]
    close = get_close_matches(asked, by_lower, n=1, cutoff=0.6) or swapped
    return by_lower[close[0]] if close else None


def suggest(name: str, known: Iterable[str], *, listed_by: str = "`reconciler explain`") -> str:
    """Return a hint at the known name that is close to an unknown one, or else at all known names.

    `listed_by`: what has them, if they are very many.
    """
    names = list(known)
    if close := nearest(name, names):
        return f'did you mean "{close}"?'
    if len(names) > _LISTED:
        return f"expected one of {len(names)} names" + (f"; {listed_by} has them" if listed_by else "")
    return f"expected one of: {', '.join(names)}"

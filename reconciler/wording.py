"""Words of messages: plurals, times, escaped text, and suggestions for unknown names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Names that a message lists.
_LISTED = 40
# Characters of a name that are compared with the known names.
_COMPARED = 100


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


def printable(text: str) -> str:
    """Return text in which control characters are escaped: no terminal obeys them, no line ends."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shorten(text: str, most: int) -> str:
    """Return text of at most so many characters; of a longer one, its beginning and a mark."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is close to an unknown one, or else at all known names."""
    from difflib import get_close_matches

    by_lower = {word.lower(): word for word in known}
    close = get_close_matches(name[:_COMPARED].lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{by_lower[close[0]]}"?'
    if len(by_lower) > _LISTED:
        return f"expected one of {len(by_lower)} names; docs/manifest.md has them"
    return f"expected one of: {', '.join(by_lower.values())}"

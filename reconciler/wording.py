"""Words that messages have in common: plurals, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable


def plural(noun: str, count: int) -> str:
    """Write a noun for a count of it: 1 route, 2 routes, 2 sandboxes, 2 addresses."""
    if count == 1:
        return noun
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def printable(text: str) -> str:
    """Escape what a terminal would obey and what would end a line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest what was meant by an unknown name, or list what is known."""
    from difflib import get_close_matches

    by_lower = {word.lower(): word for word in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{by_lower[close[0]]}"?'
    return f"expected one of: {', '.join(by_lower.values())}"

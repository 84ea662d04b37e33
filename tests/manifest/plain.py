"""Plain data as documents have it: what YAML and JSON both say."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# An integer of more digits is kept as text.
INTEGER_MAX = 10**18 - 1

# What some reader of YAML takes for something else than this text.
TRAPS = [
    *("y", "Y", "n", "N", "yes", "No", "on", "OFF", "true", "True", "FALSE", "null", "Null", "~", "", "<<", "="),
    *("52:54:00:12:34:56", "12:40:37:27:57:41", "12:30:00", "1:59", "190:20:30.15"),
    *("0", "12345", "0777", "08", "0o17", "0x1f", "0b11", "-0x1F", "+5", "-0", "1_000", "-1_0"),
    *(
        "1e3",
        "1E-3",
        "12e4567",
        ".5",
        "-.5",
        "+.5e3",
        ".5e3",
        ".5E-3",
        "1.",
        "+1.5e3",
        "1_0.5",
        ".inf",
        "-.INF",
        ".nan",
    ),
    *("2026-01-01", "2001-12-14 21:59:43", "2001-12-14t21:59:43.10-05:00"),
    *("- a", "-", "? a", ": a", "a: b", "a:", "a #b", "#a", "&a", "*a", "!a", "%a", "@a", "`a", "{a", "[a", "a,b"),
    *("'a", '"a', "|", ">", "---", "...", " a", "a ", "a\n", "\na", "a\n\nb", "\ta", "a\tb", "\x85", "\u2028", "\0"),
]


def texts(characters: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[str]:
    """Any text of these characters (default: all), and often such that a reader could take it for something else."""
    free = st.text(max_size=20) if characters is None else st.text(characters, max_size=20)
    return free | st.text(alphabet="0123456789-+._:eExoXaf~<=", max_size=12) | st.sampled_from(TRAPS)


def data(characters: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Any]:
    """Lists and mappings of text, integers, truth values and null."""
    text = texts(characters)
    scalars = st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | text
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=15,
    )

"""Tables for people: in columns where the terminal is wide enough, else each row as a few lines, with all facts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from reconciler.cli.terminal import aligned, columns, width

_GAP = "  "
# The title of the notes.
_NOTE = "DETAIL"


def render(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] | None = None) -> list[str]:
    """Return a table for standard output. `notes`: the last cell of each row, a text of any length."""
    stream, most = sys.stdout, columns(sys.stdout)
    cells = [[aligned(each, stream) for each in row] for row in (head, *rows)]
    noted = None if notes is None else [aligned(each, stream) for each in notes]
    whole = cells if noted is None else [[*row, note] for row, note in zip(cells, [_NOTE, *noted], strict=True)]
    lines = _in_columns(whole)
    if most is None or _widest(lines) <= most:
        return lines
    blocks = [[line] for line in _in_columns(cells)]
    if _widest(line for block in blocks for line in block) > most:
        blocks = [[], *(list(_stacked(cells[0], row, most)) for row in cells[1:])]
    below = ["", *(noted or [""] * len(rows))]
    return [line for block, note in zip(blocks, below, strict=True) for line in (*block, *wrap(note, most, "    "))]


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _widest(lines: Sequence[str] | Iterator[str]) -> int:
    return max(map(width, lines), default=0)


def _stacked(head: Sequence[str], row: Sequence[str], most: int) -> Iterator[str]:
    """Yield the first cell of a row, and below it the others with their titles."""
    yield from wrap(row[0], most, "")
    facts = (f"{title.lower()} {cell}" for title, cell in zip(head[1:], row[1:], strict=True) if cell.strip("-"))
    yield from wrap(", ".join(facts), most, "  ")


def facts(pairs: Sequence[tuple[str, str]], stream: TextIO) -> Iterator[str]:
    """Yield labels and their texts beside them, wrapped; below them on a narrow terminal."""
    label_width = max(len(label) for label, _ in pairs) + 4
    most = columns(stream)
    for label, text in pairs:
        shown = aligned(text, stream)
        title = f"  {label:{label_width - 2}}"
        if most is None:
            yield f"{title}{shown}"
            continue
        first, *others = list(wrap(shown, most, " " * label_width)) or [""]
        yield title + first[label_width:]
        yield from others


def wrap(text: str, most: int, indent: str) -> Iterator[str]:
    """Yield text as lines of at most so many columns. A word that is longer than a line is broken."""
    line = ""
    for word in text.split():
        if line and width(f"{indent}{line} {word}") > most:
            yield f"{indent}{line}"
            line = ""
        line = f"{line} {word}" if line else word
        while width(f"{indent}{line}") > max(most, len(indent) + 2):
            fitting = _fitting(line, max(most - len(indent), 2))
            yield f"{indent}{line[:fitting]}"
            line = line[fitting:]
    if line:
        yield f"{indent}{line}"


def _fitting(text: str, most: int) -> int:
    """Return how many characters fit into so many columns."""
    count = most
    while width(text[:count]) > most:
        count -= 1
    return count

"""What `--help` prints of every command, as a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.cli.main import whole_parser
from reconciler.cli.parser import Parser

# Columns.
_WIDTH = "100"


def page() -> str:
    """Return the page, as Markdown."""
    with _wide():
        return "\n".join(_sections(whole_parser(), 1, "Commands and options"))


def _sections(parser: Parser, level: int, title: str) -> Iterator[str]:
    yield f"{'#' * level} {title}\n\n```text\n{parser.format_help()}```\n"
    for each in parser.commands().values():
        yield from _sections(each, level + 1, each.prog)


@contextmanager
def _wide() -> Iterator[None]:
    """Let the help be as wide as the page, whatever the terminal of `make` is."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before

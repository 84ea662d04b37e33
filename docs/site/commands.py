"""What `--help` prints of every command, as a page."""

from __future__ import annotations

import contextlib
import io
import os
import re

from reconciler.cli.main import main

# Columns.
_WIDTH = "100"
# A command or an action in a list of them: its name, and its purpose on the same line or below.
_NAMED = re.compile(r"^    ([a-z][a-z-]*)(?:  +\S.*)?$", re.MULTILINE)


def page() -> str:
    """Return the page, as Markdown."""
    sections = [_section(1, "Commands and options", [])]
    for command in _listed([]):
        sections.append(_section(2, f"reconciler {command}", [command]))
        for action in _listed([command]):
            sections.append(_section(3, f"reconciler {command} {action}", [command, action]))
    return "\n".join(sections)


def _section(level: int, title: str, words: list[str]) -> str:
    return f"{'#' * level} {title}\n\n```text\n{shown(words)}```\n"


def shown(words: list[str]) -> str:
    """Return what `reconciler WORDS --help` prints."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return printed.getvalue()


def _listed(words: list[str]) -> list[str]:
    """Return the commands, or the actions of a command."""
    found = re.search(r"^  (?:COMMAND|ACTION)\n((?:    .*\n)+)", shown(words), re.MULTILINE)
    return _NAMED.findall(found[1]) if found else []

"""What is wrong with a document, and where. It imports nothing: everything about sections imports it."""

from __future__ import annotations

from reconciler.values import NamedTuple

Path = tuple[str | int, ...]


class Finding(NamedTuple):
    """One thing that is wrong with a document: where, and what.

    `at_key`: the name of the field is wrong, not its value. `line`, from 1: the line within a text of many lines, such
    as rules. `refused`: nothing is wrong with it, but the operator's policy does not allow it.
    """

    path: Path
    message: str
    at_key: bool = False
    line: int = 0
    refused: bool = False


def path_text(path: Path) -> str:
    """Write a path as messages show it: `interfaces[0].mtu`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text

"""The code blocks of a page, what each is, and what is wrong with those that nobody can be sure of.

- `sh` is commands. The tests run all of a page, in order, unless a comment above the block says `not run: REASON`.
- `output` is what the commands of the block above print; `…` in it stands for anything.
- Data of other languages is neither. It must not look like commands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DATA = {"yaml", "json", "ini", "text", "output"}
_FENCE = re.compile(r"^( *)(```+|~~~+) *([^\s`]*)[^`]*$")
_NOT_RUN = re.compile(r"^ *<!-- not run: (\S.*\S) -->$")
_COMMANDS = (
    "apt|apt-get|cp|curl|docker|git|ip|ipvsadm|keepalived|kubectl|make|mkdir|mount|nginx|ping|pip|pipx|podman|promtool|"
)
_COMMANDS += "python3?|reconciler|kata-runtime|sh|sudo|sysctl|systemctl|virsh"
_COMMAND = re.compile(rf"^ *([$#>] +)?({_COMMANDS})( |$)", re.MULTILINE)
_PROMPT = re.compile(r"^ *\$ ", re.MULTILINE)


class Block(NamedTuple):
    """A code block: the line of its fence, its language and text, and the reason why it is not run, if it has one."""

    line: int
    language: str
    text: str
    reason: str

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.reason


def pages() -> list[Path]:
    """Return the pages of the repository that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        number += 1
        if not fence:
            continue
        begin = number
        while number < len(lines) and not re.fullmatch(rf" *{fence[2]}{fence[2][0]}* *", lines[number]):
            number += 1
        inner = [line.removeprefix(fence[1]) for line in lines[begin:number]]
        mark = _NOT_RUN.match(lines[begin - 2]) if begin > 1 else None
        found.append(Block(begin, fence[3], "".join(f"{line}\n" for line in inner), mark[1] if mark else ""))
        number += 1
    return found


def doubts(text: str) -> list[str]:
    """Return what is wrong with the blocks of a page: `LINE: what`."""
    found = []
    before: Block | None = None
    for block in blocks(text):
        if problem := _doubt(block, before):
            found.append(f"{block.line}: {problem}")
        before = block
    return found + [f"{line}: a block needs a fence" for line in _indented(text)]


def _doubt(block: Block, before: Block | None) -> str:
    if block.reason:
        return ""
    if block.language == "sh":
        return (
            "a `sh` block is for pasting: no prompts, and its output in a block `output`"
            if _PROMPT.search(block.text)
            else ""
        )
    if block.language not in DATA:
        return f"is ```{block.language} commands (sh), output or data? Or write above it: <!-- not run: REASON -->"
    if block.language == "output":
        return "" if before and before.is_run else "an `output` block follows the `sh` block whose output it is"
    if block.language == "text" and _COMMAND.search(block.text):
        return "this looks like commands: make it `sh`, or write above it: <!-- not run: REASON -->"
    return ""


def _indented(text: str) -> list[int]:
    """Return the lines at which a block begins that only its indentation makes one."""
    found: list[int] = []
    inside = listed = False
    blank = True
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            if blank and not listed and re.match(r" {4}|\t", line):
                found.append(number)
            if line.strip():
                listed = bool(re.match(r"\s*([-*+]|\d+\.)\s", line)) or (listed and line.startswith(" "))
        blank = not line.strip()
    return found

"""The commands of a page, and a script that runs them as a reader would paste them, one block after the other.

A command that fails ends the script, unless a comment beside it has its exit code.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.docs.blocks import blocks

# Of a pipe, the last command counts.
_EXPECTED = re.compile(r"^(?:.* \| )?(.*\S) +# exit code (\d+)", re.MULTILINE)
# $1 is a folder for what is printed.
_BEGIN = r"""
folder=$1
failed() {
    printf '%s %s %s\n' "$block" "$1" "$2" >>"$folder/failed"
    grep -qxF "$block $1 $2" "$folder/expected" || { echo "$2: exit code $1"; exit 99; }
}
trap 'failed "$?" "$BASH_COMMAND"' ERR
"""


class Commands(NamedTuple):
    """A block of commands, by its line in the page, and what it prints if that is shown."""

    line: int
    text: str
    output: str

    @property
    def failures(self) -> list[str]:
        """Return the commands that fail, as the script reports them."""
        return [f"{self.line} {code} {command.strip()}" for command, code in _EXPECTED.findall(self.text)]


def commands(page: Path) -> list[Commands]:
    """Return the blocks of commands of a page that are run, in order."""
    found = [*blocks(page.read_text(encoding="utf-8")), None]
    return [
        Commands(each.line, each.text, after.text if after and after.language == "output" else "")
        for each, after in pairwise(found)
        if each and each.is_run
    ]


def script(run: list[Commands], folder: Path) -> str:
    """Return a script for bash that runs blocks, and write to an empty folder what it needs; $1 is that folder.

    It leaves there what each block printed, and how many seconds it took.
    """
    (folder / "expected").write_text("".join(f"{failure}\n" for each in run for failure in each.failures))
    lines = [_BEGIN]
    for each in run:
        # The last command of a file would be taken for that of the line that runs it.
        (folder / f"{each.line}.sh").write_text(f"{each.text}:\n")
        lines.append(f'block={each.line} SECONDS=0; . "$folder/$block.sh" >"$folder/$block.out" 2>&1')
        lines.append('echo "$SECONDS" >"$folder/$block.seconds"')
    return "\n".join(lines)


def differences(ran: list[Commands], folder: Path) -> list[str]:
    """Return what blocks printed or did that the page shows otherwise."""
    failed = (folder / "failed").read_text().splitlines() if (folder / "failed").exists() else []
    found = [f"did not happen: {each}" for block in ran for each in block.failures if each not in failed]
    for each in ran:
        printed = (folder / f"{each.line}.out").read_text(encoding="utf-8")
        if each.output and not _matches(each.output, printed):
            found.append(f"line {each.line} shows\n{each.output}and this was printed:\n{printed}")
    return found


def _matches(shown: str, printed: str) -> bool:
    """Return whether something was printed as shown. `…` is anything, a space at the end of a line is nothing."""
    parts = [re.escape(part) for part in _trimmed(shown).split("…")]
    return re.fullmatch(".*".join(parts), _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())

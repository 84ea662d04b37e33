"""The commands of README, and a script that runs them as a reader would paste them, one block after the other.

A block `sh` has commands, a block `output` what the last one printed, where `…` stands for anything. A command that
fails ends the script, unless a comment beside it names its exit code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"^(.*\S) +# exit code (\d+)", re.MULTILINE)
# $1 is a folder for what is printed. Time is in seconds.
_BEGIN = r"""
folder=$1
failed() {
    grep -qxF "$1 $2" "$folder/expected" || { echo "$2: exit code $1"; exit 99; }
}
trap 'failed "$?" "$BASH_COMMAND"' ERR
"""


class Commands(NamedTuple):
    """A block of commands, by its number in the page, and what it prints if that is shown."""

    number: int
    text: str
    output: str


def commands() -> list[Commands]:
    """Return all blocks of commands of README, in order."""
    found = _BLOCK.findall(README.read_text(encoding="utf-8"))
    return [Commands(number, *each) for number, each in enumerate(found)]


def packages() -> list[str]:
    """Return the commands beside the blocks that install Debian packages, which need root."""
    return re.findall(r"`(apt-get install [^`]*)`", README.read_text(encoding="utf-8"))


def script(blocks: list[Commands], folder: Path) -> str:
    """Return a script for bash that runs blocks, and write to an empty folder what it needs."""
    expected = [f"{code} {command.strip()}\n" for each in blocks for command, code in _EXPECTED.findall(each.text)]
    (folder / "expected").write_text("".join(expected))
    lines = [_BEGIN]
    for each in blocks:
        # The last command of a file would be taken for that of the line that runs it.
        (folder / f"{each.number}.sh").write_text(f"{each.text}:\n")
        run = f'. "$folder/{each.number}.sh" >"$folder/{each.number}.out" 2>&1'
        lines += [f"SECONDS=0; {run}", f'echo "$SECONDS" >"$folder/{each.number}.seconds"']
    return "\n".join(lines)


def differences(blocks: list[Commands], folder: Path) -> list[str]:
    """Return what blocks printed that README shows otherwise."""
    found = []
    for each in blocks:
        printed = (folder / f"{each.number}.out").read_text(encoding="utf-8")
        if each.output and not _matches(each.output, printed):
            found.append(f"README shows\n{each.output}and this was printed:\n{printed}")
    return found


def _matches(shown: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), printed) is not None

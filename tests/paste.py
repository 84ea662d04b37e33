"""Read what the demo printed, and write its commands as a script: what a reader does who pastes one after the other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator

PROMPT = "$ "


def shown(lines: Iterable[str]) -> Iterator[str]:
    """Yield the commands behind prompts. One of several lines ends where its quotes do."""
    command = ""
    for line in lines:
        if not command and not line.startswith(PROMPT):
            continue
        command += line if command else line.removeprefix(PROMPT)
        try:
            shlex.split(command, comments=False)
        except ValueError:
            continue
        yield command.rstrip("\n")
        command = ""


def main() -> None:
    """Write a command that finds a difference so that its exit code 1 is right."""
    for command in shown(sys.stdin):
        right = " || test $? = 1" if command.startswith("reconciler diff ") else ""
        print(f"{command}{right}")


if __name__ == "__main__":
    main()

"""docs/adoption.md: its commands, as they stand there, on a namespace and a machine that others configured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.adoption.conftest import Place
from tests.machine import PROGRAM, Guest

PAGE = Path(__file__).parents[2] / "docs" / "adoption.md"
# What a command ends with, unless that is 0: `diff` finds marks to set.
STATUS = {"diff --adopt": 1}


def commands(section: str, name: str) -> list[str]:
    """Return the commands of a section, with another name of the sandbox."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2]
    block = text.partition("\n```\n")[2].partition("\n```\n")[0]
    return [re.sub(r"\bweb-[12](?!\.yaml)", name, line) for line in block.splitlines()]


def run(lines: list[str], folder: Path) -> list[str]:
    """Run commands in a shell; each has to end as it should. Return what each printed on stdout."""
    printed = []
    for line in lines:
        words = line.replace("reconciler", PROGRAM, 1)
        ran = subprocess.run(["sh", "-c", words], cwd=folder, capture_output=True, text=True, check=False)
        expected = next((status for beginning, status in STATUS.items() if f"reconciler {beginning}" in line), 0)
        assert ran.returncode == expected, (line, ran)
        printed.append(ran.stdout)
    return printed


def test_of_a_namespace(place: Place, tmp_path: Path) -> None:
    place.forget_the_many()
    printed = run(commands("A namespace", place.name), tmp_path)
    assert len(printed) == 5
    assert "verified" in printed[3]
    assert "in sync" in printed[4]


@pytest.mark.usefixtures("root")
def test_of_a_machine(guest: Guest, tmp_path: Path) -> None:
    guest.output("ipvsadm", "-A", "-t", "192.0.2.1:80", "-s", "rr")
    try:
        printed = run(commands("A virtual machine", guest.sandbox.name), tmp_path)
        assert len(printed) == 4
        assert "verified" in printed[2]
        assert "in sync" in printed[3]
    finally:
        guest.output("ipvsadm", "-C")

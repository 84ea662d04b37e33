"""Each check has a name of its own, and docs/doctor.md lists it with its meaning and its remedy."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.doctor.checks import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
_ROW = re.compile(r"^\| `([a-z0-9-]+)`( \(note\))? \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_page_lists_every_check_as_it_is() -> None:
    listed = [(name, bool(note), meaning, remedy) for name, note, meaning, remedy in _ROW.findall(PAGE.read_text())]
    assert listed == [(each.name, each.is_note, each.meaning, each.remedy) for each in CHECKS]


def test_names_are_unique() -> None:
    names = [each.name for each in CHECKS]
    assert sorted(set(names)) == sorted(names)

"""Rules that have much in common: a real kernel takes every plan, and has what is wanted in the end."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.completeness import readers
from tests.conftest import Kernel
from tests.system.box import make_box


@pytest.mark.parametrize("seed", range(6))
def test_any_rules_become_any_others(kernel: Kernel, tmp_path: Path, seed: int) -> None:
    box = make_box(kernel, tmp_path)
    rng = random.Random(seed)
    selectors: list[dict[str, Any]] = [
        {},
        *(
            {name: value}
            for name, value in (("from", "10.0.0.0/16"), ("to", "10.8.0.0/16"), ("tos", 16), ("iif", "lo"))
        ),
        {"from": "10.0.0.0/16", "invert": True},
        {"fwmark": 1},
        {"fwmark": "0x1/0x1"},
        {"suppressPrefixlength": 0},
    ]
    candidates: list[dict[str, Any]] = [
        {"priority": priority} | each | decision
        for priority in (100, 101)
        for each in selectors
        for decision in ({"table": 5000}, {"goto": 200}, {"goto": 300}, {"action": "prohibit"})
        if "suppressPrefixlength" not in each or "table" in decision
    ]
    before: list[dict[str, Any]] = []
    for _ in range(4):
        box.apply("--allow-delete", "all", rules=before)
        after = _accepted(rng.sample(candidates, rng.randint(0, 12)))
        box.apply("--allow-delete", "all", rules=after)
        assert box.diff(rules=after) == []
        found = readers.rules(box.ip)
        assert len(found) == len(after)
        before = after


def _accepted(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one of those rules that differ only in invert or goto: a manifest may list no more."""
    kept = {str({**rule, "invert": 0, "goto": "goto" in rule}): rule for rule in rules}
    return list(kept.values())

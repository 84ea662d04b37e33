"""Deletions of rules, of which the kernel deletes the first that has the selectors named: all of ours that stay are there."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.model.rule import Rule
from reconciler.operations.item import AddItem, DeleteItem
from reconciler.plan.item import exact_deletions
from tests.completeness import readers
from tests.conftest import Kernel
from tests.system.box import make_box

ALL = Rule(family="ipv4", priority=100, table=5000)
FROM = replace(ALL, from_="10.0.0.0/16")
TO = replace(ALL, to="10.8.0.0/16")
NOT = replace(FROM, invert=True)
OTHER = replace(ALL, priority=101)


def test_one_that_no_other_is_taken_for_is_deleted_by_a_message() -> None:
    assert exact_deletions([FROM], [FROM, ALL]) == [DeleteItem(item=FROM)]
    assert exact_deletions([ALL], [ALL, FROM]) == [DeleteItem(item=ALL)]
    assert exact_deletions([ALL], [OTHER, ALL]) == [DeleteItem(item=ALL)]
    assert exact_deletions([], [ALL]) == []


def test_what_a_deletion_takes_along_comes_again() -> None:
    delete = DeleteItem(item=ALL)
    assert exact_deletions([ALL], [FROM, TO, ALL]) == [delete, delete, delete, AddItem(item=FROM), AddItem(item=TO)]
    assert exact_deletions([NOT], [FROM, NOT]) == [*[DeleteItem(item=NOT)] * 2, AddItem(item=FROM)]


def test_what_goes_anyway_is_not_deleted_twice() -> None:
    delete = DeleteItem(item=ALL)
    assert exact_deletions([ALL, FROM], [FROM, ALL]) == [delete, delete]
    assert exact_deletions([FROM, ALL], [FROM, ALL]) == [DeleteItem(item=FROM), delete]
    # An exact twin, which only another program can have added.
    assert exact_deletions([ALL], [ALL, ALL]) == [delete]
    assert exact_deletions([ALL, ALL], [ALL, ALL]) == [delete, delete]


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
        after = rng.sample(candidates, rng.randint(0, 12))
        box.apply("--allow-delete", "all", rules=after)
        assert box.diff(rules=after) == []
        found = readers.rules(box.ip)
        assert len(found) == len(after)
        before = after

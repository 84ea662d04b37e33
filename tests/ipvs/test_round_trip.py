"""A table is what it was: saved by the real ipvsadm, applied as rules, shown, saved again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from reconciler.formats.ipvsadm.write import save_rules
from reconciler.manifest import service
from reconciler.model.ipvs import Service
from reconciler.values import replace
from tests.examples import examples
from tests.formats.strategies import services
from tests.formats.table import FULL
from tests.ipvs.conftest import TOLD
from tests.ipvs.place import Kata, TablePlace


@pytest.fixture
def full(place: TablePlace) -> tuple[list[str], list[str]]:
    """What is told of a table with every feature; it is empty again."""
    rules = possible(place)
    told = place.table("ipvsadm -R", stdin=rules)
    assert place.table("ipvsadm -C")[0] == []
    assert len(told[0]) == rules.count("\n") > 15
    return told


def possible(place: TablePlace) -> str:
    """Give what can be said here of the table with every feature."""
    return "".join(f"{line}\n" for line in place.lines(FULL.splitlines()))


def test_what_ipvsadm_saves_is_applied_and_saved_again_line_by_line(
    place: TablePlace, full: tuple[list[str], list[str]]
) -> None:
    saved, _ = full
    place.apply(rules="".join(f"{line}\n" for line in saved))
    assert place.saved() == saved
    assert "in sync" in place.reconciler("apply", place.manifest(rules="\n".join(saved))).stdout


def test_rules_are_what_ipvsadm_makes_of_them_thresholds_included(
    place: TablePlace, full: tuple[list[str], list[str]]
) -> None:
    place.apply(rules=possible(place))
    assert place.table() == full
    place.clear()
    place.file("rules", possible(place))
    place.apply(rulesFile="rules")
    assert place.table() == full


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_what_is_shown_is_applied_without_a_change(
    place: TablePlace, full: tuple[list[str], list[str]], output: str
) -> None:
    settings = {} if isinstance(place, Kata) else {"timeouts": {"tcp": 100, "udp": 7}, "sysctls": {"conntrack": 1}}
    place.apply(rules=possible(place), **settings)
    shown = place.reconciler("show", "-o", output, place.manifest())
    assert (shown.status, shown.stderr) == (0, "")
    path = place.file("shown.json" if output == "json" else "shown.yaml", shown.stdout)
    assert place.reconciler("diff", path).status == 0
    assert "in sync" in place.reconciler("apply", path).stdout
    place.clear()
    assert place.reconciler("apply", path).status == 0
    assert place.table() == full


@TOLD
def test_a_table_that_ipvsadm_made_is_only_marked(place: TablePlace) -> None:
    """What is there and says the same becomes ours without a change: each service is edited, and no server."""
    place.load(FULL)
    before = place.table()
    ran = place.reconciler("diff", "-v", place.manifest(rules=FULL))
    assert ran.status == 1
    lines = [line for line in ran.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) == FULL.count("-A ")
    assert all(line.startswith("  ~ ipvsadm -E ") and line.endswith("# marks it as ours") for line in lines)
    place.apply(rules=FULL)
    assert place.table() == before


def as_data(services: list[Service]) -> list[dict[str, Any]]:
    return [service.write(each) for each in map(without_idle_engine, services)]


def without_idle_engine(each: Service) -> Service:
    """Leave out an engine that does nothing, which `services:` refuses."""
    return each if each.persistent else replace(each, persistence_engine=None)


# Shrinking would take minutes on a kernel; what fails is printed as it is. Each example is two large tables.
SLOW = settings(
    max_examples=examples(12),
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@SLOW
@given(first=services(most=30), second=services(most=30))
def test_b_after_a_is_b_from_nothing_and_b_of_the_real_ipvsadm(
    place: TablePlace, first: list[Service], second: list[Service]
) -> None:
    second = [*map(without_idle_engine, second)]
    rules = "".join(f"{line}\n" for line in place.lines([*save_rules(second)]))
    expected = unordered(place.table("ipvsadm -C; ipvsadm -R", stdin=rules))
    place.clear()
    before, after = place.services(as_data(first)), place.services(as_data(second))
    apply(place, services=before)
    apply(place, services=after)
    assert place.reconciler("diff", place.manifest(services=after)).status == 0
    assert unordered(place.table()) == expected
    place.clear()
    wanted: dict[str, Any] = {"rules": rules} if rules else {"services": []}
    apply(place, **wanted)
    assert unordered(place.table()) == expected


def apply(place: TablePlace, **ipvs: Any) -> None:
    ran = place.reconciler("apply", "--allow-delete", "all", place.manifest(**ipvs))
    assert ran.status == 0, ran


def unordered(told: tuple[list[str], list[str]]) -> list[str]:
    """Give what is told of a table, whatever its order."""
    lines, thresholds = told
    owner = ""
    for line in thresholds:
        if line.startswith("  ->"):
            # Without the counters.
            lines.append(f"{owner} {' '.join(line.split()[:4])}")
        else:
            owner = line
    return sorted(lines)

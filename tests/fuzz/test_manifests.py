"""No manifest of 1 MB takes long, much memory, or many words: neither the worst known ones nor changed ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.fuzz.manifests import HEAD, Cost, cases, cost, mutated

CASES = dict(cases())
# Seconds of a processor, MiB, and bytes. A machine that is busy with other tests takes twice as long.
SECONDS, MEMORY, OUTPUT = 2.0, 200, 100_000
BUSY = 2


def check(found: Cost) -> None:
    assert found.code in {0, 2}, found.text[-2000:]
    assert "Traceback" not in found.text
    assert (found.seconds < SECONDS * BUSY, found.memory < MEMORY, found.output < OUTPUT) == (True, True, True), found


@pytest.mark.parametrize("name", CASES)
def test_the_worst_that_are_known(name: str) -> None:
    check(cost(CASES[name], "validate"))


@pytest.mark.parametrize("command", ["diff", "apply"])
@pytest.mark.parametrize(
    "name",
    [
        "routes of {}",
        "services of {}",
        "gateways beside direct routes",
        "manifests of netns: {",
        "a long key",
        "aliases of aliases",
    ],
)
def test_with_other_commands(name: str, command: str) -> None:
    check(cost(CASES[name], command))


def test_changed_ones(repeats: Callable[[int], int]) -> None:
    chance = random.Random(17)
    names = sorted(CASES)
    for _ in range(repeats(40)):
        text = mutated(CASES[chance.choice(names)], chance)
        check(cost(text if chance.random() < 0.5 else HEAD + text[: 1 << 19], "validate"))

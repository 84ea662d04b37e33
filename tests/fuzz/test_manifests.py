"""No manifest of 1 MB takes long, much memory, or many words: neither the worst known ones nor changed ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.fuzz.manifests import HEAD, Cost, cases, cost, mutated

# Seconds of a processor after which it is taken for endless: `python -m tests.fuzz.manifests` has the figures. MiB, and
# bytes.
ENDLESS, MEMORY, OUTPUT = 20.0, 200, 100_000


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """Give the worst that are known by their names: 100 MB."""
    return dict(cases())


def check(found: Cost) -> None:
    assert found.code in {0, 2}, found.text[-2000:]
    assert "Traceback" not in found.text
    assert (found.seconds < ENDLESS, 0 < found.memory < MEMORY, found.output < OUTPUT) == (True, True, True), found


def test_the_worst_that_are_known(known: dict[str, str], repeats: Callable[[int], int]) -> None:
    """A tenth of them in `make test`, all of them in `make soak`."""
    stride = max(1, 100 // repeats(40))
    for name in [*known][::stride]:
        check(cost(known[name], "validate"))


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
def test_with_other_commands(name: str, command: str, known: dict[str, str]) -> None:
    check(cost(known[name], command))


def test_changed_ones(known: dict[str, str], repeats: Callable[[int], int]) -> None:
    chance = random.Random(17)
    names = sorted(known)
    for _ in range(repeats(40)):
        text = mutated(known[chance.choice(names)], chance)
        check(cost(text if chance.random() < 0.5 else HEAD + text[: 1 << 19], "validate"))

"""QEMU lies: whatever it answers, a look is right or ends with an error of ours, in time and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.lying import run
from tests.fuzz.mutations import lie
from tests.fuzz.recording import MutateAnswer, MutateFrames, Recording, packed

# The share of answers that are lies: a look has about thirty.
_OFTEN = 0.05


def mutators(random: Random) -> tuple[MutateAnswer, MutateFrames]:
    def answer(value: Any) -> Any:
        return lie(value, random) if random.random() < _OFTEN else value

    return answer, packed


def test_as_it_was_recorded(recording: Recording) -> None:
    from tests.fuzz.recording import look, replayed

    with replayed(recording, lambda value: value, packed) as driver:
        for number in range(2):
            look(driver, recording.sandbox, number)


def test_whatever_qemu_answers(recording: Recording, repeats: Callable[[int], int]) -> None:
    run(repeats(1600), 1, recording, mutators)

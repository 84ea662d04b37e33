"""The agent lies: whatever it sends, a look is right or ends with an error of ours, in time and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from reconciler.guest.agent import Frame
from tests.fuzz.lying import run
from tests.fuzz.mutations import distort
from tests.fuzz.recording import MutateAnswer, MutateFrames, Recording, packed

# The share of answers that are lies: a look has about fifteen.
_OFTEN = 0.1


def mutators(random: Random) -> tuple[MutateAnswer, MutateFrames]:
    def frames(found: list[Frame]) -> bytes:
        return distort(found, random) if random.random() < _OFTEN else packed(found)

    return (lambda value: value), frames


def test_whatever_the_agent_sends(recording: Recording, repeats: Callable[[int], int]) -> None:
    run(repeats(1600), 1, recording, mutators)

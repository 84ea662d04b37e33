"""Runs looks and changes against a machine that lies, and checks what becomes of each."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from reconciler.errors import ReconcilerError
from tests.fuzz.recording import MutateAnswer, MutateFrames, Recording, look, replayed

# Seconds for one look or change, and bytes for all of them together, on a host under load.
SECONDS, MEMORY = 20.0, 200 << 20


def run(
    count: int, seed: int, recording: Recording, mutators: Callable[[Random], tuple[MutateAnswer, MutateFrames]]
) -> None:
    """Look at a lying machine so many times; print what came of it."""
    outcomes: Counter[str] = Counter()
    longest, before = 0.0, _memory()
    for number in range(count):
        # A failure is repeated by its number.
        answer, frames = mutators(Random(seed + number))
        begin = time.monotonic()
        name = _outcome(recording, answer, frames, number, seed + number)
        outcomes[name] += 1
        longest = max(longest, time.monotonic() - begin)
        assert longest < SECONDS, f"number {seed + number} took {longest:.1f} s"
    grown = _memory() - before
    print(f"{count:,} times: longest {longest * 1000:.0f} ms, {grown >> 20} MiB more; {dict(outcomes)}")
    assert grown < MEMORY
    assert outcomes["no error"] < count
    assert len(outcomes) > 1


def _outcome(recording: Recording, answer: MutateAnswer, frames: MutateFrames, number: int, seed: int) -> str:
    """Look once; return the name of the error that it ended with."""
    try:
        with replayed(recording, answer, frames) as driver:
            look(driver, recording.sandbox, number)
    except ReconcilerError as error:
        words = str(error)
        name = type(error).__name__
    except BaseException as error:
        error.add_note(f"with Random({seed}), {number % 3=}")
        raise
    else:
        return "no error"
    assert len(words) < 10_000, f"with Random({seed}): {words[:100]}"
    return name


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""The size of a batch follows the kernel's speed, however slow that is and whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.netlink.pace import FIRST, GOOD_TIME, Pace

MOST = 1 << 18


def sizes(monkeypatch: pytest.MonkeyPatch, speeds: list[float], most: int = MOST) -> list[int]:
    """Give the sizes of batches for a kernel that takes so many seconds for each byte of them in turn."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Pace(most)
    found = []

    def answers() -> Iterator[None]:
        nonlocal now
        for speed in speeds:
            found.append(made.size)
            now += made.size * speed
            yield

    for _ in made.timed(answers()):
        # What is done with the outcomes is no time of the kernel.
        now += 100.0
    return [*found, made.size]


def test_a_fast_kernel_soon_gets_as_much_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(monkeypatch, [1e-6] * 6) == [FIRST, 2 * FIRST, 4 * FIRST, MOST, MOST, MOST, MOST]


@pytest.mark.parametrize("speed", [1e-6, 100.0])
def test_a_small_limit_holds_however_slow_the_kernel_is(monkeypatch: pytest.MonkeyPatch, speed: float) -> None:
    assert sizes(monkeypatch, [speed] * 3, most=1) == [1] * 4


@given(speed=st.floats(1e-7, 1e-3), slower=st.floats(1, 30))
def test_batches_of_a_slow_kernel_take_as_long_as_they_may(speed: float, slower: float) -> None:
    with pytest.MonkeyPatch.context() as patched:
        found = sizes(patched, [speed] * 12 + [speed * slower] * 12)
    times = [size * speed for size in found]
    assert max(times[1:13]) <= 2 * GOOD_TIME
    # Once the kernel is slower, one batch takes longer, and those after it do not.
    assert max(times[13:24]) * slower <= 2 * GOOD_TIME + 300 * speed * slower
    assert all(size <= MOST for size in found)
    # And it is not asked for less than it can do.
    assert times[12] >= min(GOOD_TIME / 4, MOST * speed)

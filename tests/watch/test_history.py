"""The history equals what recorders beside the watch saw, also after kill -9, and while the disk is full."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.watch.recorded import Recorded, await_wanted, check, disturb, kept, recorded


@pytest.fixture
def world(kernel: Kernel, tmp_path: Path) -> Iterator[Recorded]:
    with recorded(kernel, tmp_path) as found:
        yield found


def test_it_equals_what_recorders_saw(world: Recorded, repeats: Callable[[int], int]) -> None:
    random_ = random.Random(19)
    for _ in range(repeats(8)):
        with kept(world) as running:
            await_wanted(world, running)
            disturb(world, running, random_, time.monotonic() + 1.5)
            check(world)
            world.drift(random_)
            running.kill()
    with kept(world) as running:
        await_wanted(world, running)
        check(world)


def test_with_a_full_disk_the_watch_goes_on_and_says_so(world: Recorded) -> None:
    random_ = random.Random(20)
    with kept(world) as running:
        await_wanted(world, running)
        world.fill()
        # The last page of a file has room for some lines.
        while not running.status().alarms:
            world.drift(random_)
            await_wanted(world, running)
        before = world.seen()
        for _ in range(3):
            world.drift(random_)
            await_wanted(world, running)
        answer = running.status()
        assert (answer.code, answer.sandboxes[world.name]["state"]) == (1, "converged")
        (alarm,) = answer.alarms
        assert alarm.startswith("the history lacks ")
        assert "No space left on device" in alarm
        assert len(running.events("alarm")) == 1
        assert world.seen().history == before.history
        world.empty()
        running.await_event("history", history="complete again")
        (missing,) = (each for each in world.records() if each.event == "missing")
        lost = world.seen().kernel - before.history
        # A change has two lines.
        assert 2 * lost.total() >= missing.more["lines"] >= 2 * 3
        assert "No space left on device" in missing.reason
        assert running.status().alarms == []
        world.drift(random_)
        await_wanted(world, running)
        after = world.seen()
        assert after.history + lost == after.kernel

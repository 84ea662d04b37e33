"""What one machine may cost in bytes, objects and seconds, whatever it sends and however it divides it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from reconciler.errors import BusyError, ChannelError, ProtocolError
from reconciler.netlink import budget
from reconciler.netlink.budget import BYTES, LARGE_BYTES, LARGE_OBJECTS, OBJECTS, Budget


def test_answers_add_up_within_a_step_and_not_beyond() -> None:
    made = Budget()
    for _ in range(3):
        with made.step():
            made.spend(BYTES - 1)
            with made.step():
                made.spend(1)
            with pytest.raises(ProtocolError, match="more than 16 MiB in answer to one look"):
                made.spend(1)


def test_objects_add_up() -> None:
    made = Budget()
    with made.step():
        made.spend(0, OBJECTS)
        with pytest.raises(ProtocolError, match="more than 100,000 objects in answer to one look"):
            made.spend(0)


def test_slow_answers_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer every 9 s would hold for ever, as each alone is in time."""
    monkeypatch.setattr(budget, "SECONDS", 0.3)
    made = Budget()
    with made.step():
        assert 0.2 < made.deadline(10) - time.monotonic() <= 0.3
        assert 0.0 < made.deadline(0.05) - time.monotonic() <= 0.05
        time.sleep(0.35)
        with pytest.raises(ChannelError, match="longer than 0 s for all answers to one look"):
            made.deadline(10)
    with made.step():
        made.deadline(10)


@pytest.mark.parametrize("cost", [(LARGE_BYTES + 1, 1), (0, LARGE_OBJECTS + 1)])
def test_one_large_look_at_a_time(cost: tuple[int, int]) -> None:
    first, second = Budget(), Budget()
    waited: list[float] = []
    begun = threading.Event()

    def look() -> None:
        with second.step():
            begun.set()
            begin = time.monotonic()
            second.spend(*cost)
            waited.append(time.monotonic() - begin)

    thread = threading.Thread(target=look)
    with first.step():
        first.spend(*cost)
        first.spend(1)
        thread.start()
        begun.wait(10)
        time.sleep(0.3)
        assert waited == []
    thread.join(10)
    assert waited[0] > 0.25
    # Nothing is left locked.
    with Budget().step(), suppress(ProtocolError):
        Budget().spend(*cost)


def test_a_large_look_does_not_keep_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.2)
    monkeypatch.setattr(budget, "LARGE_SECONDS", 0.4)
    first, second = Budget(), Budget()
    with first.step():
        first.spend(LARGE_BYTES + 1)
        assert first.deadline(10) - time.monotonic() <= 0.4

        def look() -> None:
            with second.step(), pytest.raises(BusyError, match="other sandboxes with as much to read"):
                second.spend(LARGE_BYTES + 1)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

"""What one sandbox may take of the watcher's time and of its log, however it behaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from reconciler.values import dataclass
from reconciler.watch import log
from reconciler.watch.share import LINES, LINES_SHARE, WORK, WORK_SHARE, LogShare, WorkShare


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Command:
    command: str


def test_work_is_free_up_to_a_bound_and_then_a_share_of_the_time() -> None:
    clock, work = Clock(), Clock(0.0)
    found = WorkShare(clock, work)
    work.now += WORK
    assert found.rest() == 0
    work.now += 0.1
    assert found.rest() == pytest.approx(0.1 / WORK_SHARE)
    clock.now += 0.1 / WORK_SHARE
    assert found.rest() == pytest.approx(0)
    # Over a long time, no more than its share, however it is divided.
    begin, done = clock.now, 0.0
    while clock.now < begin + 1000:
        work.now += 0.05
        done += 0.05
        clock.now += max(0.05, found.rest())
    assert done < 1000 * WORK_SHARE + 0.1


def test_a_large_manifest_may_take_more() -> None:
    clock, work = Clock(), Clock(0.0)
    found = WorkShare(clock, work)
    found.fill(20_000)
    work.now += 2.0
    assert found.rest() == 0
    work.now += 1.0
    assert found.rest() < 15


def test_an_edit_is_work_of_the_operator() -> None:
    clock, work = Clock(), Clock(0.0)
    found = WorkShare(clock, work)
    work.now += 100
    found.fill(0)
    assert found.rest() == 0


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the list of all events that are logged."""
    found: list[dict[str, Any]] = []

    def operations(sandbox: str, commands: Iterable[str]) -> None:
        found.extend({"event": "operation", "sandbox": sandbox, "command": each} for each in commands)

    monkeypatch.setattr(log, "emit", lambda event, **fields: found.append({"event": event, **fields}))
    monkeypatch.setattr(log, "emit_operations", operations)
    return found


def test_drift_that_is_never_twice_the_same_fills_no_log(events: list[dict[str, Any]]) -> None:
    clock = Clock()
    found = LogShare("box", clock)
    while clock.now < 1600:
        found.emit("repaired", operations=10, first="x" * 200)
        found.emit_operations([Command(f"ip route del 10.0.0.{clock.now}/32") for _ in range(10)], counted=True)
        clock.now += 0.05
    size = sum(len(str(each)) for each in events)
    assert LINES / 2 < size < 2 * (LINES + 600 * LINES_SHARE)


def test_what_is_left_out_is_counted(events: list[dict[str, Any]]) -> None:
    clock = Clock()
    found = LogShare("box", clock)
    for _ in range(1000):
        found.emit("failed", reason="x" * 500)
    logged = len(events)
    assert 0 < logged < 200
    clock.now += 10
    found.emit("converged")
    assert [(each["event"], each.get("lines")) for each in events[logged:]] == [
        ("suppressed", 1000 - logged),
        ("converged", None),
    ]


def test_an_edit_is_logged_as_a_whole_and_so_is_one_flush_of_it(events: list[dict[str, Any]]) -> None:
    found = LogShare("box", Clock())
    commands = [Command("ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 100")] * 20_000
    found.fill(20_000)
    found.emit_operations(commands, counted=False)
    found.emit_operations(commands, counted=True)
    assert [each["event"] for each in events] == ["operation"] * 40_000

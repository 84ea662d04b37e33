"""A thread only while something is due: nothing that is asked for is lost, and what rests has none."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from reconciler.watch import shift
from reconciler.watch.shift import Alarm, Shift
from tests.watch.running import until


class Job:
    """Work that is due at a time of the clock, and notes what was done."""

    def __init__(self) -> None:
        self.due, self.done, self.over = -math.inf, 0, False
        self.hindered, self.ended = list[str](), 0
        self.shift = Shift("job", self.wait, self.work, lambda error: self.hindered.append(str(error)), self.end)

    def wait(self) -> float:
        return 0.0 if self.over else max(0.0, self.due - monotonic())

    def work(self) -> bool:
        self.due = math.inf
        self.done += 1
        return not self.over

    def end(self) -> None:
        self.ended += 1

    def ask(self, seconds: float = 0.0) -> None:
        self.due = monotonic() + seconds
        self.shift.rouse()

    @property
    def threads(self) -> int:
        return sum(each.name == "job" for each in threading.enumerate())


@pytest.fixture
def job() -> Iterator[Job]:
    made = Job()
    yield made
    made.over = True
    assert made.shift.join(60)


def test_there_is_a_thread_only_while_something_is_due(job: Job) -> None:
    assert not job.shift.is_alive
    job.ask()
    # It has not begun.
    assert not job.done
    job.shift.begin()
    # By a request, and by the alarm: also if a later time was set before an earlier one.
    for count, seconds in enumerate((0.0, 3600.0, 0.01), 1):
        until(lambda count=count: (job.done, job.threads) == (min(count, 2), 0))  # type: ignore[misc]
        assert job.shift.is_alive
        job.ask(seconds)
    until(lambda: (job.done, job.threads) == (3, 0))
    job.over = True
    assert job.shift.join(60)
    assert (job.ended, job.shift.is_alive, job.threads) == (1, False, 0)
    job.ask()
    assert job.threads == 0


def test_no_request_is_lost_whatever_a_thread_is_about_to_do(job: Job) -> None:
    job.shift.begin()
    for _ in range(300):
        before = job.done
        job.ask()
        until(lambda before=before: job.done > before)  # type: ignore[misc]


def test_who_gets_no_thread_says_so_and_tries_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.shift.begin()
    until(lambda: job.threads == 0)
    monkeypatch.setattr(shift, "AGAIN", 0.01)
    start, refused = threading.Thread.start, ["can't start new thread"] * 3

    def refuse(thread: threading.Thread) -> None:
        if refused and thread.name == "job":
            raise RuntimeError(refused.pop())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    job.ask()
    until(lambda: job.done == 2)
    assert job.hindered == ["can't start new thread"] * 3


def test_one_that_ends_by_a_defect_is_not_alive(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    job.over = True

    def fail() -> bool:
        raise ValueError("defect")

    monkeypatch.setattr(job.shift, "_work", fail)
    job.shift.begin()
    assert job.shift.join(60)
    assert job.ended == 1


def test_an_alarm_keeps_no_time_that_nobody_asks_for_any_more() -> None:
    alarm = Alarm()
    for seconds in range(5000, 0, -1):
        alarm.set(gc.collect, seconds)
        alarm.set(threading.active_count, 5000)
    assert len(alarm._times) < 100
    kept = {at for at, _, call in alarm._times if alarm._due[call] == at}
    assert kept == set(alarm._due.values())

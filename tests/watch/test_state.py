"""What is known of a sandbox, and for how long it says something."""

from __future__ import annotations

import time

import pytest

from reconciler.watch import clock as clock_module
from reconciler.watch.revision import Revision
from reconciler.watch.state import GOOD, WINDOW, Doubt, SandboxState, SandboxStatus, Standing
from tests.watch.clock import Clock

# When the host has booted, by its own clock.
BOOT = 1_700_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The seconds since the host has booted."""
    made = Clock(5000.0)
    monkeypatch.setattr(clock_module, "now", made)
    monkeypatch.setattr(clock_module, "unix", lambda moment: moment and BOOT + moment)
    return made


@pytest.fixture
def status() -> SandboxStatus:
    return SandboxStatus("web-1", "netns web-1", "web-1.yaml", since=400.0)


def test_a_new_one_says_nothing_yet(status: SandboxStatus) -> None:
    assert Standing(status).to_data() == {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "revision": "",
        "blob": "",
        "digest": "",
        "tried": "",
        "state": "new",
        "fresh": False,
        "since": BOOT + 400.0,
        "looked": 0.0,
        "full_looked": 0.0,
        "took": 0.0,
        "lent": 0.0,
        "confirm_by": 0.0,
        "drift_1h": 0,
        "drifted": 0.0,
        "repairs": 0,
        "fights": [],
        "detail": "",
    }


def test_all_that_can_be_said(status: SandboxStatus, clock: Clock) -> None:
    status.revision, status.repairs = Revision("abc1234-dirty", "e69de29"), 7
    status.looked, status.valid_until = clock.now - 0.12345, clock.now + 20.0
    status.full_looked, status.took, status.lent = clock.now - 100, 0.1234567, clock.now - 10
    status.confirm_by = clock.now + 30
    status.fights, status.digest, status.tried = ("ip route add default",), "9f86", "60aa"
    status.drifts.extend([clock.now - 2, clock.now - 1])
    status.set_state(SandboxState.FIGHTING, "undone again and again")
    assert Standing(status, Doubt(SandboxState.OUTDATED, "manifest not used: web-1.yaml:3:1: bad")).to_data() == {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "revision": "abc1234-dirty",
        "blob": "e69de29",
        "digest": "9f86",
        "tried": "60aa",
        "state": "fighting",
        "fresh": True,
        "since": BOOT + 5000.0,
        "looked": BOOT + 4999.877,
        "full_looked": BOOT + 4900.0,
        "took": 0.123457,
        "lent": BOOT + 4990.0,
        "confirm_by": BOOT + 5030.0,
        "drift_1h": 2,
        "drifted": BOOT + 4999.0,
        "repairs": 7,
        "fights": ["ip route add default"],
        "detail": "undone again and again; manifest not used: web-1.yaml:3:1: bad",
    }


@pytest.mark.parametrize("doubt", [SandboxState.OUTDATED, SandboxState.PENDING, SandboxState.FAILED])
@pytest.mark.parametrize("state", SandboxState)
def test_no_state_is_good_while_there_is_a_doubt(state: SandboxState, doubt: SandboxState, clock: Clock) -> None:
    status = SandboxStatus("web-1", "netns web-1", "web-1.yaml", state=state, valid_until=clock.now, detail="why")
    sure, doubted = Standing(status), Standing(status, Doubt(doubt, "a doubt"))
    assert (sure.state, sure.is_converged) == (state, state in GOOD)
    assert (doubted.state, doubted.is_converged) == (doubt if state in GOOD else state, False)
    assert (sure.to_data()["detail"], doubted.to_data()["detail"]) == ("why", "why; a doubt")


def test_a_state_begins_when_it_is_another_one(status: SandboxStatus, clock: Clock) -> None:
    begin = clock.now
    assert status.set_state(SandboxState.FAILED, "one")
    clock.now += 60
    assert not status.set_state(SandboxState.FAILED, "two")
    assert (status.state, status.since, status.detail) == (SandboxState.FAILED, begin, "two")
    assert status.set_state(SandboxState.CONVERGED)
    assert (status.state, status.since, status.detail) == (SandboxState.CONVERGED, begin + 60, "")


def test_a_look_says_something_for_a_while(status: SandboxStatus, clock: Clock) -> None:
    status.looked, status.valid_until = clock.now, clock.now + 20.0
    clock.now += 20
    assert status.is_fresh()
    clock.now += 0.5
    assert not status.is_fresh()


@pytest.mark.parametrize("step", [-7200.0, -1.0, 1.0, 7200.0])
def test_a_host_whose_clock_is_set_makes_no_look_younger_or_older(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    status = SandboxStatus("web-1", "netns web-1", "web-1.yaml", state=SandboxState.CONVERGED)
    status.looked, status.valid_until = clock_module.now(), clock_module.now() + 20.0
    stale = SandboxStatus("web-2", "netns web-2", "web-2.yaml", state=SandboxState.CONVERGED)
    stale.looked, stale.valid_until = clock_module.now() - 21.0, clock_module.now() - 1.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    assert (status.is_fresh(), stale.is_fresh()) == (True, False)


def test_drift_counts_within_the_window(status: SandboxStatus, clock: Clock) -> None:
    status.drifts.extend([clock.now - WINDOW - 1, clock.now - WINDOW, clock.now - 1, clock.now])
    assert status.count_drifts() == 3
    clock.now += WINDOW
    assert status.count_drifts() == 1


def test_drift_without_end_takes_no_memory_without_end(status: SandboxStatus, clock: Clock) -> None:
    status.drifts.extend([clock.now] * 1_000_000)
    assert status.count_drifts() == len(status.drifts) == 10_000

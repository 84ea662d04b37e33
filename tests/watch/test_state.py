"""What is known of a sandbox, and for how long it says something."""

from __future__ import annotations

import pytest

from reconciler.watch import state
from reconciler.watch.state import WINDOW, SandboxState, SandboxStatus
from tests.watch.clock import Clock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1_700_000_000.0)
    monkeypatch.setattr(state, "time", made)
    return made


@pytest.fixture
def status() -> SandboxStatus:
    return SandboxStatus("web-1", "netns web-1", "web-1.yaml", since=1_600_000_000.0)


def test_a_new_one_says_nothing_yet(status: SandboxStatus) -> None:
    assert status.to_data() == {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "revision": "",
        "state": "new",
        "fresh": False,
        "since": 1_600_000_000.0,
        "looked": 0.0,
        "drift_1h": 0,
        "repairs": 0,
        "fights": [],
        "detail": "",
    }


def test_all_that_can_be_said(status: SandboxStatus, clock: Clock) -> None:
    status.revision, status.refused, status.repairs = "abc1234", "web-1.yaml:3:1: bad", 7
    status.looked, status.valid_for = clock.now - 0.12345, 20.0
    status.fights = ("ip route add default",)
    status.drifts.extend([clock.now - 2, clock.now - 1])
    status.set_state(SandboxState.FIGHTING, "undone again and again")
    assert status.to_data() == {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "revision": "abc1234",
        "state": "fighting",
        "fresh": True,
        "since": 1_700_000_000.0,
        "looked": 1_699_999_999.877,
        "drift_1h": 2,
        "repairs": 7,
        "fights": ["ip route add default"],
        "detail": "undone again and again; manifest not used: web-1.yaml:3:1: bad",
    }


@pytest.mark.parametrize(
    ("detail", "refused", "said"),
    [
        ("", "", ""),
        ("why", "", "why"),
        ("", "bad", "manifest not used: bad"),
        ("why", "bad", "why; manifest not used: bad"),
    ],
)
def test_a_manifest_that_is_not_used_is_part_of_the_detail(
    detail: str, refused: str, said: str, status: SandboxStatus
) -> None:
    status.detail, status.refused = detail, refused
    assert status.to_data()["detail"] == said


def test_a_state_begins_when_it_is_another_one(status: SandboxStatus, clock: Clock) -> None:
    begin = clock.now
    assert status.set_state(SandboxState.FAILED, "one")
    clock.now += 60
    assert not status.set_state(SandboxState.FAILED, "two")
    assert (status.state, status.since, status.detail) == (SandboxState.FAILED, begin, "two")
    assert status.set_state(SandboxState.CONVERGED)
    assert (status.state, status.since, status.detail) == (SandboxState.CONVERGED, begin + 60, "")


def test_a_look_says_something_for_a_while(status: SandboxStatus, clock: Clock) -> None:
    status.looked, status.valid_for = clock.now, 20.0
    clock.now += 20
    assert status.is_fresh()
    clock.now += 0.5
    assert not status.is_fresh()


def test_drift_counts_within_the_window(status: SandboxStatus, clock: Clock) -> None:
    status.drifts.extend([clock.now - WINDOW - 1, clock.now - WINDOW, clock.now - 1, clock.now])
    assert status.count_drifts() == 3
    clock.now += WINDOW
    assert status.count_drifts() == 1


def test_drift_without_end_takes_no_memory_without_end(status: SandboxStatus, clock: Clock) -> None:
    status.drifts.extend([clock.now] * 1_000_000)
    assert status.count_drifts() == len(status.drifts) == 10_000

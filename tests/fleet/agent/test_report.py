"""What a host reports, from what its watcher knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.fleet.agent.cache import Version
from reconciler.fleet.agent.report import SETTLED, report
from reconciler.fleet.records import MAX_STATUS, Desired, HostStatus, Unusual, encode

NEW, OLD = "1" * 64, "0" * 64


def version(*names: str) -> Version:
    return Version(Desired("7-abc", "c0ffee", sandboxes=dict.fromkeys(names, NEW)), "2" * 64)


def watch(*sandboxes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"sandboxes": list(sandboxes), "alarms": [], "problems": [], **more}


def sandbox(name: str = "web", state: str = "converged", **fields: Any) -> dict[str, Any]:
    return {"sandbox": name, "state": state, "digest": NEW, "tried": NEW, "fresh": True, "detail": "", **fields}


def test_all_is_as_it_should_be() -> None:
    found = report(version("web", "db"), watch(sandbox(), sandbox("db", "draining")), 0.0, [])
    assert found == HostStatus("7-abc", reached=True, counts={"converged": 1, "draining": 1})


@pytest.mark.parametrize(
    ("each", "reached", "unusual"),
    [
        # Made like the release before, or not looked at since.
        (sandbox(digest=OLD, tried=OLD), False, ()),
        (sandbox(digest=OLD), False, ()),
        (sandbox(state="failed", digest=OLD, tried=OLD), False, ()),
        (sandbox(state="refused", digest=OLD, tried=OLD), False, ()),
        (sandbox(state="pending", digest=OLD), False, ()),
        (sandbox(state="new", digest="", tried=""), False, ()),
        (sandbox(state="outdated", digest=OLD, tried=OLD), False, ()),
        # About this release.
        (sandbox(state="failed", digest=OLD, detail="why"), True, (Unusual("web", "failed", "why"),)),
        (sandbox(state="waiting", digest=OLD), True, (Unusual("web", "waiting"),)),
        (sandbox(state="drifted"), True, (Unusual("web", "drifted"),)),
        (sandbox(state="paused", digest=OLD), True, ()),
        (sandbox(fresh=False), True, (Unusual("web", "stale", "its last look is older than it should be"),)),
    ],
)
def test_a_state_counts_if_it_is_about_this_release(
    each: dict[str, Any],
    reached: bool,
    unusual: tuple[Unusual, ...],
) -> None:
    found = report(version("web"), watch(each), 1.0, [])
    assert (found.reached, found.unusual, found.counts) == (reached, unusual, {each["state"]: 1})


@pytest.mark.parametrize(
    ("each", "reached", "state"),
    [
        (sandbox(state="outdated", digest=OLD, tried=OLD), True, "outdated"),
        (sandbox(state="failed", digest=OLD, tried=OLD), True, "failed"),
        # It waits for its turn, as long as that takes; and one that is called good is none of this release.
        (sandbox(state="pending", digest=OLD), False, ""),
        (sandbox(digest=OLD), False, ""),
    ],
)
def test_what_the_watcher_has_not_taken_over_after_a_while(
    each: dict[str, Any],
    reached: bool,
    state: str,
) -> None:
    found = report(version("web"), watch(each), SETTLED, [])
    assert (found.reached, [each.state for each in found.unusual]) == (reached, [state] if state else [])


def test_what_is_not_watched_is_missing_after_a_while_only() -> None:
    assert report(version("web", "db"), watch(sandbox()), 1.0, []).unusual == ()
    found = report(version("web", "db"), watch(sandbox()), SETTLED, [])
    assert found.unusual == (Unusual("db", "unwatched", "the watcher does not watch it"),)
    assert found.counts == {"converged": 1, "unwatched": 1}


def test_what_the_release_has_no_more_has_to_be_released() -> None:
    assert not report(version(), watch(sandbox()), SETTLED, []).reached
    assert report(version(), watch(), 0.0, []).reached


def test_without_a_watcher_or_a_release_nothing_is_reached() -> None:
    alarms = ("cut off", "no watcher answers on this host")
    assert report(version("web"), None, 99.0, ["cut off"]) == HostStatus("7-abc", reached=False, alarms=alarms)
    assert report(None, watch(), 99.0, []) == HostStatus("", reached=False)


def test_a_report_has_a_bound_and_no_character_that_a_terminal_obeys() -> None:
    names = [f"s{number}" for number in range(2000)]
    sandboxes = [sandbox(each, "failed", detail="\x1b[2J" + "x" * 5000) for each in names]
    found = report(version(*names), watch(*sandboxes, alarms=["a\nb"] * 100, problems=["p" * 9000]), 0.0, [])
    data = encode(found)
    assert len(data) < MAX_STATUS
    assert found.counts == {"failed": 2000}
    assert 50 < len(found.unusual) < 2000
    texts = [*found.alarms, *(each.detail for each in found.unusual)]
    assert all(each.isprintable() for each in texts)
    assert found.alarms[-1] == "and 81 more"
    assert json.loads(data)["reached"] is True

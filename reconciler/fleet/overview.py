"""How far each host is, in a word and a reason: what `fleet status` prints and the fleet's page shows. Pure."""

from __future__ import annotations

import time
from typing import Any

from reconciler.fleet.known import Known, Report
from reconciler.fleet.records import HostRecord, HostStatus, Plan
from reconciler.fleet.waves import FAILING
from reconciler.values import NamedTuple
from reconciler.wording import plural

# The states of a host in which nobody has to do anything.
GOOD = {"reached", "paused", "fenced", "empty"}
# States of a sandbox that is as it should be, or left alone on purpose.
_WELL = {"converged", "draining", "paused"}
# Seconds between the clocks of a gate and of this process that are no alarm.
_SKEW = 30.0


class HostState(NamedTuple):
    """How far a host is. `release`: the one that it has reported; `wanted`: the one whose turn it is, or will be.

    `wave`: in which wave it is told that, from 1 on; 0 if the newest release does not change it.
    """

    host: str
    state: str
    detail: str
    release: str
    wanted: str
    wave: int
    counts: dict[str, int]


def host_states(known: Known, report: Report) -> list[HostState]:
    """Return the state of each host, by name."""
    waves = {
        host: number for number, each in enumerate(known.release.waves if known.release else (), 1) for host in each
    }
    return [
        _host_state(host, record, known, report, waves.get(host, 0)) for host, record in sorted(known.hosts.items())
    ]


def _host_state(host: str, record: HostRecord, known: Known, report: Report, wave: int) -> HostState:
    status, plan = report.statuses.get(host), known.plans.get(host)
    state, detail = _state(host, record, known, report)
    return HostState(
        host=host,
        state=state,
        detail="; ".join(filter(None, (detail, *(status.alarms if status else ())))),
        release=status.release if status else "",
        wanted=plan.release if plan else "",
        wave=wave,
        counts=dict(status.counts) if status else {},
    )


def _state(host: str, record: HostRecord, known: Known, report: Report) -> tuple[str, str]:
    """Return the state of a host, and why."""
    status, plan, desired = report.statuses.get(host), known.plans.get(host), known.desired.get(host)
    if record.fenced:
        return "fenced", "it must be off: others may have its sandboxes"
    if record.paused:
        return "paused", "it is told nothing new"
    if plan is None:
        return "empty", "no release names it"
    if host not in report.alive:
        since = f"; its last report was {_age(status.when)} ago" if status else ", and it never reported"
        return "silent", f"no gate is connected with it{since}"
    if desired is None or desired.release.partition(".")[0] != plan.release:
        return "due", "its wave has not begun"
    if desired.withheld:
        sandbox, other = next(iter(desired.withheld.items()))
        return "withheld", f"{sandbox} is still at {other}"
    if status is None or status.release != desired.release or not status.reached:
        return "under way", "it was told, and has not reported that it is done"
    return _reached(plan, status)


def _reached(plan: Plan, status: HostStatus) -> tuple[str, str]:
    """Return the state of a host that has reached its release."""
    bad = [each for each in status.unusual if each.state not in _WELL]
    words = "; ".join(f"{each.sandbox} is {each.state}" + f": {each.detail}" * bool(each.detail) for each in bad[:5])
    more = f"; … {len(bad) - 5:,} more" if len(bad) > 5 else ""
    if any(each.state in FAILING and each.sandbox in plan.changed for each in bad):
        return "failed", words + more
    return ("unwell", words + more) if bad else ("reached", "")


def _age(when: float) -> str:
    seconds = max(0, int(time.time() - when))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def alarms(known: Known, report: Report, leader: str) -> list[str]:
    """Return what is wrong with the fleet as a whole."""
    found = []
    if known.rollout and not leader:
        found.append("no gate leads the rollout: `reconciler fleet serve` runs nowhere, or cannot reach etcd")
    if known.strange:
        host, release = min(known.strange.items())
        found.append(
            f"{len(known.strange):,} {plural('host', len(known.strange))} had releases that etcd does not know, such "
            f"as {host} {release}: it was restored from an older backup. They keep what they have; push again"
        )
    ahead = [host for host, each in report.statuses.items() if each.when > time.time() + _SKEW]
    if ahead:
        found.append(f"clocks differ by more than {_SKEW:.0f} s between here and the gate of {min(ahead)}")
    return found


def document(known: Known, report: Report, states: list[HostState], leader: str) -> dict[str, Any]:
    """Return all of it as plain data, described in docs/fleet.md."""
    release, rollout = known.release, known.rollout
    return {
        "release": release.name if release else "",
        "commit": release.commit if release else "",
        "author": release.author if release else "",
        "pushed": release.when if release else 0.0,
        "rollout": {
            "state": rollout.state.value,
            "wave": rollout.wave + 1,
            "waves": len(release.waves) if release else 0,
            "since": rollout.since,
            "reason": rollout.reason,
        }
        if rollout
        else None,
        "leader": leader,
        "alarms": alarms(known, report, leader),
        "hosts": [{**each._asdict(), "gate": report.alive.get(each.host, "")} for each in states],
    }

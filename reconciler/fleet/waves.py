"""What a rollout does next, and why: derived anew from what is known, whenever that changes. Pure.

So nothing depends on who led before, and a rollout that does not go on has a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from reconciler.fleet.records import Desired, HostRecord, HostStatus, Plan, Release, Rollout, RolloutState
from reconciler.values import NamedTuple, dataclass, replace
from reconciler.wording import plural

# States of a sandbox by which its host counts as failed, if this release has changed the sandbox.
FAILING = {"failed", "refused", "fighting", "outdated", "unwatched"}
# Seconds for which a host has to fail before that counts: a look that fails once succeeds at the next.
LASTS = 5.0
# Names of a reason.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known: of each host by its name, and the time in seconds since the epoch.

    `plans`: those of the release. `alive`: the hosts that a gate is connected with.
    """

    release: Release
    rollout: Rollout
    plans: Mapping[str, Plan]
    desired: Mapping[str, Desired]
    statuses: Mapping[str, HostStatus]
    alive: AbstractSet[str]
    hosts: Mapping[str, HostRecord]
    now: float


class Step(NamedTuple):
    """What is to be done now. `tell`: host → what it should be like. `rollout`: as it should be, with the reason."""

    tell: dict[str, Desired]
    rollout: Rollout


class Counts(NamedTuple):
    """The hosts of the waves so far. Paused, fenced and removed ones are in none of these."""

    reached: list[str]
    failed: list[str]
    silent: list[str]
    waiting: list[str]
    withheld: list[str]


def step(picture: Picture) -> Step:
    """Return what is to be done now. Nothing is told together with a change of the state or of the wave."""
    rollout = picture.rollout
    if rollout.state in {RolloutState.PAUSED, RolloutState.STOPPED}:
        return Step({}, rollout)
    counts = count(picture)
    if rollout.state != RolloutState.DONE and len(counts.failed) >= rollout.stop_after:
        words = f"{_hosts(counts.failed)} failed; look with `reconciler fleet status`"
        return Step({}, replace(rollout, state=RolloutState.STOPPED, since=picture.now, reason=words))
    if tell := _due(picture):
        return Step(tell, rollout)
    if rollout.state == RolloutState.DONE:
        return Step({}, rollout)
    if why := _obstacle(picture, counts):
        return Step({}, replace(rollout, reason=why))
    return Step({}, _next(picture))


def _next(picture: Picture) -> Rollout:
    """Return the rollout after a wave that is through: it bakes, the next wave begins, or it is done."""
    rollout, last = picture.rollout, len(picture.release.waves) - 1
    if rollout.wave >= last:
        return replace(rollout, state=RolloutState.DONE, since=picture.now, reason="")
    words = f"wave {rollout.wave + 1} is through, and is watched for {rollout.bake:g} s"
    if rollout.bake and rollout.state != RolloutState.BAKING:
        return replace(rollout, state=RolloutState.BAKING, since=picture.now, reason=words)
    # A clock that was set back must not let it wait for longer than that.
    if rollout.state == RolloutState.BAKING and 0 <= picture.now - rollout.since < rollout.bake:
        return replace(rollout, reason=words)
    return replace(rollout, wave=rollout.wave + 1, state=RolloutState.ROLLING, since=picture.now, reason="")


def _obstacle(picture: Picture, counts: Counts) -> str:
    """Return why the wave is not through; empty if it is."""
    rollout = picture.rollout
    if counts.withheld:
        host = counts.withheld[0]
        sandbox, other = next(iter(picture.desired[host].withheld.items()))
        more = f"; {len(counts.withheld) - 1} more wait like it" if len(counts.withheld) > 1 else ""
        return f"waiting for {other} to give up {sandbox}, which moves to {host}{more}"
    if counts.waiting:
        return f"waiting for {_hosts(counts.waiting)}"
    missing = len(counts.silent) + len(counts.failed)
    if counts.silent and missing >= rollout.stop_after:
        words = f"waiting for {_hosts(counts.silent)}, which no gate is connected with"
        return f"{words}; `reconciler fleet pause HOST` lets the rollout go on without a host"
    wave = set(picture.release.waves[rollout.wave]) if picture.release.waves else set()
    if wave & set(counts.silent) and not wave & set(counts.reached):
        return f"waiting for any host of wave {rollout.wave + 1}: no gate is connected with {_hosts(counts.silent)}"
    return ""


def count(picture: Picture) -> Counts:
    """Return how far the hosts of the waves so far are."""
    counts = Counts([], [], [], [], [])
    for host in _so_far(picture):
        if not _takes_part(picture, host):
            continue
        desired, status = picture.desired.get(host), picture.statuses.get(host)
        is_there = _is_begun(picture, host) and bool(desired and status and status.release == desired.release)
        if status and is_there and _is_failing(picture.plans[host], status):
            # Clocks that differ must not let it wait for longer than that.
            is_lasting = abs(picture.now - status.when) >= LASTS
            (counts.failed if is_lasting else counts.waiting).append(host)
        elif host not in picture.alive:
            counts.silent.append(host)
        elif desired and desired.withheld:
            counts.withheld.append(host)
        elif status and is_there and status.reached and _is_told(picture, host):
            counts.reached.append(host)
        else:
            counts.waiting.append(host)
    return counts


def _is_failing(plan: Plan, status: HostStatus) -> bool:
    return any(each.state in FAILING and each.sandbox in plan.changed for each in status.unusual)


def _so_far(picture: Picture) -> list[str]:
    return [host for wave in picture.release.waves[: picture.rollout.wave + 1] for host in wave]


def _takes_part(picture: Picture, host: str) -> bool:
    record = picture.hosts.get(host)
    return record is not None and not record.paused and not record.fenced


def _is_begun(picture: Picture, host: str) -> bool:
    """Return whether a host was told at least a part of its plan."""
    desired = picture.desired.get(host)
    return desired is not None and desired.release.partition(".")[0] == picture.release.plans[host]


def _is_told(picture: Picture, host: str) -> bool:
    desired = picture.desired.get(host)
    return desired is not None and desired.release == picture.release.plans[host]


def _due(picture: Picture) -> dict[str, Desired]:
    """Return what hosts of the waves so far are to be told."""
    found = {}
    for host in _so_far(picture):
        if _takes_part(picture, host) and not _is_told(picture, host):
            desired = _desired(picture, host)
            if host not in picture.desired or picture.desired[host].release != desired.release:
                found[host] = desired
    return found


def _desired(picture: Picture, host: str) -> Desired:
    """Return as much of a host's plan as may be done now: without what another host has not given up."""
    plan, told = picture.plans[host], picture.desired.get(host)
    # What it was told once is not taken back.
    awaited = {name: other for name, other in plan.awaited.items() if not (told and name in told.sandboxes)}
    withheld = {name: other for name, other in awaited.items() if not has_given_up(picture, other, name)}
    files = {plan.places[name] for name in withheld}
    # Those that share such a file are awaited as well, and wait for each other.
    left_out = {name for name, file in plan.places.items() if file in files}
    return Desired(
        release=f"{plan.release}.{len(withheld)}" if withheld else plan.release,
        commit=plan.commit,
        sandboxes={name: digest for name, digest in plan.sandboxes.items() if name not in left_out},
        files={path: digest for path, digest in plan.files.items() if path not in files},
        withheld=withheld,
    )


def has_given_up(picture: Picture, host: str, sandbox: str) -> bool:
    """Return whether a host does not have a sandbox any more: it says so itself, or a person has fenced or removed it.

    That nobody hears of it is no reason: it may well go on.
    """
    record, desired, status = picture.hosts.get(host), picture.desired.get(host), picture.statuses.get(host)
    if record is None or record.fenced or desired is None:
        return True
    if sandbox in desired.sandboxes:
        return False
    return status is not None and status.release == desired.release and status.reached


def _hosts(names: Sequence[str]) -> str:
    """Return hosts as a reason names them."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"{len(names):,} {plural('host', len(names))} ({', '.join(names[:_LISTED])}{more})"

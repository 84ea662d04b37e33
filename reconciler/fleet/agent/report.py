"""What this host reports to its fleet: made of what its watcher knows, and of what is desired. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.fleet.agent.cache import Version
from reconciler.fleet.records import MAX_STATUS, HostStatus, Unusual, encode
from reconciler.wording import printable, shorten

# In these states a sandbox is as its manifest says, or a person of this host has taken it out of the watch.
_USUAL = {"converged", "draining", "paused"}
# In these states the manifest in the folder still waits for its turn, however long that takes.
_WAITS = {"new", "pending"}
# Seconds after which a sandbox that the watcher has not taken over counts as one that it cannot take over.
SETTLED = 20.0
# Alarms that are reported, characters of a text, and bytes of all that is unusual.
_ALARMS, _TEXT, _UNUSUAL = 20, 300, MAX_STATUS - (16 << 10)
# The state of a sandbox that the watcher does not watch.
_UNWATCHED = "unwatched"


def report(version: Version | None, watch: Mapping[str, Any] | None, age: float, alarms: Sequence[str]) -> HostStatus:
    """Return what to report.

    `version`: what the watcher's folder is like; None if there is none yet. `watch`: what `status -o json` prints; None
    if no watcher answers. `age`: since when, in seconds, the folder is like that. `alarms`: those of the agent.
    """
    wanted = version.desired.sandboxes if version else {}
    release = version.desired.release if version else ""
    if watch is None:
        return HostStatus(release, reached=False, alarms=_bounded((*alarms, "no watcher answers on this host")))
    found = {str(each["sandbox"]): each for each in watch["sandboxes"]}
    missing = sorted(wanted.keys() - found.keys())
    counts = Counter(str(each["state"]) for each in found.values())
    if missing:
        counts[_UNWATCHED] = len(missing)
    settled = age >= SETTLED
    is_reached = (
        version is not None
        and all(_is_settled(digest, found.get(name), is_late=settled) for name, digest in wanted.items())
        and found.keys() <= wanted.keys()
    )
    # What is not settled is about an older manifest: it must not count as a failure of this one.
    known = {name: each for name, each in found.items() if _is_settled(wanted.get(name), each, is_late=settled)}
    unusual = [*_unusual(known)]
    if settled:
        unusual += [Unusual(each, _UNWATCHED, "the watcher does not watch it") for each in missing]
    problems = [*alarms, *watch["alarms"], *watch["problems"]]
    return HostStatus(release, is_reached, dict(counts), tuple(_fitting(unusual)), _bounded(problems))


def _is_settled(digest: str | None, found: Mapping[str, Any] | None, *, is_late: bool) -> bool:
    """Return whether a state is about the manifest of this version. `is_late`: it should be by now."""
    if found is not None and found["state"] in _WAITS:
        return False
    if digest is None or found is None or found["state"] == "outdated":
        return is_late
    if found["state"] in {"converged", "draining"}:
        return bool(found["digest"] == digest)
    return bool(found["tried"] == digest) or is_late


def _unusual(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Unusual]:
    for name, each in sorted(found.items()):
        if each["state"] not in _USUAL:
            yield Unusual(_text(name), str(each["state"]), _text(each["detail"]))
        elif not each["fresh"]:
            yield Unusual(_text(name), "stale", "its last look is older than it should be")


def _fitting(unusual: Sequence[Unusual]) -> Iterator[Unusual]:
    """Yield as many as fit."""
    left = _UNUSUAL
    for each in unusual:
        left -= len(encode(each)) + 1
        if left < 0:
            return
        yield each


def _bounded(alarms: Sequence[str]) -> tuple[str, ...]:
    more = len(alarms) - _ALARMS
    listed = [_text(each) for each in alarms[:_ALARMS]]
    return (*listed, f"and {more:,} more") if more > 0 else tuple(listed)


def _text(words: object) -> str:
    return printable(shorten(str(words), _TEXT))

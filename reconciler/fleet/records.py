"""What the values of the store hold, as immutable values; to bytes of JSON and back.

`decode` trusts nobody: bytes that are not exactly of the form are a ValueError. A field with a default may be absent,
and an unknown field is ignored, so that two versions can work beside each other.
"""

from __future__ import annotations

import enum
import functools
import json
import typing
from typing import Any, TypeVar

from reconciler.values import dataclass, field, fields, is_dataclass

# Bytes of a status, as a host sends it.
MAX_STATUS = 64 << 10

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one host should be like in a release.

    `release`: the name of the release that the plan was written with. `sandboxes`: ID → digest of its manifest
    (`manifest.digest`). `places`: the same IDs → the file that each is in. `files`: path below the folder of the host →
    digest of its bytes (`blobs.digest`). `changed`: the sandboxes that the host did not have like this before.
    `awaited`: the sandboxes that come from another host → that host; no other is in the same file.
    """

    release: str
    commit: str
    sandboxes: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    awaited: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Desired:
    """What a host should be like now: the plan whose turn has come, or as much of it as may be done yet.

    `withheld`: sandboxes that another host still has → that host. Neither they nor their files are in `sandboxes` and
    `files`. `release`: the name of the release; while anything is withheld, with `.` and the number of these sandboxes
    behind it. So a host is never told two things by one name.
    """

    release: str
    commit: str
    sandboxes: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Release:
    """What a push has made. The newest one is named by the rollout.

    `plans`: each host of the fleet → the release whose plan it has, as a host that a push does not change keeps its
    plan. `waves`: the hosts that it changes, in the order in which they are told. `when`: seconds since the epoch, by
    the clock of whoever pushed. `fingerprint`: what `fleet diff` printed. `roots`: the first commits of the
    repository, by which another repository is recognised. `restores`: the release that a rollback restores, or empty.
    """

    name: str
    commit: str
    author: str
    fingerprint: str
    when: float
    plans: dict[str, str]
    waves: tuple[tuple[str, ...], ...]
    roots: tuple[str, ...] = ()
    restores: str = ""


class RolloutState(enum.StrEnum):
    """How far a rollout is."""

    ROLLING = "rolling"
    BAKING = "baking"
    PAUSED = "paused"
    STOPPED = "stopped"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout of the newest release.

    `wave`: the index of the wave that is told; all before it are through. `stop_after`: so many failed hosts stop it.
    `bake`: the seconds between a wave that is through and the next. `since`: when it got into this state, in seconds
    since the epoch. `reason`: why it is in this state, for people. `history`: releases before it, newest first.
    """

    release: str
    wave: int
    state: RolloutState
    stop_after: int
    bake: float
    since: float
    reason: str = ""
    history: tuple[str, ...] = ()
    edition: int = 0


@dataclass(frozen=True, slots=True)
class Unusual:
    """A sandbox of a host that is not as its manifest says. `state`: as `status` has it."""

    sandbox: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What a host has reported.

    `release`: the release whose files are in the folder that its watcher reads; empty if there is none yet. `reached`:
    each sandbox of that release was last made like its manifest of that release, or is among `unusual`; and what the
    release does not have any more is not watched any more. `counts`: state → number of sandboxes. `unusual`: all that
    are not converged, draining or paused, and as many as fit; `counts` has all. `when`: seconds since the epoch, by the
    clock of the gate.
    """

    release: str
    reached: bool
    counts: dict[str, int] = field(default_factory=dict)
    unusual: tuple[Unusual, ...] = ()
    alarms: tuple[str, ...] = ()
    when: float = 0.0


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What an administrator has said about a host.

    `fingerprint`: SHA-256 of its certificate in DER, in hexadecimal digits; empty: it may not connect. `paused`: it is
    told nothing new. `fenced`: a person has made sure that it does nothing any more, so its sandboxes may go elsewhere;
    it may not connect.
    """

    fingerprint: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    paused: bool = False
    fenced: bool = False


def encode(record: Any) -> bytes:
    """Return a record as JSON."""
    return json.dumps(record, default=_fields, separators=(",", ":")).encode()


def decode(kind: type[_T], data: bytes) -> _T:
    """Return the record of a kind that bytes are the JSON of. ValueError if they are not."""
    try:
        found = _DECODER.decode(data.decode())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return typing.cast("_T", _read(kind, found, kind.__name__))


def _fields(record: Any) -> dict[str, Any]:
    # Not `asdict`, which copies all that is below: the leader writes a thousand plans at once.
    return {each.name: getattr(record, each.name) for each in fields(record)}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _read(kind: Any, value: Any, path: str) -> Any:
    """Return a value of JSON as a value of a type. ValueError if it is none."""
    if is_dataclass(kind) and isinstance(value, dict):
        return _read_record(typing.cast("type", kind), value, path)
    origin, parameters = _parts(kind)
    # Nearly all that is read is mappings and lists of text, thousands of times: these are checked at once.
    if origin is tuple and isinstance(value, list):
        is_text = parameters[0] is str and set(map(type, value)) <= {str}
        return tuple(value) if is_text else tuple(_read(parameters[0], each, path) for each in value)
    if origin is dict and isinstance(value, dict):
        is_text = parameters[1] is str and set(map(type, value.values())) <= {str}
        return (
            value if is_text else {name: _read(parameters[1], each, f"{path}.{name}") for name, each in value.items()}
        )
    if kind is float and type(value) in {int, float} and abs(value) < 1 << 53:
        return float(value)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum) and isinstance(value, str):
        return kind(value)
    if kind in {str, int, bool} and type(value) is kind:
        return value
    raise ValueError(f"{path} is not of its type")


@functools.cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(kind), typing.get_args(kind)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read_record(kind: type, value: dict[str, Any], path: str) -> Any:
    hints = _hints(kind)
    given = {name: _read(hints[name], each, f"{path}.{name}") for name, each in value.items() if name in hints}
    try:
        return kind(**given)
    except TypeError:
        raise ValueError(f"{path} lacks a field") from None

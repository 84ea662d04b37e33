"""A record of the history, as it is read: a change is made of both of its lines, everything else of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.history.lines import BEGUN, ENDED, Step
from reconciler.values import dataclass, field

# What a record of a change is about.
CHANGE = "change"
# Results that no line has: the second line of a change is not written yet, or could not be.
RUNNING, UNKNOWN = "running", "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the history.

    `time`: in RFC 3339, with the zone; of a change, when it began. `event`: "change", or what else happened: a new
    state of the sandbox, `refused`, `resumed` and others. `driver`: the address of the sandbox. `cause` of a change:
    start, manifest, drift, drain, by hand, prune or revert. `by`: the command, and of a person the user
    (`history.author`).
    `file`, `revision`, `blob`: the manifest. `count`: how many operations there were; `steps` has the first of them.
    `result` of a change: verified, not verified, partly, undone, failed, interrupted, unknown or running. `seconds` it
    took; None if that is unknown. `reason`: why. `more`: fields of single events. `id`: of a change.
    """

    time: str
    sandbox: str
    event: str
    driver: str = ""
    cause: str = ""
    by: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    revision: str = ""
    blob: str = ""
    count: int = 0
    steps: tuple[Step, ...] = ()
    result: str = ""
    seconds: float | None = None
    reason: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    @property
    def at(self) -> float:
        """Return the time in Unix seconds; 0 if it cannot be read."""
        return unix(self.time)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data, as `reconciler history -o json` prints it: without what is empty."""
        data = {name: getattr(self, name) for name in _FIELDS}
        if self.event == CHANGE:
            data |= {"count": self.count, "operations": [each.to_data() for each in self.steps], "id": self.id}
        return {name: value for name, value in data.items() if value not in ("", None, {})} | dict(self.more)


_FIELDS = (
    "time",
    "sandbox",
    "event",
    "driver",
    "cause",
    "by",
    "file",
    "revision",
    "blob",
    "result",
    "seconds",
    "reason",
)
_KNOWN = {*_FIELDS, "count", "operations", "id"}


def to_record(data: Mapping[str, Any]) -> Record | None:
    """Return the record of a line, or of both lines of a change; None if it is none. Nothing of it is trusted."""
    if not all(isinstance(data.get(name), str) for name in ("time", "event", "sandbox")):
        return None
    texts = {name: value for name in _FIELDS if isinstance(value := data.get(name), str)}
    texts["event"] = CHANGE if data["event"] in {BEGUN, ENDED} else data["event"]
    by, count, seconds, found = (data.get(name) for name in ("by", "count", "seconds", "operations"))
    return Record(
        **texts,
        by=by if isinstance(by, dict) else {},
        count=count if isinstance(count, int) else 0,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        steps=tuple(_steps(found)) if isinstance(found, list) else (),
        more={name: value for name, value in data.items() if name not in _KNOWN},
        id=str(data.get("id", "")),
    )


def _steps(found: list[Any]) -> Iterable[Step]:
    for each in found:
        if isinstance(each, dict):
            yield Step(*(str(each.get(name, "")) for name in Step._fields))


def unix(text: str) -> float:
    """Return a time of a line in Unix seconds; 0 if it is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0

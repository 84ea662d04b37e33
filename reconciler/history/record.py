"""A record of the history, and its lines: one is written before a change is executed, and one after it.

So a change that was begun and never ended shows that its process was killed. Everything else is one line. A line is
one JSON object; what it has, and what it means, is in docs/history.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from reconciler.wording import shorten

# A record names at most so many operations, with at most so many characters together, and of one.
MOST_OPERATIONS, MOST_CHARACTERS, LONGEST = 50, 16 << 10, 1000
# Characters of any other text in a line.
LONGEST_TEXT = 2000
# The name that the watcher itself has in place of a sandbox: no ID begins with `_`.
WATCHER = "_watcher"
# What a line is about: a change begins or ends, records are missing, a manifest has taken effect.
BEGUN, ENDED, MISSING, IN_FORCE = "begun", "ended", "missing", "in force"
# Results that no line has: the second line of a change is missing.
RUNNING, INTERRUPTED = "running", "interrupted"
# What a record of a change is about, which is made of both of its lines.
CHANGE = "change"

_ACTIONS = {"+": "add", "~": "change", "-": "delete"}


class Step(NamedTuple):
    """An operation of a change: its action (add, change, delete), its command, and what it replaces.

    `fate`: what became of it (kept, undone, failed, not tried), if the change as a whole did not succeed.
    """

    action: str
    command: str
    comment: str = ""
    fate: str = ""

    def to_data(self) -> dict[str, str]:
        """Return it as plain data, without what is empty."""
        return {name: value for name, value in self._asdict().items() if value}


class _Operation(Protocol):
    @property
    def command(self) -> str: ...
    @property
    def comment(self) -> str: ...
    @property
    def sign(self) -> str: ...


def steps(operations: Iterable[_Operation], fate: str = "") -> list[Step]:
    """Return the first operations, as many as a record may have."""
    found: list[Step] = []
    left = MOST_CHARACTERS
    for each in operations:
        command, comment = shorten(each.command, LONGEST), shorten(each.comment, LONGEST)
        left -= len(command) + len(comment)
        if len(found) == MOST_OPERATIONS or (left < 0 and found):
            break
        found.append(Step(_ACTIONS[each.sign], command, comment, fate))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the history.

    `time`: in RFC 3339, with the zone; of a change, when it began. `event`: "change", or what else happened: a new
    state of the sandbox, `refused`, `resumed` and others. `driver`: the address of the sandbox. `cause` of a change:
    start, manifest, drift, by hand or prune. `by`: the command, and of a person the user (`history.author`). `file`,
    `revision`, `blob`: the manifest. `count`: how many operations there were; `steps` has the first of them. `result`
    of a change: verified, not verified, partly, undone, failed, running or interrupted. `seconds` it took; None if that
    is unknown. `reason`: why. `more`: fields of single events. `id`: of a change.
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


def line(sandbox: str, event: str, **fields: Any) -> dict[str, Any]:
    """Return the data of a line of now, without what is empty."""
    data = {"time": now(), "event": event, "sandbox": sandbox}
    for name, value in fields.items():
        if value not in ("", None, (), {}, []):
            data[name] = shorten(value, LONGEST_TEXT) if isinstance(value, str) else value
    return data


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


def now(clock: Callable[[], float] = time.time) -> str:
    """Return the time in RFC 3339 to the millisecond, with the offset of this host's zone."""
    moment = clock()
    local = time.localtime(moment)
    sign, minutes = "-" if local.tm_gmtoff < 0 else "+", abs(local.tm_gmtoff) // 60
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    return f"{text}.{int(moment * 1000) % 1000:03}{sign}{minutes // 60:02}:{minutes % 60:02}"


def unix(text: str) -> float:
    """Return a time of a line in Unix seconds; 0 if it is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0

"""The lines of the history, as they are written: one before a change is executed, and one after it.

So a change that was begun and never ended shows that its process was killed. Everything else is one line. A line is
one JSON object; what it has, and what it means, is in docs/history.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from reconciler.values import NamedTuple
from reconciler.wording import shorten

# A record names at most so many operations, with at most so many characters together, and of one.
MOST_OPERATIONS, MOST_CHARACTERS, LONGEST = 50, 16 << 10, 1000
# Characters of any other text in a line.
LONGEST_TEXT = 2000
# The name that the watcher itself has in place of a sandbox: no ID begins with `_`.
WATCHER = "_watcher"
# What a line is about: a change begins or ends, records are missing, a manifest has taken effect.
BEGUN, ENDED, MISSING, IN_FORCE = "begun", "ended", "missing", "in force"
INTERRUPTED = "interrupted"
# The state of a sandbox that is as its manifest says.
CONVERGED = "converged"

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


def line(sandbox: str, event: str, **fields: Any) -> dict[str, Any]:
    """Return the data of a line of now, without what is empty."""
    data = {"time": now(), "event": event, "sandbox": sandbox}
    for name, value in fields.items():
        if value not in ("", None, (), {}, []):
            data[name] = _plain(value)
    return data


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, without a text that is too long."""
    if isinstance(value, str):
        return shorten(value, LONGEST_TEXT)
    return dict(value) if isinstance(value, Mapping) else value


def timestamp(moment: float) -> str:
    """Return a time in Unix seconds in RFC 3339, to the microsecond, with the offset of this host's zone."""
    local = time.localtime(moment)
    sign, minutes = "-" if local.tm_gmtoff < 0 else "+", abs(local.tm_gmtoff) // 60
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    return f"{text}.{int(moment * 1e6) % 1_000_000:06}{sign}{minutes // 60:02}:{minutes % 60:02}"


def now() -> str:
    """Return the time of now."""
    return timestamp(time.time())

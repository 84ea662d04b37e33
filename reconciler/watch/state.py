"""What is known of a sandbox that is watched, for `status`, metrics and logs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# Seconds over which drift is counted.
WINDOW = 3600.0
_COUNTED = 10_000


class State(Enum):
    """How a sandbox is."""

    NEW = "new"
    CONVERGED = "converged"
    DRIFTED = "drifted"
    DRAINING = "draining"
    FIGHTING = "fighting"
    PAUSED = "paused"
    WAITING = "waiting"
    REFUSED = "refused"
    FAILED = "failed"


# What is as its manifest says.
GOOD = {State.CONVERGED, State.DRAINING}


@dataclass(slots=True)
class Status:
    """One sandbox. Times are Unix seconds, 0: never. One thread writes; others read a field at a time.

    `looked`: the last look that got an answer. `valid_for`: for how many seconds that says something. `since`: when the
    state began. `repairs`: operations against drift, ever.
    """

    sandbox: str
    driver: str
    file: str
    revision: str = ""
    state: State = State.NEW
    since: float = field(default_factory=time.time)
    looked: float = 0.0
    valid_for: float = 0.0
    detail: str = ""
    refused: str = ""
    repairs: int = 0
    fights: tuple[str, ...] = ()
    drifts: deque[float] = field(default_factory=lambda: deque(maxlen=_COUNTED))

    def become(self, state: State, detail: str = "") -> bool:
        """Take note of a state; tell whether it is another one."""
        changed = state is not self.state
        if changed:
            self.since = time.time()
        self.state, self.detail = state, detail
        return changed

    def is_fresh(self) -> bool:
        """Tell whether the last look still says something."""
        return time.time() - self.looked <= self.valid_for

    def drift_lately(self) -> int:
        """Count the times that drift was found within WINDOW."""
        begin = time.time() - WINDOW
        return sum(each >= begin for each in list(self.drifts))

    def data(self) -> dict[str, Any]:
        """Give it as plain data."""
        detail = "; ".join(filter(None, (self.detail, self.refused and f"manifest not used: {self.refused}")))
        return {
            "sandbox": self.sandbox,
            "driver": self.driver,
            "file": self.file,
            "revision": self.revision,
            "state": self.state.value,
            "fresh": self.is_fresh(),
            "since": round(self.since, 3),
            "looked": round(self.looked, 3),
            "drift_1h": self.drift_lately(),
            "repairs": self.repairs,
            "fights": list(self.fights),
            "detail": detail,
        }

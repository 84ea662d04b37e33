"""What the watcher knows of one sandbox; `reconciler status`, the metrics and the log are made from it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# Seconds for which a drift is counted.
WINDOW = 3600.0
# The most drifts that are remembered.
_COUNTED = 10_000


class SandboxState(Enum):
    """The state of a watched sandbox; docs/glossary.md explains each."""

    NEW = "new"
    CONVERGED = "converged"
    DRIFTED = "drifted"
    DRAINING = "draining"
    FIGHTING = "fighting"
    PAUSED = "paused"
    WAITING = "waiting"
    REFUSED = "refused"
    FAILED = "failed"


# In these states a sandbox matches its manifest.
GOOD = {SandboxState.CONVERGED, SandboxState.DRAINING}


@dataclass(slots=True)
class SandboxStatus:
    """The status of one sandbox. Times are Unix seconds, 0 for never. One thread writes; others read a field at a time.

    `looked`: the last look that succeeded. `valid_for`: seconds after which the state is stale. `since`: when the state
    began. `refused`: why the present text of the manifest is not used, empty if it is. `repairs`: operations that
    repaired drift, since the watcher started. `fights`: commands that another program keeps reverting. `drifts`: when
    drift was found.
    """

    sandbox: str
    driver: str
    file: str
    revision: str = ""
    state: SandboxState = SandboxState.NEW
    since: float = field(default_factory=time.time)
    looked: float = 0.0
    valid_for: float = 0.0
    detail: str = ""
    refused: str = ""
    repairs: int = 0
    fights: tuple[str, ...] = ()
    drifts: deque[float] = field(default_factory=lambda: deque(maxlen=_COUNTED))

    def set_state(self, state: SandboxState, detail: str = "") -> bool:
        """Set the state and its detail; return whether the state has changed."""
        changed = state is not self.state
        if changed:
            self.since = time.time()
        self.state, self.detail = state, detail
        return changed

    def is_fresh(self) -> bool:
        """Return whether the last look is recent enough for the state to be true still."""
        return time.time() - self.looked <= self.valid_for

    def count_drifts(self) -> int:
        """Return how often drift was found within the last WINDOW seconds."""
        begin = time.time() - WINDOW
        return sum(each >= begin for each in list(self.drifts))

    def to_data(self) -> dict[str, Any]:
        """Return the status as plain data, as `reconciler status -o json` prints it."""
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
            "drift_1h": self.count_drifts(),
            "repairs": self.repairs,
            "fights": list(self.fights),
            "detail": detail,
        }

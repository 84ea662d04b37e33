"""What the watcher knows of one sandbox; `reconciler status`, the metrics and the log are made from it."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from reconciler.values import NamedTuple, dataclass, field
from reconciler.watch import clock
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.revision import Revision
from reconciler.watch.traffic import Traffic

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
    PENDING = "pending"
    OUTDATED = "outdated"


# In these states a sandbox matches its manifest.
GOOD = {SandboxState.CONVERGED, SandboxState.DRAINING}


class Doubt(NamedTuple):
    """Why a sandbox that matches the manifest of its last look need not match what its folder says now.

    `state`: what the sandbox is in instead of a good state: pending, outdated or failed.
    """

    state: SandboxState
    reason: str


@dataclass(slots=True)
class SandboxStatus:
    """What the looks at one sandbox have found. One thread writes; others read a field at a time.

    Times are those of `clock`, 0 for never. `looked`: the last look that succeeded. `valid_until`: when its state
    becomes stale. `since`: when the state began. `revision`: of the manifest of that look. `repairs`: operations that
    repaired drift, since the watcher started. `fights`: commands that another program keeps reverting. `drifts`: when
    drift was found. `full_looked`: the last full look that succeeded. `took`: seconds that the last look took. `lent`:
    since when another command has the machine. `traffic`: the connections of IPVS. `flushes`: how often the guard of a
    machine has found services gone. `confirm_by`: when a change is undone that waits to be confirmed; 0: none does.
    `outstanding`: what differs still; None if the last look could not find that out.
    `digest`: of the manifest that the sandbox matched last at the end of a look, whatever became of newer ones.
    `tried`: of the manifest of the last look that has ended, whatever it found.
    """

    sandbox: str
    driver: str
    file: str
    revision: Revision = field(default_factory=Revision)
    state: SandboxState = SandboxState.NEW
    since: float = field(default_factory=clock.now)
    looked: float = 0.0
    valid_until: float = 0.0
    detail: str = ""
    repairs: int = 0
    fights: tuple[str, ...] = ()
    flushes: int = 0
    drifts: deque[float] = field(default_factory=lambda: deque(maxlen=_COUNTED))
    full_looked: float = 0.0
    took: float = 0.0
    lent: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)
    outstanding: Outstanding | None = None
    confirm_by: float = 0.0
    digest: str = ""
    tried: str = ""

    def set_state(self, state: SandboxState, detail: str = "") -> bool:
        """Set the state and its detail; return whether the state has changed."""
        changed = state is not self.state
        if changed:
            self.since = clock.now()
        self.state, self.detail = state, detail
        return changed

    def is_fresh(self) -> bool:
        """Return whether the last look is recent enough for the state to be true still."""
        return clock.now() <= self.valid_until

    def count_drifts(self) -> int:
        """Return how often drift was found within the last WINDOW seconds."""
        begin = clock.now() - WINDOW
        return sum(each >= begin for each in list(self.drifts))


class Standing(NamedTuple):
    """A sandbox at one moment: what its looks have found, and a doubt about it, if there is one."""

    status: SandboxStatus
    doubt: Doubt | None = None

    @property
    def state(self) -> SandboxState:
        """Return the state: no good one while there is a doubt."""
        found = self.status.state
        return self.doubt.state if self.doubt and found in GOOD else found

    @property
    def is_converged(self) -> bool:
        """Return whether a recent look found the sandbox as its folder describes it now."""
        return self.state in GOOD and self.status.is_fresh()

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data, as `reconciler status -o json` prints it. Times are Unix seconds, 0 for never."""
        status = self.status
        return {
            "sandbox": status.sandbox,
            "driver": status.driver,
            "file": status.file,
            "revision": status.revision.commit,
            "blob": status.revision.blob,
            "digest": status.digest,
            "tried": status.tried,
            "state": self.state.value,
            "fresh": status.is_fresh(),
            "since": round(clock.unix(status.since), 3),
            "looked": round(clock.unix(status.looked), 3),
            "full_looked": round(clock.unix(status.full_looked), 3),
            "took": round(status.took, 6),
            "lent": round(clock.unix(status.lent), 3),
            "confirm_by": round(clock.unix(status.confirm_by), 3),
            "drift_1h": status.count_drifts(),
            "drifted": round(clock.unix(status.drifts[-1] if status.drifts else 0.0), 3),
            "repairs": status.repairs,
            "fights": list(status.fights),
            "detail": "; ".join(filter(None, (status.detail, self.doubt and self.doubt.reason))),
        }

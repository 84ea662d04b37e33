"""What the watcher and the process of its machines say to each other.

Each machine has a number. It is that of one worker: a sandbox whose manifest was deleted and written again has another
one, while the first may still be pruned.
"""

from __future__ import annotations

from enum import Enum
from typing import get_args

from reconciler.manifest.load import Manifest
from reconciler.model.policy import Policy
from reconciler.values import NamedTuple, fields
from reconciler.watch.meter import Failed, Looked, Repaired
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.revision import Revision
from reconciler.watch.settings import Settings
from reconciler.watch.state import SandboxState, SandboxStatus
from reconciler.watch.traffic import Traffic


class Setup(NamedTuple):
    """The first order. `form`, `level`: of the log. `measured`: whether looks are measured."""

    settings: Settings
    policy: Policy
    form: str
    level: str
    measured: bool


class Begin(NamedTuple):
    """Watch a machine. `edition`: of the manifest."""

    number: int
    edition: int
    manifest: Manifest
    revision: Revision


class Assign(NamedTuple):
    """Apply a changed manifest."""

    number: int
    edition: int
    manifest: Manifest
    revision: Revision


class SetOrigin(NamedTuple):
    """Take a manifest that describes the same, from another file or revision."""

    number: int
    manifest: Manifest
    revision: Revision


class Wish(Enum):
    """What is asked of a worker: the methods of `worker.Worker` with these names."""

    LOOK = "request_look"
    FULL_LOOK = "request_full_look"
    RELOAD = "reload"
    RETRY = "retry_if_host_lacked"


class Ask(NamedTuple):
    """Do what is wished for a machine."""

    number: int
    wish: Wish


class Stop(NamedTuple):
    """Stop to watch a machine. `prune`: first remove what is owned."""

    number: int
    prune: bool


class Claim(NamedTuple):
    """Drop the claims of all sandboxes but these."""

    names: frozenset[str]


class Allow(NamedTuple):
    """Go by this policy from now on."""

    policy: Policy


class Tick(NamedTuple):
    """Give a sign of life. One comes every second."""


Order = Setup | Begin | Assign | SetOrigin | Ask | Stop | Claim | Allow | Tick


class Found(NamedTuple):
    """What is known of a machine: the fields of `state.SandboxStatus`.

    `edition`: of the manifest that `applying` and `rolled_back` are about. `drifts`: those since the last report.
    `traffic`: None if it is the same as in the last report that had one.
    """

    number: int
    edition: int
    applying: bool
    rolled_back: str
    driver: str
    file: str
    revision: Revision
    state: SandboxState
    since: float
    looked: float
    valid_until: float
    detail: str
    repairs: int
    fights: tuple[str, ...]
    flushes: int
    drifts: tuple[float, ...]
    full_looked: float
    took: float
    lent: float
    traffic: Traffic | None
    outstanding: Outstanding | None
    confirm_by: float
    digest: str
    tried: str


class Done(NamedTuple):
    """A manifest has taken effect, or failed to."""

    number: int
    succeeded: bool


class Unstarted(NamedTuple):
    """A machine could not be watched yet, for a reason; it is tried again."""

    number: int
    reason: str


class Ended(NamedTuple):
    """The thread of a machine has ended."""

    number: int


class Alive(NamedTuple):
    """The answer to a Tick. `history`: what is wrong with the history, "" if nothing is."""

    history: str


# What a status has that is reported as it is.
AS_FOUND = tuple(
    each.name
    for each in fields(SandboxStatus)
    if each.name not in {"sandbox", "repairs", "flushes", "drifts", "traffic"}
)
Report = Found | Done | Unstarted | Ended | Alive | Looked | Repaired | Failed
REPORTS = get_args(Report)

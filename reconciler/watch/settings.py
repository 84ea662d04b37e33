"""How each sandbox is watched."""

from __future__ import annotations

from reconciler.values import NamedTuple
from reconciler.watch.probation import Confirm


class Settings(NamedTuple):
    """How to watch each sandbox.

    `look`, `full_look`: seconds between two quick and two full looks. `change`: whether to repair, or only to report.
    `guard`: whether agents in machines restore flushed services. `confirm`: which changed manifests are on trial, and
    `bake` for how many seconds after their checks have passed.
    """

    look: float
    full_look: float
    change: bool = True
    guard: bool = True
    confirm: Confirm = Confirm.NONE
    bake: float = 0.0

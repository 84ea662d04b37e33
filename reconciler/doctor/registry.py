"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reconciler.doctor.scene import Scene
from reconciler.values import NamedTuple


class Hit(NamedTuple):
    """What a check has found: about whom (`host`, `watcher` or the ID of a sandbox), what, and a command that mends it.

    The command can be pasted into a shell of root.
    """

    about: str
    what: str
    command: str


class Check(NamedTuple):
    """A check. `meaning`: what it means if it finds something; `remedy`: what mends it, in general.

    `is_note`: what it finds is no fault by itself, but good to know.
    """

    name: str
    meaning: str
    remedy: str
    look: Callable[[Scene], Iterable[Hit]]
    is_note: bool = False


class Finding(NamedTuple):
    """A hit, and the check that made it."""

    check: Check
    hit: Hit

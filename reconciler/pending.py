"""Changes that wait to be confirmed, as one file each below /run: what leads back, and until when it may be confirmed.

The file of a sandbox is in WAITING from before its change until the change is confirmed, or claimed by whoever undoes
it. A claim moves the file to REVERTING: so of a confirmation and a claim, exactly one succeeds. As long as there is a
file, the sandbox is locked for all others: a file outlives whoever is killed. A reboot clears it, together with what
the kernel had.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from reconciler import rundir
from reconciler.errors import BusyError, HostError
from reconciler.values import dataclass, field, fields, replace
from reconciler.wording import reason

FOLDER = "/run/reconciler/pending"
WAITING, REVERTING = f"{FOLDER}/waiting", f"{FOLDER}/reverting"


def now() -> float:
    """Return the seconds since the host has booted, by a clock that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A change that waits.

    `place`: what all names of the sandbox have in common. `deadline`: by `now`; 0 while the change is being made.
    `before`: the manifest that leads back, and `policy` by what it may. `file`: the manifest that was applied, and `by`
    whom. `effect`: what the history gets when it is confirmed. `problem`: why it could not be taken back yet, and
    `tries`: how often that failed.
    """

    sandbox: str
    place: str
    before: Mapping[str, Any]
    policy: Mapping[str, Any]
    file: str = ""
    by: Mapping[str, Any]
    effect: Mapping[str, Any] = field(default_factory=dict)
    deadline: float = 0.0
    problem: str = ""
    tries: int = 0
    is_reverting: bool = False

    @property
    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - now()

    @property
    def is_due(self) -> bool:
        """Return whether it is to be taken back, unless whoever makes the change is still at it."""
        return self.is_reverting or self.left <= 0

    @property
    def words(self) -> str:
        """Return what is so, without the sandbox."""
        if self.is_reverting:
            return f"a change that was not confirmed is being undone{f': {self.problem}' if self.problem else ''}"
        if not self.deadline:
            return "a change that has to be confirmed is being made"
        return f"a change waits to be confirmed, until {self.until}; `reconciler confirm {self.sandbox}` keeps it"

    @property
    def until(self) -> str:
        """Return the time of the deadline."""
        return time.strftime("%H:%M:%S", time.localtime(time.time() + self.left))


def write(pending: Pending) -> None:
    """Write or replace the file of a change, by its state."""
    folder = REVERTING if pending.is_reverting else WAITING
    data = {each.name: getattr(pending, each.name) for each in fields(pending) if each.name != "is_reverting"}
    rundir.replace(folder, pending.sandbox, json.dumps(data, default=dict))


def read(sandbox: str) -> Pending | None:
    """Return the change of a sandbox that waits; None if there is none. HostError if its file cannot be read."""
    for folder in (WAITING, REVERTING):
        path = os.path.join(folder, sandbox)
        try:
            with open(path, encoding="utf-8") as file:
                rundir.check(path, os.fstat(file.fileno()))
                return Pending(**{**json.load(file), "is_reverting": folder == REVERTING})
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(f"{path}: {reason(error)}") from error
        except (ValueError, TypeError) as error:
            raise HostError(f"{path}: {error}: it is unknown how to undo the change that waits there") from error
    return None


def every() -> list[Pending]:
    """Return all changes that wait, or are being undone. OSError if the folders cannot be read."""
    names: set[str] = set()
    for folder in (WAITING, REVERTING):
        with suppress(FileNotFoundError):
            names |= {each for each in os.listdir(folder) if not each.startswith(".")}
    return [found for name in sorted(names) if (found := read(name))]


def confirm(sandbox: str) -> Pending:
    """Keep the change of a sandbox. HostError if none waits, or if it is too late."""
    found = read(sandbox)
    if found is None:
        raise HostError(f"{sandbox}: no change waits to be confirmed")
    if not found.is_reverting and not found.deadline:
        raise HostError(f"{sandbox}: {found.words}; confirm it when it has been verified")
    gone = os.path.join(FOLDER, f".{sandbox}.confirmed")
    if not found.is_due:
        with suppress(FileNotFoundError):
            os.rename(os.path.join(WAITING, sandbox), gone)
            os.unlink(gone)
            return found
    raise HostError(f"{sandbox}: too late: {replace(found, is_reverting=True).words}")


def claim(pending: Pending) -> Pending | None:
    """Decide that a change is undone; return it. None if it was confirmed meanwhile, or somebody has finished it."""
    if pending.is_reverting:
        return pending
    rundir.make(REVERTING)
    try:
        os.rename(os.path.join(WAITING, pending.sandbox), os.path.join(REVERTING, pending.sandbox))
    except FileNotFoundError:
        return None
    return replace(pending, is_reverting=True)


def remove(sandbox: str) -> None:
    """Remove the file of a change: it is over."""
    for folder in (WAITING, REVERTING):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, sandbox))


_undoing = threading.local()


@contextmanager
def undoing() -> Iterator[None]:
    """Let this thread change sandboxes whose changes wait: it takes one of them back."""
    _undoing.active = True
    try:
        yield
    finally:
        _undoing.active = False


def check(place: Hashable) -> None:
    """Raise BusyError if a change of a sandbox waits. `place`: what all names of the sandbox have in common."""
    if getattr(_undoing, "active", False) or not os.path.isdir(FOLDER):
        return
    for each in every():
        if each.place == repr(place):
            raise BusyError(each.words)

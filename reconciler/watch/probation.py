"""Changed manifests on trial: a change whose checks fail is undone, and its manifest is held until it is edited.

What is held is a file below /run, with what leads back: so it stays held after a restart of the watcher.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from enum import Enum, auto
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from reconciler import rundir
from reconciler.converge import repair
from reconciler.drivers import Driver
from reconciler.errors import ApplyError, RefusedError, VerifyError
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
from reconciler.manifest.sandbox import read_written, write
from reconciler.model.sandbox import Sandbox
from reconciler.safety import Allowance, canonical
from reconciler.values import NamedTuple
from reconciler.watch import clock
from reconciler.watch.look import Look

if TYPE_CHECKING:
    # Most manifests have no checks, and most watches put nothing on trial.
    from reconciler.confirm.trial import Trial
    from reconciler.model.check import Check

FOLDER = "/run/reconciler/held"


class Confirm(Enum):
    """Which changed manifests are on trial: none, those with checks, or all."""

    NONE = auto()
    CHECKED = auto()
    ALL = auto()


class RolledBackError(RefusedError):
    """A changed manifest was applied, failed, and was undone; it is held until it is edited."""


class Held(NamedTuple):
    """A manifest that was undone: its hash, why, and what was in force before."""

    digest: str
    reason: str
    before: Sandbox


class _Bake(NamedTuple):
    """A change that has passed these checks, and has to pass them once more. `until`: by `clock`."""

    until: float
    before: Sandbox
    checks: tuple[Check, ...]


class Probation:
    """What is on trial in one sandbox. `bake`: seconds for which a change that has passed its checks is watched.

    `confirm`: which manifests are on trial.
    """

    def __init__(self, sandbox: str, lines: Writer, confirm: Confirm, bake: float) -> None:
        self._sandbox, self._lines, self._confirm, self._bake_time = sandbox, lines, confirm, bake
        self._bake: _Bake | None = None
        self.held = _read(sandbox) if confirm is not Confirm.NONE else None

    @property
    def baked_in(self) -> float | None:
        """Return in how many seconds the checks of a change are made once more; None if none is watched so."""
        return None if self._bake is None else max(0.0, self._bake.until - clock.now())

    def forget(self) -> None:
        """Forget what was held or is watched: the manifest was edited."""
        self._bake = self.held = None
        with suppress(OSError):
            os.unlink(os.path.join(FOLDER, self._sandbox))

    def checks(self, look: Look) -> tuple[Check, ...]:
        """Return the checks to make around what a look changes."""
        if self._confirm is Confirm.NONE:
            return ()
        return tuple(each for each in look.manifest.sandbox.checks if look.cause or each.on_repair)

    def trial(self, look: Look, scribe: Scribe) -> Trial | None:
        """Return the trial of a look; None if it only repairs drift. RolledBackError if its manifest is held."""
        if self.held and self.held.digest == _digest(look.manifest.sandbox):
            raise RolledBackError(self.held.reason)
        if self._confirm is Confirm.NONE or not look.cause:
            return None
        self.forget()
        if self._confirm is Confirm.CHECKED and not look.manifest.sandbox.checks:
            return None
        from reconciler.confirm.trial import Trial

        return Trial(look.policy, 0, look.manifest, scribe, self._lines)

    def passed(self, trial: Trial | None, checks: tuple[Check, ...]) -> None:
        """Watch a change that has passed its checks for the time of `bake`. `checks`: those that have passed."""
        if trial and trial.way_back and self._bake_time:
            self._bake = _Bake(clock.now() + self._bake_time, trial.way_back, checks)

    def failed(self, look: Look, trial: Trial | None, error: ApplyError | VerifyError) -> RolledBackError | None:
        """Hold the manifest of a look whose change has failed and was undone; None if it was not on trial."""
        if trial is None or trial.way_back is None:
            return None
        return self._hold(look.manifest.sandbox, str(error), trial.way_back)

    def finish_bake(self, driver: Driver, look: Look, scribe: Scribe) -> None:
        """Make the checks of a change once more if its time is over. RolledBackError if one fails: it is undone."""
        if self._bake is None or self._bake.until > clock.now():
            return
        from reconciler.checks import make

        bake, self._bake = self._bake, None
        if failed := [each for each in make(driver, bake.checks) if each.reason]:
            repair(driver, bake.before, quick=False, allowance=Allowance(), scribe=scribe)
            raise self._hold(look.manifest.sandbox, f"check {failed[0]}, {self._bake_time:g} s later", bake.before)

    def _hold(self, sandbox: Sandbox, reason: str, before: Sandbox) -> RolledBackError:
        words = f"rolled back: {reason.rstrip('.')}; it is held until its manifest is edited"
        self.held = Held(_digest(sandbox), words, before)
        _write(self._sandbox, self.held)
        return RolledBackError(words)


def _digest(sandbox: Sandbox) -> str:
    return sha256(canonical(write(sandbox)).encode()).hexdigest()


def _write(sandbox: str, held: Held) -> None:
    data: dict[str, Any] = {**held._asdict(), "before": write(held.before)}
    rundir.replace(FOLDER, sandbox, json.dumps(data))


def _read(sandbox: str) -> Held | None:
    """Return what is held of a sandbox. A file that cannot be read counts as none: the manifest is tried once more."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(FOLDER, sandbox), encoding="utf-8") as file:
            data = json.load(file)
        return Held(str(data["digest"]), str(data["reason"]), read_written(data["before"]))
    return None

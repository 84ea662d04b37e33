"""A change on trial: what leads back is recorded before it is made, and it counts only once it is confirmed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import reconciler
from reconciler import pending
from reconciler.confirm.helper import READY
from reconciler.confirm.revert import finish, maker_lock
from reconciler.drivers import Driver
from reconciler.errors import HostError, RefusedError
from reconciler.history.force import effect
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
from reconciler.manifest import allow
from reconciler.manifest.load import Manifest
from reconciler.manifest.sandbox import read_written, write
from reconciler.manifest.sections import SECTIONS
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox
from reconciler.pending import Pending
from reconciler.preview import Preview
from reconciler.rundir import NamedLock
from reconciler.values import replace

# The module whose `main` the helper runs.
_HELPER = "reconciler.confirm.helper"


class Trial:
    """One change on trial. `seconds`: for how long it may be confirmed; 0: it is confirmed by its checks.

    `scribe` records who applies `manifest`, and `lines` is the history.
    """

    def __init__(self, policy: Policy, seconds: float, manifest: Manifest, scribe: Scribe, lines: Writer) -> None:
        self._policy, self._seconds, self._manifest = policy, seconds, manifest
        self._scribe, self._lines = scribe, lines
        self._helper: subprocess.Popen[bytes] | None = None
        self._lock: NamedLock | None = None
        self.pending: Pending | None = None
        # What the sandbox becomes if the change is undone; None if none was begun.
        self.way_back: Sandbox | None = None

    def begin(self, driver: Driver, before: Preview) -> None:
        """Record what leads back, before the change is made. RefusedError if no manifest can express that.

        The sandbox is locked by the caller until `applied` or `fail`.
        """
        back = _way_back(before)
        data = write(back)
        if (read := read_written(data)) != back:
            names = ", ".join(each.name for each in SECTIONS if getattr(back, each.name) != getattr(read, each.name))
            raise RefusedError(
                f"the way back cannot be recorded: no manifest can express all that is in the sandbox now ({names}); "
                "`reconciler show` names it"
            )
        if refused := allow.refusals(back, self._policy):
            raise RefusedError(f"the way back is not allowed: {refused[0].message}")
        policy = {**allow.write(self._policy), "file": self._policy.file}
        occasion = self._scribe.occasion()
        self.pending = Pending(
            sandbox=back.id,
            place=repr(driver.place),
            before=data,
            policy=policy,
            file=occasion.file,
            by=occasion.by,
            effect=effect(self._scribe, self._manifest),
        )
        if pending.read(back.id):
            raise HostError(f"another change of sandbox {back.id} waits to be confirmed")
        self._lock = maker_lock(back.id)
        try:
            self._lock.acquire()
            if self._seconds:
                self._helper = _start_helper(back.id)
            pending.write(self.pending)
            self.way_back = back
        except BaseException:
            self.pending = None
            self._end()
            raise

    def applied(self) -> None:
        """Record that the change was made and verified: from now on, it waits to be confirmed."""
        if self.pending is None:
            return
        if self._seconds:
            self.pending = replace(self.pending, deadline=pending.now() + self._seconds)
            pending.write(self.pending)
        else:
            pending.remove(self.pending.sandbox)
            self.pending = None
        self._end()

    def fail(self, driver: Driver) -> None:
        """Undo the change, which has failed. What was undone already is looked at once more."""
        if self.pending is None:
            return
        self._end_lock()
        try:
            finish(self.pending.sandbox, self._lines, driver)
        finally:
            # If that failed, the helper or the watcher goes on.
            self._end()

    def _end(self) -> None:
        self._end_lock()
        if self._helper and self._helper.stdin:
            self._helper.stdin.close()

    def _end_lock(self) -> None:
        if self._lock:
            self._lock.close()
        self._lock = None


def _way_back(before: Preview) -> Sandbox:
    """Return what the sandbox becomes if the change is undone: what was observed of the sections of its manifest."""
    had = before.observed.as_desired()
    absent: dict[str, Any] = {each.name: None for each in SECTIONS if getattr(before.desired, each.name) is None}
    # Sysctls are set back that change along with others of an interface.
    absent["sysctls"] = tuple(sorted(dict(had.sysctls or ()).items())) or None
    return replace(had, **absent)


def _start_helper(sandbox: str) -> subprocess.Popen[bytes]:
    """Start the helper, and return once both of its processes are ready."""
    path = os.path.dirname(os.path.dirname(reconciler.__file__))
    code = f"import sys; sys.path.insert(0, {path!r}); from {_HELPER} import main; main({sandbox!r})"
    helper = subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    ready = b""
    with helper.stdout or open(os.devnull, "rb") as stream:
        while len(ready) < 2 and (part := stream.read(1)):
            ready += part
    if helper.wait() or ready != 2 * READY:
        raise HostError("the helper that would undo the change could not be started")
    return helper

"""Undo a change that was not confirmed: by its helper, by the watcher, or by the next command, whoever is alive."""

from __future__ import annotations

from contextlib import ExitStack

from reconciler import pending
from reconciler.converge import repair
from reconciler.drivers import Driver, connect
from reconciler.errors import ReconcilerError, SandboxGoneError, VerifyError
from reconciler.history.scribe import Occasion, Scribe
from reconciler.history.writer import Writer
from reconciler.manifest.policy_text import from_data
from reconciler.manifest.sandbox import read_written
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox
from reconciler.pending import Pending
from reconciler.rundir import NamedLock
from reconciler.safety import Allowance
from reconciler.values import replace
from reconciler.wording import failure

# The cause of such a change in the history.
REVERT = "revert"
# Tries after which a sandbox is left as it is, if they fail of what no further try mends.
MOST_TRIES = 5


def finish(sandbox: str, lines: Writer, driver: Driver | None = None) -> bool:
    """Undo the change of a sandbox if that is due, and return whether nothing is left to do.

    False if another process is about to undo it, if whoever makes the change is still at it, or if the undo failed:
    then it has to be tried again. `driver`: the open sandbox, if the caller has it.
    """
    lock = NamedLock(f"confirm {sandbox}")
    try:
        if not lock.acquire():
            return False
        found = pending.read(sandbox)
        if found is None:
            return True
        if not found.is_due or (not found.deadline and not found.is_reverting and _is_being_made(sandbox)):
            return False
        return _finish(found, lines, driver)
    finally:
        lock.close()


def maker_lock(sandbox: str) -> NamedLock:
    """Return the lock that whoever makes a change has until it waits."""
    return NamedLock(f"trial {sandbox}")


def _is_being_made(sandbox: str) -> bool:
    maker = maker_lock(sandbox)
    try:
        return not maker.acquire()
    finally:
        maker.close()


def _finish(found: Pending, lines: Writer, driver: Driver | None) -> bool:
    before = read_written(found.before)
    if before.ipvs:
        # Servers that were added by the change have no connections that are worth waiting for.
        before = replace(before, ipvs=replace(before.ipvs, drain=0))
    scribe = Scribe(lines, found.sandbox, str(before.driver), lambda: Occasion(REVERT, found.by, found.file))
    try:
        with ExitStack() as stack:
            stack.enter_context(pending.undoing())
            place = Sandbox(id=before.id, driver=before.driver)
            opened = driver or stack.enter_context(connect(place, _policy(found)))
            _check_place(opened, found)
            # Whoever makes the change has this lock until it waits to be confirmed.
            with opened.lock():
                claimed = pending.claim(pending.read(found.sandbox) or found)
            if claimed is None:
                return True
            result = repair(opened, before, quick=False, allowance=Allowance(), scribe=scribe)
            if result.failure:
                raise result.failure.error
    except SandboxGoneError as error:
        # What the kernel had went with it.
        scribe.tell("not reverted", reason=str(error), file=found.file, by=found.by)
        pending.remove(found.sandbox)
        return True
    except (ReconcilerError, OSError) as error:
        return _failed(found, error, scribe)
    reason = "not confirmed in time" if found.deadline else "the change failed, or whoever made it was killed"
    scribe.tell("reverted", reason=reason, file=found.file, by=found.by)
    pending.remove(found.sandbox)
    return True


def _check_place(driver: Driver, found: Pending) -> None:
    if repr(driver.place) != found.place:
        raise SandboxGoneError(f"{found.sandbox} is another sandbox now, of the same name")


def _failed(found: Pending, error: Exception, scribe: Scribe) -> bool:
    """Record that an undo has failed. Return whether it is given up."""
    now = pending.read(found.sandbox)
    if now is None or not now.is_reverting:
        # It is not claimed: another run has the sandbox.
        return now is None
    reason = failure(error) if isinstance(error, OSError) else str(error)
    passing = isinstance(error, ReconcilerError) and error.retry and not isinstance(error, VerifyError)
    tries = now.tries + (not passing)
    if tries >= MOST_TRIES:
        scribe.tell("not reverted", reason=reason, file=found.file, by=found.by)
        pending.remove(found.sandbox)
        return True
    pending.write(replace(now, problem=reason, tries=tries))
    return False


def _policy(found: Pending) -> Policy:
    return from_data(found.policy, Policy(file=str(found.policy["file"])))

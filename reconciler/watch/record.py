"""Records the result of each look at a sandbox: in its status, and in the log and the history if it is news."""

from __future__ import annotations

import logging
import time

from reconciler.converge import Failure, Result
from reconciler.errors import ApplyError, BusyError, ReconcilerError, RefusedError, SandboxGoneError
from reconciler.history.lines import line
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
from reconciler.manifest.load import Manifest
from reconciler.operations import Operation
from reconciler.pending import Pending
from reconciler.preview import Preview
from reconciler.remaining import remaining
from reconciler.watch import clock, log, outstanding
from reconciler.watch.look import WATCH
from reconciler.watch.pause import Pause
from reconciler.watch.revision import Revision
from reconciler.watch.share import LogShare, objects_of
from reconciler.watch.state import SandboxState, SandboxStatus
from reconciler.watch.traffic import Traffic
from reconciler.wording import plural

# The most operations that one log line names.
_NAMED = 3
# Seconds between two log lines about flushes: a machine may report as many as it likes.
_FLUSH_INTERVAL = 1.0


class LookRecorder:
    """Writes the status of one sandbox and its log events, and its states to the history.

    `cause` is why a manifest is new to the sandbox: the "start" of the watcher, or an edit of the "manifest". It is
    empty if the manifest was in force before; then every difference is drift.
    """

    def __init__(self, manifest: Manifest, revision: Revision, scribe: Scribe) -> None:
        self.status = SandboxStatus(manifest.sandbox.id, str(manifest.sandbox.driver), manifest.file, revision)
        self._log, self._scribe = LogShare(manifest.sandbox.id), scribe
        # The last state that the history has. That a watch begins well is no news, except after a run that was killed.
        self._told = SandboxState.NEW
        self._last_flush = 0.0
        # How many services nftables protects, or why none.
        self._shielded: tuple[int, str] | None = None
        # What failed at its last try and is tried again.
        self._failing: Failure | None = None
        # The plan of the present look, until it has a result.
        self._planned: tuple[Operation, ...] | None = None

    def set_manifest(self, manifest: Manifest, revision: Revision) -> None:
        """Record which manifest the looks go by now, and its revision."""
        self.status.driver, self.status.file = (str(manifest.sandbox.driver), manifest.file)
        self.status.revision = revision

    def begin_manifest(self, manifest: Manifest) -> None:
        """Record that the watch begins, or that the operator has edited the manifest: its log begins anew."""
        self._log.fill(objects_of(manifest.sandbox))

    def begin_look(self) -> None:
        """Forget the plan of the look before."""
        self._planned = None
        self.status.confirm_by = 0.0

    def record_rollback(self, manifest: Manifest, error: ReconcilerError) -> None:
        """Record that a changed manifest failed on trial and was undone."""
        self._log.emit("rolled back", level=logging.ERROR, reason=str(error), file=manifest.file)
        self._scribe.tell("rolled back", reason=str(error), file=manifest.file)

    def note(self, words: str) -> None:
        """Log what a check has found."""
        self._log.emit("check", level=logging.WARNING, reason=words)

    def record_plan(self, found: Preview) -> None:
        """Record what the present look is about to do, in case that it is refused or fails."""
        self._planned = found.plan.operations

    def record_pause(self, manifest: Manifest, pause: Pause | None, waiting: Pending | None) -> None:
        """Record that the sandbox is left alone: by its manifest, by `reconciler pause`, or until it is confirmed."""
        self.status.confirm_by = waiting.deadline if waiting else 0.0
        reason = manifest.sandbox.paused or (pause.reason if pause else waiting.words if waiting else "")
        self.status.outstanding = None
        until = f", until {time.strftime('%H:%M:%S', time.localtime(pause.until))}" if pause else ""
        if self.status.set_state(SandboxState.PAUSED, f"{reason}{until}"):
            self._log.emit("paused", reason=reason)
            # `reconciler pause` has recorded its pause, and who made it.
            self._tell(SandboxState.PAUSED, reason, file=manifest.file, known=not manifest.sandbox.paused)

    def record_repair(
        self, manifest: Manifest, result: Result, cause: str, fights: list[tuple[str, int]], retry: float | None
    ) -> None:
        """Record what was done to the sandbox. `fights`: command → how often it was repaired, for each fight.

        `retry`: in how many seconds an object is tried again that could not be changed; None if there is none.
        """
        if result.operations:
            self._log_operations(result, cause)
        self.status.outstanding = outstanding.of_repair(self._planned or (), result, clock.now())
        self._planned = None
        self.status.fights = tuple(command for command, _ in fights)
        failing = result.failure or (self._failing if retry is not None else None)
        if failing:
            self._record_failing(manifest, failing, retry or 0.0)
            return
        self._failing = None
        if fights:
            self._record_fights(fights)
        elif result.postponed:
            count = f"{len(result.postponed):,} {plural('operation', len(result.postponed))}"
            reason = f"{count} postponed: another program just reverted the same change"
            self.status.set_state(SandboxState.DRIFTED, f"{reason}. First: {result.postponed[0].command}")
        elif result.draining:
            self._record_draining(result.draining)
        else:
            detail = self.status.detail if self.status.state is SandboxState.CONVERGED else ""
            if result.operations and not cause:
                count = f"{len(result.operations):,} {plural('operation', len(result.operations))}"
                detail = f"drift repaired at {time.strftime('%H:%M:%S')}: {count} in {result.seconds:.1f} s"
            self._record_converged(detail)

    def _record_failing(self, manifest: Manifest, failure: Failure, retry: float) -> None:
        """Record what could not be changed at its last try; log it once, although it is tried again."""
        if self._failing and failure.subjects == self._failing.subjects:
            self.status.set_state(_state(self._failing.error), str(self._failing.error))
            return
        self._failing = failure
        self._record_error(manifest, failure.error, retry)

    def _log_operations(self, result: Result, cause: str) -> None:
        status, count = self.status, len(result.operations)
        if not cause:
            status.drifts.append(clock.now())
            status.repairs += count
        self._log.emit(
            "applied" if cause else "repaired",
            cause=cause or "drift",
            operations=count,
            seconds=result.seconds,
            revision=status.revision.commit,
            blob=status.revision.blob,
            file=status.file,
            first="; ".join(each.command for each in result.operations[:_NAMED]),
        )
        self._log.emit_operations(result.operations, counted=not cause)

    def _record_fights(self, fights: list[tuple[str, int]]) -> None:
        command, repairs = max(fights, key=lambda each: each[1])
        more = f" (and {len(fights) - 1} more)" if len(fights) > 1 else ""
        detail = f"another program keeps reverting a repair, made {repairs} times so far: {command}{more}"
        if self.status.set_state(SandboxState.FIGHTING, detail):
            self._log.emit("fight", level=logging.WARNING, repairs=repairs, command=command)
            self._tell(SandboxState.FIGHTING, detail)

    def _record_draining(self, count: int) -> None:
        servers = f"{count:,} IPVS {plural('server', count)}"
        self.status.set_state(SandboxState.DRAINING, f"waiting for {servers} to drain")

    def _record_converged(self, detail: str) -> None:
        status = self.status
        if status.set_state(SandboxState.CONVERGED, detail):
            revision = status.revision
            self._log.emit(
                "converged",
                revision=revision.commit,
                blob=revision.blob,
                file=status.file,
            )
            self._tell(SandboxState.CONVERGED, file=status.file, revision=revision.commit, blob=revision.blob)

    def _tell(self, state: SandboxState, reason: str = "", *, known: bool = False, **fields: object) -> None:
        """Record a state in the history. `known`: it is there already."""
        before, self._told = self._told, state
        if state is SandboxState.CONVERGED and before is SandboxState.NEW:
            self._scribe.settle()
        elif not known and (state is not SandboxState.CONVERGED or before is not SandboxState.CONVERGED):
            self._scribe.tell(state.value, reason=reason, **fields)

    def record_comparison(self, found: Preview) -> None:
        """Record what differs from the manifest, without a repair: `--mode report`."""
        status, operations = self.status, found.plan.operations
        differences = () if operations else remaining(found.desired, found.observed)
        status.outstanding = outstanding.of_comparison(found, differences, clock.now())
        if operations:
            count = f"{len(operations):,} {plural('operation', len(operations))}"
            detail = f"{count} needed, not done (--mode report). First: {operations[0].command}"
        elif differences:
            # An empty plan is no proof: it leaves out what it has no operation for.
            count = f"{len(differences):,} {plural('difference', len(differences))}"
            detail = f"{count} that no operation removes. First: {differences[0].words}"
        elif found.plan.draining:
            self._record_draining(found.plan.draining)
            return
        else:
            self._record_converged("")
            return
        before = status.detail
        if status.set_state(SandboxState.DRIFTED, detail) or detail != before:
            status.drifts.append(clock.now())
            self._log.emit("drift", level=logging.WARNING, file=status.file, detail=detail)
            self._tell(SandboxState.DRIFTED, detail, file=status.file)

    def record_failure(self, manifest: Manifest, error: Exception, retry: float) -> None:
        """Record that a look failed; the next try is in `retry` seconds. What differs is known of a refused plan."""
        known = self._planned if isinstance(error, RefusedError) else None
        self.status.outstanding = outstanding.of_plan(known, clock.now()) if known else None
        self._planned = None
        self._record_error(manifest, error, retry)

    def _record_error(self, manifest: Manifest, error: Exception, retry: float) -> None:
        state = _state(error)
        if isinstance(error, SandboxGoneError):
            # Nothing drains any more.
            self.status.traffic = Traffic()
        reason, before = str(error) or type(error).__name__, self.status.detail
        if self.status.set_state(state, reason) or reason != before:
            path = error.path if isinstance(error, ReconcilerError) else ()
            where = manifest.where(path) if path else manifest.file
            level = logging.INFO if state is SandboxState.WAITING else logging.ERROR
            self._log.emit(state.value, level=level, reason=reason, retry=retry, file=where)
            # What failed of a change is in its record. Another run that has the sandbox records what it does itself.
            self._tell(state, reason, file=where, known=isinstance(error, ApplyError | BusyError))

    def record_flush(self, services: int) -> None:
        """Record that the guard of a machine has found so many services gone."""
        self.status.flushes += 1
        if time.monotonic() - self._last_flush > _FLUSH_INTERVAL:
            self._last_flush = time.monotonic()
            self._log.emit("flush", level=logging.WARNING, guarded=services)
            self._scribe.tell("flush", guarded=services)

    def record_shield(self, services: int, reason: str = "", *, wanted: bool = False) -> None:
        """Record how many services nftables protects from the machine's own TCP, or why none.

        `wanted`: the manifest asks for it.
        """
        if self._shielded != (services, reason):
            self._shielded = (services, reason)
            level = logging.WARNING if wanted and reason else logging.INFO
            self._log.emit("shield", level=level, services=services, **({"reason": reason} if reason else {}))


def record_unstarted(manifest: Manifest, reason: str, history: Writer) -> None:
    """Record that a sandbox cannot be watched."""
    name = manifest.sandbox.id
    log.emit("failed", level=log.ERROR, sandbox=name, reason=reason, file=manifest.file)
    history.write(name, line(name, "failed", by=WATCH, reason=reason, file=manifest.file))


def record_not_pruned(manifest: Manifest, reason: str, history: Writer) -> None:
    """Record that nothing was removed from a sandbox whose manifest was deleted."""
    name = manifest.sandbox.id
    log.emit("not pruned", level=log.ERROR, sandbox=name, reason=reason)
    history.write(name, line(name, "not pruned", by=WATCH, reason=reason))


def _state(error: Exception) -> SandboxState:
    if isinstance(error, (SandboxGoneError, BusyError)):
        return SandboxState.WAITING
    return SandboxState.REFUSED if isinstance(error, RefusedError) else SandboxState.FAILED

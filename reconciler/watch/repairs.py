"""What a look does to one sandbox: compare it with its manifest, repair what differs, and remember what has to wait."""

from __future__ import annotations

from reconciler.converge import Result, repair
from reconciler.drivers import Driver
from reconciler.errors import ApplyError, HostError, RefusedError, VerifyError
from reconciler.history.force import take_effect
from reconciler.history.scribe import Scribe
from reconciler.manifest.allow import check, refusals
from reconciler.model.sandbox import Sandbox
from reconciler.operations import Operation
from reconciler.preview import Preview, preview
from reconciler.watch.failures import Failures
from reconciler.watch.fights import Fights
from reconciler.watch.look import Look, drift
from reconciler.watch.meter import Meter
from reconciler.watch.probation import Probation
from reconciler.watch.record import LookRecorder


class Repairs:
    """The repairs of one sandbox, for the thread that looks at it.

    `host_lacks`: whether the last look failed because the host lacks something, such as a device. `found_nothing`:
    whether it found the sandbox as its manifest says. `changed`: whether it changed the sandbox.
    """

    def __init__(
        self, recorder: LookRecorder, scribe: Scribe, meter: Meter, probation: Probation, *, change: bool
    ) -> None:
        """Begin without anything that waits. `change`: whether to repair, or only to report."""
        self._recorder, self._scribe, self._meter, self._probation = recorder, scribe, meter, probation
        self._change = change
        self._fights, self._failures = Fights(), Failures()
        # The desired sandbox of the last repair that succeeded.
        self._applied: Sandbox | None = None
        self.host_lacks = self.found_nothing = self.changed = False

    def postpone_nothing(self) -> None:
        """Forget fights and failures: a person asks for a look. For any thread."""
        self._fights, self._failures = Fights(), Failures()

    def begin_manifest(self) -> None:
        """Forget them: the manifest was edited."""
        self._fights.reset()
        self._failures.reset()

    def next_due(self) -> list[float]:
        """Return in how many seconds something that was postponed is tried again."""
        return [due for each in (self._fights, self._failures) if (due := each.next_due()) is not None]

    def record_failure(self, error: Exception) -> None:
        """Record that a look has failed.

        With a HostError, nothing was changed. Other failures do not count: if a change was undone, a device may have
        moved to the sandbox and back, and that event would cause the next try at once, for ever.
        """
        self.host_lacks, self.found_nothing = isinstance(error, HostError), False

    def compare(self, driver: Driver, look: Look) -> bool:
        """Compare the sandbox with its manifest, and repair it. Return whether no operation failed."""
        self.host_lacks = self.found_nothing = self.changed = False
        if self._change:
            return self._repair(driver, look)
        check(look.manifest.sandbox, look.policy)
        found = preview(driver, look.manifest.sandbox, quick=not look.full)
        self._note(found)
        self._recorder.record_comparison(found)
        return True

    def _note(self, found: Preview) -> None:
        """Record what a look has found, before it changes anything."""
        self._recorder.record_plan(found)
        self.found_nothing = not found.plan.segments
        status = self._recorder.status
        status.traffic = status.traffic.seen(found.desired, found)

    def _repair(self, driver: Driver, look: Look) -> bool:
        """Apply the manifest of a look, and return whether no operation failed.

        RefusedError if it is refused; then drift from the manifest applied before is repaired, if that one is allowed.
        """
        manifest, cause = look.manifest, look.cause
        self._scribe.driver, self._scribe.occasion = str(manifest.sandbox.driver), look.occasion
        try:
            check(manifest.sandbox, look.policy)
            self._probation.finish_bake(driver, look, self._scribe)
            result = self._apply(driver, look)
        except RefusedError:
            self._repair_as_before(driver, look)
            raise
        self.changed = bool(result.operations)
        if not cause:
            self._fights.record(result.operations)
        self._failures.record(result.failure.subjects if result.failure else (), result.postponed)
        if cause and not result.failure:
            # Before the status says so: whoever waits for that finds it in the history.
            take_effect(self._scribe, manifest)
        self._recorder.record_repair(manifest, result, cause, self._fights.current(), self._failures.next_due())
        self._meter.record_repair(look, result)
        self.host_lacks = result.failure is not None and isinstance(result.failure.error, HostError)
        if result.failure:
            return False
        self._applied = manifest.sandbox
        return True

    def _apply(self, driver: Driver, look: Look) -> Result:
        """Apply the manifest of a look, or repair drift from it. RolledBackError if it failed on trial."""
        trial = self._probation.trial(look, self._scribe)
        try:
            result = repair(
                driver,
                look.manifest.sandbox,
                quick=not look.full,
                accept=self._note,
                postpones=self._postpones,
                scribe=self._scribe,
                checks=self._probation.checks(look),
                tell=self._recorder.note,
                trial=trial,
            )
        except (ApplyError, VerifyError) as error:
            held = self._probation.failed(look, trial, error)
            if held is None:
                raise
            self._recorder.record_rollback(look.manifest, held)
            raise held from error
        self._probation.passed(trial, result.passed)
        return result

    def _repair_as_before(self, driver: Driver, look: Look) -> None:
        """Repair drift from the manifest that was applied before the one of a look, if that is allowed."""
        desired = look.manifest.sandbox
        if self._probation.held and self._applied in {None, desired}:
            self._applied = self._probation.held.before
        same = self._applied and self._applied.driver == desired.driver
        if self._applied and same and not refusals(self._applied, look.policy):
            self._scribe.occasion = drift
            quick = not look.full
            before = repair(driver, self._applied, quick=quick, postpones=self._postpones, scribe=self._scribe)
            self._fights.record(before.operations)
            self._meter.record_repair(look._replace(cause=""), before)

    def _postpones(self, operation: Operation) -> bool:
        return self._fights.postpones(operation) or self._failures.postpones(operation)

"""After a failure: what can be kept is kept, the rest is undone, and both are proven by looking again.

An undo is a plan back to what was observed before. That observation rests on marks and records. So the proof is another
reading: everything that the kernel reports of the sandbox and of the devices, whoever made it, before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from reconciler.drivers import Driver
from reconciler.errors import ReconcilerError
from reconciler.model.fact import Deviation, deviations
from reconciler.model.identity import HostDevice, Nic, NicAddress, Subject
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import turn
from reconciler.netlink.execute import DAD_TIMEOUT
from reconciler.operations import Operation
from reconciler.operations.interface import AttachInterface, DetachInterface, RenameInterface
from reconciler.operations.outcome import Outcome, Status, is_independent
from reconciler.operations.route import RouteOperation
from reconciler.operations.segment import Segment, Table, flat, without
from reconciler.plan.hold import hold
from reconciler.preview import Adoption, Preview, compare, preview
from reconciler.remaining import remaining
from reconciler.values import NamedTuple, dataclass, replace

if TYPE_CHECKING:
    from reconciler.netlink.facts import Snapshot

# Seconds in which the kernel restores by itself what came back with a link, such as its link-local address.
_SETTLE_TIMEOUT = 2.0
_POLL = 0.05


class Proof:
    """What the kernel reported before a plan, to compare with what it reports after an undo."""

    def __init__(self, driver: Driver, segments: Sequence[Segment]) -> None:
        """Read everything, unless the plan changes nothing but an IPVS table."""
        self._driver = driver
        # A plan may have thousands of routes, and none is a device of the host.
        others = (each for each in flat(segments) if not isinstance(each, RouteOperation))
        self._devices = {each.name for each in chain(*map(about, others)) if isinstance(each, HostDevice)}
        self._before: Snapshot | None = None
        if not all(isinstance(segment, Table) for segment in segments):
            self._before = driver.snapshot(self._devices)

    def deviations(self, subjects: Collection[Subject] | None = None) -> list[Deviation]:
        """Return what is not as it was: of these objects, or of all."""
        if self._before is None:
            return []
        before = self._before.facts()
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while True:
            found = deviations(before, self._driver.snapshot(self._devices).facts())
            if subjects is not None:
                found = [each for each in found if each.subject in subjects]
            if not found or time.monotonic() > deadline:
                return found
            turn.sleep(_POLL)


class Fates(NamedTuple):
    """What became of the operations of a plan in which some failed.

    `left`: how many operations would be needed now; None if no plan is possible. `deviations`: what is not as it was
    before, of the objects that were undone or could not be changed. `unknown`: why the sandbox could not be read any
    more, after `done` operations; then the others are empty.
    """

    failed: tuple[Outcome, ...]
    kept: tuple[Operation, ...] = ()
    undone: tuple[Operation, ...] = ()
    not_tried: tuple[Operation, ...] = ()
    left: int | None = None
    deviations: tuple[Deviation, ...] = ()
    unknown: str = ""
    done: int = 0

    @property
    def are_good(self) -> bool:
        """Return whether nothing is left to do: to some operations there was no answer, and all were carried out."""
        return self.left == 0 and all(each.status is Status.UNKNOWN for each in self.failed)


def execute(
    driver: Driver, segments: Sequence[Segment], progress: Callable[[int, int], None] = lambda *_: None
) -> list[Outcome]:
    """Execute until the first failure. If the driver itself fails, one operation without an outcome is unknown."""
    outcomes: list[Outcome] = []
    operations = flat(segments)
    try:
        for batch in driver.execute(segments):
            outcomes += batch
            progress(len(outcomes), len(operations))
    except ReconcilerError as error:
        # The driver may change the order of added servers, so any operation without an outcome may be the current one.
        begun = set(map(id, (outcome.operation for outcome in outcomes)))
        unknown = next(operation for operation in operations if id(operation) not in begun)
        outcomes.append(Outcome(unknown, Status.UNKNOWN, str(error)))
    return outcomes


def undo(driver: Driver, before: Preview, proof: Proof) -> str:
    """Restore what was observed before, by the same diff and plan. Return "", or why the sandbox is not as it was."""
    had = before.observed.as_desired()
    if had.ipvs:
        # Servers that were added a moment ago have no connections that are worth waiting for.
        had = replace(had, ipvs=replace(had.ipvs, drain=0))
    try:
        if reason := _give_back(driver, before):
            return reason
        execute(driver, preview(driver, had).plan.segments)
        found = preview(driver, had)
        if left := found.plan.operations:
            return f"{len(left)} left to undo, the first: {left[0].command}"
        differences = [each.words for each in remaining(had, found.observed)]
        differences = differences or [each.words for each in proof.deviations()]
    except ReconcilerError as error:
        return str(error)
    if not differences:
        return ""
    return f"{len(differences):,} {'differs' if len(differences) == 1 else 'differ'}, the first: {differences[0]}"


def _give_back(driver: Driver, before: Preview) -> str:
    """Leave adopted NICs to their owner again. Return "", or why they are still recorded as ours."""
    if not before.observed.around.unrecorded:
        return ""
    # Few commands adopt.
    from reconciler.plan.adoption import taken_back

    outcomes = execute(driver, taken_back(before.plan.operations))
    failed = [each for each in outcomes if each.status is not Status.DONE]
    return f"{failed[0].operation.command}: {failed[0].reason}" if failed else ""


@dataclass(slots=True)
class _Recovery:
    """A recovery in progress: all outcomes so far, and the objects that cannot be changed."""

    before: Preview
    outcomes: list[Outcome]
    held: set[Subject]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Add outcomes: objects whose operations failed are stuck."""
        self.outcomes += outcomes
        self.held |= {each for outcome in outcomes if _is_failure(outcome) for each in stuck(outcome.operation)}

    def segments(self, found: Preview) -> tuple[Segment, ...]:
        """Return what is still to be tried of a plan. What failed once would also fail to restore an object."""
        return without(found.plan.segments, {outcome.operation for outcome in self.outcomes if _is_failure(outcome)})

    @property
    def possible(self) -> Sandbox:
        """Return what the sandbox can become now."""
        return hold(self.before.desired, self.before.observed.sandbox, self.held)

    @property
    def target(self) -> Sandbox:
        """Return what is still worth a try. A table is not tried twice: its rules do not depend on each other."""
        begun = any(is_independent(outcome.operation) for outcome in self.outcomes)
        return replace(self.possible, ipvs=None) if begun else self.possible


def recover(
    driver: Driver,
    before: Preview,
    outcomes: Sequence[Outcome],
    proof: Proof,
    *,
    held: Collection[Subject] = (),
    adopt: Adoption = False,
) -> Fates:
    """Keep and finish what does not depend on a failed operation, undo the rest, and look what became of each.

    `before`: the preview whose plan was executed with these `outcomes`. `held`: objects that must not be changed now.
    """
    recovery = _Recovery(before, [], set(held))
    recovery.add(outcomes)
    try:
        tried: set[tuple[Operation, ...]] = {()}
        while flat(segments := recovery.segments(preview(driver, recovery.target, adopt=adopt))) not in tried:
            tried.add(flat(segments))
            recovery.add(execute(driver, segments))
        fates = _fates(recovery, _unfinished(settled(driver, recovery.target, adopt=adopt)), proof)
    except ReconcilerError as error:
        done = sum(not _is_failure(outcome) for outcome in recovery.outcomes)
        return Fates(_failures(recovery.outcomes), unknown=str(error), done=done)
    # The device of a NIC may have disappeared, for example.
    with suppress(ReconcilerError):
        fates = fates._replace(left=len(preview(driver, before.desired, adopt=adopt).plan.operations))
    return fates


def settled(driver: Driver, desired: Sandbox, *, adopt: Adoption) -> Preview:
    """Look until duplicate address detection has ended, but no longer than DAD_TIMEOUT; return the last look.

    A quick look is enough: the kernel has acknowledged every operation.
    """
    deadline = time.monotonic() + DAD_TIMEOUT
    while True:
        found = preview(driver, desired, adopt=adopt, quick=True)
        around = found.observed.around
        if not around.tentative or around.dad_failed or time.monotonic() > deadline:
            return found
        turn.sleep(_POLL)


def _unfinished(found: Preview) -> set[Subject]:
    """Return the objects that are not as they should be, by a look."""
    around = found.observed.around
    unfinished: set[Subject] = {NicAddress(*each) for each in around.tentative | around.dad_failed}
    unfinished |= {each for operation in found.plan.operations for each in about(operation)}
    return unfinished | {each for difference in remaining(found.desired, found.observed) for each in difference.about}


def _fates(recovery: _Recovery, unfinished: Collection[Subject], proof: Proof) -> Fates:
    """Sort the operations of the plan: those that lead to what is possible were kept, unless a look shows otherwise.

    `unfinished`: objects that are not as they should be.
    """
    before, failed = recovery.before, _failures(recovery.outcomes)
    others = [each for each in before.plan.operations if each not in {outcome.operation for outcome in failed}]
    done = {outcome.operation for outcome in recovery.outcomes if outcome.status is Status.DONE}
    planned = set(compare(recovery.possible, before.observed).plan.operations)

    def is_kept(operation: Operation) -> bool:
        if is_independent(operation):
            return operation in done
        return operation in planned and about(operation).isdisjoint(unfinished)

    kept = tuple(filter(is_kept, others))
    not_kept = [each for each in others if not is_kept(each)]
    changed = {each for operation in kept for each in about(operation)}
    not_changed = (*not_kept, *(outcome.operation for outcome in failed))
    as_before = {each for operation in not_changed for each in about(operation)} - changed
    if any(isinstance(operation, RenameInterface) for operation in kept):
        # What is on a NIC has its name, and is not the same under another one.
        as_before = {each for each in as_before if isinstance(each, Nic | HostDevice)}
    return Fates(
        failed=failed,
        kept=kept,
        undone=tuple(each for each in not_kept if each in done),
        not_tried=tuple(each for each in not_kept if each not in done),
        deviations=tuple(proof.deviations(as_before)),
    )


def _failures(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the last failure of each operation, in the order of the first."""
    found = {outcome.operation: outcome for outcome in outcomes if _is_failure(outcome)}
    return tuple(found.values())


def _is_failure(outcome: Outcome) -> bool:
    return outcome.status is not Status.DONE


def stuck(operation: Operation) -> set[Subject]:
    """Return the objects that cannot be changed because an operation failed."""
    return {operation.subject, *((Nic(operation.name),) if isinstance(operation, RenameInterface) else ())}


def about(operation: Operation) -> set[Subject]:
    """Return the object of an operation by all names: a NIC is also a device of the host."""
    found = {operation.subject}
    if isinstance(operation, AttachInterface):
        found |= {HostDevice(operation.host_name), HostDevice(operation.origin.device)}
    elif isinstance(operation, DetachInterface):
        found.add(HostDevice(operation.origin.device))
    elif isinstance(operation.subject, HostDevice) or isinstance(operation, RenameInterface):
        found |= operation.provides
    return found

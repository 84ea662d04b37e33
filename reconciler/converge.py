"""Execute a plan and verify it. Only this module and `recover`, which it calls after a failure, change sandboxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from reconciler.drivers import Driver
from reconciler.errors import ApplyError, HostError, ReconcilerError, RefusedError, VerifyError
from reconciler.failure import check_error, kept_error, undone_error
from reconciler.history.scribe import FAILED, PARTLY, SILENT, UNDONE, Change, Scribe
from reconciler.model.identity import Subject
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink.execute import DAD_TIMEOUT
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.segment import Segment, flat, without
from reconciler.plan import Plan
from reconciler.plan.hold import hold
from reconciler.preview import Adoption, Preview, compare, preview
from reconciler.recover import Fates, Proof, about, execute, recover, settled, stuck, undo
from reconciler.remaining import remaining
from reconciler.safety import Allowance, check_deletions
from reconciler.trial import Trial, checks_around, on_trial

if TYPE_CHECKING:
    from reconciler.checks import Around
    from reconciler.model.check import Check

# Seconds between two looks at servers that drain.
_DRAIN_POLL = 0.5
# A message names at most this many differences.
_SHOWN = 5
# Plans that are made for one change, as long as another program is quicker than each of them.
_PLANS = 3


class _Failed(NamedTuple):
    """What became of each operation after a failure, in values and in words.

    `is_overtaken`: nothing was done, as another program has changed the sandbox since it was observed: a new plan may
    be carried out.
    """

    fates: Fates
    error: ApplyError
    is_overtaken: bool = False


class Failure(NamedTuple):
    """The objects that a repair could not change, and the error that says so."""

    subjects: frozenset[Subject]
    error: ReconcilerError


class Result(NamedTuple):
    """What an apply or a repair did: the operations, and how many seconds they took, including the verification.

    `postponed`: operations that were not executed. `draining`: how many servers still drain. `failure`: of a repair
    that could not change some objects; then `operations` are those that were kept. `passed`: checks that have passed.
    `around`: what surrounded the sandbox when it was verified, after an apply.
    """

    operations: tuple[Operation, ...]
    seconds: float
    postponed: tuple[Operation, ...] = ()
    draining: int = 0
    failure: Failure | None = None
    passed: tuple[Check, ...] = ()
    around: Surroundings | None = None


def apply(
    driver: Driver,
    desired: Sandbox,
    *,
    allowance: Allowance | None = None,
    accept: Callable[[Preview], None] = lambda _: None,
    adopt: Adoption = False,
    all_or_nothing: bool = False,
    waiting: Callable[[int], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    scribe: Scribe = SILENT,
    tell: Callable[[str], None] = lambda _: None,
    trial: Trial | None = None,
) -> Result:
    """Make a sandbox equal to its manifest, verify that, and wait for servers that drain.

    The checks of the manifest are made before and after that; one that begins to fail undoes it (CheckError). `tell`
    gets lines about them. With a `trial`, the change has to be confirmed; then nothing waits for servers that drain.

    If an operation fails, what depends on it is undone or not begun, and all others are kept. With `all_or_nothing`,
    everything is undone. `accept` is called with the preview under the lock, and raises an error to stop. `adopt`:
    foreign IPVS services count as ours. `waiting` is called with the number of servers that still drain, `progress`
    with the number of operations that are done and of all. `scribe` records what is done.

    Raises RefusedError before anything is touched, ApplyError after a failed operation, VerifyError if the sandbox
    still differs.
    """
    with driver.lock():
        begin = time.monotonic()
        for _ in range(_PLANS):
            before = preview(driver, desired, adopt=adopt)
            accept(before)
            check_deletions(before.plan, allowance)
            around = checks_around(driver, desired.checks if before.plan.operations else (), tell)
            with on_trial(trial, driver, before), scribe.change(before.plan.operations) as change:
                ended = _carry_out(
                    driver,
                    before,
                    before.plan.segments,
                    change,
                    progress,
                    adopt=adopt,
                    all_or_nothing=all_or_nothing or trial is not None,
                    checks=around,
                    repeats=True,
                )
            if not (isinstance(ended, _Failed) and ended.is_overtaken):
                break
        if isinstance(ended, _Failed):
            raise ended.error
        operations = before.plan.operations
        if trial is None:
            operations += _await_drained(driver, desired, before.plan, waiting, scribe, adopt=adopt)
        return Result(operations=operations, seconds=time.monotonic() - begin, around=ended)


def repair(
    driver: Driver,
    desired: Sandbox,
    *,
    quick: bool,
    allowance: Allowance | None = None,
    accept: Callable[[Preview], None] = lambda _: None,
    postpones: Callable[[Operation], bool] = lambda _: False,
    scribe: Scribe = SILENT,
    checks: Sequence[Check] = (),
    tell: Callable[[str], None] = lambda _: None,
    trial: Trial | None = None,
) -> Result:
    """Make a sandbox equal to its manifest without waiting for anything, for a watcher that soon looks again.

    `quick`: see `Driver.observe`. `postpones` returns whether an operation must not be executed now. A failure is
    returned in the result. `checks`: those to make around it. The rest is as in `apply`.
    """
    with driver.lock():
        begin = time.monotonic()
        for _ in range(_PLANS):
            before, failure = _possible(desired, driver.observe(desired, quick=quick))
            accept(before)
            check_deletions(before.plan, allowance)
            postponed = _postpone(before, postpones)
            excused = postponed.subjects | (failure.subjects if failure else frozenset())
            operations = flat(postponed.segments)
            drained = all(_ends_drain(each, desired) for each in operations)
            around = checks_around(driver, checks if operations and not drained else (), tell)
            with (
                on_trial(trial if operations else None, driver, before),
                scribe.change(operations, drained=drained) as change,
            ):
                ended = _carry_out(
                    driver,
                    postponed.possible,
                    postponed.segments,
                    change,
                    all_or_nothing=trial is not None,
                    excused=excused,
                    checks=around,
                )
            if not (isinstance(ended, _Failed) and ended.is_overtaken):
                break
        if isinstance(ended, _Failed):
            operations = ended.fates.kept
            subjects = frozenset(each for outcome in ended.fates.failed for each in stuck(outcome.operation))
            failure = Failure(subjects | (failure.subjects if failure else frozenset()), ended.error)
        passed = around.passed if around else ()
        return Result(operations, time.monotonic() - begin, postponed.operations, before.plan.draining, failure, passed)


def _possible(desired: Sandbox, observed: Observed) -> tuple[Preview, Failure | None]:
    """Plan for a sandbox as it was observed. If single objects cannot be changed, plan for the others (`plan.hold`)."""
    subjects: set[Subject] = set()
    failure: Failure | None = None
    while True:
        target = hold(desired, observed.sandbox, subjects) if subjects else desired
        try:
            return compare(target, observed), failure
        except (HostError, RefusedError) as error:
            if not isinstance(error.about, Subject) or error.about in subjects:
                raise
            subjects.add(error.about)
            failure = Failure(frozenset(subjects), failure.error if failure else error)


class _Postponed(NamedTuple):
    """What is executed now, and which operations are postponed, with the objects that they are about.

    `possible`: what the sandbox can become now. It is not what the manifest says where more depends on what waits than
    there are operations for: a route through a NIC follows the NIC when that one is renamed.
    """

    possible: Preview
    segments: tuple[Segment, ...]
    operations: tuple[Operation, ...] = ()
    subjects: frozenset[Subject] = frozenset()


def _postpone(before: Preview, postpones: Callable[[Operation], bool]) -> _Postponed:
    """Return what to execute of a plan. What depends on a postponed operation is postponed as well."""
    named = {each for each in before.plan.operations if postpones(each)}
    if not named:
        return _Postponed(before, before.plan.segments)
    target = hold(before.desired, before.observed.sandbox, {each.subject for each in named})
    possible = before if target == before.desired else compare(target, before.observed)
    segments = without(possible.plan.segments, set(_with_dependents(flat(possible.plan.segments), named)))
    now = set(flat(segments))
    later = tuple(each for each in before.plan.operations if each not in now)
    return _Postponed(possible, segments, later, frozenset(each for operation in later for each in about(operation)))


def _with_dependents(operations: Sequence[Operation], named: Collection[Operation]) -> Iterator[Operation]:
    """Yield the operations of `named`, with all later ones that need one of them."""
    missing: set[Subject] = set()
    for operation in operations:
        if operation in named or (missing and not missing.isdisjoint(operation.needs)):
            missing |= operation.provides
            yield operation


def _carry_out(
    driver: Driver,
    before: Preview,
    segments: Sequence[Segment],
    change: Change,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    adopt: Adoption = False,
    all_or_nothing: bool = False,
    excused: frozenset[Subject] = frozenset(),
    checks: Around | None = None,
    repeats: bool = False,
) -> _Failed | Surroundings:
    """Execute and verify segments. Return what surrounds the sandbox then; after a failure, what became of them.

    `change` gets that failure as well, for the history. `excused`: objects that must not be changed now, so they may
    differ. `repeats`: see `_repeat`. Raises ApplyError if everything was undone after a failure, also one of `checks`.
    """
    proof = Proof(driver, segments)
    try:
        ended = _change(
            driver,
            before,
            segments,
            proof,
            change,
            progress,
            adopt=adopt,
            all_or_nothing=all_or_nothing,
            excused=excused,
        )
    except VerifyError:
        repeated = _repeat(driver, before, adopt=adopt) if repeats else None
        if repeated is None:
            raise
        ended = repeated
    if checks and (verdicts := checks.look_after()):
        not_undone = undo(driver, before, proof)
        error = check_error(before, verdicts, not_undone)
        change.fail(FAILED if not_undone else UNDONE, error)
        raise error
    return ended


def _change(
    driver: Driver,
    before: Preview,
    segments: Sequence[Segment],
    proof: Proof,
    change: Change,
    progress: Callable[[int, int], None],
    *,
    adopt: Adoption,
    all_or_nothing: bool,
    excused: frozenset[Subject],
) -> _Failed | Surroundings:
    """Execute and verify segments, as `_carry_out` says, without its checks."""
    outcomes = execute(driver, segments, progress)
    if any(outcome.status is not Status.DONE for outcome in outcomes):
        if all_or_nothing:
            not_undone = undo(driver, before, proof)
            error = undone_error(outcomes, before, not_undone)
            change.fail(FAILED if not_undone else UNDONE, error)
            raise error
        overtaken = _overtaken(driver, before, outcomes, adopt=adopt)
        fates = overtaken or recover(driver, before, outcomes, proof, held=excused, adopt=adopt)
        if fates.are_good:
            return _verify(driver, before.desired, adopt=adopt, excused=excused)
        error = kept_error(fates, before)
        change.fail(PARTLY if fates.kept else FAILED, error, _by_fate(fates))
        return _Failed(fates, error, is_overtaken=overtaken is not None)
    around = before.observed.around
    if segments or around.tentative or around.dad_failed:
        return _verify(driver, before.desired, adopt=adopt, excused=excused)
    _check(before, adopt=adopt, excused=excused)
    return around


def _overtaken(driver: Driver, before: Preview, outcomes: Sequence[Outcome], *, adopt: Adoption) -> Fates | None:
    """Return what became of operations that failed because another program was quicker; None if it was not that.

    It was, if none was done and a new look finds something else than the one that they were planned for.
    """
    if any(outcome.status is not Status.FAILED for outcome in outcomes):
        return None
    try:
        found = preview(driver, before.desired, adopt=adopt)
    except ReconcilerError:
        # What became of it is told by the recovery, which looks once more.
        return None
    if found.observed.sandbox == before.observed.sandbox:
        return None
    failed = {outcome.operation for outcome in outcomes}
    return Fates(
        failed=tuple(outcomes),
        not_tried=tuple(each for each in before.plan.operations if each not in failed),
        left=len(found.plan.operations),
    )


def _repeat(driver: Driver, before: Preview, *, adopt: Adoption) -> Surroundings | None:
    """Apply once more what a program in the sandbox has undone meanwhile, if that was to be expected of one.

    Return what surrounds the sandbox once it is as it should be; None if it is not. Nothing is deleted: what appeared
    meanwhile is not ours to judge.
    """
    if not any(each.is_contested for each in before.plan.operations):
        return None
    segments = preview(driver, before.desired, adopt=adopt).plan.segments
    if any(each.sign == "-" for each in flat(segments)):
        return None
    if any(outcome.status is not Status.DONE for outcome in execute(driver, segments)):
        return None
    return _verify(driver, before.desired, adopt=adopt, excused=frozenset())


def _by_fate(fates: Fates) -> dict[str, Sequence[Operation]]:
    failed = [each.operation for each in fates.failed]
    return {"failed": failed, "kept": fates.kept, "undone": fates.undone, "not tried": fates.not_tried}


def _verify(driver: Driver, desired: Sandbox, *, adopt: Adoption, excused: frozenset[Subject]) -> Surroundings:
    """Look until duplicate address detection has ended, and return what surrounds the sandbox then.

    VerifyError if the sandbox differs from its manifest.
    """
    found = settled(driver, desired, adopt=adopt)
    around = found.observed.around
    if around.dad_failed:
        listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.dad_failed))
        raise VerifyError(f"another host uses this address already (duplicate address detection): {listed}")
    _check(found, adopt=adopt, excused=excused)
    if around.tentative:
        listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.tentative))
        raise VerifyError(f"still tentative after {DAD_TIMEOUT:.0f} s: {listed}")
    return around


def _check(found: Preview, *, adopt: Adoption, excused: frozenset[Subject]) -> None:
    """Raise VerifyError if a sandbox differs from its manifest, or if anything is left to do.

    Something can be left to do without a difference: QEMU may keep a netdev without a NIC. Objects of `excused` may
    differ.
    """
    differences = [each for each in remaining(found.desired, found.observed) if each.about.isdisjoint(excused)]
    if differences and all(each.only_mark for each in differences):
        if adopt:
            return
        raise VerifyError(
            "this kernel does not keep our mark on IPVS services, so its whole table has to count as ours: --adopt"
        )
    if differences:
        words = [each.words for each in differences]
        raise VerifyError("everything was applied, but the sandbox differs from its manifest:", more=_listed(words))
    left = [
        each
        for each in found.plan.operations
        if not _ends_drain(each, found.desired) and about(each).isdisjoint(excused)
    ]
    if left:
        commands = [operation.command for operation in left]
        raise VerifyError("everything was applied, but operations are left to do:", more=_listed(commands))


def _listed(words: Sequence[str]) -> list[str]:
    more = [f"  … and {len(words) - _SHOWN:,} more"] if len(words) > _SHOWN else []
    return [f"  {each}" for each in words[:_SHOWN]] + more


def _ends_drain(operation: Operation, desired: Sandbox) -> bool:
    """Return whether an operation only ends a drain, which can become due at any moment."""
    if not (desired.ipvs and desired.ipvs.drain):
        return False
    from reconciler.operations.ipvs import EndOperation

    return isinstance(operation, EndOperation)


def _await_drained(
    driver: Driver, desired: Sandbox, before: Plan, waiting: Callable[[int], None], scribe: Scribe, *, adopt: Adoption
) -> tuple[Operation, ...]:
    """Delete servers when their connections have ended or their deadline has passed. Return the executed operations.

    If this is interrupted, the next run reads from the kernel which servers drain, and continues.
    """
    done: tuple[Operation, ...] = ()
    left = before.draining
    while left:
        waiting(left)
        time.sleep(_DRAIN_POLL)
        found = preview(driver, desired, adopt=adopt).plan
        others = {operation for operation in found.operations if not _ends_drain(operation, desired)}
        ends = without(found.segments, others)
        with scribe.change(flat(ends)):
            failed = next((outcome for outcome in execute(driver, ends) if outcome.status is not Status.DONE), None)
            if failed:
                raise VerifyError(f"a drained server cannot be deleted: {failed.operation.command}: {failed.reason}")
        done += flat(ends)
        left = found.draining
    return done

"""Make a sandbox equal to its manifest: plan, carry the plan out (`carry`), and wait for what drains."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.carry import Failed, carry_out, ends_drain
from reconciler.drivers import Driver
from reconciler.errors import HostError, ReconcilerError, RefusedError, VerifyError
from reconciler.history.scribe import SILENT, Scribe
from reconciler.model.identity import Subject
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.operations import Operation
from reconciler.operations.outcome import Status
from reconciler.operations.segment import Segment, flat, without
from reconciler.plan import Plan
from reconciler.plan.hold import hold
from reconciler.preview import Adoption, Preview, compare, preview
from reconciler.recover import about, execute, stuck
from reconciler.safety import Allowance, check_deletions
from reconciler.trial import Trial, checks_around, on_trial
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.model.check import Check

# Seconds between two looks at servers that drain.
_DRAIN_POLL = 0.5
# Plans that are made for one change, as long as another program is quicker than each of them.
_PLANS = 3


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
                ended = carry_out(
                    driver,
                    before,
                    before.plan.segments,
                    lambda: preview(driver, desired, adopt=adopt).observed,
                    change,
                    progress,
                    adopt=adopt,
                    all_or_nothing=all_or_nothing or trial is not None,
                    checks=around,
                    repeats=True,
                )
            if not (isinstance(ended, Failed) and ended.is_overtaken):
                break
        if isinstance(ended, Failed):
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
            drained = all(ends_drain(each, desired) for each in operations)
            around = checks_around(driver, checks if operations and not drained else (), tell)
            with (
                on_trial(trial if operations else None, driver, before),
                scribe.change(operations, drained=drained) as change,
            ):
                ended = carry_out(
                    driver,
                    postponed.possible,
                    postponed.segments,
                    lambda: driver.observe(desired, quick=quick),
                    change,
                    all_or_nothing=trial is not None,
                    excused=excused,
                    checks=around,
                )
            if not (isinstance(ended, Failed) and ended.is_overtaken):
                break
        if isinstance(ended, Failed):
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
        others = {operation for operation in found.operations if not ends_drain(operation, desired)}
        ends = without(found.segments, others)
        with scribe.change(flat(ends)):
            failed = next((outcome for outcome in execute(driver, ends) if outcome.status is not Status.DONE), None)
            if failed:
                raise VerifyError(f"a drained server cannot be deleted: {failed.operation.command}: {failed.reason}")
        done += flat(ends)
        left = found.draining
    return done

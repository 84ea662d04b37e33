"""Execute a plan, verify it, undo it. Only this module changes sandboxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from reconciler.drivers import Driver
from reconciler.errors import ApplyError, ReconcilerError, VerifyError
from reconciler.manifest.sections import locate
from reconciler.model.identity import Subject
from reconciler.model.sandbox import DriverAddress, KataAddress, Sandbox
from reconciler.netlink.execute import DAD_TIMEOUT
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status, is_independent
from reconciler.operations.route import AddRoute, ReplaceRoute
from reconciler.operations.segment import Segment, flat, without
from reconciler.plan import Plan
from reconciler.preview import Adoption, Preview, preview
from reconciler.remaining import Difference, remaining
from reconciler.safety import Allowance, check_deletions

_POLL = 0.05
# Seconds between two looks at servers that drain.
_DRAIN_POLL = 0.5
# A message names at most this many failures or differences.
_SHOWN = 5


class Result(NamedTuple):
    """What an apply or a repair did: the operations, and how many seconds they took, including the verification.

    `postponed`: operations that were not executed. `draining`: how many servers still drain.
    """

    operations: tuple[Operation, ...]
    seconds: float
    postponed: tuple[Operation, ...] = ()
    draining: int = 0


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
) -> Result:
    """Make a sandbox equal to its manifest, verify that, and wait for servers that drain.

    If an operation fails, everything is undone. IPVS rules are an exception, as they do not depend on each other: if
    one fails, the others stay, unless `all_or_nothing`. `accept` is called with the preview under the lock, and raises
    an error to stop. `adopt`: foreign IPVS services count as ours. `waiting` is called with the number of servers that
    still drain, `progress` with the number of operations that are done and of all.

    Raises RefusedError before anything is touched, ApplyError after a failed operation, VerifyError if the sandbox
    still differs.
    """
    with driver.lock():
        begin = time.monotonic()
        before = preview(driver, desired, adopt=adopt)
        accept(before)
        check_deletions(before.plan, allowance)
        _carry_out(driver, before, before.plan.segments, progress, adopt=adopt, all_or_nothing=all_or_nothing)
        operations = before.plan.operations
        operations += _await_drained(driver, desired, before.plan, waiting, adopt=adopt)
        return Result(operations=operations, seconds=time.monotonic() - begin)


def repair(
    driver: Driver,
    desired: Sandbox,
    *,
    quick: bool,
    allowance: Allowance | None = None,
    accept: Callable[[Preview], None] = lambda _: None,
    postpones: Callable[[Operation], bool] = lambda _: False,
) -> Result:
    """Make a sandbox equal to its manifest without waiting for anything, for a watcher that soon looks again.

    `quick`: see `Driver.observe`. `postpones` returns whether an operation must not be executed now. The rest is as in
    `apply`.
    """
    with driver.lock():
        begin = time.monotonic()
        before = preview(driver, desired, quick=quick)
        accept(before)
        check_deletions(before.plan, allowance)
        postponed = tuple(_postponed(before.plan.operations, postpones))
        skipped = frozenset(postponed)
        segments = without(before.plan.segments, skipped)
        _carry_out(driver, before, segments, postponed=skipped)
        return Result(flat(segments), time.monotonic() - begin, postponed, before.plan.draining)


def _postponed(operations: Sequence[Operation], postpones: Callable[[Operation], bool]) -> Iterator[Operation]:
    """Yield the operations to postpone, with all later ones that need one of them."""
    missing: set[Subject] = set()
    for operation in operations:
        if postpones(operation) or (missing and not missing.isdisjoint(operation.needs)):
            missing |= operation.provides
            yield operation


def _carry_out(
    driver: Driver,
    before: Preview,
    segments: Sequence[Segment],
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    adopt: Adoption = False,
    all_or_nothing: bool = False,
    postponed: frozenset[Operation] = frozenset(),
) -> None:
    """Execute and verify segments. Undo them after a failure, unless only IPVS rules failed and these may stay."""
    outcomes = _execute(driver, segments, progress)
    failures = [outcome for outcome in outcomes if outcome.status is not Status.DONE]
    if failures and (all_or_nothing or not all(is_independent(outcome.operation) for outcome in failures)):
        raise _failure(failures[0], outcomes, before, _undo(driver, before.observed.as_desired()))
    if failures:
        raise _kept_failure(driver, outcomes, before, adopt=adopt)
    around = before.observed.around
    if segments or around.tentative or around.dad_failed:
        _verify(driver, before.desired, adopt=adopt, postponed=postponed)
    else:
        _check(before, adopt=adopt, postponed=postponed)


def _execute(
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


def _undo(driver: Driver, before: Sandbox) -> str:
    """Restore what was observed before, by the same diff and plan. Return "", or why the sandbox is not as it was."""
    if before.ipvs:
        # Servers that were added a moment ago have no connections that are worth waiting for.
        before = replace(before, ipvs=replace(before.ipvs, drain=0))
    try:
        _execute(driver, preview(driver, before).plan.segments)
        found = preview(driver, before)
    except ReconcilerError as error:
        return str(error)
    if left := found.plan.operations:
        return f"{len(left)} left to undo, the first: {left[0].command}"
    differences = remaining(before, found.observed)
    return f"{len(differences)} differ, the first: {differences[0].words}" if differences else ""


def _failure(failed: Outcome, outcomes: Sequence[Outcome], before: Preview, not_undone: str) -> ApplyError:
    """Return the error of an apply that failed and was undone, with the counts of all outcomes."""
    operations = before.plan.operations
    count = {status: sum(outcome.status is status for outcome in outcomes) for status in Status}
    done, unknown, begun = count[Status.DONE], count[Status.UNKNOWN], len(outcomes)
    words = [f"{done:,} done"]
    if done and not not_undone:
        words[0] += " and undone" if done == 1 else f", all {done:,} undone"
    if count[Status.FAILED] > 1:
        words.append(f"{count[Status.FAILED]:,} failed")
    if unknown:
        words.append(f"{unknown:,} unknown" + ("" if not_undone else ", settled by looking again"))
    words.append(f"{len(operations) - begun:,} not begun")
    id_ = before.desired.id
    state = f"{id_} is NOT as it was before: {not_undone}" if not_undone else f"{id_} is as it was before"
    number = outcomes.index(failed) + 1
    return ApplyError(
        headline=f"failed at operation {number:,} of {len(operations):,}: {failed.operation.command}",
        reason=failed.reason + _hint(failed, before.desired.driver),
        path=locate(before.desired, failed.operation.subject),
        counts=f"{'; '.join(words)}. {state}.",
    )


def _kept_failure(driver: Driver, outcomes: Sequence[Outcome], before: Preview, *, adopt: Adoption) -> ApplyError:
    """Return the error of an apply in which IPVS rules failed and the others were kept."""
    count = len(before.plan.operations)
    failures = [outcome for outcome in outcomes if outcome.status is not Status.DONE]
    state = f"{len(outcomes) - len(failures):,} done and kept"
    if len(outcomes) < count:
        state += f"; {count - len(outcomes):,} not begun"
    try:
        state += f"; {len(preview(driver, before.desired, adopt=adopt).plan.operations):,} left to do"
    except ReconcilerError as error:
        state += f"; what is left is unknown: {error}"
    others = "".join(f"\n  {each.operation.command}: {each.reason}" for each in failures[1:_SHOWN])
    if len(failures) > _SHOWN:
        others += f"\n  … and {len(failures) - _SHOWN:,} more"
    return ApplyError(
        headline=f"{_failed_words(failures, count)}: {failures[0].operation.command}",
        reason=failures[0].reason + others,
        path=locate(before.desired, failures[0].operation.subject),
        counts=f"{state}. To have all or nothing: --all-or-nothing.",
    )


def _failed_words(failures: Sequence[Outcome], count: int) -> str:
    unknown = sum(outcome.status is Status.UNKNOWN for outcome in failures)
    failed = f"{len(failures) - unknown:,} of {count:,} operations failed"
    return f"{failed}, and to {unknown:,} there was no answer" if unknown else failed


def _hint(failed: Outcome, driver: DriverAddress) -> str:
    """Return a hint at `onLink` if the kernel does not find a gateway on its link. kata-runtime has no such option."""
    operation = failed.operation
    if not isinstance(operation, AddRoute | ReplaceRoute) or isinstance(driver, KataAddress):
        return ""
    lost = operation.route.needs_gateway and "invalid gateway" in failed.reason
    return "; if the gateway is on that link nevertheless: onLink: true" if lost else ""


def _verify(driver: Driver, desired: Sandbox, *, adopt: Adoption, postponed: frozenset[Operation]) -> None:
    """Look until duplicate address detection has ended. Raise VerifyError if the sandbox differs from its manifest."""
    deadline = time.monotonic() + DAD_TIMEOUT
    while True:
        # A quick look is enough: the kernel has acknowledged every operation.
        found = preview(driver, desired, adopt=adopt, quick=True)
        around = found.observed.around
        if around.dad_failed:
            listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.dad_failed))
            raise VerifyError(f"another host uses this address already (duplicate address detection): {listed}")
        _check(found, adopt=adopt, postponed=postponed)
        if not around.tentative:
            return
        if time.monotonic() > deadline:
            listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.tentative))
            raise VerifyError(f"still tentative after {DAD_TIMEOUT:.0f} s: {listed}")
        time.sleep(_POLL)


def _check(found: Preview, *, adopt: Adoption, postponed: frozenset[Operation]) -> None:
    """Raise VerifyError if a sandbox differs from its manifest, or if anything is left to do.

    Something can be left to do without a difference: QEMU may keep a netdev without a NIC. Objects of `postponed`
    operations may differ.
    """
    excused = frozenset(operation.subject for operation in postponed)
    differences = [each for each in remaining(found.desired, found.observed) if each.about.isdisjoint(excused)]
    if differences and all(each.only_mark for each in differences):
        if adopt:
            return
        raise VerifyError(
            "this kernel does not keep our mark on IPVS services, so its whole table has to count as ours: --adopt"
        )
    if differences:
        raise VerifyError(f"everything was applied, but the sandbox differs from its manifest:{_listed(differences)}")
    left = [each for each in found.plan.operations if not _ends_drain(each, found.desired) and each not in postponed]
    if left:
        listed = "\n  ".join(operation.command for operation in left[:_SHOWN])
        raise VerifyError(f"everything was applied, but operations are left to do:\n  {listed}")


def _listed(differences: Sequence[Difference]) -> str:
    lines = "".join(f"\n  {each.words}" for each in differences[:_SHOWN])
    return lines + (f"\n  … and {len(differences) - _SHOWN:,} more" if len(differences) > _SHOWN else "")


def _ends_drain(operation: Operation, desired: Sandbox) -> bool:
    """Return whether an operation only ends a drain, which can become due at any moment."""
    if not (desired.ipvs and desired.ipvs.drain):
        return False
    from reconciler.operations.ipvs import EndOperation

    return isinstance(operation, EndOperation)


def _await_drained(
    driver: Driver, desired: Sandbox, before: Plan, waiting: Callable[[int], None], *, adopt: Adoption
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
        failed = next((outcome for outcome in _execute(driver, ends) if outcome.status is not Status.DONE), None)
        if failed:
            raise VerifyError(f"a drained server cannot be deleted: {failed.operation.command}: {failed.reason}")
        done += flat(ends)
        left = found.draining
    return done

"""Carry out a plan: execute and verify it, and after a failure say what became of each operation.

Only this module, `recover`, which it calls after a failure, and `converge`, which ends drains, change sandboxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reconciler.drivers import Driver
from reconciler.errors import ApplyError, ReconcilerError, VerifyError
from reconciler.failure import check_error, kept_error, undone_error
from reconciler.history.scribe import FAILED, PARTLY, UNDONE, Change
from reconciler.model.identity import Subject
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink.execute import DAD_TIMEOUT
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.segment import Segment, flat
from reconciler.preview import Adoption, Preview, compare, preview
from reconciler.recover import Fates, Proof, about, execute, recover, settled, undo
from reconciler.remaining import remaining
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.checks import Around

# A message names at most this many differences.
_SHOWN = 5


class Failed(NamedTuple):
    """What became of each operation after a failure, in values and in words.

    `is_overtaken`: nothing was done, as another program has changed the sandbox since it was observed: a new plan may
    be carried out.
    """

    fates: Fates
    error: ApplyError
    is_overtaken: bool = False


def carry_out(
    driver: Driver,
    before: Preview,
    segments: Sequence[Segment],
    look: Callable[[], Observed],
    change: Change,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    adopt: Adoption = False,
    all_or_nothing: bool = False,
    excused: frozenset[Subject] = frozenset(),
    checks: Around | None = None,
    repeats: bool = False,
) -> Failed | Surroundings:
    """Execute and verify segments. Return what surrounds the sandbox then; after a failure, what became of them.

    `look` repeats the look that they were planned after. `change` gets the failure as well, for the history.
    `excused`: objects that must not be changed now, so they may differ. `repeats`: see `_repeat`. Raises ApplyError if
    everything was undone after a failure, also one of `checks`.
    """
    proof = Proof(driver, segments)
    try:
        ended = _change(
            driver,
            before,
            segments,
            look,
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
    if isinstance(ended, Failed) and ended.is_overtaken:
        # Nothing was changed that a check could tell of.
        return ended
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
    look: Callable[[], Observed],
    proof: Proof,
    change: Change,
    progress: Callable[[int, int], None],
    *,
    adopt: Adoption,
    all_or_nothing: bool,
    excused: frozenset[Subject],
) -> Failed | Surroundings:
    """Execute and verify segments, as `carry_out` says, without its checks."""
    outcomes = execute(driver, segments, progress)
    if any(outcome.status is not Status.DONE for outcome in outcomes):
        if all_or_nothing:
            not_undone = undo(driver, before, proof)
            error = undone_error(outcomes, before, not_undone)
            change.fail(FAILED if not_undone else UNDONE, error)
            raise error
        overtaken = _overtaken(before, outcomes, look)
        fates = overtaken or recover(driver, before, outcomes, proof, held=excused, adopt=adopt)
        if fates.are_good:
            return _verify(driver, before.desired, adopt=adopt, excused=excused)
        error = kept_error(fates, before)
        change.fail(PARTLY if fates.kept else FAILED, error, _by_fate(fates))
        return Failed(fates, error, is_overtaken=overtaken is not None)
    around = before.observed.around
    if segments or around.tentative or around.dad_failed:
        return _verify(driver, before.desired, adopt=adopt, excused=excused)
    _check(before, adopt=adopt, excused=excused)
    return around


def _overtaken(before: Preview, outcomes: Sequence[Outcome], look: Callable[[], Observed]) -> Fates | None:
    """Return what became of operations that failed because another program was quicker; None if it was not that.

    It was, if none was done and the same look finds something else than the first time.
    """
    if any(outcome.status is not Status.FAILED for outcome in outcomes):
        return None
    try:
        observed = look()
        if observed.sandbox == before.observed.sandbox:
            return None
        left = len(compare(before.desired, observed).plan.operations)
    except ReconcilerError:
        # What became of it is told by the recovery, which looks once more.
        return None
    failed = {outcome.operation for outcome in outcomes}
    return Fates(
        failed=tuple(outcomes),
        not_tried=tuple(each for each in before.plan.operations if each not in failed),
        left=left,
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
        if not ends_drain(each, found.desired) and about(each).isdisjoint(excused)
    ]
    if left:
        commands = [operation.command for operation in left]
        raise VerifyError("everything was applied, but operations are left to do:", more=_listed(commands))


def _listed(words: Sequence[str]) -> list[str]:
    more = [f"  … and {len(words) - _SHOWN:,} more"] if len(words) > _SHOWN else []
    return [f"  {each}" for each in words[:_SHOWN]] + more


def ends_drain(operation: Operation, desired: Sandbox) -> bool:
    """Return whether an operation only ends a drain, which can become due at any moment."""
    if not (desired.ipvs and desired.ipvs.drain):
        return False
    from reconciler.operations.ipvs import EndOperation

    return isinstance(operation, EndOperation)

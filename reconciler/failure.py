"""The errors of an apply in which an operation failed, in words for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.errors import ApplyError
from reconciler.manifest.sections import locate
from reconciler.model.sandbox import DriverAddress, KataAddress
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.route import AddRoute, ReplaceRoute
from reconciler.preview import Preview
from reconciler.recover import Fates
from reconciler.wording import plural

if TYPE_CHECKING:
    # Few manifests have checks.
    from reconciler.checks import Verdict

# A message names at most this many failures, and operations of one fate.
_SHOWN = 5


class PlanError(ApplyError):
    """An operation of a plan failed. `outcomes`: what became of each. `is_proven`: all was read again, and is so."""

    outcomes: tuple[Outcome, ...] = ()
    is_proven = False


class CheckError(PlanError):
    """All was done, a check of the manifest failed after it, and all was undone again."""


def check_error(before: Preview, failed: Sequence[Verdict], not_undone: str) -> CheckError:
    """Return the error of a change that was undone because checks failed after it."""
    operations, id_ = before.plan.operations, before.desired.id
    count = f"{len(operations):,} {plural('operation', len(operations))} done"
    if not_undone:
        state = f"{count}. {id_} is NOT as it was before: {not_undone}"
    else:
        state = f"{count}, all undone. {id_} is as it was before"
    error = CheckError(
        headline=f"{len(failed)} {plural('check', len(failed))} failed after the change: {failed[0].check}",
        reason=failed[0].reason,
        path=("checks", before.desired.checks.index(failed[0].check)),
        counts=f"{state}.",
        others=tuple(map(str, failed[1:])),
    )
    error.is_proven = not not_undone
    status = Status.UNKNOWN if not_undone else Status.UNDONE
    error.outcomes = tuple(Outcome(each, status) for each in operations)
    return error


def undone_error(outcomes: Sequence[Outcome], before: Preview, not_undone: str) -> PlanError:
    """Return the error of an apply that failed and was undone as a whole, with the counts of all outcomes."""
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
    failed = next(outcome for outcome in outcomes if outcome.status is not Status.DONE)
    number = outcomes.index(failed) + 1
    error = PlanError(
        headline=f"failed at operation {number:,} of {len(operations):,}: {failed.operation.command}",
        reason=_reason(failed, before.desired.driver),
        path=locate(before.desired, failed.operation.subject),
        counts=f"{'; '.join(words)}. {state}.",
    )
    error.is_proven = not not_undone
    after = Status.UNKNOWN if not_undone else Status.UNDONE
    begun_ones = {
        each.operation: each if each.status is Status.FAILED else Outcome(each.operation, after) for each in outcomes
    }
    error.outcomes = tuple(begun_ones.get(each, Outcome(each, Status.NOT_TRIED)) for each in operations)
    return error


def kept_error(fates: Fates, before: Preview) -> PlanError:
    """Return the error of an apply in which operations failed and those that do not depend on them were kept."""
    failures = fates.failed
    others = [f"{each.operation.command}: {each.reason}" for each in failures[1:_SHOWN]]
    if len(failures) > _SHOWN:
        others.append(f"… and {len(failures) - _SHOWN:,} more")
    error = PlanError(
        headline=f"{_failed_words(failures, len(before.plan.operations))}: {failures[0].operation.command}",
        reason=_reason(failures[0], before.desired.driver),
        others=tuple(others),
        path=locate(before.desired, failures[0].operation.subject),
        counts=f"{'; '.join(_count_words(fates, before.desired.id))}.",
        fates=tuple(_fate_lines(fates)),
        is_kept=True,
    )
    error.is_proven = not fates.unknown and not fates.deviations
    error.outcomes = tuple(_outcomes(fates, before.plan.operations))
    return error


def _outcomes(fates: Fates, operations: Sequence[Operation]) -> Iterator[Outcome]:
    """Yield what became of all operations of a plan in order, and then of those that were tried in place of some."""
    became = {each: Outcome(each, Status.DONE) for each in fates.kept}
    became |= {each: Outcome(each, Status.UNDONE) for each in fates.undone}
    became |= {each: Outcome(each, Status.NOT_TRIED) for each in fates.not_tried}
    became |= {each.operation: each for each in fates.failed}
    yield from (became.pop(each, Outcome(each, Status.UNKNOWN)) for each in operations)
    yield from became.values()


def _count_words(fates: Fates, id_: str) -> Iterator[str]:
    if fates.unknown:
        yield f"{fates.done:,} done"
        yield f"what is left is unknown: {fates.unknown}"
        return
    yield f"{len(fates.kept):,} done and kept"
    if fates.undone:
        yield f"{len(fates.undone):,} undone"
    if fates.not_tried:
        yield f"{len(fates.not_tried):,} not tried"
    if fates.left is not None:
        yield f"{fates.left:,} left to do"
    if fates.deviations:
        count, first = len(fates.deviations), fates.deviations[0].words
        yield f"{count:,} {plural('object', count)} of {id_} could NOT be left as before, the first: {first}"


def _fate_lines(fates: Fates) -> Iterator[str]:
    titles = {
        "kept": fates.kept,
        "undone, as what they belong to failed": fates.undone,
        "not tried, as they need what failed or remove what it replaces": fates.not_tried,
    }
    for title, operations in titles.items():
        if operations:
            yield f"{title}:"
            yield from _listed(operations)


def _listed(operations: Sequence[Operation]) -> Iterator[str]:
    yield from (f"  {each.sign} {each.command}" for each in operations[:_SHOWN])
    if len(operations) > _SHOWN:
        yield f"  … and {len(operations) - _SHOWN:,} more"


def _failed_words(failures: Sequence[Outcome], count: int) -> str:
    unknown = sum(outcome.status is Status.UNKNOWN for outcome in failures)
    failed = f"{len(failures) - unknown:,} of {count:,} operations failed"
    return f"{failed}, and to {unknown:,} there was no answer" if unknown else failed


def _reason(failed: Outcome, driver: DriverAddress) -> str:
    """Return why an operation failed, with a hint at `onLink` if the kernel does not find a gateway on its link."""
    operation = failed.operation
    if not isinstance(operation, AddRoute | ReplaceRoute) or isinstance(driver, KataAddress):
        return failed.reason
    lost = operation.route.needs_gateway and "invalid gateway" in failed.reason
    hint = "; if the gateway is on that link nevertheless: onLink: true" if lost else ""
    return failed.reason + hint

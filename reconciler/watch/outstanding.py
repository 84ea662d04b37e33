"""What a look at a sandbox found to be different from its manifest, and left so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.operations import Operation
from reconciler.operations.listing import PlanLine, listed
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    # `status` only reads states, and starts soon.
    from reconciler.converge import Result
    from reconciler.preview import Preview
    from reconciler.remaining import Difference

# The most lines that are kept of one sandbox.
_LINES = 200


class Outstanding(NamedTuple):
    """What differs still, as `diff` prints it, and when that was found, by `clock`. No line: nothing differs.

    `more`: how many operations or differences have no line here.
    """

    looked: float
    lines: tuple[PlanLine, ...] = ()
    more: int = 0


def of_repair(planned: Sequence[Operation], result: Result, looked: float) -> Outstanding:
    """Return what a repair has left: what was planned or postponed and was not executed, and why something failed."""
    if not result.failure and not result.postponed:
        return Outstanding(looked)
    done = set(result.operations)
    left = of_plan([each for each in dict.fromkeys((*planned, *result.postponed)) if each not in done], looked)
    if result.failure is None:
        return left
    # There is no operation for what the host lacks, or what is in the way.
    return left._replace(lines=(*left.lines, PlanLine("", f"    {result.failure.error}")))


def of_plan(operations: Sequence[Operation], looked: float) -> Outstanding:
    """Return a plan that was not carried out."""
    lines = list(listed(operations))
    return Outstanding(looked, tuple(lines[:_LINES]), max(0, len(lines) - _LINES))


def of_comparison(found: Preview, differences: Sequence[Difference], looked: float) -> Outstanding:
    """Return what a look found that may change nothing. `differences`: those that no operation removes."""
    if found.plan.operations:
        return of_plan(found.plan.operations, looked)
    lines = tuple(PlanLine("", f"    no operation removes: {each.words}") for each in differences[:_LINES])
    return Outstanding(looked, lines, max(0, len(differences) - _LINES))

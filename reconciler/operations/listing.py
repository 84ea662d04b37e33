"""A plan as a list of commands for people. Long runs of like operations are folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from reconciler.operations import Operation

# A run of more like operations than this is folded to its first few and a count.
FOLD = 6
SHOWN = 3


class PlanLine(NamedTuple):
    """One line of a list: the sign of its operation (`+`, `~`, `-`; empty: none), the text with it, and a comment."""

    sign: str
    text: str
    comment: str = ""


def listed(operations: Iterable[Operation], *, verbose: bool = False) -> Iterator[PlanLine]:
    """Yield operations as commands with a sign, one a line. `verbose`: fold nothing."""
    for (_, sign), group in groupby(operations, lambda operation: (type(operation), operation.sign)):
        run = list(group)
        shown = run if verbose or len(run) <= FOLD else run[:SHOWN]
        for operation in shown:
            comment = f"      # {operation.comment}" if operation.comment else ""
            yield PlanLine(sign, f"  {sign} {operation.command}", comment)
        if len(run) > len(shown):
            words = " ".join(run[0].command.split()[: 4 if run[0].command.startswith("ip -6") else 3])
            yield PlanLine(sign, f"  {sign} … {len(run) - len(shown):,} more `{words}` (-v prints them)")

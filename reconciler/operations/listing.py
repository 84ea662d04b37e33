"""A plan as a list of commands for people. Long runs of like operations are folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.operations import Operation
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.model.cost import Cut

_NONE: Mapping[Operation, Cut] = MappingProxyType({})
# A run of more like operations than this is folded to its first few and a count.
FOLD = 6
SHOWN = 3


class PlanLine(NamedTuple):
    """One line of a list: the sign of its operation (`+`, `~`, `-`; empty: none), the text with it, and a comment."""

    sign: str
    text: str
    comment: str = ""


def listed(
    operations: Iterable[Operation], *, verbose: bool = False, cuts: Mapping[Operation, Cut] = _NONE
) -> Iterator[PlanLine]:
    """Yield operations as commands with a sign, one a line. `verbose`: fold nothing. `cuts`: what they cut."""
    for (_, sign), group in groupby(operations, lambda operation: (type(operation), operation.sign)):
        run = list(group)
        shown = run if verbose or len(run) <= FOLD else run[:SHOWN]
        for operation in shown:
            cut = cuts[operation].count_words() if cuts and operation in cuts else ""
            words = "; ".join(filter(None, (operation.comment, cut)))
            comment = f"      # {words}" if words else ""
            yield PlanLine(sign, f"  {sign} {operation.command}", comment)
        if len(run) > len(shown):
            words = " ".join(run[0].command.split()[: 4 if run[0].command.startswith("ip -6") else 3])
            yield PlanLine(sign, f"  {sign} … {len(run) - len(shown):,} more `{words}` (-v prints them)")

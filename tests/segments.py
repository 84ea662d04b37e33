"""Operations as a test lists them, as the segments that a plan would have."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.operations import Operation
from reconciler.operations.interface import MoveOperation
from reconciler.operations.ipvs import IpvsOperation
from reconciler.operations.machine import MachineOperation
from reconciler.operations.network import NetworkOperation
from reconciler.operations.runtime import ImportedRule, RuleCommand
from reconciler.operations.segment import (
    Commands,
    Imports,
    Moves,
    Network,
    Plugs,
    RuleCommands,
    Segment,
    Settings,
    Table,
    joined,
)
from reconciler.operations.sysctl import SetNetworkSysctl


def segments(operations: Iterable[Operation]) -> tuple[Segment, ...]:
    return joined(_segment(each) for each in operations)


def _segment(operation: Operation) -> Segment:
    if isinstance(operation, NetworkOperation):
        return Network((operation,))
    if isinstance(operation, SetNetworkSysctl):
        return Settings((operation,))
    if isinstance(operation, MoveOperation):
        return Moves((operation,))
    if isinstance(operation, IpvsOperation):
        return Table((operation,))
    if isinstance(operation, MachineOperation):
        return Plugs((operation,))
    if isinstance(operation, RuleCommand):
        return RuleCommands((operation,))
    if isinstance(operation, ImportedRule):
        return Imports((operation,))
    return Commands((operation,))

"""The outcomes of operations."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.operations import Operation


class Status(Enum):
    """How an operation ended. UNKNOWN: there was no answer.

    The last two are only known once a plan in which an operation failed has ended.
    """

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    UNDONE = "undone"
    NOT_TRIED = "not tried"


class Outcome(NamedTuple):
    """An operation, its status, and the reason if it did not succeed."""

    operation: Operation
    status: Status
    reason: str = ""


def until_failure(batches: Iterator[list[Outcome]]) -> Iterator[list[Outcome]]:
    """Yield the outcomes of batches as they are executed. Start no batch after one in which an operation failed.

    A failed operation on an IPVS rule does not stop the others, as nothing depends on it.
    An unknown outcome always does.
    """
    for outcomes in batches:
        yield outcomes
        if any(map(_stops, outcomes)):
            return


def _stops(outcome: Outcome) -> bool:
    return outcome.status is Status.UNKNOWN or (
        outcome.status is Status.FAILED and not is_independent(outcome.operation)
    )


def is_independent(operation: Operation) -> bool:
    """Return whether no other operation depends on this one: it changes an IPVS rule or setting."""
    # Only a failure pays for the import.
    from reconciler.operations.ipvs import IpvsOperation
    from reconciler.operations.runtime import ImportedRule, RuleCommand

    return isinstance(operation, IpvsOperation | RuleCommand | ImportedRule)

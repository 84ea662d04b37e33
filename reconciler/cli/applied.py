"""What an apply did, as data for programs: one document, whatever fails."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.cli.render import operation_data
from reconciler.converge import Result
from reconciler.errors import Problem, RefusedError, VerifyError
from reconciler.failure import PlanError
from reconciler.manifest.load import Manifest
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status
from reconciler.pending import Pending
from reconciler.values import dataclass, field


@dataclass(slots=True)
class Applied:
    """What is known of the apply of one sandbox. It has ended once there is a result or an error.

    `begin`: when it began, by the monotonic clock. `planned`, `fingerprint`: of its plan, once there is one. `lines`:
    the error in words. `pending`: the change, if it waits to be confirmed.
    """

    manifest: Manifest
    fingerprint: str = ""
    planned: tuple[Operation, ...] = ()
    warnings: list[Problem] = field(default_factory=list)
    begin: float = 0.0
    seconds: float = 0.0
    result: Result | None = None
    pending: Pending | None = None
    error: Exception | None = None
    lines: Sequence[str] = ()

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data, described in docs/cli.md."""
        outcomes = self._outcomes()
        is_proven = self.result is not None or (isinstance(self.error, PlanError) and self.error.is_proven)
        return {
            "sandbox": self.manifest.sandbox.id,
            "file": self.manifest.file,
            "result": self._words({each.status for each in outcomes}),
            "verified": is_proven,
            "seconds": round(self.seconds or (time.monotonic() - self.begin if self.begin else 0.0), 3),
            "fingerprint": self.fingerprint,
            "operations": [
                {
                    **operation_data(each.operation),
                    "status": each.status.value,
                    **({"reason": each.reason} if each.reason else {}),
                }
                for each in outcomes
            ],
            **({"confirm": {"left": round(self.pending.left, 3)}} if self.pending else {}),
            "error": list(self.lines),
            "warnings": [each.to_data() for each in self.warnings],
        }

    def _words(self, found: set[Status]) -> str:
        """Return the result in a word or two. `found`: what became of operations."""
        if self.result:
            return "applied" if self.result.operations else "in sync"
        match self.error:
            case None:
                return "interrupted" if self.begin else "not begun"
            case RefusedError():
                return "refused"
            case PlanError() if found & {Status.DONE, Status.UNKNOWN}:
                return "partly applied"
            case PlanError() if Status.UNDONE in found:
                return "undone"
            case _:
                return "failed"

    def _outcomes(self) -> Sequence[Outcome]:
        if self.result:
            return [Outcome(each, Status.DONE) for each in self.result.operations]
        match self.error:
            case PlanError() as error:
                return error.outcomes
            case RefusedError():
                status = Status.NOT_TRIED
            case VerifyError():
                status = Status.DONE
            case _:
                status = Status.UNKNOWN
        return [Outcome(each, status) for each in self.planned]


def document(applied: Iterable[Applied], problems: Sequence[Problem], error: Sequence[str]) -> dict[str, Any]:
    """Return all that an apply did. `error`: why it did nothing at all; `problems`: those of its manifests."""
    return {
        "sandboxes": [each.to_data() for each in applied],
        "problems": [each.to_data() for each in problems],
        "error": list(error),
    }

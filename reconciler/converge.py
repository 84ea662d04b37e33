"""Execute a plan, verify, undo: the only one who changes sandboxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, assert_never

from reconciler.drivers import Driver
from reconciler.errors import ApplyError, ReconcilerError, VerifyError
from reconciler.model.sandbox import Sandbox
from reconciler.netlink.execute import DAD_TIMEOUT, Outcome, Status
from reconciler.operations import (
    AddAddress,
    AddRoute,
    AttachInterface,
    AwaitAddress,
    DeleteAddress,
    DeleteRoute,
    DetachInterface,
    Operation,
    RenameInterface,
    ReplaceAddress,
    ReplaceRoute,
    SetLink,
)
from reconciler.preview import Preview, preview
from reconciler.safety import Allowance, check_deletions

_POLL = 0.05


class Result(NamedTuple):
    """What an apply did: the operations, in how many seconds, verification included."""

    operations: tuple[Operation, ...]
    seconds: float


def apply(
    driver: Driver,
    desired: Sandbox,
    *,
    allowance: Allowance | None = None,
    accept: Callable[[Preview], None] = lambda _: None,
) -> Result:
    """Make a sandbox what its manifest says, and look whether it is; all or nothing.

    `accept` sees the preview under the lock and raises to stop. Raises RefusedError before anything is touched,
    ApplyError after a failed operation (what was done is undone), VerifyError if the sandbox differs nevertheless.
    """
    with driver.lock():
        begin = time.monotonic()
        before = preview(driver, desired)
        accept(before)
        check_deletions(before.plan, allowance)
        operations = before.plan.operations
        outcomes = _execute(driver, operations)
        failed = next((outcome for outcome in outcomes if outcome.status is not Status.DONE), None)
        if failed is not None:
            raise _failure(failed, outcomes, before, _undo(driver, before.observed.sandbox))
        _verify(driver, desired)
        return Result(operations=operations, seconds=time.monotonic() - begin)


def _execute(driver: Driver, operations: Sequence[Operation]) -> list[Outcome]:
    """Execute until the first failure. Where the driver itself gives up, what it was at is unknown."""
    outcomes: list[Outcome] = []
    try:
        for batch in driver.execute(operations):
            outcomes += batch
    except ReconcilerError as error:
        outcomes.append(Outcome(operations[len(outcomes)], Status.UNKNOWN, str(error)))
    return outcomes


def _undo(driver: Driver, before: Sandbox) -> str:
    """Go back to what was observed before, by the same diff and plan. Empty, or why it is not as it was."""
    try:
        _execute(driver, preview(driver, before).plan.operations)
        left = preview(driver, before).plan.operations
    except ReconcilerError as error:
        return str(error)
    return f"{len(left)} left to undo, the first: {left[0].command}" if left else ""


def _failure(failed: Outcome, outcomes: Sequence[Outcome], before: Preview, not_undone: str) -> ApplyError:
    """Report a failed apply with counts of what became of every operation."""
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
    return ApplyError(
        headline=f"failed at operation {outcomes.index(failed) + 1:,} of {len(operations):,}: {failed.operation.command}",
        reason=failed.reason + _hint(failed),
        path=_path_of(failed.operation, before.desired),
        counts=f"{'; '.join(words)}. {state}.",
    )


def _hint(failed: Outcome) -> str:
    """Say what may be meant where the kernel does not find a gateway on its link."""
    match failed.operation:
        case AddRoute(route=route) | ReplaceRoute(route=route):
            lost = route.needs_gateway and "invalid gateway" in failed.reason
            return "; if the gateway is on that link nevertheless: onLink: true" if lost else ""
        case _:
            return ""


def _path_of(operation: Operation, desired: Sandbox) -> tuple[str | int, ...]:
    """Find what in the manifest an operation comes from; empty if it comes from what is not there any more."""
    match operation:
        case AddRoute() | ReplaceRoute():
            routes = desired.routes or ()
            return ("routes", routes.index(operation.route)) if operation.route in routes else ()
        case DeleteRoute() | DetachInterface() | DeleteAddress():
            return ()
        case RenameInterface():
            name = operation.new_name
        case AttachInterface() | SetLink():
            name = operation.name
        case AddAddress() | ReplaceAddress() | AwaitAddress():
            name = operation.device
        case _:
            assert_never(operation)
    names = [interface.name for interface in desired.interfaces or ()]
    return ("interfaces", names.index(name)) if name in names else ()


def _verify(driver: Driver, desired: Sandbox) -> None:
    """Look again until the kernel is through with duplicate address detection; then nothing may be left to do."""
    deadline = time.monotonic() + DAD_TIMEOUT
    while True:
        found = preview(driver, desired)
        around = found.observed.around
        if around.dad_failed:
            listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.dad_failed))
            raise VerifyError(f"another host uses this address already (duplicate address detection): {listed}")
        if found.plan.operations:
            left = "\n  ".join(operation.command for operation in found.plan.operations[:5])
            raise VerifyError(f"all was applied, and the sandbox differs nevertheless; left to do:\n  {left}")
        if not around.tentative:
            return
        if time.monotonic() > deadline:
            listed = ", ".join(f"{address} on {nic}" for nic, address in sorted(around.tentative))
            raise VerifyError(f"still tentative after {DAD_TIMEOUT:.0f} s: {listed}")
        time.sleep(_POLL)

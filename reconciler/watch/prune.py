"""Removes everything that reconciler owns from a sandbox whose manifest was deleted, for `--prune`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from reconciler.converge import repair
from reconciler.drivers import Driver, attend, connect
from reconciler.drivers.claims import Claims
from reconciler.errors import ReconcilerError, SandboxGoneError
from reconciler.history.scribe import Occasion, Scribe, whole_path
from reconciler.history.writer import Writer
from reconciler.manifest.load import Manifest
from reconciler.manifest.sections import nothing
from reconciler.model.policy import Policy
from reconciler.model.sandbox import DriverAddress, MachineAddress, Sandbox
from reconciler.safety import ALWAYS, SHARE, Allowance
from reconciler.watch import log, pause
from reconciler.watch.look import WATCH

# Seconds for which pruning waits until another run no longer uses the sandbox, and between two tries.
TIMEOUT, INTERVAL = 20.0, 1.0

# Why nothing is removed.
TOO_MANY = f"a PATH is missing, or all manifests or more than {ALWAYS} and {SHARE} % of them disappeared at once"


def are_too_many(count: int, total: int) -> bool:
    """Return whether so many deleted manifests may be a mistake. `total`: how many there were."""
    return count == total > 1 or (count > ALWAYS and count * 100 > SHARE * total)


def prune(
    manifest: Manifest,
    policy: Policy,
    claims: Claims,
    history: Writer,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Remove what is owned from the sandbox of a deleted manifest, and log and record what became of it."""
    name = manifest.sandbox.id
    scribe = Scribe(
        history, name, str(manifest.sandbox.driver), lambda: Occasion("prune", WATCH, whole_path(manifest.file))
    )
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if manifest.sandbox.paused or pause.read(name):
                log.emit("not pruned", level=logging.WARNING, sandbox=name, reason="the sandbox is paused")
                scribe.tell("not pruned", reason="the sandbox is paused")
                return
            empty = nothing(manifest.sandbox)
            with _open(empty, policy) as driver:
                claims.claim(manifest.sandbox, driver)
                result = repair(driver, empty, quick=False, allowance=Allowance(), scribe=scribe)
            if result.failure:
                raise result.failure.error
            _withdraw(manifest.sandbox.driver, policy)
            log.emit("pruned", sandbox=name, operations=len(result.operations), file=manifest.file)
        except SandboxGoneError:
            log.emit("pruned", sandbox=name, operations=0, reason="the sandbox does not exist any more")
        except (ReconcilerError, OSError) as error:
            if isinstance(error, ReconcilerError) and error.retry and time.monotonic() < deadline:
                sleep(INTERVAL)
                continue
            log.emit("not pruned", level=logging.ERROR, sandbox=name, reason=str(error))
            scribe.tell("not pruned", reason=str(error))
        return


def _withdraw(address: DriverAddress, policy: Policy) -> None:
    """Stop the agent that was pushed into a machine, and take out the channel that we have plugged in for it."""
    if isinstance(address, MachineAddress) and address.guest_agent:
        # Most machines have the agent.
        from reconciler.drivers.vm import pushing

        with pushing.way_into(address, policy) as machine:
            pushing.remove(machine)


def _open(sandbox: Sandbox, policy: Policy) -> AbstractContextManager[Driver]:
    return attend(sandbox, policy) if isinstance(sandbox.driver, MachineAddress) else connect(sandbox, policy)

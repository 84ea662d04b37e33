"""Observe, diff, plan: what would be done to a sandbox."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from reconciler.drivers import Driver
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.plan import Plan, plan
from reconciler.safety import fingerprint

if TYPE_CHECKING:
    from reconciler.model.ipvs import Service


class Preview(NamedTuple):
    """What would be done to a sandbox, and what it is based on."""

    desired: Sandbox
    observed: Observed
    plan: Plan

    @property
    def fingerprint(self) -> str:
        """The short name of it all."""
        return fingerprint(self.desired, self.observed.sandbox, self.plan)


def preview(driver: Driver, desired: Sandbox, *, adopt: bool = False, quick: bool = False) -> Preview:
    """Observe a sandbox and plan for it. `adopt` takes all IPVS services for ours. Raises what `plan` raises.

    `quick` as `Driver.observe` has it.
    """
    observed = driver.observe(desired, quick=quick)
    return compare(desired, _adopted(observed) if adopt else observed)


def compare(desired: Sandbox, observed: Observed) -> Preview:
    """Plan for a sandbox as it was observed, now or earlier."""
    return Preview(desired=desired, observed=observed, plan=plan(desired, observed))


def _adopted(observed: Observed) -> Observed:
    ipvs = observed.sandbox.ipvs
    if ipvs is None:
        return observed
    excluded: list[Service] = []
    taken = list(ipvs.services or ())
    for each in observed.around.services:
        (excluded if ipvs.excludes(each.key) else taken).append(each)
    return Observed(
        sandbox=replace(observed.sandbox, ipvs=replace(ipvs, services=tuple(taken))),
        around=replace(observed.around, services=tuple(excluded)),
    )

"""Observe, diff, plan: what would be done to a sandbox."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from reconciler.drivers import Driver
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.plan import Plan, plan
from reconciler.safety import fingerprint

if TYPE_CHECKING:
    from reconciler.model.ipvs import Service, ServiceKey

# Which foreign IPVS services count as ours: all, none, or those with these keys.
Adoption: TypeAlias = "bool | frozenset[ServiceKey]"


class Preview(NamedTuple):
    """What would be done to a sandbox, and the desired and observed state behind it."""

    desired: Sandbox
    observed: Observed
    plan: Plan

    @property
    def fingerprint(self) -> str:
        """Return a short hash of all of it."""
        return fingerprint(self.desired, self.observed.sandbox, self.plan)


def preview(driver: Driver, desired: Sandbox, *, adopt: Adoption = False, quick: bool = False) -> Preview:
    """Observe a sandbox and plan for it. Raises what `plan` raises.

    `adopt`: foreign IPVS services that count as ours. `quick`: see `Driver.observe`.
    """
    observed = driver.observe(desired, quick=quick)
    return compare(desired, _adopted(observed, adopt) if adopt else observed)


def compare(desired: Sandbox, observed: Observed) -> Preview:
    """Plan for a sandbox as it was observed, now or earlier."""
    return Preview(desired=desired, observed=observed, plan=plan(desired, observed))


def _adopted(observed: Observed, adopt: Adoption) -> Observed:
    ipvs = observed.sandbox.ipvs
    if ipvs is None:
        return observed
    others: list[Service] = []
    taken = list(ipvs.services or ())
    for each in observed.around.services:
        named = adopt is True or (isinstance(adopt, frozenset) and each.key in adopt)
        (taken if named and not ipvs.excludes(each.key) else others).append(each)
    return Observed(
        sandbox=replace(observed.sandbox, ipvs=replace(ipvs, services=tuple(taken))),
        around=replace(observed.around, services=tuple(others)),
    )

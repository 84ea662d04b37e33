"""Observe, diff, plan: what would be done to a sandbox."""

from __future__ import annotations

from typing import NamedTuple

from reconciler.drivers import Driver
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.plan import Plan, plan
from reconciler.safety import fingerprint


class Preview(NamedTuple):
    """What would be done to a sandbox, and what it is based on."""

    desired: Sandbox
    observed: Observed
    plan: Plan

    @property
    def fingerprint(self) -> str:
        """The short name of it all."""
        return fingerprint(self.desired, self.observed.sandbox, self.plan)


def preview(driver: Driver, desired: Sandbox) -> Preview:
    """Observe a sandbox and plan for it. Raises what `plan` raises."""
    return compare(desired, driver.observe(desired))


def compare(desired: Sandbox, observed: Observed) -> Preview:
    """Plan for a sandbox as it was observed, now or earlier."""
    return Preview(desired=desired, observed=observed, plan=plan(desired, observed))

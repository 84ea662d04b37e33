"""Observe, diff, plan: what would be done to a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from reconciler.drivers import Driver
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.plan import Plan, plan
from reconciler.safety import fingerprint
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.drivers.rehearsal import Captured, Rehearsal
    from reconciler.guest.throwaway import Throwaways
    from reconciler.model.ipvs import ServiceKey
    from reconciler.plan.cost import Cost

# Which foreign objects count as ours: those that equal desired ones, and all IPVS services; none; or only the IPVS
# services with these keys.
Adoption: TypeAlias = "bool | frozenset[ServiceKey]"


class Preview(NamedTuple):
    """What would be done to a sandbox, and the desired and observed state behind it.

    `cost`: what it cuts, if that was asked for and it can cut anything. `rehearsal`: what a kernel
    said to the plan in a copy of the sandbox, if that was asked for. Neither is part of the fingerprint.
    """

    desired: Sandbox
    observed: Observed
    plan: Plan
    cost: Cost | None = None
    rehearsal: Rehearsal | None = None

    @property
    def fingerprint(self) -> str:
        """Return a short hash of all of it."""
        return fingerprint(self.desired, self.observed.sandbox, self.plan)


def preview(driver: Driver, desired: Sandbox, *, adopt: Adoption = False, quick: bool = False) -> Preview:
    """Observe a sandbox and plan for it. Raises what `plan` raises.

    `adopt`: which foreign objects count as ours. `quick`: see `Driver.observe`.
    """
    observed = driver.observe(desired, quick=quick)
    if adopt is True and not observed.around.links.isdisjoint(each.name for each in desired.interfaces or ()):
        observed = driver.adopt(desired)
    if adopt:
        # Few commands adopt.
        from reconciler.plan.adoption import adopted

        observed = adopted(desired, observed, adopt)
    return compare(desired, observed)


def compare(desired: Sandbox, observed: Observed) -> Preview:
    """Plan for a sandbox as it was observed, now or earlier."""
    return Preview(desired=desired, observed=observed, plan=plan(desired, observed))


def priced(found: Preview, driver: Driver | None) -> Preview:
    """Return a preview with what the plan costs. No connection is read if no operation can cut one.

    `driver`: the sandbox; None: there is only a saved state.
    """
    if not found.plan.segments:
        return found
    # Most commands find nothing to do.
    from reconciler.model.cost import Traffic
    from reconciler.plan.cost import cost, cutting, needs_traffic, saved_cost

    operations = cutting(found.plan, found.observed)
    if not operations:
        return found
    if driver is None:
        return found._replace(cost=saved_cost(operations))
    traffic = driver.traffic() if needs_traffic(operations) else Traffic()
    return found._replace(cost=cost(found.plan, found.observed, operations, traffic))


def captured(found: Preview, driver: Driver) -> Captured | None:
    """Return what a copy of the sandbox is made of; None if there is nothing to try in one."""
    if not found.plan.segments:
        return None
    # Few commands prove anything.
    from reconciler.drivers.rehearsal import capture

    return capture(driver, found.observed, found.plan)


def rehearsed(found: Preview, of: Captured | None, throwaways: Throwaways) -> Preview:
    """Return a preview with what a kernel says to the plan in a copy of the sandbox. HostError if none can be made.

    The sandbox itself is not needed any more.
    """
    if of is None:
        return found
    from reconciler.drivers.rehearsal import rehearse

    return found._replace(rehearsal=rehearse(of, found.plan, throwaways))

"""What would be done, and whose services count as ours."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from reconciler.guest.agent import Probe
from reconciler.model.cost import Traffic
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink.facts import Snapshot
from reconciler.operations.ipvs import DeleteService, DrainServer, EditService
from reconciler.operations.outcome import Outcome
from reconciler.operations.segment import Segment
from reconciler.plan import Plan, plan
from reconciler.preview import Preview, compare, preview
from reconciler.safety import fingerprint
from reconciler.values import dataclass, field, replace
from tests.plan.sandboxes import DRIVER

S1 = Server(address="172.16.0.1", port=8080)
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, servers=(S1,))
TLS = replace(WEB, port=443)
FAR = replace(WEB, address="10.99.0.1")
MARK = Service(protocol="fwmark", address="0.0.0.0", port=7)
FULL = (Excluded(prefix="10.10.0.0/16"), Excluded(fwmark=7))


@dataclass
class Seen:
    """A driver that saw this, and changes nothing."""

    observed: Observed
    asked: list[Sandbox] = field(default_factory=list)
    place: Hashable = "here"

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        assert not quick
        self.asked.append(desired)
        return self.observed

    def adopt(self, desired: Sandbox) -> Observed:
        raise NotImplementedError

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        del devices
        return Snapshot()

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        raise AssertionError(names)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        raise AssertionError(names)

    def traffic(self) -> Traffic:
        raise AssertionError

    def attempt(self, probes: Sequence[Probe], seconds: float) -> list[str]:
        raise AssertionError(probes, seconds)

    def device_to(self, address: str) -> str:
        raise AssertionError(address)

    def ipvs_listing(self) -> str:
        raise AssertionError

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        raise AssertionError(segments)

    def close(self) -> None:
        """Nothing is held."""


def sandbox(*services: Service, **fields: Any) -> Sandbox:
    return Sandbox(id="box", driver=DRIVER, ipvs=Ipvs(services=services, **fields))


def seen(*services: Service, foreign: Sequence[Service] = (), **fields: Any) -> Seen:
    around = Surroundings(services=tuple(foreign), now=100.0)
    return Seen(Observed(sandbox=sandbox(*services, **fields), around=around))


def test_a_preview_is_what_was_asked_for_seen_and_planned() -> None:
    driver, desired = seen(WEB), sandbox(TLS, WEB)
    shown = preview(driver, desired)
    planned = plan(desired, driver.observed)
    assert shown == Preview(desired=desired, observed=driver.observed, plan=planned)
    assert shown.fingerprint == fingerprint(desired, driver.observed.sandbox, planned)
    assert driver.asked == [desired]
    assert compare(desired, driver.observed) == shown


def test_services_of_others_are_left_unless_they_are_taken() -> None:
    driver = seen(WEB, foreign=[TLS, FAR])
    assert preview(driver, sandbox(WEB)).plan == Plan((), (), (), 0)
    shown = preview(driver, sandbox(WEB), adopt=True)
    assert shown.plan.operations == (DeleteService(service=TLS), DeleteService(service=FAR))
    assert shown.observed == Observed(
        sandbox=sandbox(WEB, TLS, FAR), around=replace(driver.observed.around, services=())
    )
    assert [(each.kind, each.count, each.total) for each in shown.plan.deletions] == [
        ("IPVS service", 2, 3),
        ("IPVS server", 2, 3),
    ]


def test_some_services_of_others_are_taken_and_no_others() -> None:
    driver = seen(WEB, foreign=[TLS, FAR])
    shown = preview(driver, sandbox(WEB), adopt=frozenset({TLS.key}))
    assert shown.plan.operations == (DeleteService(service=TLS),)
    assert shown.observed == Observed(
        sandbox=sandbox(WEB, TLS), around=replace(driver.observed.around, services=(FAR,))
    )
    assert preview(driver, sandbox(WEB), adopt=frozenset()).plan.operations == ()


def test_what_is_excluded_is_not_taken() -> None:
    driver = seen(foreign=[TLS, FAR, MARK], exclude=FULL)
    shown = preview(driver, sandbox(exclude=FULL), adopt=True)
    assert shown.plan.operations == (DeleteService(service=FAR),)
    assert shown.observed == Observed(
        sandbox=sandbox(FAR, exclude=FULL), around=replace(driver.observed.around, services=(TLS, MARK))
    )


def test_what_is_taken_is_drained_too() -> None:
    drained = S1.draining(160)
    assert preview(seen(WEB, foreign=[TLS]), sandbox(WEB, drain=60), adopt=True).plan.operations == (
        DrainServer(service=TLS.key, server=drained, before=S1),
    )


def test_what_was_taken_is_edited_where_it_differs() -> None:
    other = replace(TLS, scheduler="rr")
    assert preview(seen(foreign=[TLS]), sandbox(other), adopt=True).plan.operations == (
        EditService(service=other, before=TLS),
    )


@pytest.mark.parametrize("adopt", [False, True])
def test_a_sandbox_without_the_section_is_left(adopt: bool) -> None:
    nothing = Sandbox(id="box", driver=DRIVER)
    driver = Seen(Observed(sandbox=nothing))
    assert preview(driver, nothing, adopt=adopt).plan == Plan((), (), (), 0)
    assert preview(driver, nothing, adopt=adopt).observed == Observed(sandbox=nothing)


def test_where_nothing_is_said_of_services_none_is_deleted_even_if_they_are_taken() -> None:
    desired = Sandbox(id="box", driver=DRIVER, ipvs=Ipvs())
    assert preview(seen(WEB, foreign=[TLS]), desired, adopt=True).plan == Plan((), (), (), 0)

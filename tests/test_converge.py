"""An apply over a sandbox in memory: what is kept, what is undone, what is waited for, and how it is told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, assert_never

import pytest

from reconciler import converge
from reconciler.converge import Result, apply, repair
from reconciler.errors import ApplyError, ChannelError, RefusedError, VerifyError
from reconciler.guest.agent import Probe
from reconciler.model.cost import Traffic
from reconciler.model.identity import Listed
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service, Timeouts
from reconciler.model.route import Route
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink import ipvs_execute
from reconciler.netlink.facts import Snapshot
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    MarkService,
    SetTimeouts,
    StartExpiring,
    StopExpiring,
)
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.route import AddRoute, DeleteRoute
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
)
from reconciler.plan import Plan
from reconciler.preview import Preview, preview
from reconciler.safety import Allowance
from reconciler.values import replace
from tests.netlink.ipvs_kernel import FakeKernel, kernel_service
from tests.plan.sandboxes import DRIVER, route

NOW = 1_800_000_000.0
S1, S2, S3 = (Server(address=f"172.16.0.{number}", port=8080, weight=9) for number in (1, 2, 3))
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr", servers=(S1, S2))
TLS = Service(protocol="tcp", address="10.10.0.1", port=443, servers=(S3,))
DNS = Service(protocol="udp", address="10.10.0.1", port=53, servers=(S1, S2))
# The tests' kernel does not know it.
WRONG = Service(protocol="tcp", address="10.10.0.2", port=80, scheduler="twos", servers=(S1, S2))
ROUTE, OTHER_ROUTE = route("10.1.0.0/16", type="blackhole"), route("10.2.0.0/16", type="blackhole")
LOST = "the kernel did not answer within 10 s"


@dataclass
class Box:
    """A driver of a sandbox in memory: an IPVS table in a kernel of our own, and routes."""

    place: Hashable = "here"
    kernel: FakeKernel = field(default_factory=FakeKernel)
    routes: list[Route] = field(default_factory=list)
    refused: list[Route] = field(default_factory=list)
    now: float = NOW
    locked: bool = False
    executed: list[Operation] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = IpvsEngine(self.kernel)

    @contextmanager
    def lock(self) -> Iterator[None]:
        assert not self.locked
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    def close(self) -> None:
        self.engine.close()

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        sandbox = Sandbox(id=desired.id, driver=desired.driver, interfaces=(), routes=tuple(self.routes))
        if desired.ipvs is None:
            return Observed(sandbox=sandbox)
        seen = self.engine.observe(desired.ipvs, quick=quick)
        around = Surroundings(
            services=tuple(seen.foreign),
            connections=seen.connections,
            expiring=seen.expiring,
            now=self.now,
        )
        return Observed(sandbox=replace(sandbox, ipvs=seen.ipvs), around=around)

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
        assert self.locked
        for batch in until_failure(outcomes for segment in segments for outcomes in self._execute(segment)):
            self.executed += [outcome.operation for outcome in batch]
            yield batch

    def _execute(self, segment: Segment) -> Iterator[list[Outcome]]:
        match segment:
            case Table():
                return ipvs_execute.execute(self.engine, segment.operations)
            case Network():
                return ([self._route(operation)] for operation in segment.operations)
            case Moves() | Settings() | Plugs() | Commands() | Imports() | RuleCommands():
                raise TypeError(segment)
            case _:
                assert_never(segment)

    def _route(self, operation: Operation) -> Outcome:
        match operation:
            case AddRoute(route=each) | DeleteRoute(route=each) if each in self.refused:
                return Outcome(operation, Status.FAILED, "the kernel: Operation not permitted")
            case AddRoute(route=each):
                self.routes.append(each)
            case DeleteRoute(route=each):
                self.routes.remove(each)
            case _:
                raise TypeError(operation)
        return Outcome(operation, Status.DONE)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipvs_execute, "EXPIRE_SECONDS", 0)
    monkeypatch.setattr(converge, "_DRAIN_POLL", 0)


def wanted(*services: Service, routes: Sequence[Route] | None = None, **fields: Any) -> Sandbox:
    return Sandbox(
        id="box",
        driver=DRIVER,
        routes=None if routes is None else tuple(routes),
        ipvs=Ipvs(services=services, **fields),
    )


def in_sync(box: Box, desired: Sandbox) -> bool:
    return preview(box, desired).plan.operations == ()


def refused_apply(box: Box, desired: Sandbox, **options: Any) -> ApplyError:
    with pytest.raises(ApplyError) as caught:
        apply(box, desired, **options)
    assert not box.locked
    return caught.value


def box_of(*services: Service, **fields: Any) -> Box:
    box = Box(**fields)
    for each in services:
        box.kernel.add(each)
    return box


def test_what_is_in_sync_is_not_touched() -> None:
    box = box_of(WEB, DNS)
    result = apply(box, wanted(WEB, DNS))
    assert result.operations == ()
    assert (box.executed, box.kernel.changes) == ([], [])


def test_a_table_is_made_what_it_should_be() -> None:
    box = box_of(TLS, replace(WEB, servers=(S3, replace(S1, weight=1))))
    desired = wanted(WEB, DNS, TLS, timeouts=Timeouts(60), sysctls=(("conntrack", 1),))
    result = apply(box, desired)
    assert list(result.operations) == box.executed
    assert in_sync(box, desired)
    expected = FakeKernel(timeouts={4: 60, 5: 120, 6: 300})
    expected.sysctls["conntrack"] = "1"
    for each in (WEB, DNS, TLS):
        expected.add(each)
    assert box.kernel.snapshot() == expected.snapshot()
    assert apply(box, desired).operations == ()


def test_who_reviews_can_stop_it() -> None:
    def stop(_: Preview) -> None:
        raise RefusedError("no")

    box = box_of(WEB)
    with pytest.raises(RefusedError, match=r"^no$"):
        apply(box, wanted(TLS), accept=stop)
    with pytest.raises(RefusedError, match=r"^this would delete the only IPVS service"):
        apply(box, wanted(TLS))
    assert box.executed == []
    apply(box, wanted(TLS), allowance=Allowance())
    assert in_sync(box, wanted(TLS))


# What fails.


def test_a_rule_that_fails_leaves_the_others_where_they_are_and_is_reported() -> None:
    box = box_of(DNS)
    desired = wanted(TLS, WRONG, DNS, WEB, routes=[ROUTE])
    told = refused_apply(box, desired)
    assert (told.headline, told.reason, told.others, told.path, told.counts) == (
        "3 of 9 operations failed: ipvsadm -A -t 10.10.0.2:80 -s twos",
        "the kernel: No such file or directory",
        (
            "ipvsadm -a -t 10.10.0.2:80 -r 172.16.0.1:8080 -m -w 9: its service could not be added",
            "ipvsadm -a -t 10.10.0.2:80 -r 172.16.0.2:8080 -m -w 9: its service could not be added",
        ),
        ("ipvs", "services", 1),
        "6 done and kept; 3 left to do.",
    )
    assert told.lines[0] == f"{told.headline}: {told.reason}. {told.counts}"
    assert told.lines[1:] == tuple(f"  {each}" for each in told.others)
    assert box.routes == [ROUTE]
    assert set(box.kernel.services) == {kernel_service(each).id for each in (TLS, DNS, WEB)}
    assert in_sync(box, wanted(TLS, DNS, WEB, routes=[ROUTE]))


def test_many_failures_are_counted_and_the_first_five_named() -> None:
    box = Box()
    wrong = [replace(WRONG, port=port, servers=()) for port in range(1, 9)]
    told = refused_apply(box, wanted(WEB, *wrong))
    assert told.headline == "8 of 11 operations failed: ipvsadm -A -t 10.10.0.2:1 -s twos"
    lines = [f"ipvsadm -A -t 10.10.0.2:{port} -s twos: the kernel: No such file or directory" for port in (2, 3, 4, 5)]
    assert (told.reason, told.others) == ("the kernel: No such file or directory", (*lines, "… and 3 more"))
    assert told.path == ("ipvs", "services", 1)
    assert told.counts == "3 done and kept; 8 left to do."


def test_a_server_that_fails_is_found_in_the_manifest() -> None:
    box = Box()
    wrong = replace(WEB, servers=(S1, replace(S2, upper_threshold=1, lower_threshold=2), S3))
    told = refused_apply(box, wanted(TLS, wrong))
    assert (told.headline, told.reason, told.path) == (
        "1 of 6 operations failed: ipvsadm -a -t 10.10.0.1:80 -r 172.16.0.2:8080 -m -w 9 -x 1 -y 2",
        "the kernel: Numerical result out of range",
        ("ipvs", "services", 1, "servers", 1),
    )


@pytest.mark.parametrize(
    ("operation", "desired", "path"),
    [
        (DeleteServer(service=WEB.key, server=S2), wanted(TLS, replace(WEB, servers=(S1,))), ("ipvs", "services", 1)),
        (DeleteService(service=WEB), wanted(TLS), ()),
        (SetTimeouts(timeouts=Timeouts(7), before=Timeouts()), wanted(TLS, WEB, timeouts=Timeouts(7)), ("ipvs",)),
        (
            EditService(service=replace(WEB, scheduler="lc"), before=WEB),
            wanted(TLS, replace(WEB, scheduler="lc")),
            ("ipvs", "services", 1),
        ),
        (
            EditServer(service=WEB.key, server=replace(S1, weight=8), before=S1),
            wanted(TLS, replace(WEB, servers=(replace(S1, weight=8), S2))),
            ("ipvs", "services", 1, "servers", 0),
        ),
    ],
)
def test_what_fails_is_named_with_its_place(operation: Any, desired: Sandbox, path: tuple[str | int, ...]) -> None:
    box = box_of(TLS, WEB)
    box.kernel.refuse(operation, errno.EPERM)
    told = refused_apply(box, desired)
    assert (told.headline, told.reason, told.path, told.counts) == (
        f"1 of 1 operations failed: {operation.command}",
        "the kernel: Operation not permitted",
        path,
        "0 done and kept; 1 left to do.",
    )


def test_a_setting_that_the_kernel_lacks_is_one_failure() -> None:
    box = Box()
    told = refused_apply(box, wanted(WEB, sysctls=(("run_estimation", 0),)))
    assert (told.headline, told.reason, told.path, told.counts) == (
        "1 of 4 operations failed: sysctl -w net.ipv4.vs.run_estimation=0",
        "sysctl net.ipv4.vs.run_estimation=0: No such file or directory",
        ("ipvs",),
        "3 done and kept; 1 left to do.",
    )


def test_all_or_nothing_undoes_everything() -> None:
    box = box_of(DNS, replace(WEB, scheduler="wrr", servers=(S1, replace(S3, weight=1))), TLS, routes=[OTHER_ROUTE])
    before = box.kernel.snapshot()
    desired = wanted(WRONG, WEB, DNS, timeouts=Timeouts(5, 6, 7), sysctls=(("conntrack", 1),), routes=[ROUTE])
    told = refused_apply(box, desired, all_or_nothing=True)
    assert told.headline == "failed at operation 4 of 11: ipvsadm -A -t 10.10.0.2:80 -s twos"
    assert told.reason == "the kernel: No such file or directory"
    assert told.path == ("ipvs", "services", 0)
    # The old service of its family is kept.
    assert told.counts == "7 done, all 7 undone; 4 failed; 0 not begun. box is as it was before."
    assert box.kernel.snapshot() == before
    assert box.routes == [OTHER_ROUTE]


def test_a_route_that_fails_leaves_ipvs_where_it_is() -> None:
    box = box_of(DNS, routes=[OTHER_ROUTE], refused=[OTHER_ROUTE])
    told = refused_apply(box, wanted(WEB, DNS, routes=[]))
    assert (told.headline, told.counts) == (
        "1 of 4 operations failed: ip route del blackhole 10.2.0.0/16 proto 200",
        "3 done and kept; 1 left to do.",
    )
    assert in_sync(box, wanted(WEB, DNS))
    assert box.routes == [OTHER_ROUTE]


def test_a_route_that_fails_undoes_ipvs_as_well_if_that_is_asked_for() -> None:
    box = box_of(DNS, routes=[OTHER_ROUTE], refused=[OTHER_ROUTE])
    before = box.kernel.snapshot()
    told = refused_apply(box, wanted(WEB, DNS, routes=[]), all_or_nothing=True)
    assert (told.headline, told.counts) == (
        "failed at operation 4 of 4: ip route del blackhole 10.2.0.0/16 proto 200",
        "3 done, all 3 undone; 0 not begun. box is as it was before.",
    )
    assert (box.kernel.snapshot(), box.routes) == (before, [OTHER_ROUTE])


def test_a_route_that_fails_before_ipvs_does_not_stop_it() -> None:
    box = box_of(refused=[ROUTE])
    told = refused_apply(box, wanted(WEB, routes=[ROUTE, OTHER_ROUTE]))
    assert told.counts == "4 done and kept; 1 left to do."
    assert in_sync(box, wanted(WEB, routes=[OTHER_ROUTE]))
    box = box_of(refused=[ROUTE])
    told = refused_apply(box, wanted(WEB, routes=[ROUTE]), all_or_nothing=True)
    assert told.counts == "0 done; 3 not begun. box is as it was before."
    assert box.kernel.changes == []


def test_a_repair_returns_what_failed_and_keeps_the_rest() -> None:
    box = box_of(refused=[ROUTE])
    result = repair(box, wanted(WEB, routes=[ROUTE, OTHER_ROUTE]), quick=False)
    assert result.failure is not None
    assert result.failure.subjects == {Listed("routes", ROUTE.key)}
    assert len(result.operations) == 4
    assert AddRoute(route=OTHER_ROUTE) in result.operations


class Contested(Box):
    """A sandbox in which another program is quicker than each of the first plans: it refuses what they begin with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.theirs: list[Route] = []

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        if not self.theirs:
            self.refused = []
        else:
            self.routes.append(self.theirs.pop())
            self.refused = [ROUTE]
        return super().execute(segments)


def contested(plans: int) -> Contested:
    box = Contested()
    box.theirs = [route(f"10.9.{number}.0/24", type="blackhole") for number in range(plans)]
    return box


@pytest.mark.parametrize("act", [apply, partial(repair, quick=False)], ids=["apply", "repair"])
def test_a_plan_that_was_overtaken_is_made_anew(act: Callable[[Box, Sandbox], Result]) -> None:
    box = contested(converge._PLANS - 1)
    result = act(box, wanted(routes=[ROUTE]))
    assert result.failure is None
    # What was carried out, and not what was planned at first.
    gone = [route(f"10.9.{number}.0/24", type="blackhole") for number in (1, 0)]
    assert set(result.operations) == {AddRoute(route=ROUTE), *(DeleteRoute(route=each) for each in gone)}
    assert box.routes == [ROUTE]


def test_a_program_that_is_always_quicker_is_told() -> None:
    box = contested(99)
    told = refused_apply(box, wanted(routes=[ROUTE]))
    assert len(box.executed) == converge._PLANS
    # Besides the route, there are those that the other program added.
    assert told.counts == f"0 done and kept; {converge._PLANS - 1} not tried; {converge._PLANS + 1} left to do."
    box = contested(99)
    result = repair(box, wanted(routes=[ROUTE]), quick=False)
    assert (result.operations, len(box.executed)) == ((), converge._PLANS)
    assert result.failure is not None
    assert result.failure.subjects == {Listed("routes", ROUTE.key)}


@pytest.mark.parametrize("quick", [True, False])
def test_whether_it_was_overtaken_is_told_by_the_look_that_it_was_planned_after(
    monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """A full look may find more than a quick one did, and a manifest of which a part has to wait, less."""
    box = box_of(DNS, routes=[OTHER_ROUTE], refused=[ROUTE])
    observe, looks = box.observe, list[tuple[Sandbox, bool]]()

    def noted(desired: Sandbox, *, quick: bool = False) -> Observed:
        looks.append((desired, quick))
        return observe(desired, quick=quick)

    monkeypatch.setattr(box, "observe", noted)
    desired = wanted(DNS, routes=[ROUTE])
    assert repair(box, desired, quick=quick, postpones=lambda each: isinstance(each, DeleteRoute)).failure is not None
    assert looks[:2] == [(desired, quick)] * 2


def test_what_fails_for_another_reason_is_planned_once() -> None:
    box = box_of(refused=[ROUTE])
    planned: list[Preview] = []
    refused_apply(box, wanted(routes=[ROUTE]), accept=planned.append)
    assert (len(planned), box.executed) == (1, [AddRoute(route=ROUTE)])


def test_a_repair_leaves_alone_what_is_postponed_and_needs_no_proof_of_it() -> None:
    box = box_of(DNS, routes=[OTHER_ROUTE])
    result = repair(box, wanted(DNS, routes=[ROUTE]), quick=False, postpones=lambda each: isinstance(each, AddRoute))
    assert (result.operations, result.postponed) == ((DeleteRoute(route=OTHER_ROUTE),), (AddRoute(route=ROUTE),))
    # What it should replace is not deleted.
    twin = replace(ROUTE, metric=7)
    box = box_of(DNS, routes=[twin])
    result = repair(box, wanted(DNS, routes=[ROUTE]), quick=False, postpones=lambda each: isinstance(each, AddRoute))
    assert (result.operations, set(result.postponed)) == ((), {AddRoute(route=ROUTE), DeleteRoute(route=twin)})
    assert box.routes == [twin]


def test_an_undo_gives_back_drained_servers_and_waits_for_none() -> None:
    box = box_of(WEB, TLS)
    before = box.kernel.snapshot()
    refused_apply(box, wanted(replace(WEB, servers=(S1,)), TLS, WRONG, drain=60), all_or_nothing=True)
    assert box.kernel.snapshot() == before
    assert [type(each) for each in box.executed if not isinstance(each, AddService | AddServer)] == [
        DrainServer,
        EditServer,
    ]


@pytest.mark.parametrize("carried_out", [False, True])
def test_what_became_of_an_operation_without_an_answer_is_settled_by_looking(carried_out: bool) -> None:
    box = box_of(TLS)
    edit = EditServer(service=TLS.key, server=replace(S3, weight=1), before=S3)
    box.kernel.lose(edit, carried_out=carried_out)
    desired = wanted(replace(TLS, servers=(replace(S3, weight=1),)))
    if carried_out:
        assert apply(box, desired).operations == (edit,)
        return
    told = refused_apply(box, desired)
    assert (told.headline, told.reason, told.counts) == (
        f"0 of 1 operations failed, and to 1 there was no answer: {edit.command}",
        LOST,
        "0 done and kept; 1 left to do.",
    )


@pytest.mark.parametrize("carried_out", [False, True])
def test_all_or_nothing_settles_what_is_unknown_by_looking(carried_out: bool) -> None:
    box = box_of(TLS)
    before = box.kernel.snapshot()
    box.kernel.lose(AddServer(service=WEB.key, server=S2), carried_out=carried_out)
    told = refused_apply(box, wanted(WEB, TLS, DNS), all_or_nothing=True)
    assert (told.headline, told.reason, told.counts) == (
        "failed at operation 1 of 6: ipvsadm -A -t 10.10.0.1:80 -s rr",
        LOST,
        "0 done; 6 unknown, settled by looking again; 0 not begun. box is as it was before.",
    )
    assert box.kernel.snapshot() == before


def test_an_undo_that_fails_says_what_is_left() -> None:
    box = box_of(TLS)
    box.kernel.refuse(DeleteService(service=WEB), errno.EPERM)
    told = refused_apply(box, wanted(WEB, WRONG, TLS), all_or_nothing=True)
    assert told.counts == (
        "3 done; 3 failed; 0 not begun. "
        "box is NOT as it was before: 1 left to undo, the first: ipvsadm -D -t 10.10.0.1:80."
    )


def test_a_kernel_that_is_lost_afterwards_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()
    observe, looks = box.observe, iter((True, False))

    def once(desired: Sandbox, *, quick: bool) -> Observed:
        if next(looks):
            return observe(desired, quick=quick)
        raise ChannelError(LOST)

    monkeypatch.setattr(box, "observe", once)
    told = refused_apply(box, wanted(WEB, WRONG))
    assert told.counts == (f"3 done; what is left is unknown: {LOST}.")


def test_what_differs_nevertheless_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()
    monkeypatch.setattr(box, "_route", lambda operation: Outcome(operation, Status.DONE))
    with pytest.raises(VerifyError) as caught:
        apply(box, wanted(WEB, routes=[ROUTE]))
    assert str(caught.value) == (
        "everything was applied, but the sandbox differs from its manifest:\n  routes: blackhole 10.1.0.0/16 is missing"
    )


def test_a_plan_that_forgets_something_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.preview.plan", lambda *_: Plan(()))
    with pytest.raises(VerifyError) as caught:
        apply(box_of(TLS), wanted(TLS, WEB, routes=[route(f"10.{number}.0.0/16") for number in range(6)]))
    assert str(caught.value) == (
        "everything was applied, but the sandbox differs from its manifest:\n"
        "  routes: 10.0.0.0/16 is missing\n"
        "  routes: 10.1.0.0/16 is missing\n"
        "  routes: 10.2.0.0/16 is missing\n"
        "  routes: 10.3.0.0/16 is missing\n"
        "  routes: 10.4.0.0/16 is missing\n"
        "  … and 4 more"
    )


def test_what_is_left_to_do_beside_the_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    box = box_of(TLS)
    box.kernel.sysctls["expire_nodest_conn"] = "2"
    monkeypatch.setattr(ipvs_execute, "_set", lambda _, operation: Outcome(operation, Status.DONE))
    with pytest.raises(VerifyError) as caught:
        apply(box, wanted(TLS))
    assert str(caught.value) == (
        "everything was applied, but operations are left to do:\n"
        "  sleep 0.5; sysctl -w net.ipv4.vs.expire_nodest_conn=0"
    )


@pytest.mark.parametrize("kind", [AddRoute, AddService, EditServer])
def test_what_is_held_back_may_differ(kind: type) -> None:
    box = box_of(replace(DNS, servers=(replace(S1, weight=1), S2)))
    desired = wanted(DNS, TLS, routes=[ROUTE])
    result = repair(box, desired, quick=True, postpones=lambda operation: isinstance(operation, kind))
    postponed = {type(each) for each in result.postponed}
    assert postponed == ({AddService, AddServer} if kind is AddService else {kind})
    assert {AddRoute, AddService, AddServer, EditServer} == postponed | {type(each) for each in result.operations}


# Draining.


def ending(box: Box, *steps: Callable[[], None]) -> Callable[[int], None]:
    """Do a step each time that the apply waits; note how many servers it waits for."""
    left = iter(steps)

    def waiting(count: int) -> None:
        box.waited.append(count)
        next(left)()

    return waiting


def test_an_apply_waits_until_connections_end_and_then_deletes() -> None:
    box = Box()
    there = box.kernel.add(DNS, connections=(3, 4))
    box.kernel.add(TLS)
    two, one = there.servers

    def end_of(server: Any) -> Callable[[], None]:
        def end() -> None:
            service = box.kernel.services[there.id]
            for each in service.servers:
                if each.id == server.id:
                    each.active = each.inactive = 0

        return end

    waiting = ending(box, lambda: None, end_of(two), lambda: None, end_of(one))
    desired = wanted(replace(DNS, servers=()), TLS, drain=60)
    result = apply(box, desired, waiting=waiting)
    d1, d2 = S1.draining(NOW + 60), S2.draining(NOW + 60)
    assert result.operations == (
        DrainServer(service=DNS.key, server=d2, before=S2),
        DrainServer(service=DNS.key, server=d1, before=S1),
        DeleteServer(service=DNS.key, server=d2),
        DeleteServer(service=DNS.key, server=d1),
    )
    assert box.waited == [2, 2, 1, 1]
    assert in_sync(box, desired)


def test_an_apply_waits_no_longer_than_to_the_deadline() -> None:
    box = Box()
    box.kernel.add(DNS, connections=(3, 4))
    box.kernel.add(TLS)

    def later() -> None:
        box.now += 30

    result = apply(box, wanted(TLS, drain=60), waiting=ending(box, later, later))
    d1, d2 = S1.draining(NOW + 60), S2.draining(NOW + 60)
    gone = next(each for each in result.operations if isinstance(each, DeleteService)).service
    assert (replace(gone, servers=()), set(gone.servers)) == (replace(DNS, servers=()), {d1, d2})
    assert result.operations[2:] == (StartExpiring(), DeleteService(service=gone), StopExpiring())
    assert box.waited == [2, 2]
    assert set(box.kernel.services) == {kernel_service(TLS).id}


def test_a_run_that_was_killed_as_it_waited_is_continued_by_the_next() -> None:
    box = Box()
    box.kernel.add(WEB, connections=(0, 4))

    def kill() -> None:
        raise KeyboardInterrupt

    desired = wanted(replace(WEB, servers=(S1,)), drain=60)
    with pytest.raises(KeyboardInterrupt):
        apply(box, desired, waiting=ending(box, kill))
    box.now += 59

    def later() -> None:
        box.now += 1

    result = apply(box, desired, waiting=ending(box, later))
    assert result.operations == (DeleteServer(service=WEB.key, server=S2.draining(NOW + 60)),)
    # And one after it has nothing to do.
    assert apply(box, desired, waiting=ending(box)).operations == ()


def test_a_drained_server_that_cannot_be_deleted_is_told() -> None:
    box = box_of(WEB)
    drained = S2.draining(NOW + 60)
    box.kernel.refuse(DeleteServer(service=WEB.key, server=drained), errno.EPERM)
    with pytest.raises(VerifyError) as caught:
        apply(box, wanted(replace(WEB, servers=(S1,)), drain=60), waiting=ending(box, lambda: None))
    assert str(caught.value) == (
        "a drained server cannot be deleted: ipvsadm -d -t 10.10.0.1:80 -r 172.16.0.2:8080: "
        "the kernel: Operation not permitted"
    )


# Services of others.


def test_services_of_others_stay_and_are_taken_only_if_that_is_asked_for() -> None:
    box = Box()
    box.kernel.add(DNS, marked=False)
    box.kernel.add(WEB)
    assert apply(box, wanted(WEB)).operations == ()
    shown = preview(box, wanted(WEB), adopt=True)
    assert [type(each) for each in shown.plan.operations] == [StartExpiring, DeleteService, StopExpiring]
    result = apply(box, wanted(WEB), adopt=True)
    assert [type(each) for each in result.operations] == [StartExpiring, DeleteService, StopExpiring]
    assert set(box.kernel.services) == {kernel_service(WEB).id}


def test_taking_all_counts_as_deletions_and_leaves_what_is_excluded() -> None:
    box = Box()
    box.kernel.add(DNS, marked=False)
    with pytest.raises(RefusedError, match=r"^this would delete the only IPVS service"):
        apply(box, wanted(), adopt=True)
    exclude = (Excluded(prefix="10.10.0.0/24"),)
    assert apply(box, wanted(exclude=exclude), adopt=True).operations == ()
    assert set(box.kernel.services) == {kernel_service(DNS).id}


def test_a_service_of_ours_that_lost_its_mark_and_changes_has_it_again() -> None:
    box = Box()
    box.kernel.add(WEB, marked=False)
    changed = replace(WEB, scheduler="lc")
    result = apply(box, wanted(changed))
    (operation,) = result.operations
    assert isinstance(operation, EditService)
    (there,) = box.kernel.services.values()
    assert there.flags == kernel_service(changed).flags
    assert isinstance(result, Result)


def test_a_service_of_ours_that_only_lost_its_mark_has_it_again_and_can_go_later() -> None:
    for each in (TLS, WEB):
        box = Box()
        box.kernel.add(each, marked=False)
        box.kernel.add(DNS)
        (operation,) = apply(box, wanted(each, DNS)).operations
        assert operation == MarkService(service=each)
        assert {there.flags for there in box.kernel.services.values()} == {kernel_service(DNS).flags}
        assert [type(gone) for gone in apply(box, wanted(DNS)).operations] == [DeleteService]


def test_a_kernel_that_keeps_no_marks_is_accepted_only_if_all_of_its_table_is_taken() -> None:
    for each in (TLS, WEB):
        box = Box(kernel=FakeKernel(keeps_marks=False))
        with pytest.raises(VerifyError) as caught:
            apply(box, wanted(each))
        assert str(caught.value) == (
            "this kernel does not keep our mark on IPVS services, so its whole table has to count as ours: --adopt"
        )
        box = Box(kernel=FakeKernel(keeps_marks=False))
        apply(box, wanted(each), adopt=True)
        apply(box, wanted(DNS), adopt=True, allowance=Allowance())
        assert set(box.kernel.services) == {kernel_service(DNS).id}


def test_what_is_taken_is_drained_to_its_end() -> None:
    box = Box()
    box.kernel.add(DNS, marked=False, connections=(3, 3))
    box.kernel.add(TLS)

    def later() -> None:
        box.now += 30

    desired = wanted(TLS, drain=60)
    result = apply(box, desired, adopt=True, waiting=ending(box, later, later))
    assert [type(each) for each in result.operations] == [
        *(DrainServer, DrainServer, StartExpiring, DeleteService, StopExpiring)
    ]
    assert set(box.kernel.services) == {kernel_service(TLS).id}


def test_what_is_taken_and_drains_already_is_waited_for() -> None:
    box = Box()
    box.kernel.add(replace(DNS, servers=(S1.draining(NOW + 60),)), marked=False, connections=(3,))
    box.kernel.add(TLS)
    assert preview(box, wanted(TLS, drain=60), adopt=True).plan[0::3] == ((), 1)


def test_an_undo_takes_nothing_that_was_somebody_elses() -> None:
    for desired in (wanted(replace(TLS, scheduler="rr"), WRONG, DNS), wanted(TLS, WRONG)):
        box = Box()
        box.kernel.add(DNS, marked=False)
        box.kernel.add(TLS)
        before = box.kernel.snapshot()
        told = refused_apply(box, desired, adopt=True, all_or_nothing=True, allowance=Allowance())
        assert told.counts.endswith(" box is as it was before.")
        assert box.kernel.snapshot() == before


def test_without_an_answer_about_ipvs_a_route_is_deleted_nevertheless() -> None:
    box = box_of(TLS)
    lost = EditServer(service=TLS.key, server=replace(S3, weight=1), before=S3)
    box.kernel.lose(lost, carried_out=False)
    desired = wanted(WEB, replace(TLS, servers=(replace(S3, weight=1),)), routes=[])
    box.routes = [OTHER_ROUTE]
    told = refused_apply(box, desired)
    assert (told.headline, told.counts) == (
        "0 of 5 operations failed, and to 4 there was no answer: ipvsadm -A -t 10.10.0.1:80 -s rr",
        "1 done and kept; 1 left to do.",
    )
    assert box.routes == []


def test_what_a_killed_run_left_on_is_put_back_and_is_no_part_of_an_undo() -> None:
    box = box_of(TLS)
    box.kernel.sysctls["expire_nodest_conn"] = "2"
    told = refused_apply(box, wanted(TLS, WRONG), all_or_nothing=True)
    assert told.counts.endswith(" box is as it was before.")
    assert box.kernel.sysctls["expire_nodest_conn"] == "0"
    box.kernel.sysctls["expire_nodest_conn"] = "2"
    section = Ipvs(timeouts=Timeouts(900))
    assert apply(box, replace(wanted(), ipvs=section)).operations == (StopExpiring(),)
    assert box.kernel.sysctls["expire_nodest_conn"] == "0"


def test_the_last_service_stays_if_its_replacement_cannot_be_added() -> None:
    box = box_of(WEB, DNS)
    told = refused_apply(box, wanted(WRONG), allowance=Allowance())
    assert set(box.kernel.services) == {kernel_service(each).id for each in (WEB, DNS)}
    assert told.reason == "the kernel: No such file or directory"
    assert told.others == (
        "ipvsadm -a -t 10.10.0.2:80 -r 172.16.0.1:8080 -m -w 9: its service could not be added",
        "ipvsadm -a -t 10.10.0.2:80 -r 172.16.0.2:8080 -m -w 9: its service could not be added",
        "ipvsadm -D -t 10.10.0.1:80: kept, because another service of its family could not be added",
        "ipvsadm -D -u 10.10.0.1:53: kept, because another service of its family could not be added",
    )

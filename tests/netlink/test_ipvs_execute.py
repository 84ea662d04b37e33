"""Operations of IPVS over a channel: what is sent, in which order, and what becomes of each."""

from __future__ import annotations

import errno
import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import ChannelError, HostError, ProtocolError
from reconciler.model.ipvs import Ipvs, Server, Service, Timeouts
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink import ipvs, ipvs_execute, message, pace
from reconciler.netlink.ipvs_engine import IpvsEngine, IpvsTable
from reconciler.netlink.ipvs_execute import BATCH, EDIT, ORDERED, execute
from reconciler.netlink.message import Message
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    IpvsOperation,
    MessageOperation,
    SetSysctl,
    SetTimeouts,
    StartExpiring,
    StopExpiring,
)
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.route import DeleteRoute
from reconciler.plan import Plan, plan
from reconciler.values import replace
from tests.examples import examples
from tests.formats.strategies import services
from tests.netlink.ipvs_kernel import FAMILY, FakeChannel, FakeKernel, kernel_service
from tests.plan.sandboxes import DRIVER, route

S1, S2, S3 = (Server(address=f"172.16.0.{number}", port=8080) for number in (1, 2, 3))
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr", servers=(S1, S2))
TLS = Service(protocol="tcp", address="10.10.0.1", port=443, servers=(S3,))
DNS = Service(protocol="udp", address="10.10.0.1", port=53, servers=(S1,))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait, and let each batch be as large as it may, on a busy host too; test_pace.py is about their sizes."""
    monkeypatch.setattr(ipvs_execute, "EXPIRE_SECONDS", 0)
    monkeypatch.setattr(pace, "FIRST", BATCH)
    monkeypatch.setattr(pace, "GOOD_TIME", math.inf)


def run(fake: FakeKernel, operations: Sequence[IpvsOperation]) -> list[Outcome]:
    return list(itertools.chain.from_iterable(execute(IpvsEngine(fake), operations)))


def done(*operations: Operation) -> list[Outcome]:
    return [Outcome(operation, Status.DONE) for operation in operations]


def failed(operation: Operation, reason: str) -> Outcome:
    return Outcome(operation, Status.FAILED, reason)


def add(service: Service) -> list[IpvsOperation]:
    return [AddService(service=service), *[AddServer(service=service.key, server=each) for each in service.servers]]


def sent(operation: MessageOperation) -> bytes:
    (built,) = message.messages(ipvs.encode(operation, FAMILY, 1))
    return built.payload


def test_nothing_to_do_asks_nothing() -> None:
    fake = FakeKernel()
    assert run(fake, []) == []
    # The question for the family.
    assert (fake.exchanges, fake.changes) == (1, [])


def test_each_operation_is_carried_out_in_order() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    edited, lighter = replace(WEB, scheduler="wrr"), replace(S1, weight=0)
    operations: list[IpvsOperation] = [
        SetSysctl(name="conntrack", value=1, before=0),
        SetTimeouts(timeouts=Timeouts(60, None, 5), before=Timeouts(900, 120, 300)),
        *add(DNS),
        EditService(service=edited, before=WEB),
        EditServer(service=WEB.key, server=lighter, before=S1),
        AddServer(service=WEB.key, server=S3),
        DrainServer(service=WEB.key, server=S2.draining(1_800_000_000), before=S2),
        StartExpiring(),
        DeleteServer(service=WEB.key, server=S3),
        StopExpiring(),
        DeleteConntrack(address="10.10.0.1", protocol="udp"),
        DeleteService(service=DNS),
    ]
    assert run(fake, operations) == done(*operations)
    after = FakeKernel(timeouts={4: 60, 5: 120, 6: 5})
    after.sysctls["conntrack"] = "1"
    after.add(replace(edited, servers=(lighter, S2.draining(1_800_000_000))))
    assert fake.snapshot() == after.snapshot()
    assert [each if isinstance(each, str) else each[0] for each in fake.changes] == [
        *("conntrack=1", 12, 1, 5, 2, 6, 5, 6),
        *("expire_nodest_conn=2", 7, "expire_nodest_conn=0", 3),
    ]


class Recorder(FakeKernel):
    """Keeps each exchange that changes something."""

    def open(self, protocol: int) -> FakeChannel:
        channel = super().open(protocol)
        self.batches: list[list[Message]] = []
        exchange = channel.exchange

        def record(requests: bytes, last: int) -> list[Message]:
            asked = message.messages(requests)
            if asked[0].type == FAMILY and asked[0].payload[0] not in {4, 8, 13}:
                self.batches.append(asked)
            return exchange(requests, last)

        channel.exchange = record  # type: ignore[method-assign]
        return channel


def test_an_answer_is_asked_of_the_last_only() -> None:
    fake = Recorder()
    fake.add(WEB)
    operations = [EditServer(service=WEB.key, server=replace(S1, weight=n), before=S1) for n in range(5)]
    assert run(fake, operations) == done(*operations)
    (batch,) = fake.batches
    assert [bool(each.flags & message.ACK) for each in batch] == [False] * 4 + [True]
    assert [each.payload for each in batch] == [sent(each) for each in operations]
    assert [each.sequence - batch[0].sequence for each in batch] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("more", "count"), [(-1, 3), (0, 3), (1, 4)])
def test_a_batch_ends_with_the_request_that_fills_it(monkeypatch: pytest.MonkeyPatch, more: int, count: int) -> None:
    operations = [DeleteServer(service=WEB.key, server=replace(S1, port=n)) for n in range(1, 10)]
    size = len(ipvs.encode(operations[0], FAMILY, 1))
    monkeypatch.setattr(ipvs_execute, "BATCH", 3 * size + more)
    fake = Recorder()
    outcomes = list(execute(IpvsEngine(fake), operations))
    assert [len(batch) for batch in fake.batches] == [count, count, 9 - 2 * count] if count > 3 else [3, 3, 3]
    assert list(itertools.chain.from_iterable(outcomes)) == done(*operations)


def test_a_batch_is_large() -> None:
    fake = Recorder()
    operations = [DeleteServer(service=WEB.key, server=replace(S1, port=n)) for n in range(1, 5001)]
    assert run(fake, operations) == done(*operations)
    size = len(ipvs.encode(operations[0], FAMILY, 1))
    assert [len(batch) for batch in fake.batches] == [-(-BATCH // size)] * (5000 * size // BATCH) + [
        5000 - -(-BATCH // size) * (5000 * size // BATCH)
    ]


def test_a_batch_of_edits_is_small() -> None:
    """The kernel takes some 10 ms for each scheduler that it changes."""
    fake = Recorder()
    count = -(-BATCH // EDIT)
    changed = [replace(TLS, port=n, servers=()) for n in range(1, 2 * count + 2)]
    run(fake, [AddService(service=each) for each in changed])
    fake.batches.clear()
    edits = [EditService(service=each, before=replace(each, scheduler="rr")) for each in changed]
    assert run(fake, edits) == done(*edits)
    assert [len(batch) for batch in fake.batches] == [count, count, 1]


def test_rules_that_fail_stop_no_others() -> None:
    fake = FakeKernel()
    fake.add(TLS)
    operations: list[IpvsOperation] = [
        AddService(service=WEB),
        AddService(service=TLS),
        AddServer(service=WEB.key, server=S1),
        AddServer(service=WEB.key, server=replace(S2, upper_threshold=1, lower_threshold=2)),
        AddServer(service=TLS.key, server=S3),
        EditServer(service=TLS.key, server=S2, before=S2),
        EditService(service=DNS, before=DNS),
        DeleteServer(service=TLS.key, server=S3),
    ]
    assert run(fake, operations) == [
        Outcome(operations[0], Status.DONE),
        Outcome(operations[1], Status.DONE),
        Outcome(operations[2], Status.DONE),
        failed(operations[3], "the kernel: Numerical result out of range"),
        Outcome(operations[4], Status.DONE),
        failed(operations[5], "the kernel: No such file or directory"),
        failed(operations[6], "the kernel: No such process"),
        Outcome(operations[7], Status.DONE),
    ]


def test_a_service_that_cannot_be_added_explains_its_servers_and_no_others() -> None:
    fake = FakeKernel()
    wrong = replace(WEB, scheduler="twos")
    operations = [*add(wrong), *add(TLS), *add(replace(DNS, scheduler="lc"))]
    assert run(fake, operations) == [
        failed(operations[0], "the kernel: No such file or directory"),
        failed(operations[1], "its service could not be added"),
        failed(operations[2], "its service could not be added"),
        *done(*operations[3:]),
    ]
    # Also when they are added along the kernel's order, long after it.
    fake = FakeKernel()
    many = [replace(TLS, address="10.10.0.9", port=n) for n in range(1, ORDERED + 1)]
    heads: list[IpvsOperation] = [AddService(service=wrong), *[AddService(service=each) for each in many]]
    tails = [AddServer(service=each.key, server=s) for each in (*many, wrong) for s in each.servers]
    outcomes = run(fake, [*heads, *tails])
    assert [outcome for outcome in outcomes if outcome.status is not Status.DONE] == [
        failed(operations[0], "the kernel: No such file or directory"),
        failed(operations[1], "its service could not be added"),
        failed(operations[2], "its service could not be added"),
    ]
    assert len(outcomes) == len(heads) + len(tails)


GONE = {
    "server": (DeleteServer(service=WEB.key, server=S1), {errno.ENOENT, errno.ESRCH}),
    "service": (DeleteService(service=WEB), {errno.ESRCH}),
    "added service": (AddService(service=WEB), {errno.EEXIST}),
    "added server": (AddServer(service=WEB.key, server=S1), {errno.EEXIST}),
    "edited server": (EditServer(service=WEB.key, server=S1, before=S1), set()),
    "drained server": (DrainServer(service=WEB.key, server=S1, before=S1), {errno.ENOENT, errno.ESRCH}),
    "edited service": (EditService(service=WEB, before=WEB), set()),
    "timeouts": (SetTimeouts(timeouts=Timeouts(1), before=Timeouts()), set()),
}


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.EEXIST, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize(("operation", "codes"), GONE.values(), ids=GONE)
def test_a_deletion_of_what_is_gone_is_done(operation: MessageOperation, codes: set[int], code: int) -> None:
    fake = FakeKernel()
    fake.refused[sent(operation)] = code
    ((found, status, _),) = run(fake, [operation])
    assert (found, status) == (operation, Status.DONE if code in codes else Status.FAILED)


def test_without_an_answer_what_became_of_a_batch_is_unknown_and_nothing_else_is_begun() -> None:
    for carried_out in (False, True):
        fake = FakeKernel()
        fake.add(WEB)
        operations: list[IpvsOperation] = [
            SetSysctl(name="conntrack", value=1),
            EditServer(service=WEB.key, server=replace(S1, weight=9), before=S1),
            EditServer(service=WEB.key, server=replace(S2, weight=9), before=S2),
            DeleteServer(service=WEB.key, server=S2),
            StopExpiring(),
            DeleteService(service=DNS),
        ]
        fake.lose(EditServer(service=WEB.key, server=replace(S2, weight=9), before=S2), carried_out=carried_out)
        reason = "the kernel did not answer within 10 s"
        assert run(fake, operations) == [
            Outcome(operations[0], Status.DONE),
            Outcome(operations[1], Status.UNKNOWN, reason),
            Outcome(operations[2], Status.UNKNOWN, reason),
        ]
        assert len(fake.changes) == 2 + carried_out


def test_ipvs_that_fails_stops_nothing_and_what_is_unknown_stops_all() -> None:
    gone = DeleteRoute(route=route("10.1.0.0/16", type="blackhole"))
    batches = [
        [failed(AddService(service=WEB), "no")],
        done(AddService(service=TLS)),
        [Outcome(AddService(service=DNS), Status.UNKNOWN, "?")],
        done(gone),
    ]
    assert list(until_failure(iter(batches))) == batches[:3]
    assert list(until_failure(iter([[failed(gone, "no")], batches[1]]))) == [[failed(gone, "no")]]


def test_services_and_their_servers_go_together() -> None:
    fake = Recorder()
    operations = [operation for n in range(1, 101) for operation in add(replace(TLS, port=n))]
    assert run(fake, operations) == done(*operations)
    assert [len(batch) for batch in fake.batches] == [200]


# What is kept for what did not come.


def in_order(outcomes: list[Outcome], operations: Sequence[Operation]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: operations.index(outcome.operation))


def test_no_service_goes_whose_family_lacks_one_that_was_to_come() -> None:
    fake = FakeKernel()
    wrong, other = replace(WEB, scheduler="twos", servers=()), Service(protocol="tcp", address="fd00::1", port=80)
    fake.add(TLS)
    fake.add(DNS)
    fake.add(other)
    operations: list[IpvsOperation] = [
        AddService(service=wrong),
        DeleteService(service=TLS),
        DeleteServer(service=DNS.key, server=S1),
        DeleteService(service=other),
        StopExpiring(),
        DeleteService(service=DNS),
    ]
    kept = "kept, because another service of its family could not be added"
    assert in_order(run(fake, operations), operations) == [
        failed(operations[0], "the kernel: No such file or directory"),
        failed(operations[1], kept),
        *done(*operations[2:5]),
        failed(operations[5], kept),
    ]
    assert set(fake.services) == {kernel_service(TLS).id, kernel_service(DNS).id}


def test_no_server_goes_whose_service_lacks_one_that_was_to_come() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    fake.add(replace(TLS, servers=(S1, S3)))
    wrong = replace(S3, upper_threshold=1, lower_threshold=2)
    operations: list[IpvsOperation] = [
        AddServer(service=WEB.key, server=wrong),
        DeleteServer(service=WEB.key, server=S1),
        DrainServer(service=WEB.key, server=S2.draining(9), before=S2),
        DeleteServer(service=TLS.key, server=S1),
    ]
    kept = "kept, because another server of its service could not be added"
    assert in_order(run(fake, operations), operations) == [
        failed(operations[0], "the kernel: Numerical result out of range"),
        failed(operations[1], kept),
        failed(operations[2], kept),
        *done(operations[3]),
    ]
    expected = FakeKernel()
    expected.add(WEB)
    expected.add(TLS)
    assert fake.snapshot() == expected.snapshot()


# The order of many servers.


def many(count: int) -> list[Service]:
    return [
        Service(protocol="tcp", address=f"10.11.{n >> 8}.{n & 255}", port=80, servers=(S2, S1)) for n in range(count)
    ]


def added(fake: Recorder) -> list[bytes]:
    return [each.payload for batch in fake.batches for each in batch if each.payload[0] == 5]


def test_many_servers_are_added_against_the_order_of_the_kernel_and_by_service() -> None:
    fake = Recorder()
    services = many(ORDERED // 2)
    operations: list[IpvsOperation] = [AddServer(service=each.key, server=s) for each in services for s in each.servers]
    for each in services:
        fake.add(replace(each, servers=()))
    by_id = {kernel_service(each).id: each for each in services}
    expected = [
        AddServer(service=by_id[there.id].key, server=s) for there in fake.dumped[::-1] for s in by_id[there.id].servers
    ]
    assert [type(each) for each in expected] == [AddServer] * ORDERED
    assert run(fake, operations) == done(*expected)
    assert added(fake) == [sent(each) for each in expected]
    assert expected != operations


def test_fewer_are_added_as_they_were_planned() -> None:
    fake = Recorder()
    services = many(ORDERED // 2)
    operations = [AddServer(service=each.key, server=s) for each in services for s in each.servers][1:]
    for each in services:
        fake.add(replace(each, servers=()))
    before = fake.exchanges
    assert run(fake, operations) == done(*operations)
    assert fake.exchanges == before + 2


def test_servers_of_services_that_are_not_there_come_last() -> None:
    fake = Recorder()
    services = many(ORDERED // 2)
    operations = [AddServer(service=each.key, server=s) for each in services for s in each.servers]
    for each in services[:-1]:
        fake.add(replace(each, servers=()))
    outcomes = run(fake, operations)
    assert outcomes[-2:] == [failed(each, "the kernel: No such process") for each in operations[-2:]]
    assert [outcome.status for outcome in outcomes[:-2]] == [Status.DONE] * (ORDERED - 2)


def test_an_order_that_cannot_be_had_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()
    operations = [AddServer(service=WEB.key, server=replace(S1, port=n)) for n in range(1, ORDERED + 1)]
    fake.add(replace(WEB, servers=()))
    engine = IpvsEngine(fake)

    def no_listing() -> str:
        raise ProtocolError("no")

    monkeypatch.setattr(fake, "ipvs_listing", no_listing)
    assert list(itertools.chain.from_iterable(execute(engine, operations))) == done(*operations)


# Settings.


def test_a_setting_that_the_kernel_lacks_is_a_failure_of_its_own() -> None:
    fake = FakeKernel()
    operations: list[IpvsOperation] = [SetSysctl(name="run_estimation", value=0), SetSysctl(name="conntrack", value=1)]
    assert run(fake, operations) == [
        failed(operations[0], "sysctl net.ipv4.vs.run_estimation=0: No such file or directory"),
        *done(operations[1]),
    ]


def test_a_setting_of_which_nothing_is_heard_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()

    def lose(name: str, value: str) -> None:
        raise ChannelError(f"no answer to {name}={value}")

    monkeypatch.setattr(fake, "set_sysctl", lose)
    operations: list[IpvsOperation] = [StartExpiring(), *add(WEB)]
    assert run(fake, operations) == [
        Outcome(operations[0], Status.UNKNOWN, "no answer to net.ipv4.vs.expire_nodest_conn=2")
    ]
    assert fake.services == {}


def test_connections_are_expired_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()
    moments: list[tuple[float, str]] = []
    monkeypatch.setattr(ipvs_execute, "EXPIRE_SECONDS", 0.25)
    monkeypatch.setattr("time.sleep", lambda seconds: moments.append((seconds, fake.sysctls["expire_nodest_conn"])))
    assert run(fake, [StartExpiring(), StopExpiring()]) == done(StartExpiring(), StopExpiring())
    assert moments == [(0.25, "2")]
    assert fake.sysctls["expire_nodest_conn"] == "0"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HostError("does it have the module nf_conntrack_netlink?"), Status.FAILED),
        (ProtocolError("the kernel refused"), Status.FAILED),
        (ChannelError("no answer"), Status.UNKNOWN),
    ],
)
def test_connection_tracking_that_cannot_be_read_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: Status
) -> None:
    asked: list[tuple[object, ...]] = []

    def delete(channel: FakeChannel, address: str, protocol: str, **_: object) -> int:
        asked.append((channel.protocol, address, protocol))
        raise error

    monkeypatch.setattr("reconciler.netlink.conntrack.delete", delete)
    operation = DeleteConntrack(address="fd00::1", protocol="udp")
    assert run(FakeKernel(), [operation]) == [Outcome(operation, status, str(error))]
    assert asked == [(12, "fd00::1", "udp")]


def test_a_kernel_that_lies_in_the_middle_ends_it_with_our_own_error() -> None:
    fake = FakeKernel()
    engine = IpvsEngine(fake)

    def lie(requests: bytes, last: int) -> list[Message]:
        return [Message(message.ERROR, 0, message.sequence_of(requests), b"\1"), Message(message.DONE, 0, last, b"")]

    engine.channel.exchange = lie  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match=r"^netlink error message without an error$"):
        list(execute(engine, [AddService(service=WEB)]))


# A kernel, from any table to any other.


def surroundings(seen: IpvsTable) -> Surroundings:
    return Surroundings(
        services=tuple(seen.foreign),
        connections=seen.connections,
        expiring=seen.expiring,
        now=seen.now,
    )


def look(fake: FakeKernel, desired: Ipvs) -> Plan:
    sandbox = Sandbox(id="box", driver=DRIVER, ipvs=desired)
    seen = IpvsEngine(fake).observe(desired)
    return plan(sandbox, Observed(sandbox=replace(sandbox, ipvs=seen.ipvs), around=surroundings(seen)))


@settings(deadline=None, max_examples=examples(60))
@given(services(), services(), services(most=2), st.booleans())
def test_from_any_table_to_any_other(
    before: list[Service], wishes: list[Service], foreign: list[Service], twisted: bool
) -> None:
    fake = FakeKernel()
    if twisted:
        fake.rewrite = lambda attributes: [*attributes[:-3], *attributes[:-4:-1]]
    keys = {each.key for each in (*before, *wishes)}
    foreign = [each for each in foreign if each.key not in keys]
    for each in before:
        fake.add(each)
    expected = FakeKernel(sysctls=fake.sysctls)
    for each in foreign:
        fake.add(each, marked=False)
        expected.add(each, marked=False)
    for each in wishes:
        expected.add(each)
    desired = Ipvs(services=tuple(wishes))
    operations = look(fake, desired).operations
    assert run(fake, operations) == done(*operations)  # type: ignore[arg-type]
    assert look(fake, desired) == Plan((), (), (), 0)
    found = {
        id_: (replace(s, servers=[], netmask=b""), {v.id: v for v in s.servers}) for id_, s in fake.services.items()
    }
    assert found == {
        id_: (replace(s, servers=[], netmask=b""), {v.id: v for v in s.servers}) for id_, s in expected.services.items()
    }

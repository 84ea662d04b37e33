from __future__ import annotations

import errno
import math
import struct
from collections.abc import Sequence
from socket import AF_INET6, inet_pton

import pytest

from reconciler.errors import ChannelError
from reconciler.model.interface import Address, Origin
from reconciler.model.route import NextHop, Route
from reconciler.netlink import execute as execute_module
from reconciler.netlink import message, pace
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import BATCH, execute
from reconciler.netlink.message import Message
from reconciler.netlink.route import encode
from reconciler.operations.address import AddAddress, AwaitAddress, DeleteAddress
from reconciler.operations.interface import AttachInterface, DetachInterface, RenameInterface, SetLink
from reconciler.operations.network import NetworkOperation
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine
from tests.netlink.scripted import Answer, ScriptedChannel, acknowledge, dump, ipv6_address, refuse

GATEWAY = NextHop(device="eth0", gateway="192.0.2.1")
TENTATIVE, DADFAILED, PERMANENT = 0x40, 0x08, 0x80
WAIT = AwaitAddress(device="eth0", address=Address(address="fd00::1/64"))


def add_route(number: int, hop: NextHop = GATEWAY) -> AddRoute:
    return AddRoute(route=Route(dest=f"10.{number >> 8}.{number & 255}.0/24", nexthops=(hop,)))


def done(operations: Sequence[NetworkOperation]) -> list[Outcome]:
    return [Outcome(operation, Status.DONE) for operation in operations]


def run(channel: ScriptedChannel, operations: Sequence[NetworkOperation]) -> list[list[Outcome]]:
    return list(execute(Engine(channel), operations, {"eth0": 2, "eth1": 3}))


def test_nothing_to_do_asks_nothing() -> None:
    channel = ScriptedChannel([])
    assert run(channel, []) == []
    assert channel.asked == []


def test_many_operations_are_one_send_with_one_acknowledgement() -> None:
    operations = [add_route(number) for number in range(5)]
    channel = ScriptedChannel([acknowledge])
    assert run(channel, operations) == [done(operations)]
    assert channel.sequences == [[1, 2, 3, 4, 5]]
    assert [bool(request.flags & message.ACK) for request in channel.asked[0]] == [False] * 4 + [True]
    assert [request.payload for request in channel.asked[0]] == [
        message.messages(encode(operation, {"eth0": 2}, 1))[0].payload for operation in operations
    ]


@pytest.mark.parametrize("at", range(5))
def test_a_refusal_is_that_of_its_operation(at: int) -> None:
    operations = [add_route(number) for number in range(5)]
    channel = ScriptedChannel([refuse(**{f"at{at}": (errno.ENETUNREACH, "Nexthop has invalid gateway.")})])
    expected = done(operations)
    expected[at] = Outcome(
        operations[at], Status.FAILED, "the kernel: Network is unreachable: Nexthop has invalid gateway"
    )
    assert run(channel, operations) == [expected]


def test_each_of_several_refusals_has_its_own_reason() -> None:
    operations = [add_route(number) for number in range(4)]
    channel = ScriptedChannel([refuse(at3=(errno.EEXIST, ""), at1=(errno.EINVAL, "Bad"))])
    assert run(channel, operations) == [
        [
            Outcome(operations[0], Status.DONE),
            Outcome(operations[1], Status.FAILED, "the kernel: Invalid argument: Bad"),
            Outcome(operations[2], Status.DONE),
            Outcome(operations[3], Status.FAILED, "the kernel: File exists"),
        ]
    ]


def test_answers_of_another_kind_say_nothing_of_an_operation() -> None:
    def answer(asked: list[Message]) -> list[Message]:
        return [Message(message.NEW_ROUTE, 0, asked[0].sequence, bytes(12)), *acknowledge(asked)]

    operations = [add_route(1), add_route(2)]
    assert run(ScriptedChannel([answer]), operations) == [done(operations)]


def lose(_: list[Message]) -> list[Message]:
    raise ChannelError("the kernel did not answer within 10 s")


def test_without_an_answer_what_became_of_a_batch_is_unknown() -> None:
    operations = [add_route(number) for number in range(3)]
    reason = "the kernel did not answer within 10 s"
    assert run(ScriptedChannel([lose]), operations) == [
        [Outcome(operation, Status.UNKNOWN, reason) for operation in operations]
    ]


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each batch be as large as it may, on a busy host too; test_pace.py is about their sizes."""
    monkeypatch.setattr(pace, "FIRST", BATCH)
    monkeypatch.setattr(pace, "GOOD_TIME", math.inf)


def test_a_batch_is_sent_when_it_has_its_size() -> None:
    operations = [add_route(number) for number in range(3000)]
    size = len(encode(operations[0], {"eth0": 2}, 1))
    batch = -(-BATCH // size)
    channel = ScriptedChannel([acknowledge] * 3)
    assert run(channel, operations) == [
        done(operations[start : start + batch]) for start in range(0, len(operations), batch)
    ]
    assert [len(requests) for requests in channel.asked] == [batch, batch, 3000 - 2 * batch]
    assert (batch - 1) * size < BATCH <= batch * size


@pytest.mark.parametrize(("more", "count"), [(-1, 3), (0, 3), (1, 4)])
def test_a_batch_ends_with_the_request_that_fills_it(monkeypatch: pytest.MonkeyPatch, more: int, count: int) -> None:
    operations = [add_route(number) for number in range(9)]
    size = len(encode(operations[0], {"eth0": 2}, 1))
    monkeypatch.setattr(execute_module, "BATCH", 3 * size + more)
    channel = ScriptedChannel([acknowledge] * 3)
    assert [len(outcomes) for outcomes in run(channel, operations)] == [count, count, 9 - 2 * count]


def test_nothing_is_deleted_before_it_is_known_that_its_replacement_was_added() -> None:
    deletion = DeleteRoute(route=add_route(3).route)
    channel = ScriptedChannel([refuse(at1=(errno.EEXIST, ""))])
    outcomes = run(channel, [add_route(1), add_route(2), deletion])
    assert [[outcome.status for outcome in each] for each in outcomes] == [[Status.DONE, Status.FAILED]]
    assert run(ScriptedChannel([acknowledge, acknowledge]), [deletion, add_route(1), deletion]) == [
        done([deletion, add_route(1)]),
        done([deletion]),
    ]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (refuse(at0=(errno.EEXIST, "")), (Status.FAILED, "the kernel: File exists")),
        (lose, (Status.UNKNOWN, "the kernel did not answer within 10 s")),
    ],
    ids=["refused", "lost"],
)
def test_nothing_is_sent_after_a_batch_in_which_one_failed(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, outcome: tuple[Status, str]
) -> None:
    monkeypatch.setattr(execute_module, "BATCH", 1)
    operations: list[NetworkOperation] = [*(add_route(number) for number in range(3)), WAIT, add_route(4)]
    channel = ScriptedChannel([acknowledge, answer])
    assert run(channel, operations) == [done(operations[:1]), [Outcome(operations[1], *outcome)]]
    assert channel.sequences == [[1], [2]]


@pytest.mark.parametrize(
    ("operation", "code", "is_done"),
    [
        (DeleteRoute(route=add_route(1).route), errno.ESRCH, True),
        (DeleteRoute(route=add_route(1).route), errno.ENODEV, False),
        (AddRoute(route=add_route(1).route), errno.ESRCH, False),
        (ReplaceRoute(route=add_route(1).route, before=add_route(1).route), errno.ESRCH, False),
        (DeleteAddress(device="eth0", address=Address(address="10.0.0.1/24")), errno.EADDRNOTAVAIL, True),
        (DeleteAddress(device="eth0", address=Address(address="10.0.0.1/24")), errno.ESRCH, False),
        (AddAddress(device="eth0", address=Address(address="10.0.0.1/24")), errno.EADDRNOTAVAIL, False),
        (SetLink(name="eth0", up=True), errno.ESRCH, False),
    ],
)
def test_a_deletion_of_what_is_gone_is_done(operation: NetworkOperation, code: int, *, is_done: bool) -> None:
    (((found, status, _),),) = run(ScriptedChannel([refuse(at0=(code, ""))]), [operation])
    assert (found, status) == (operation, Status.DONE if is_done else Status.FAILED)


UNKNOWN_LINK = NextHop(device="eth7", gateway="192.0.2.1")


@pytest.mark.parametrize(
    "operation",
    [
        add_route(9, UNKNOWN_LINK),
        DeleteRoute(route=add_route(9, UNKNOWN_LINK).route),
        AddAddress(device="eth7", address=Address(address="10.0.0.1/24")),
        SetLink(name="eth7", up=True),
        RenameInterface(name="eth7", new_name="eth8"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_a_link_that_is_not_there_is_a_failure_after_what_came_before_it(operation: NetworkOperation) -> None:
    before = [add_route(1), add_route(2)]
    channel = ScriptedChannel([acknowledge])
    failed = Outcome(operation, Status.FAILED, "the sandbox has no link named eth7")
    found = [outcome for outcomes in run(channel, [*before, operation, add_route(3)]) for outcome in outcomes]
    assert found == [*done(before), failed]
    assert channel.sequences == [[1, 2]]


def test_a_link_that_is_not_there_is_a_failure_before_anything_is_sent() -> None:
    operation = SetLink(name="eth7", up=True)
    channel = ScriptedChannel([])
    failed = Outcome(operation, Status.FAILED, "the sandbox has no link named eth7")
    assert run(channel, [operation, add_route(1)]) == [[failed]]
    assert channel.asked == []


def test_a_wait_on_a_link_that_is_not_there_is_a_failure() -> None:
    operation = AwaitAddress(device="eth7", address=Address(address="fd00::1/64"))
    failed = Outcome(operation, Status.FAILED, "the sandbox has no link named eth7")
    assert run(ScriptedChannel([acknowledge]), [add_route(1), operation]) == [done([add_route(1)]), [failed]]


def test_a_name_is_free_for_another_link_once_it_was_given_up() -> None:
    operations: list[NetworkOperation] = [
        RenameInterface(name="eth0", new_name="x"),
        RenameInterface(name="eth1", new_name="eth0"),
        SetLink(name="x", up=True),
        add_route(1),
    ]
    indexes = {"eth0": 2, "eth1": 3}
    channel = ScriptedChannel([acknowledge])
    assert list(execute(Engine(channel), operations, indexes)) == [done(operations)]
    assert indexes == {"x": 2, "eth0": 3}
    assert [struct.unpack_from("=i", request.payload, 4) for request in channel.asked[0][:3]] == [(2,), (3,), (2,)]
    assert channel.asked[0][3].payload == message.messages(encode(add_route(1), {"eth0": 3}, 1))[0].payload


@pytest.mark.parametrize(
    "operation",
    [
        AttachInterface(
            host_name="tap0", namespace="n", name="eth0", origin=Origin(device="tap0", hw_addr="", mtu=1500)
        ),
        DetachInterface(name="eth0", origin=Origin(device="tap0", hw_addr="", mtu=1500)),
    ],
    ids=["attach", "detach"],
)
def test_moves_between_namespaces_are_the_drivers(operation: NetworkOperation) -> None:
    """They are no operations of this segment: only somebody who leaves the types aside can get here."""
    with pytest.raises(AssertionError, match=f"^Expected code to be unreachable, but got: {type(operation).__name__}"):
        run(ScriptedChannel([]), [operation])


def addresses(flags: int, *, index: int = 2, text: str = "fd00::1") -> Answer:
    return dump(message.NEW_ADDRESS, ipv6_address(index, inet_pton(AF_INET6, text), flags | PERMANENT))


def test_a_wait_ends_with_duplicate_address_detection() -> None:
    channel = ScriptedChannel([acknowledge, addresses(TENTATIVE), addresses(TENTATIVE), addresses(0), acknowledge])
    operations: list[NetworkOperation] = [add_route(1), WAIT, add_route(2)]
    assert run(channel, operations) == [done(operations[:1]), done([WAIT]), done(operations[2:])]
    assert [requests[0].type for requests in channel.asked] == [24, 22, 22, 22, 24]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (addresses(TENTATIVE | DADFAILED), "fd00::1/64 is in use by another host (duplicate address)"),
        (addresses(0, index=3), "fd00::1/64 no longer exists: another program deleted it or its link"),
        (addresses(0, text="fd00::2"), "fd00::1/64 no longer exists: another program deleted it or its link"),
        (dump(message.NEW_ADDRESS), "fd00::1/64 no longer exists: another program deleted it or its link"),
    ],
    ids=["duplicate", "on another link", "another address", "gone"],
)
def test_a_wait_fails_when_it_can_end_no_other_way(answer: Answer, reason: str) -> None:
    channel = ScriptedChannel([addresses(TENTATIVE), answer])
    assert run(channel, [WAIT, add_route(1)]) == [[Outcome(WAIT, Status.FAILED, reason)]]


def test_a_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute_module, "DAD_TIMEOUT", 0.01)
    channel = ScriptedChannel([addresses(TENTATIVE)] * 2)
    reason = "fd00::1/64 is still tentative after 0 s; does the link have a carrier?"
    assert run(channel, [WAIT, add_route(1)]) == [[Outcome(WAIT, Status.FAILED, reason)]]


def test_a_loss_in_a_wait_is_not_silent() -> None:
    with pytest.raises(ChannelError, match=r"^the kernel did not answer within 10 s$"):
        run(ScriptedChannel([lose]), [WAIT])


@pytest.fixture
def network(kernel: Kernel) -> str:
    """A namespace with a pair of links, both up, and addresses on `eth0`."""
    name = kernel.namespace()
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1", namespace=name)
    for link in ("eth0", "eth1"):
        ip("link", "set", link, "up", namespace=name)
    ip("address", "add", "192.0.2.10/24", "dev", "eth0", namespace=name)
    return name


def indexes(engine: Engine) -> dict[str, int]:
    return {link.name: link.index for link in engine.links()}


def test_3000_routes_of_which_the_kernel_refuses_two(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    operations = [add_route(number) for number in range(3000)]
    batch = -(-BATCH // len(encode(operations[0], indexes(engine), 1)))
    # Both in the second of three batches: the first is done, the third not begun.
    first, second = batch + 7, 2 * batch - 1
    for refused in (first, second):
        operations[refused] = add_route(refused, NextHop(device="eth0", gateway="203.0.113.1"))
    expected = done(operations[: 2 * batch])
    for refused in (first, second):
        expected[refused] = Outcome(
            operations[refused], Status.FAILED, "the kernel: Network is unreachable: Nexthop has invalid gateway"
        )
    outcomes = list(execute(engine, operations, indexes(engine)))
    assert outcomes == [expected[:batch], expected[batch:]]
    wishes = [operation.route for operation in operations]
    written = {wish.dest: wish for index, wish in enumerate(wishes[: 2 * batch]) if index not in {first, second}}
    found = engine.routes(indexes(engine), wishes).ours
    assert {route.dest: route for route in found} == written
    assert len(found) == len(written)


@pytest.mark.parametrize(
    ("operation", "outcome"),
    [
        (DeleteRoute(route=add_route(1).route), (Status.DONE, "")),
        (
            DeleteRoute(route=Route(dest="2001:db8::/32", nexthops=(NextHop(device="eth0"),), metric=1024)),
            (Status.DONE, ""),
        ),
        (DeleteAddress(device="eth0", address=Address(address="10.0.0.1/24")), (Status.DONE, "")),
        (DeleteAddress(device="eth0", address=Address(address="fd00::1/64")), (Status.DONE, "")),
        (
            AddRoute(route=Route(dest="192.0.2.0/24", nexthops=(NextHop(device="eth0"),))),
            (Status.FAILED, "the kernel: File exists"),
        ),
        (
            SetLink(name="eth0", mtu=70000),
            (Status.FAILED, "the kernel: Invalid argument: mtu greater than device maximum"),
        ),
        (RenameInterface(name="eth0", new_name="eth1"), (Status.FAILED, "the kernel: File exists")),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "",
)
def test_what_the_kernel_says_of_one_operation(
    network: str, open_engine: OpenEngine, operation: NetworkOperation, outcome: tuple[Status, str]
) -> None:
    engine = open_engine(network)
    assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, *outcome)]]


def test_an_ipv6_address_is_gone_with_an_mtu_that_ipv6_cannot_have(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    ip("address", "add", "fd00::1/64", "dev", "eth0", "nodad", namespace=network)
    operations: list[NetworkOperation] = [
        SetLink(name="eth0", mtu=1279),
        DeleteAddress(device="eth0", address=Address(address="fd00::1/64")),
    ]
    assert list(execute(engine, operations, indexes(engine))) == [done([each]) for each in operations]


def test_a_wait_makes_an_address_fit_to_be_a_source(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    source = Route(
        dest="2001:db8::/32", nexthops=(NextHop(device="eth0", gateway="fe80::1"),), source="fd00::1", metric=1024
    )
    add: list[NetworkOperation] = [AddAddress(device="eth0", address=WAIT.address)]
    assert list(execute(engine, [*add, WAIT], indexes(engine))) == [done(add), done([WAIT])]
    assert [(a.tentative, a.dad_failed) for a in engine.addresses() if a.address == "fd00::1/64"] == [(False, False)]
    assert list(execute(engine, [AddRoute(route=source)], indexes(engine))) == [done([AddRoute(route=source)])]


def test_a_source_that_is_still_tentative_is_refused_by_the_kernel(kernel: Kernel, open_engine: OpenEngine) -> None:
    name = kernel.namespace()
    # Without a carrier, duplicate address detection never ends.
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1", namespace=name)
    ip("link", "set", "eth0", "up", namespace=name)
    engine = open_engine(name)
    operation = AddRoute(
        route=Route(
            dest="2001:db8::/32", nexthops=(NextHop(device="eth0", gateway="fe80::1"),), source="fd00::1", metric=1024
        )
    )
    add = AddAddress(device="eth0", address=WAIT.address)
    assert list(execute(engine, [add, operation], indexes(engine))) == [
        [
            Outcome(add, Status.DONE),
            Outcome(operation, Status.FAILED, "the kernel: Invalid argument: Invalid source address"),
        ]
    ]

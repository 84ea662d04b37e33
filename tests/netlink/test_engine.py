from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import pytest

from reconciler.errors import BusyError, ProtocolError
from reconciler.model.attribute import ATTRIBUTES
from reconciler.model.interface import LinkState
from reconciler.model.route import NextHop, Route
from reconciler.netlink import engine as engine_module
from reconciler.netlink import message
from reconciler.netlink.engine import Engine, Routes
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.message import Message
from reconciler.netlink.route import encode_body
from tests.netlink.scripted import Answer, ScriptedChannel, acknowledge, dump, error, ipv6_address, link

STATE = LinkState(multicast=False)
USUAL = tuple((each.field, each.usual) for each in ATTRIBUTES)
ETH0 = Link(
    2, "eth0", hw_addr="", mtu=0, up=True, carrier=False, alias="", kind="", queues=0, state=STATE, attributes=USUAL
)
ADDRESS = LinkAddress(
    index=2,
    address="fd00::1/64",
    nodad=False,
    tentative=False,
    dad_failed=False,
    permanent=True,
)
ROUTE = Route(dest="10.0.0.0/8", nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),))
INDEXES = {"eth0": 2, "eth1": 3}

Read = Callable[[Engine], Any]

TABLES: dict[str, tuple[Read, Callable[..., Answer], bytes, bytes, Any]] = {
    "links": (Engine.links, lambda *p, **k: dump(message.NEW_LINK, *p, **k), link(7, "old"), link(2, "eth0"), [ETH0]),
    "addresses": (
        Engine.addresses,
        lambda *p, **k: dump(message.NEW_ADDRESS, *p, **k),
        ipv6_address(2, inet_pton(AF_INET6, "fd00::7"), 0x80),
        ipv6_address(2, inet_pton(AF_INET6, "fd00::1"), 0x80),
        [ADDRESS],
    ),
    "routes": (
        lambda engine: engine.routes(INDEXES, [ROUTE]).ours,
        lambda *p, **k: dump(message.NEW_ROUTE, *p, **k),
        encode_body(Route(dest="10.7.0.0/16", nexthops=ROUTE.nexthops), INDEXES),
        encode_body(ROUTE, INDEXES),
        [ROUTE],
    ),
}

each_table = pytest.mark.parametrize(("read", "answer", "stale", "payload", "expected"), TABLES.values(), ids=TABLES)


@each_table
@pytest.mark.parametrize("at", [0, 1, 2], ids=["at the first message", "at a later one", "at its end"])
def test_an_interrupted_dump_is_repeated_and_its_data_never_given(
    read: Read, answer: Callable[..., Answer], stale: bytes, payload: bytes, expected: Any, at: int
) -> None:
    script = [
        answer(stale, payload, interrupted=at),
        answer(payload, payload, interrupted=at),
        answer(payload),
        answer(),
    ]
    channel = ScriptedChannel(script)
    assert read(Engine(channel)) == expected
    assert channel.sequences[:3] == [[1], [2], [3]]


@each_table
def test_a_table_that_never_stands_still_is_busy(
    monkeypatch: pytest.MonkeyPatch,
    read: Read,
    answer: Callable[..., Answer],
    stale: bytes,
    payload: bytes,
    expected: Any,
) -> None:
    monkeypatch.setattr(engine_module, "CONSISTENT_DUMP_TIMEOUT", 0.3)
    channel = ScriptedChannel(itertools.repeat(answer(stale, payload, interrupted=1)))
    with pytest.raises(BusyError) as caught:
        read(Engine(channel))
    assert str(caught.value) == "the kernel's tables change too fast to be read (0 s tried)"
    assert len(channel.asked) > 1


@each_table
def test_a_dump_that_breaks_off_is_not_taken_for_a_whole_one(
    read: Read, answer: Callable[..., Answer], stale: bytes, payload: bytes, expected: Any
) -> None:
    del stale, expected
    with pytest.raises(ProtocolError) as caught:
        read(Engine(ScriptedChannel([answer(payload, status=-errno.ENOBUFS), answer()])))
    assert str(caught.value) == "the kernel refused a dump: No buffer space available"


@each_table
def test_a_dump_that_is_refused_is_not_an_empty_one(
    read: Read, answer: Callable[..., Answer], stale: bytes, payload: bytes, expected: Any
) -> None:
    del answer, stale, payload, expected
    script: list[Answer] = [lambda asked: [error(asked[0], errno.EPERM, "Not you.")]] * 2
    with pytest.raises(ProtocolError) as caught:
        read(Engine(ScriptedChannel(script)))
    assert str(caught.value) == "the kernel refused a dump: Operation not permitted: Not you"


@each_table
def test_late_answers_to_an_earlier_request_are_passed_over(
    read: Read, answer: Callable[..., Answer], stale: bytes, payload: bytes, expected: Any
) -> None:
    def with_a_late_one(asked: list[Message]) -> list[Message]:
        late = [Message(m.type, m.flags, 0, m.payload) for m in answer(stale, interrupted=0)(asked)]
        return [*late, *answer(payload)(asked)]

    assert read(Engine(ScriptedChannel([with_a_late_one, answer()]))) == expected


@each_table
def test_messages_of_another_kind_are_passed_over(
    read: Read, answer: Callable[..., Answer], stale: bytes, payload: bytes, expected: Any
) -> None:
    del stale

    def with_another(asked: list[Message]) -> list[Message]:
        return [Message(99, 0, asked[0].sequence, b"?"), *answer(payload)(asked)]

    assert read(Engine(ScriptedChannel([with_another, answer()]))) == expected


def test_a_link_is_found_by_name() -> None:
    def answer(asked: list[Message]) -> list[Message]:
        return [Message(message.NEW_LINK, 0, asked[0].sequence, link(2, "eth0")), error(asked[0], 0)]

    channel = ScriptedChannel([answer])
    assert Engine(channel).link("eth0") == ETH0
    assert [(m.type, m.flags) for m in channel.asked[0]] == [(message.GET_LINK, message.REQUEST | message.ACK)]


def test_a_link_that_is_not_there_is_none() -> None:
    channel = ScriptedChannel([lambda asked: [error(asked[0], errno.ENODEV)]])
    assert Engine(channel).link("eth0") is None


def test_a_late_answer_is_not_taken_for_the_link_that_is_asked_for() -> None:
    def answer(asked: list[Message]) -> list[Message]:
        late = Message(message.NEW_LINK, 0, asked[0].sequence - 1, link(7, "old"))
        return [late, Message(message.NEW_LINK, 0, asked[0].sequence, link(2, "eth0")), error(asked[0], 0)]

    engine = Engine(ScriptedChannel([acknowledge, answer]))
    assert engine.link("old") is None
    assert engine.link("eth0") == ETH0


def test_routes_are_sorted_by_their_protocol_and_equal_ones_are_the_desired_objects() -> None:
    desired = [
        ROUTE,
        Route(dest="2001:db8::/32", nexthops=(NextHop(device="eth1", gateway="fe80::1"),), metric=1024),
        Route(dest="10.1.0.0/16", nexthops=(NextHop(device="not-there", gateway="192.0.2.1"),)),
    ]
    foreign = bytearray(encode_body(ROUTE, INDEXES))
    foreign[5] = 4
    other = Route(dest="10.9.0.0/16", type="blackhole")
    channel = ScriptedChannel(
        [
            dump(message.NEW_ROUTE, bytes(foreign), encode_body(other, INDEXES), encode_body(ROUTE, INDEXES)),
            dump(message.NEW_ROUTE, encode_body(desired[1], INDEXES) + struct.pack("=HH32xHHB3x", 36, 12, 5, 20, 0)),
        ]
    )
    found = Engine(channel).routes(INDEXES, desired)
    assert found == Routes(ours=[other, ROUTE, desired[1]], foreign=[ROUTE])
    assert found.ours[1] is ROUTE
    assert found.ours[2] is desired[1]
    assert [m.payload[0] for requests in channel.asked for m in requests] == [AF_INET, AF_INET6]


def test_a_desired_route_is_found_where_its_nic_is_the_only_link() -> None:
    channel = ScriptedChannel([dump(message.NEW_ROUTE, encode_body(ROUTE, INDEXES)), dump(message.NEW_ROUTE)])
    assert Engine(channel).routes({"eth0": 2}, [ROUTE]).ours[0] is ROUTE

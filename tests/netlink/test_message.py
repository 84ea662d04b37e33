from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyroute2 import netlink
from pyroute2.netlink import rtnl

from reconciler.errors import ProtocolError
from reconciler.netlink import message
from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.netlink.interface import decode_address, decode_link
from reconciler.netlink.message import Failure, Message
from reconciler.netlink.route import decode as decode_route
from reconciler.netlink.route import encode_body
from tests.conftest import Kernel
from tests.netlink.strategies import INDEXES, NAMES, attribute_bytes, attribute_lists, routes, spoiled

# linux/netlink.h: flags of an error message, attributes of an extended acknowledgement, and the socket option.
CAPPED, HAS_ATTRIBUTES = 0x100, 0x200
TEXT, OFFSET = 1, 2
SOL_NETLINK, CAP_ACK = 270, 10


NUMBERS = {
    "REQUEST": netlink.NLM_F_REQUEST,
    "ACK": netlink.NLM_F_ACK,
    "DUMP": netlink.NLM_F_DUMP,
    "DUMP_INTERRUPTED": netlink.NLM_F_DUMP_INTR,
    "REPLACE": netlink.NLM_F_REPLACE,
    "EXCLUSIVE": netlink.NLM_F_EXCL,
    "CREATE": netlink.NLM_F_CREATE,
    "ERROR": netlink.NLMSG_ERROR,
    "DONE": netlink.NLMSG_DONE,
    "NEW_LINK": rtnl.RTM_NEWLINK,
    "GET_LINK": rtnl.RTM_GETLINK,
    "NEW_ADDRESS": rtnl.RTM_NEWADDR,
    "DELETE_ADDRESS": rtnl.RTM_DELADDR,
    "GET_ADDRESS": rtnl.RTM_GETADDR,
    "NEW_ROUTE": rtnl.RTM_NEWROUTE,
    "DELETE_ROUTE": rtnl.RTM_DELROUTE,
    "GET_ROUTE": rtnl.RTM_GETROUTE,
}


def error_payload(code: int, request: bytes, *attributes: bytes) -> bytes:
    return struct.pack("=i", code) + request + b"".join(attributes)


REQUEST_HEADER = struct.pack("=IHHII", 16, message.NEW_ROUTE, message.REQUEST, 7, 0)
# A request of 16 + 5 bytes, which the kernel pads when it sends it back in full.
REQUEST_IN_FULL = struct.pack("=IHHII", 21, message.NEW_ROUTE, message.REQUEST, 7, 0) + b"\1\2\3\4\5" + bytes(3)


def test_the_numbers_are_those_of_pyroute2() -> None:
    assert {name: getattr(message, name) for name in NUMBERS} == NUMBERS


def test_pack_builds_a_header_of_16_bytes() -> None:
    data = message.pack(message.GET_ROUTE, message.REQUEST | message.DUMP, 0x01020304, b"body")
    assert data == struct.pack("=IHHII", 20, 26, 0x301, 0x01020304, 0) + b"body"


def test_with_ack_asks_for_an_answer_and_changes_nothing_else() -> None:
    request = message.pack(message.NEW_ROUTE, message.REQUEST | message.CREATE, 9, b"body")
    assert message.with_ack(request) == message.pack(
        message.NEW_ROUTE, message.REQUEST | message.CREATE | 4, 9, b"body"
    )


def test_of_several_messages_the_last_one_asks_for_an_answer() -> None:
    one, other = (message.pack(message.NEW_LINK, message.REQUEST, 9, body) for body in (b"first...", b"body"))
    assert message.with_ack(one + other) == one + message.with_ack(other)


@pytest.mark.parametrize(
    ("payload", "length", "padding"), [(b"", 4, b""), (b"a", 5, bytes(3)), (b"abcd", 8, b""), (b"abcde", 9, bytes(3))]
)
def test_an_attribute_is_padded_to_4_bytes_and_its_length_is_not(payload: bytes, length: int, padding: bytes) -> None:
    assert message.attribute(7, payload) == struct.pack("=HH", length, 7) + payload + padding


@settings(deadline=None)
@given(attribute_lists(), st.binary(max_size=20))
def test_attributes_come_back_as_they_were_built(values: list[tuple[int, bytes]], before: bytes) -> None:
    data = before + b"".join(message.attribute(kind, value) for kind, value in values)
    assert list(message.attributes(data, len(before))) == values


def test_the_last_attribute_needs_no_padding() -> None:
    assert list(message.attributes(message.attribute(1, b"a") + message.attribute(2, b"b")[:5])) == [
        (1, b"a"),
        (2, b"b"),
    ]


def test_flags_of_nesting_and_byte_order_are_no_part_of_a_kind() -> None:
    data = message.attribute(0x8000 | 12, b"nest") + message.attribute(0x4000 | 13, b"wire")
    assert list(message.attributes(data)) == [(12, b"nest"), (13, b"wire")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (struct.pack("=HH", 3, 1), "netlink attribute claims 3 bytes, but 4 are left"),
        (struct.pack("=HH", 0, 1) + bytes(8), "netlink attribute claims 0 bytes, but 12 are left"),
        (struct.pack("=HH", 9, 1) + b"abcd", "netlink attribute claims 9 bytes, but 8 are left"),
        (message.attribute(1, b"abcd") + struct.pack("=HH", 5, 1), "netlink attribute claims 5 bytes, but 4 are left"),
    ],
)
def test_a_malformed_attribute_is_a_protocol_error(data: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        list(message.attributes(data))
    assert str(caught.value) == expected


def test_a_datagram_is_split_into_its_messages() -> None:
    # The first is 17 bytes long, and the next one starts at 20.
    first = struct.pack("=IHHII", 17, message.NEW_ROUTE, 2, 5, 4242) + b"a" + bytes(3)
    second = message.pack(message.DONE, 2, 5, bytes(4))
    assert message.messages(first + second) == [
        Message(message.NEW_ROUTE, 2, 5, b"a"),
        Message(message.DONE, 2, 5, bytes(4)),
    ]


def test_the_last_message_needs_no_padding() -> None:
    assert message.messages(struct.pack("=IHHII", 17, 24, 0, 1, 0) + b"a") == [Message(24, 0, 1, b"a")]


def test_an_empty_datagram_holds_no_message() -> None:
    assert message.messages(b"") == []


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (bytes(15), "netlink message cut to 15 bytes"),
        (struct.pack("=IHHII", 15, 24, 0, 1, 0), "netlink message claims 15 bytes, but 16 are left"),
        (struct.pack("=IHHII", 0, 24, 0, 1, 0), "netlink message claims 0 bytes, but 16 are left"),
        (struct.pack("=IHHII", 21, 24, 0, 1, 0) + bytes(4), "netlink message claims 21 bytes, but 20 are left"),
        (message.pack(24, 0, 1, b"") + b"\0\0\0\0", "netlink message cut to 4 bytes"),
        (message.pack(24, 0, 1, b"") * 2 + bytes(16), "netlink message claims 0 bytes, but 16 are left"),
    ],
)
def test_a_malformed_message_is_a_protocol_error(datagram: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        message.messages(datagram)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "answer",
    [
        Message(message.ERROR, CAPPED, 7, error_payload(0, REQUEST_HEADER)),
        Message(message.DONE, 0, 7, bytes(4)),
        Message(message.DONE, 0, 7, b""),
        Message(message.DONE, 0, 7, struct.pack("=i", 3)),
    ],
)
def test_no_error_is_no_failure(answer: Message) -> None:
    assert message.failure(answer) is None


def test_an_error_without_a_code_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError) as caught:
        message.failure(Message(message.ERROR, 0, 7, b"\0\0\0"))
    assert str(caught.value) == "netlink error message without an error"


@pytest.mark.parametrize(
    ("flags", "payload", "text"),
    [
        (CAPPED, error_payload(-errno.EEXIST, REQUEST_HEADER), ""),
        (0, error_payload(-errno.EEXIST, REQUEST_IN_FULL), ""),
        (
            CAPPED | HAS_ATTRIBUTES,
            error_payload(-errno.EEXIST, REQUEST_HEADER, message.attribute(TEXT, b"Route is there\0")),
            "Route is there",
        ),
        (
            HAS_ATTRIBUTES,
            error_payload(-errno.EEXIST, REQUEST_IN_FULL, message.attribute(TEXT, b"Route is there\0")),
            "Route is there",
        ),
        (
            CAPPED | HAS_ATTRIBUTES,
            error_payload(
                -errno.EEXIST, REQUEST_HEADER, message.attribute(OFFSET, bytes(4)), message.attribute(TEXT, b"Why.\0")
            ),
            "Why",
        ),
        (
            CAPPED | HAS_ATTRIBUTES,
            error_payload(-errno.EEXIST, REQUEST_HEADER, message.attribute(TEXT, b"caf\xe9\0")),
            "caf\udce9",
        ),
        # Without the flag, what follows is no attribute.
        (CAPPED, error_payload(-errno.EEXIST, REQUEST_HEADER, message.attribute(TEXT, b"Route is there\0")), ""),
    ],
    ids=["capped", "full", "capped text", "full text", "full stop and offset", "not UTF-8", "no flag"],
)
def test_an_error_is_a_failure_with_the_kernels_words(flags: int, payload: bytes, text: str) -> None:
    assert message.failure(Message(message.ERROR, flags, 7, payload)) == Failure(errno.EEXIST, text)


def test_an_error_is_an_errno() -> None:
    largest = Message(message.ERROR, CAPPED, 7, error_payload(-4095, REQUEST_HEADER))
    assert message.failure(largest) == Failure(4095, "")
    with pytest.raises(ProtocolError) as caught:
        message.failure(Message(message.ERROR, CAPPED, 7, error_payload(-4096, REQUEST_HEADER)))
    assert str(caught.value) == "netlink error -4096 is no errno"


def test_a_dump_that_ends_in_an_error_is_a_failure() -> None:
    assert message.failure(Message(message.DONE, 0, 7, struct.pack("=i", -errno.EINTR))) == Failure(errno.EINTR, "")


def test_a_failure_reads_like_the_systems_own_message() -> None:
    assert str(Failure(errno.ENETUNREACH, "")) == "Network is unreachable"
    assert (
        str(Failure(errno.ENETUNREACH, "Nexthop has invalid gateway"))
        == "Network is unreachable: Nexthop has invalid gateway"
    )


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_words_are_found_whether_it_caps_its_answer_or_not(kernel: Kernel, *, capped: bool) -> None:
    namespace = os.open(f"/run/netns/{kernel.namespace()}", os.O_RDONLY)
    channel = LocalKernel(namespace).open(ROUTE)
    try:
        channel._socket.setsockopt(SOL_NETLINK, CAP_ACK, int(capped))
        # A prefix length that IPv4 does not have: struct rtmsg of linux/rtnetlink.h.
        body = struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 254, 200, 0, 1, 0)
        flags = message.REQUEST | message.ACK | message.CREATE
        answers = channel.exchange(message.pack(message.NEW_ROUTE, flags, 3, body), 3)
    finally:
        channel.close()
        os.close(namespace)
    assert [(answer.type, answer.sequence, bool(answer.flags & CAPPED)) for answer in answers] == [
        (message.ERROR, 3, capped)
    ]
    assert message.failure(answers[0]) == Failure(errno.EINVAL, "Invalid prefix length")


def _messages(data: bytes) -> None:
    message.messages(data)


def _attributes(data: bytes) -> None:
    list(message.attributes(data))


def _failure(data: bytes) -> None:
    for kind, flags in ((message.ERROR, 0), (message.ERROR, HAS_ATTRIBUTES), (message.ERROR, 0x300), (message.DONE, 0)):
        str(message.failure(Message(kind, flags, 1, data)))


def _link(data: bytes) -> None:
    decode_link(data)


def _address(data: bytes) -> None:
    decode_address(data)


def _route(data: bytes) -> None:
    decode_route(data, NAMES)


def raises_only_protocol_errors(decode: Callable[[bytes], None], data: bytes) -> None:
    with suppress(ProtocolError):
        decode(data)


every_decoder = pytest.mark.parametrize("decode", [_messages, _attributes, _failure, _link, _address, _route])


@every_decoder
@settings(deadline=None)
@given(data=st.binary(max_size=200))
@example(data=struct.pack("=i", -(1 << 31)))
def test_any_bytes_are_decoded_or_a_protocol_error(decode: Callable[[bytes], None], data: bytes) -> None:
    raises_only_protocol_errors(decode, data)


# ifinfmsg, ifaddrmsg of both families, rtmsg, nlmsgerr: the fixed parts that attributes follow.
_FIXED = (
    struct.pack("=BxHiII", 0, 1, 2, 0x1043, 0),
    struct.pack("=BBBBI", 2, 24, 0x80, 0, 2),
    struct.pack("=BBBBI", 10, 64, 0x80, 0, 2),
    struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 200, 0, 1, 0),
    struct.pack("=BBBBBBBBI", 10, 64, 0, 0, 254, 200, 0, 1, 0),
    struct.pack("=i", -errno.EEXIST) + REQUEST_HEADER,
)


def _payloads() -> st.SearchStrategy[bytes]:
    built = st.tuples(st.sampled_from(_FIXED), attribute_bytes()).map(b"".join)
    return built | routes().map(lambda route: encode_body(route, INDEXES))


def _datagrams() -> st.SearchStrategy[bytes]:
    numbers = st.integers(0, 0xFFFF)
    one = st.builds(message.pack, numbers, numbers, numbers, _payloads())
    return st.lists(one, min_size=1, max_size=3).map(b"".join)


@every_decoder
@settings(deadline=None)
@given(data=_payloads() | spoiled(_payloads()) | _datagrams() | spoiled(_datagrams()))
def test_spoiled_bytes_are_decoded_or_a_protocol_error(decode: Callable[[bytes], None], data: bytes) -> None:
    raises_only_protocol_errors(decode, data)

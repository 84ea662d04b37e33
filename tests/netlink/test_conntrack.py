from __future__ import annotations

import errno
import itertools
import struct
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from reconciler.errors import BusyError, HostError, ProtocolError
from reconciler.model.address import pack
from reconciler.netlink import conntrack, engine, message
from reconciler.netlink.message import Message, attribute
from tests.netlink.scripted import Answer, ScriptedChannel, acknowledge, dump, error, refuse
from tests.netlink.strategies import attribute_bytes, spoiled

VIP, VIP6 = "10.0.0.1", "2001:db8::1"
ID, ZONE, STATUS, TUPLE_REPLY, TUPLE_ZONE = 12, 18, 3, 2, 3
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
# The kernel's flags CTA_FILTER_F_CTA_IP_DST, _PROTO_NUM and _PROTO_DST_PORT.
BY_DESTINATION, BY_PROTOCOL, BY_PORT = 0x2, 0x8, 0x20


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(parts))


def tuple_of(address: str, protocol: int, port: int, *more: bytes, kind: int = 1, source_port: int = 1000) -> bytes:
    packed = pack(address)
    base = 1 if len(packed) == 4 else 3
    addresses = nested(1, attribute(base, bytes(len(packed))), attribute(base + 1, packed))
    ports = attribute(2, struct.pack("!H", source_port)), attribute(3, struct.pack("!H", port))
    return nested(kind, addresses, nested(2, attribute(1, bytes([protocol])), *ports), *more)


def entry(
    address: str = VIP,
    protocol: str = "tcp",
    port: int = 80,
    *,
    source_port: int = 1000,
    zone: int = 0,
    original_zone: int = 0,
    number: int = 77,
) -> bytes:
    """What the kernel dumps of an entry, or enough of it."""
    within = (attribute(TUPLE_ZONE, struct.pack("!H", original_zone)),) if original_zone else ()
    return b"".join((
        struct.pack("=BBH", AF_INET6 if ":" in address else AF_INET, 0, 0),
        tuple_of(address, NUMBERS[protocol], port, *within, source_port=source_port),
        tuple_of("192.0.2.1", NUMBERS[protocol], 1000, kind=TUPLE_REPLY),
        attribute(STATUS, struct.pack("!I", 8)),
        attribute(ZONE, struct.pack("!H", zone)) if zone else b"",
        attribute(ID, struct.pack("!I", number)),
    ))  # fmt: skip


def read_with_pyroute2(data: bytes) -> tuple[Any, dict[str, Any]]:
    told: Any = nfct_msg(data)
    told.decode()
    return told, dict(told["attrs"])


def inner(values: dict[str, Any], *names: str) -> Any:
    """Follow names through nested attributes of pyroute2."""
    found: Any = values
    for name in names:
        found = dict(found["attrs"])[name] if "attrs" in found else found[name]
    return found


@pytest.mark.parametrize(
    ("address", "protocol", "port", "flags"),
    [
        (VIP, "tcp", None, BY_DESTINATION | BY_PROTOCOL),
        (VIP, "udp", 53, BY_DESTINATION | BY_PROTOCOL | BY_PORT),
        # Linux 6.1 gives just the others where it is to compare IPv6 addresses.
        (VIP6, "sctp", None, BY_PROTOCOL),
        (VIP6, "tcp", 65535, BY_PROTOCOL | BY_PORT),
    ],
)
def test_a_dump_asks_for_one_destination(address: str, protocol: str, port: int | None, flags: int) -> None:
    data = conntrack.dump_request(address, protocol, 7, port=port)
    told, values = read_with_pyroute2(data)
    assert message.messages(data)[0][:3] == (0x101, 0x301, 7)
    assert told["nfgen_family"] == (AF_INET6 if ":" in address else AF_INET)
    name = "CTA_IP_V6_DST" if ":" in address else "CTA_IP_V4_DST"
    assert inner(values, "CTA_TUPLE_ORIG", "CTA_TUPLE_IP", name) == address
    assert inner(values, "CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_NUM") == NUMBERS[protocol]
    assert inner(values, "CTA_FILTER", "CTA_FILTER_ORIG_FLAGS") == flags
    if port is not None:
        assert inner(values, "CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT") == port


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="is not an IP address"):
        conntrack.dump_request("web-1", "tcp", 1)
    with pytest.raises(KeyError):
        conntrack.dump_request(VIP, "icmp", 1)


@pytest.mark.parametrize("address", [VIP, VIP6])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_deletion_names_just_one_entry(address: str, protocol: str) -> None:
    dumped = entry(address, protocol, 443, zone=5, number=0xFEDCBA98)
    data = conntrack.delete_request(dumped, address, protocol, 9)
    assert data
    assert message.messages(data)[0][:3] == (0x102, 0x001, 9)
    told, values = read_with_pyroute2(data)
    _, expected = read_with_pyroute2(message.pack(0x100, 0, 9, dumped))
    assert told["nfgen_family"] == (AF_INET6 if ":" in address else AF_INET)
    assert values == {name: expected[name] for name in ("CTA_TUPLE_ORIG", "CTA_ZONE", "CTA_ID")}


def test_a_deletion_keeps_the_zone_of_one_direction() -> None:
    dumped = entry(original_zone=6)
    data = conntrack.delete_request(dumped, VIP, "tcp", 9)
    assert data
    found = dict(message.attributes(data, 20))
    assert found.keys() == {1, ID}
    assert dict(message.attributes(found[1]))[TUPLE_ZONE] == b"\0\6"


@pytest.mark.parametrize("port", [None, 80])
def test_what_is_of_another_destination_stays(port: int | None) -> None:
    others = [entry("10.0.0.2"), entry(protocol="udp"), entry(VIP6), entry("::ffff:10.0.0.1")]
    assert [conntrack.delete_request(other, VIP, "tcp", 1, port=port) for other in others] == [None] * 4
    assert conntrack.delete_request(entry(), VIP, "tcp", 1, port=port)
    assert conntrack.delete_request(entry(), VIP, "tcp", 1, port=81) is None


def test_what_has_no_port_is_of_no_port() -> None:
    icmp = struct.pack("=BBH", AF_INET, 0, 0) + nested(
        1, nested(1, attribute(2, pack(VIP))), nested(2, attribute(1, b"\1"), attribute(4, b"\0\1"))
    )
    assert conntrack.delete_request(icmp, VIP, "tcp", 1) is None
    assert conntrack.delete_request(icmp, VIP, "tcp", 1, port=80) is None


HEAD = struct.pack("=BBH", AF_INET, 0, 0)
ADDRESSES, UPPER = nested(1, attribute(2, pack(VIP))), nested(2, attribute(1, b"\6"), attribute(3, b"\0\x50"))
NUMBER = attribute(ID, bytes(4))


@pytest.mark.parametrize(
    ("malformed", "expected"),
    [
        (b"", "conntrack entry of 0 bytes"),
        (HEAD[:3], "conntrack entry of 3 bytes"),
        (HEAD, "without attribute 1"),
        (HEAD + NUMBER, "without attribute 1"),
        (HEAD + nested(1), "without attribute 1"),
        (HEAD + nested(1, ADDRESSES) + NUMBER, "without attribute 2"),
        (HEAD + nested(1, nested(1), UPPER) + NUMBER, "without attribute 2"),
        (HEAD + nested(1, ADDRESSES, nested(2)) + NUMBER, "without attribute 1"),
        (HEAD + nested(1, nested(1, attribute(2, bytes(16))), UPPER) + NUMBER, "16 bytes; 4 were"),
        (HEAD + nested(1, ADDRESSES, nested(2, attribute(1, b"\6\0"))) + NUMBER, "2 bytes; 1 were"),
        (HEAD + nested(1, ADDRESSES, nested(2, attribute(1, b"\6"), attribute(3, b"\6"))) + NUMBER, "1 bytes; 2 were"),
        (HEAD + nested(1, ADDRESSES, UPPER), "without attribute 12"),
        (HEAD + nested(1, ADDRESSES, UPPER) + attribute(ID, bytes(8)), "8 bytes; 4 were"),
        (HEAD + nested(1, ADDRESSES, UPPER) + attribute(ZONE, bytes(4)) + NUMBER, "4 bytes; 2 were"),
        (HEAD + struct.pack("=HH", 3, 1), "netlink attribute claims 3 bytes"),
        (HEAD + nested(1, b"\xff\xff\1\0") + NUMBER, "netlink attribute claims 65535 bytes"),
    ],
)
def test_malformed_entries_are_refused(malformed: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError, match=expected):
        conntrack.delete_request(malformed, VIP, "tcp", 1)


@given(spoiled(st.builds(entry, st.sampled_from([VIP, VIP6]), zone=st.integers(0, 2))) | attribute_bytes())
def test_any_bytes_are_an_entry_or_a_protocol_error(data: bytes) -> None:
    for address, port in ((VIP, None), (VIP, 80), (VIP6, None)):
        try:
            request = conntrack.delete_request(data, address, "tcp", 1, port=port)
        except ProtocolError:
            continue
        # Without a tuple the kernel would delete all there is.
        assert request is None or dict(message.attributes(request, 20)).keys() - {ZONE} == {1, ID}


def delete(*script: Answer, address: str = VIP, port: int | None = None) -> tuple[int, ScriptedChannel]:
    channel = ScriptedChannel(script)
    count = conntrack.delete(channel, address, "tcp", sequence=itertools.count(1).__next__, port=port)
    return count, channel


def test_nothing_there_is_nothing_asked() -> None:
    count, channel = delete(dump(0x100))
    assert count == 0
    assert channel.sequences == [[1]]


def test_what_the_kernel_gives_is_looked_at_again() -> None:
    answer = dump(
        0x100, entry(), entry("10.0.0.2"), entry(protocol="udp"), entry(VIP6), entry(port=81), entry(number=78)
    )
    count, channel = delete(answer, acknowledge, port=80)
    assert count == 2
    _, asked = channel.asked
    assert [dict(message.attributes(each.payload, 4))[ID] for each in asked] == [b"\0\0\0\x4d", b"\0\0\0\x4e"]
    assert [each.flags for each in asked] == [message.REQUEST, message.REQUEST | message.ACK]
    assert len({each.sequence for each in asked}) == 2


def test_a_dump_that_was_interrupted_is_repeated() -> None:
    count, channel = delete(
        dump(0x100, entry(), interrupted=0), dump(0x100, entry(), interrupted=1), dump(0x100, entry()), acknowledge
    )
    assert count == 1
    assert [asked[0].type for asked in channel.asked] == [0x101, 0x101, 0x101, 0x102]


def test_dumps_that_are_always_interrupted_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONSISTENT_DUMP_TIMEOUT", 0.05)
    with pytest.raises(BusyError, match="change too fast"):
        delete(*[dump(0x100, entry(), interrupted=0)] * 1_000_000)


def test_many_are_deleted_a_batch_at_a_time() -> None:
    entries = [entry(source_port=number, number=number) for number in range(2000)]
    count, channel = delete(dump(0x100, *entries), *[acknowledge] * 3)
    assert count == 2000
    batches = channel.asked[1:]
    assert sum(map(len, batches)) == 2000
    for asked in batches:
        assert sum(16 + len(each.payload) for each in asked) <= conntrack.BATCH
        assert [each.flags & message.ACK for each in asked] == [0] * (len(asked) - 1) + [message.ACK]


def test_what_ended_by_itself_is_not_counted() -> None:
    gone = refuse(at1=(errno.ENOENT, ""), at3=(errno.ENOENT, ""))
    count, _ = delete(dump(0x100, *(entry(number=number) for number in range(4))), gone)
    assert count == 2


def test_a_refused_deletion_is_an_error_with_the_kernel_s_words() -> None:
    refused = refuse(at0=(errno.ENOENT, ""), at1=(errno.ENOMEM, "no room"))
    with pytest.raises(ProtocolError, match=r"^the kernel refused to delete a connection: .* memory: no room$"):
        delete(dump(0x100, entry(), entry(number=2), entry(number=3)), refused)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_kernel_without_connection_tracking(code: int) -> None:
    with pytest.raises(HostError, match=r"does it have the module nf_conntrack_netlink\?"):
        delete(lambda asked: [error(asked[0], code)])


def test_other_refusals_of_a_dump() -> None:
    with pytest.raises(ProtocolError, match="Cannot allocate memory: words"):
        delete(lambda asked: [error(asked[0], errno.ENOMEM, "words")])
    with pytest.raises(ProtocolError, match="refused to list its connections: No buffer space"):
        delete(dump(0x100, entry(), status=-errno.ENOBUFS))


@pytest.mark.parametrize(
    "answers", [[], [Message(0x100, 2, 1, entry())], [Message(message.DONE, 2, 9, bytes(4))], [Message(2, 0, 1, b"")]]
)
def test_a_dump_without_an_end_is_refused(answers: list[Message]) -> None:
    with pytest.raises(ProtocolError):
        delete(lambda _: answers)


def test_answers_to_others_are_not_ours() -> None:
    def answer(asked: list[Message]) -> list[Message]:
        return [Message(0x100, 2, 99, entry()), *dump(0x100)(asked)]

    assert delete(answer)[0] == 0


def test_a_malformed_entry_leaves_all_as_it_was() -> None:
    channel = ScriptedChannel([dump(0x100, entry(), entry()[:-4])])
    with pytest.raises(ProtocolError, match="netlink attribute"):
        conntrack.delete(channel, VIP, "tcp", sequence=itertools.count(1).__next__)
    assert len(channel.asked) == 1


MESSAGES = st.lists(
    st.builds(
        Message,
        type=st.sampled_from([0x100, 0x100, 2, 3, 0x101]),
        flags=st.sampled_from([0, 2, 0x100, 0x300]),
        sequence=st.integers(0, 3),
        payload=spoiled(st.builds(entry)) | st.builds(entry) | st.just(bytes(4)) | st.binary(max_size=24),
    ),
    max_size=5,
)


@given(MESSAGES, MESSAGES)
def test_any_answers_are_a_count_or_an_error(first: list[Message], second: list[Message]) -> None:
    try:
        count, _ = delete(lambda _: first, lambda _: second)
    except (ProtocolError, HostError):
        return
    assert 0 <= count <= len(first)

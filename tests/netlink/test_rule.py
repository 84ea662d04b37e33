from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg

from reconciler.errors import ProtocolError
from reconciler.model.rule import ALL_BITS, KERNEL_TABLES, Rule
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.netlink import message, rule
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import execute
from reconciler.netlink.sections import TABLES, SectionObjects
from reconciler.operations.item import AddItem, DeleteItem, ReplaceItem
from reconciler.operations.outcome import Outcome, Status
from reconciler.values import replace
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine
from tests.netlink.strategies import attribute_bytes, rules, spoiled

ACTIONS = {1: "table", 2: "goto", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
UNSUPPRESSED = 0xFFFFFFFF
SANDBOX = Sandbox(id="box", driver=NetnsAddress(name="box"), rules=())
(OBSERVE,) = (table.observe for table in TABLES if table.name == "rules")


def read_with_pyroute2(data: bytes) -> tuple[Any, Rule]:
    """Decode a request with pyroute2: the message, and the rule that it says by pyroute2's names and numbers."""
    told: Any = fibmsg(data)
    told.decode()
    values = dict(told["attrs"])

    def network(name: str, bits: int) -> str | None:
        return f"{values[name]}/{bits}" if name in values else None

    def numbers(name: str) -> tuple[int, int] | None:
        first, last = values[name].split(":") if name in values else ("0", "0")
        return (int(first), int(last)) if name in values else None

    suppress = values["FRA_SUPPRESS_PREFIXLEN"]
    return told, Rule(
        family="ipv4" if told["family"] == AF_INET else "ipv6",
        priority=values["FRA_PRIORITY"],
        from_=network("FRA_SRC", told["src_len"]),
        to=network("FRA_DST", told["dst_len"]),
        iif=values.get("FRA_IIFNAME"),
        oif=values.get("FRA_OIFNAME"),
        fwmark=values.get("FRA_FWMARK", 0),
        fwmask=values.get("FRA_FWMASK", 0),
        ipproto=values.get("FRA_IP_PROTO", 0),
        sport=numbers("FRA_SPORT_RANGE"),
        dport=numbers("FRA_DPORT_RANGE"),
        uidrange=numbers("FRA_UID_RANGE"),
        tos=told["tos"],
        suppress_prefixlength=-1 if suppress == UNSUPPRESSED else suppress,
        l3mdev=bool(values.get("FRA_L3MDEV", 0)),
        invert=bool(told["flags"]),
        action=ACTIONS[told["action"]],
        table=values.get("FRA_TABLE", 0),
        goto=values.get("FRA_GOTO", 0),
    )


@settings(deadline=None)
@given(rules(), st.booleans(), st.integers(0, 0xFFFFFFFF))
def test_pyroute2_reads_in_a_request_what_was_meant(wish: Rule, adds: bool, sequence: int) -> None:
    operation = AddItem(item=wish) if adds else DeleteItem(item=wish)
    data = rule.encode(operation, wish, sequence)
    told, said = read_with_pyroute2(data)
    assert said == wish
    assert dict(told["attrs"])["FRA_PROTOCOL"] == 200
    kind, flags = (32, 0x601) if adds else (33, 0x001)
    assert told["header"] == {
        "length": len(data),
        "type": kind,
        "flags": flags,
        "sequence_number": sequence,
        "pid": 0,
    }
    assert (told["table"], told["flags"]) == (wish.table if wish.table < 256 else 252, 2 if wish.invert else 0)


@settings(deadline=None)
@given(rules())
def test_a_rule_comes_back_as_it_was_encoded(wish: Rule) -> None:
    assert rule.decode(rule.encode_body(wish)) == (200, wish)


@settings(deadline=None)
@given(rules(), rules())
def test_two_rules_have_the_same_bytes_only_if_they_are_the_same(one: Rule, other: Rule) -> None:
    assert (rule.encode_body(one) == rule.encode_body(other)) == (one == other)


def test_a_rule_is_not_replaced() -> None:
    wish = Rule(family="ipv4", priority=1, table=1)
    with pytest.raises(TypeError, match="cannot replace a rule"):
        rule.encode(ReplaceItem(item=wish, before=wish), wish, 1)


def header(
    family: int = AF_INET,
    to_bits: int = 0,
    from_bits: int = 0,
    tos: int = 0,
    table: int = 100,
    action: int = 1,
    flags: int = 0,
) -> bytes:
    return struct.pack("=BBBBBBBBI", family, to_bits, from_bits, tos, table, 0, 0, action, flags)


PLAIN = Rule(family="ipv4", priority=100, table=100)
BODY = header() + message.attribute(6, struct.pack("=I", 100)) + message.attribute(21, bytes([200]))


def test_a_table_of_the_header_is_enough() -> None:
    assert rule.decode(BODY) == (200, PLAIN)


@pytest.mark.parametrize("payload", [header(family=28), header(family=129)])
def test_what_is_of_another_family_is_left_out(payload: bytes) -> None:
    assert rule.decode(payload) is None


@pytest.mark.parametrize("action", [0, 3, 5, 9, 10, 255])
def test_an_action_that_no_manifest_has_can_be_deleted(action: int) -> None:
    decoded = rule.decode(header(action=action))
    assert decoded is not None
    assert rule.encode_body(decoded[1])[7] == action


@pytest.mark.parametrize(
    "state", [0x1, 0x4, 0x8, 0x10], ids=["permanent", "unresolved", "iif detached", "oif detached"]
)
@settings(deadline=None)
@given(wish=rules())
def test_what_the_kernel_made_of_a_rule_is_no_part_of_it(wish: Rule, state: int) -> None:
    body = rule.encode_body(wish)
    (flags,) = struct.unpack_from("=I", body, 8)
    assert rule.decode(body[:8] + struct.pack("=I", flags | state) + body[12:]) == (200, wish)


UNKNOWN = {
    "tun_id 0": message.attribute(12, bytes(8)),
    "realms 0": message.attribute(11, bytes(4)),
    "suppress_ifgroup 0": message.attribute(13, bytes(4)),
    "attribute 28 255": message.attribute(28, b"\xff\x00"),
    "attribute 29 65280": message.attribute(29, b"\x00\xff"),
    "attribute 26 0": message.attribute(26, bytes(4)),
    "attribute 77 120": message.attribute(77, b"x"),
}


@pytest.mark.parametrize(("words", "extra"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_rule_with_what_no_manifest_can_say_always_differs(words: str, extra: bytes) -> None:
    assert rule.decode(BODY + extra) == (200, replace(PLAIN, opaque=(words,)))


@pytest.mark.parametrize("kind", [28, 29], ids=["source", "destination"])
def test_a_mask_of_a_whole_port_says_nothing(kind: int) -> None:
    assert rule.decode(BODY + message.attribute(kind, b"\xff\xff")) == (200, PLAIN)


def test_a_mark_without_a_mask_is_compared_whole_and_no_mark_not_at_all() -> None:
    mark = message.attribute(10, struct.pack("=I", 7))
    assert rule.decode(BODY + mark) == (200, replace(PLAIN, fwmark=7, fwmask=ALL_BITS))
    assert rule.decode(BODY + message.attribute(10, bytes(4))) == (200, PLAIN)


MALFORMED = {
    "short": (bytes(11), "rule message of 11 bytes"),
    "prefix": (header(to_bits=33), "rule with a prefix of 33 bits"),
    "IPv6 prefix": (header(family=AF_INET6, from_bits=129), "rule with a prefix of 129 bits"),
    **{
        name: (
            header() + message.attribute(kind, bytes(size)),
            f"rule attribute of {size} bytes; {right} were expected",
        )
        for name, kind, size, right in (
            ("to", 1, 16, 4),
            ("from", 2, 3, 4),
            ("goto", 4, 8, 4),
            ("priority", 6, 0, 4),
            ("fwmark", 10, 2, 4),
            ("suppressed", 14, 5, 4),
            ("table", 15, 1, 4),
            ("fwmask", 16, 3, 4),
            ("l3mdev", 19, 4, 1),
            ("uidrange", 20, 4, 8),
            ("protocol", 21, 0, 1),
            ("ipproto", 22, 2, 1),
            ("sport", 23, 8, 4),
            ("dport", 24, 2, 4),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_a_protocol_error(payload: bytes, expected: str) -> None:
    # A number that is not asked for is not looked at.
    payload = payload[:7] + bytes([2]) + payload[8:] if len(payload) > 7 else payload
    with pytest.raises(ProtocolError) as caught:
        rule.decode(payload)
    assert str(caught.value) == expected


@settings(deadline=None)
@given(
    st.tuples(
        st.sampled_from((AF_INET, AF_INET6)), st.integers(0, 140), st.sampled_from((1, 2, 6)), st.integers(0, 255)
    ).map(lambda fields: header(family=fields[0], to_bits=fields[1], action=fields[2], table=fields[3])),
    attribute_bytes() | spoiled(rules().map(lambda wish: rule.encode_body(wish)[12:])),
)
def test_whatever_is_decoded_can_be_named_again_to_delete_it(head: bytes, tail: bytes) -> None:
    try:
        decoded = rule.decode(head + tail)
    except ProtocolError:
        return
    assert decoded is not None
    assert message.messages(rule.encode(DeleteItem(item=decoded[1]), decoded[1], 1))[0].type == 33


class Case(NamedTuple):
    """A rule: as `ip rule add` takes it, as the model has it, and what `ip -d -j rule` shows of it."""

    words: str
    rule: Rule
    shown: dict[str, Any]

    @property
    def family(self) -> str:
        return "-6" if self.rule.family == "ipv6" else "-4"


PLAIN6 = replace(PLAIN, family="ipv6")
TABLE = {"table": "100"}
CASES = {
    "table": Case("table 100", PLAIN, TABLE),
    "large table": Case("table 4294967295", replace(PLAIN, table=4294967295), {"table": "4294967295"}),
    "table of the old messages' escape": Case("table 252", replace(PLAIN, table=252), {"table": "252"}),
    "from": Case(
        "from 10.1.0.0/16 table 100", replace(PLAIN, from_="10.1.0.0/16"), {"src": "10.1.0.0", "srclen": 16, **TABLE}
    ),
    "from a host": Case("from 10.1.0.7 table 100", replace(PLAIN, from_="10.1.0.7/32"), {"src": "10.1.0.7", **TABLE}),
    "to": Case(
        "to 10.1.0.0/16 table 100", replace(PLAIN, to="10.1.0.0/16"), {"dst": "10.1.0.0", "dstlen": 16, **TABLE}
    ),
    "iif": Case("iif v7 table 100", replace(PLAIN, iif="v7"), {"iif": "v7", "iif_detached": None, **TABLE}),
    "iif lo": Case("iif lo table 100", replace(PLAIN, iif="lo"), {"iif": "lo", **TABLE}),
    "oif": Case("oif v7 table 100", replace(PLAIN, oif="v7"), {"oif": "v7", "oif_detached": None, **TABLE}),
    "fwmark": Case("fwmark 0x10 table 100", replace(PLAIN, fwmark=16, fwmask=ALL_BITS), {"fwmark": "0x10", **TABLE}),
    "fwmark and mask": Case(
        "fwmark 0x10/0xff table 100",
        replace(PLAIN, fwmark=16, fwmask=255),
        {"fwmark": "0x10", "fwmask": "0xff", **TABLE},
    ),
    "no mark": Case("fwmark 0/0xff table 100", replace(PLAIN, fwmask=255), {"fwmark": "0", "fwmask": "0xff", **TABLE}),
    "ipproto": Case("ipproto tcp table 100", replace(PLAIN, ipproto=6), {"ipproto": "tcp", **TABLE}),
    "ipproto by number": Case(
        "ipproto 200 table 100", replace(PLAIN, ipproto=200), {"ipproto": "ipproto-200", **TABLE}
    ),
    "sport": Case(
        "ipproto udp sport 53 table 100",
        replace(PLAIN, ipproto=17, sport=(53, 53)),
        {"ipproto": "udp", "sport": 53, **TABLE},
    ),
    "dport range": Case(
        "ipproto udp dport 53-54 table 100",
        replace(PLAIN, ipproto=17, dport=(53, 54)),
        {"ipproto": "udp", "dport_start": 53, "dport_end": 54, **TABLE},
    ),
    "uidrange": Case(
        "uidrange 0-4294967294 table 100",
        replace(PLAIN, uidrange=(0, 4294967294)),
        {"uid_start": 0, "uid_end": 4294967294, **TABLE},
    ),
    "tos": Case("tos 0x10 table 100", replace(PLAIN, tos=16), {"tos": "0x10", **TABLE}),
    "invert": Case(
        "not from 10.1.0.0/16 table 100",
        replace(PLAIN, from_="10.1.0.0/16", invert=True),
        {"not": None, "src": "10.1.0.0", "srclen": 16, **TABLE},
    ),
    "suppress": Case(
        "table 100 suppress_prefixlength 0", replace(PLAIN, suppress_prefixlength=0), {"suppress_prefixlen": 0, **TABLE}
    ),
    "blackhole": Case("blackhole", replace(PLAIN, table=0, action="blackhole"), {"action": "blackhole"}),
    "unreachable": Case("unreachable", replace(PLAIN, table=0, action="unreachable"), {"action": "unreachable"}),
    "prohibit": Case("prohibit", replace(PLAIN, table=0, action="prohibit"), {"action": "prohibit"}),
    "goto": Case("goto 200", replace(PLAIN, table=0, action="goto", goto=200), {"goto": 200, "unresolved": None}),
    "l3mdev": Case("l3mdev", replace(PLAIN, table=0, l3mdev=True), {"l3mdev": None}),
    "everything": Case(
        "from 10.1.0.0/16 to 10.2.0.0/16 iif lo oif lo fwmark 1/1 ipproto tcp sport 1 dport 2 uidrange 5-5 tos 0x4 "
        "table 5000 suppress_prefixlength 8",
        Rule(
            family="ipv4", priority=100, from_="10.1.0.0/16", to="10.2.0.0/16", iif="lo", oif="lo",
            fwmark=1, fwmask=1, ipproto=6, sport=(1, 1), dport=(2, 2), uidrange=(5, 5), tos=4,
            table=5000, suppress_prefixlength=8,
        ),
        {
            "src": "10.1.0.0", "srclen": 16, "dst": "10.2.0.0", "dstlen": 16, "iif": "lo", "oif": "lo",
            "fwmark": "0x1", "fwmask": "0x1", "ipproto": "tcp", "sport": 1, "dport": 2, "uid_start": 5, "uid_end": 5,
            "tos": "0x04", "table": "5000", "suppress_prefixlen": 8,
        },
    ),
    "IPv6 table": Case("table 100", PLAIN6, TABLE),
    "IPv6 networks": Case(
        "from fd00::/8 to fd01::7 table 100",
        replace(PLAIN6, from_="fd00::/8", to="fd01::7/128"),
        {"src": "fd00::", "srclen": 8, "dst": "fd01::7", **TABLE},
    ),
    "IPv6 tos": Case("tos 0xfc table 100", replace(PLAIN6, tos=252), {"tos": "0xfc", **TABLE}),
    "IPv6 suppress": Case(
        "table 100 suppress_prefixlength 128",
        replace(PLAIN6, suppress_prefixlength=128),
        {"suppress_prefixlen": 128, **TABLE},
    ),
    "IPv6 prohibit": Case("prohibit", replace(PLAIN6, table=0, action="prohibit"), {"action": "prohibit"}),
    "IPv6 goto": Case("goto 32766", replace(PLAIN6, table=0, action="goto", goto=32766), {"goto": 32766}),
    "IPv6 l3mdev": Case("l3mdev", replace(PLAIN6, table=0, l3mdev=True), {"l3mdev": None}),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(root: None) -> Iterator[str]:
    """A namespace that is left alone."""
    made = Kernel(prefix=f"r{os.getpid()}rule")
    try:
        yield made.namespace()
    finally:
        made.remove()


@pytest.fixture
def engine(network: str, open_engine: OpenEngine) -> Iterator[Engine]:
    yield open_engine(network)
    for family in ("-4", "-6"):
        for protocol in ("200", "static"):
            ip(family, "rule", "flush", "protocol", protocol, namespace=network)


def add(network: str, case: Case, protocol: str = "200") -> None:
    ip(case.family, "rule", "add", "priority", "100", *case.words.split(), "protocol", protocol, namespace=network)


def observe(engine: Engine) -> SectionObjects:
    return OBSERVE(engine, {}, SANDBOX)


def show(network: str) -> list[Any]:
    """What `ip` has to say of our rules."""
    return [
        {name: value for name, value in each.items() if name != "protocol"}
        for family in ("-4", "-6")
        for each in json.loads(ip("-d", "-j", family, "rule", namespace=network))
        if each["protocol"] == "200"
    ]


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_what_ip_adds_is_decoded_to_the_model(network: str, engine: Engine, case: Case) -> None:
    add(network, case)
    assert observe(engine).ours == (case.rule,)


@each_case
def test_what_the_engine_adds_is_shown_by_ip_and_deleted_again(network: str, engine: Engine, case: Case) -> None:
    for operation in (AddItem(item=case.rule), DeleteItem(item=case.rule)):
        assert list(execute(engine, [operation], {})) == [[Outcome(operation, Status.DONE)]]
        expected = [{"priority": 100, "src": "all", **case.shown}] if isinstance(operation, AddItem) else []
        assert show(network) == expected


@each_case
def test_a_deletion_is_of_our_protocol_only(network: str, engine: Engine, case: Case) -> None:
    add(network, case, protocol="static")
    operation = DeleteItem(item=case.rule)
    assert list(execute(engine, [operation], {})) == [[Outcome(operation, Status.DONE)]]
    assert case.rule in observe(engine).foreign


def test_the_kernels_own_rules_are_foreign(engine: Engine) -> None:
    found = observe(engine)
    assert (found.ours, {(each.family, each.priority) for each in found.foreign}) == (
        (),
        {("ipv4", 0), ("ipv4", 32766), ("ipv4", 32767), ("ipv6", 0), ("ipv6", 32766)},
    )
    assert {each.table for each in found.foreign} == KERNEL_TABLES


def test_rules_of_one_priority_come_in_the_order_of_the_kernel(engine: Engine) -> None:
    listed = [replace(PLAIN, ipproto=number) for number in (17, 6, 0, 1)]
    operations = [AddItem(item=each) for each in listed]
    assert list(execute(engine, operations, {})) == [[Outcome(each, Status.DONE) for each in operations]]
    assert observe(engine).ours == tuple(listed)


OTHERS = {
    "realms": ("table 100 realms 5", PLAIN),
    "tunnel": ("tun_id 7 table 100", PLAIN),
    "suppressed group": ("table 100 suppress_ifgroup 7", PLAIN),
}


@pytest.mark.parametrize(("words", "alike"), OTHERS.values(), ids=OTHERS)
def test_a_rule_of_ip_with_what_no_manifest_can_say_differs(
    network: str, engine: Engine, words: str, alike: Rule
) -> None:
    ip("rule", "add", "priority", "100", *words.split(), "protocol", "200", namespace=network)
    (found,) = observe(engine).ours
    assert (found != alike, replace(found, opaque=())) == (True, alike)
    operation = DeleteItem(item=found)
    assert list(execute(engine, [operation], {})) == [[Outcome(operation, Status.DONE)]]
    assert observe(engine).ours == ()

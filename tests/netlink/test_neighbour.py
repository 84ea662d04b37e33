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
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from reconciler.errors import ProtocolError
from reconciler.model.neighbour import Neighbour
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.netlink import message, neighbour
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import execute
from reconciler.netlink.sections import TABLES, SectionObjects
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem
from reconciler.operations.outcome import Outcome, Status
from reconciler.values import replace
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine
from tests.netlink.strategies import INDEXES, NAMES, attribute_bytes, neighbours, spoiled

PERMANENT, REACHABLE, STALE, NOARP, FAILED = 0x80, 0x02, 0x04, 0x40, 0x20
PROXY, ROUTER = 0x08, 0x80
SANDBOX = Sandbox(id="box", driver=NetnsAddress(name="box"), neighbours=())
(OBSERVE,) = (table.observe for table in TABLES if table.name == "neighbours")


def read_with_pyroute2(data: bytes) -> tuple[Any, Neighbour]:
    """Decode a request with pyroute2: the message, and the entry that it says by pyroute2's names and numbers."""
    told: Any = ndmsg(data)
    told.decode()
    values = dict(told["attrs"])
    assert values["NDA_PROTOCOL"] == 200
    return told, Neighbour(
        address=values["NDA_DST"],
        device=NAMES[told["ifindex"]],
        hw_addr=values.get("NDA_LLADDR", ""),
        proxy=bool(told["flags"] & PROXY),
        router=bool(told["flags"] & ROUTER),
        permanent=told["state"] == PERMANENT,
    )


OPERATIONS = st.sampled_from(
    (
        (lambda wish: AddItem(item=wish), 28, 0x501),
        (lambda wish: ReplaceItem(item=wish, before=wish), 28, 0x501),
        (lambda wish: DeleteItem(item=wish), 29, 0x001),
    )
)


@settings(deadline=None)
@given(neighbours(), OPERATIONS, st.integers(0, 0xFFFFFFFF))
def test_pyroute2_reads_in_a_request_what_was_meant(wish: Neighbour, how: Any, sequence: int) -> None:
    make, kind, flags = how
    operation: ItemOperation = make(wish)
    data = neighbour.encode(operation, wish, INDEXES, sequence)
    told, said = read_with_pyroute2(data)
    assert said == wish
    assert told["family"] == (AF_INET6 if wish.is_ipv6 else AF_INET)
    assert told["header"] == {
        "length": len(data),
        "type": kind,
        "flags": flags,
        "sequence_number": sequence,
        "pid": 0,
    }


@settings(deadline=None)
@given(neighbours())
def test_a_neighbour_comes_back_as_it_was_encoded(wish: Neighbour) -> None:
    assert neighbour.decode(neighbour.encode_body(wish, INDEXES), NAMES) == (200, wish)


@settings(deadline=None)
@given(neighbours(), neighbours())
def test_two_neighbours_have_the_same_bytes_only_if_they_are_the_same(one: Neighbour, other: Neighbour) -> None:
    same = neighbour.encode_body(one, INDEXES) == neighbour.encode_body(other, INDEXES)
    assert same == (one == other)


PLAIN = Neighbour(address="192.0.2.1", device="eth0", hw_addr="02:00:00:00:00:01")
PLAIN6 = replace(PLAIN, address="2001:db8::1")
DST = message.attribute(1, bytes((192, 0, 2, 1)))
LLADDR = message.attribute(2, bytes((2, 0, 0, 0, 0, 1)))
OURS = message.attribute(12, bytes([200]))
# struct nda_cacheinfo, and the count of probes.
TIMES = message.attribute(3, bytes(16)) + message.attribute(4, bytes(4))


def test_a_device_without_an_index_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"^'eth7'$"):
        neighbour.encode_body(replace(PLAIN, device="eth7"), INDEXES)


def test_an_index_without_a_name_is_named_by_its_number() -> None:
    found = neighbour.decode(neighbour.encode_body(PLAIN, INDEXES), {})
    assert found == (200, replace(PLAIN, device="if2"))


def header(family: int = AF_INET, index: int = 2, state: int = PERMANENT, flags: int = 0, kind: int = 1) -> bytes:
    return struct.pack("=BxxxiHBB", family, index, state, flags, kind)


@pytest.mark.parametrize(
    "payload",
    [
        header(state=REACHABLE) + DST + LLADDR,
        header(state=STALE) + DST + LLADDR,
        header(state=FAILED) + DST,
        header(state=NOARP) + DST + LLADDR,
        header(state=REACHABLE, flags=ROUTER) + DST + LLADDR + message.attribute(12, bytes([4])),
        header(family=7) + LLADDR + OURS,
        header(family=28),
    ],
    ids=["reachable", "stale", "failed", "noarp", "of another protocol", "bridge", "MPLS"],
)
def test_what_is_learned_or_of_no_ip_family_is_left_out(payload: bytes) -> None:
    assert neighbour.decode(payload, NAMES) is None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (header() + DST + LLADDR + OURS + TIMES, (200, PLAIN)),
        (header() + TIMES + LLADDR + DST, (0, PLAIN)),
        (header() + DST + LLADDR + message.attribute(12, bytes([4])), (4, PLAIN)),
        (header(state=REACHABLE) + DST + LLADDR + OURS, (200, replace(PLAIN, permanent=False))),
        (header(state=FAILED) + DST + OURS, (200, replace(PLAIN, hw_addr="", permanent=False))),
        (header(state=0, flags=PROXY) + DST, (0, replace(PLAIN, hw_addr="", proxy=True))),
        (header(state=PERMANENT, flags=PROXY) + DST + OURS, (200, replace(PLAIN, hw_addr="", proxy=True))),
        (
            header(AF_INET6, flags=ROUTER)
            + message.attribute(1, b"\x20\x01\x0d\xb8" + bytes(11) + b"\1")
            + LLADDR
            + OURS,
            (200, replace(PLAIN6, router=True)),
        ),
    ],
    ids=["ours", "nobody's", "static", "ours and learned", "ours and failed", "proxy", "proxy of ours", "router"],
)  # fmt: skip
def test_what_was_made_is_decoded(payload: bytes, expected: tuple[int, Neighbour]) -> None:
    assert neighbour.decode(payload, NAMES) == expected


MALFORMED = {
    "short": (bytes(11), "neighbour message of 11 bytes"),
    "no address": (header() + LLADDR, "neighbour of 0 bytes; 4 were expected"),
    "long address": (header() + message.attribute(1, bytes(16)), "neighbour of 16 bytes; 4 were expected"),
    "short address": (header(AF_INET6) + DST, "neighbour of 4 bytes; 16 were expected"),
    "protocol": (
        header() + DST + message.attribute(12, bytes(4)),
        "protocol of a neighbour of 4 bytes; 1 was expected",
    ),
    "no protocol": (header() + DST + message.attribute(12, b""), "protocol of a neighbour of 0 bytes; 1 was expected"),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_a_protocol_error(payload: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        neighbour.decode(payload, NAMES)
    assert str(caught.value) == expected


class _EveryIndex(dict[str, int]):
    """The index of `if17` is 17."""

    def __missing__(self, name: str) -> int:
        return int(name.removeprefix("if"))


@settings(deadline=None)
@given(
    st.tuples(st.sampled_from((AF_INET, AF_INET6)), st.integers(0, 255), st.integers(0, 255)).map(
        lambda fields: header(family=fields[0], state=fields[1], flags=fields[2])
    ),
    attribute_bytes() | spoiled(neighbours().map(lambda wish: neighbour.encode_body(wish, INDEXES)[12:])),
)
def test_whatever_is_decoded_can_be_named_again_to_delete_it(head: bytes, tail: bytes) -> None:
    try:
        decoded = neighbour.decode(head + tail, {})
    except ProtocolError:
        return
    if decoded is not None:
        request = neighbour.encode(DeleteItem(item=decoded[1]), decoded[1], _EveryIndex(), 1)
        assert message.messages(request)[0].type == 29


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (28, header() + DST + LLADDR + OURS, True),
        (29, header(state=FAILED) + DST + OURS, True),
        (28, header(state=REACHABLE) + DST + LLADDR + OURS, True),
        (28, header(state=REACHABLE) + DST + LLADDR, False),
        (29, header(state=FAILED) + DST, False),
        (28, header() + DST + LLADDR + message.attribute(12, bytes([4])), False),
        (28, header(family=7) + LLADDR, False),
        # Malformed ones are found by looking, if they matter.
        (28, b"", False),
        # Other messages are not looked into.
        (24, b"", True),
        (32, b"", True),
        (33, b"", True),
        (16, b"", True),
    ],
)
def test_only_what_is_ours_is_news(kind: int, payload: bytes, expected: bool) -> None:
    assert neighbour.is_news(kind, payload) == expected


@settings(deadline=None)
@given(st.integers(0, 100), attribute_bytes() | st.binary(max_size=60))
def test_any_bytes_are_news_or_not(kind: int, payload: bytes) -> None:
    try:
        assert neighbour.is_news(kind, payload) in {True, False}
    except ProtocolError:
        return


class Case(NamedTuple):
    """An entry: as `ip neigh add` takes it, as the model has it, and what `ip -d -j neigh` shows of it."""

    words: str
    neighbour: Neighbour
    shown: dict[str, Any]


ON_V0 = replace(PLAIN, device="v0")
SHOWN: dict[str, Any] = {"dst": "192.0.2.1", "dev": "v0", "lladdr": "02:00:00:00:00:01", "state": ["PERMANENT"]}
CASES = {
    "plain": Case("192.0.2.1 lladdr 02:00:00:00:00:01 dev v0", ON_V0, SHOWN),
    "off the subnet": Case(
        "203.0.113.1 lladdr 02:00:00:00:00:01 dev v0",
        replace(ON_V0, address="203.0.113.1"),
        {**SHOWN, "dst": "203.0.113.1"},
    ),
    "IPv6": Case(
        "2001:db8::1 lladdr 02:00:00:00:00:01 dev v0",
        replace(ON_V0, address="2001:db8::1"),
        {**SHOWN, "dst": "2001:db8::1"},
    ),
    "link-local": Case(
        "fe80::1 lladdr 02:00:00:00:00:01 dev v0", replace(ON_V0, address="fe80::1"), {**SHOWN, "dst": "fe80::1"}
    ),
    "router": Case(
        "2001:db8::1 lladdr 02:00:00:00:00:01 dev v0 router",
        replace(ON_V0, address="2001:db8::1", router=True),
        {**SHOWN, "dst": "2001:db8::1", "router": None},
    ),
    "proxy": Case(
        "proxy 192.0.2.9 dev v0",
        Neighbour(address="192.0.2.9", device="v0", proxy=True),
        {"dst": "192.0.2.9", "dev": "v0", "proxy": None},
    ),
    "IPv6 proxy": Case(
        "proxy 2001:db8::9 dev v1",
        Neighbour(address="2001:db8::9", device="v1", proxy=True),
        {"dst": "2001:db8::9", "dev": "v1", "proxy": None},
    ),
    "proxy of a router": Case(
        "proxy 2001:db8::9 dev v0 router",
        Neighbour(address="2001:db8::9", device="v0", proxy=True, router=True),
        {"dst": "2001:db8::9", "dev": "v0", "proxy": None, "router": None},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(root: None) -> Iterator[str]:
    """A namespace with a pair of links, both up, and addresses of both families."""
    made = Kernel(prefix=f"r{os.getpid()}neigh")
    try:
        name = made.namespace()
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", namespace=name)
        for link in ("lo", "v0", "v1"):
            ip("link", "set", link, "up", namespace=name)
        ip("address", "add", "192.0.2.10/24", "dev", "v0", namespace=name)
        ip("address", "add", "2001:db8::10/64", "dev", "v0", "nodad", namespace=name)
        yield name
    finally:
        made.remove()


@pytest.fixture
def engine(network: str, open_engine: OpenEngine) -> Iterator[Engine]:
    engine = open_engine(network)
    yield engine
    for item in (*observe(engine).ours, *observe(engine).foreign):
        list(execute(engine, [DeleteItem(item=item)], indexes(engine)))


def add(network: str, case: Case, protocol: str = "200") -> None:
    nud = [] if case.neighbour.proxy else ["nud", "permanent"]
    ip("neigh", "add", *case.words.split(), *nud, "protocol", protocol, namespace=network)


def indexes(engine: Engine) -> dict[str, int]:
    return {link.name: link.index for link in engine.links()}


def observe(engine: Engine) -> SectionObjects:
    return OBSERVE(engine, indexes(engine), SANDBOX)


def show(network: str) -> list[Any]:
    """What `ip` has to say of our entries."""
    return [
        {name: value for name, value in each.items() if name != "protocol"}
        for words in (["-4"], ["-6"], ["-4", "proxy"], ["-6", "proxy"])
        for each in json.loads(ip("-d", "-j", words[0], "neigh", "show", *words[1:], namespace=network) or "[]")
        if each.get("protocol") == "200"
    ]


def done(engine: Engine, operation: ItemOperation) -> None:
    assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, Status.DONE)]]


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_what_ip_adds_is_decoded_to_the_model(network: str, engine: Engine, case: Case) -> None:
    add(network, case)
    assert observe(engine) == SectionObjects((case.neighbour,))


@each_case
def test_what_the_engine_adds_is_shown_by_ip_and_deleted_again(network: str, engine: Engine, case: Case) -> None:
    done(engine, AddItem(item=case.neighbour))
    assert show(network) == [case.shown]
    done(engine, DeleteItem(item=case.neighbour))
    assert show(network) == []
    # It is gone, which is what was wanted.
    done(engine, DeleteItem(item=case.neighbour))


@each_case
def test_what_is_of_another_protocol_is_foreign(network: str, engine: Engine, case: Case) -> None:
    add(network, case, protocol="static")
    assert observe(engine) == SectionObjects((), (case.neighbour,))


CHANGES = {
    "hw_addr": (ON_V0, replace(ON_V0, hw_addr="02:00:00:00:00:02")),
    "router": (replace(ON_V0, address="2001:db8::1"), replace(ON_V0, address="2001:db8::1", router=True)),
    "no router": (replace(ON_V0, address="2001:db8::1", router=True), replace(ON_V0, address="2001:db8::1")),
    "proxy of a router": (
        Neighbour(address="2001:db8::9", device="v0", proxy=True),
        Neighbour(address="2001:db8::9", device="v0", proxy=True, router=True),
    ),
    "proxy of no router": (
        Neighbour(address="2001:db8::9", device="v0", proxy=True, router=True),
        Neighbour(address="2001:db8::9", device="v0", proxy=True),
    ),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_neighbour_is_replaced_in_place(engine: Engine, before: Neighbour, after: Neighbour) -> None:
    done(engine, AddItem(item=before))
    done(engine, ReplaceItem(item=after, before=before))
    assert observe(engine) == SectionObjects((after,))


@pytest.mark.parametrize("state", ["reachable", "stale", "noarp", "failed"])
def test_a_learned_neighbour_is_nobodys_and_gives_way(network: str, engine: Engine, state: str) -> None:
    mac = [] if state == "failed" else ["lladdr", "02:00:00:00:00:07"]
    ip("neigh", "add", "192.0.2.1", *mac, "dev", "v0", "nud", state, namespace=network)
    assert observe(engine) == SectionObjects()
    done(engine, AddItem(item=ON_V0))
    assert observe(engine) == SectionObjects((ON_V0,))


def test_ours_that_was_made_to_expire_differs(network: str, engine: Engine) -> None:
    done(engine, AddItem(item=ON_V0))
    ip("neigh", "change", "192.0.2.1", "dev", "v0", "nud", "reachable", namespace=network)
    assert observe(engine) == SectionObjects((replace(ON_V0, permanent=False),))
    done(engine, ReplaceItem(item=ON_V0, before=replace(ON_V0, permanent=False)))
    assert observe(engine) == SectionObjects((ON_V0,))
    ip("neigh", "change", "192.0.2.1", "dev", "v0", "nud", "reachable", namespace=network)
    done(engine, DeleteItem(item=ON_V0))
    assert observe(engine) == SectionObjects()

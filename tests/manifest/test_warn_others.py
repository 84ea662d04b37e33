"""What others did to our NICs and beside our routes is told, at its place."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.manifest.finding import Finding
from reconciler.manifest.warn import others
from reconciler.model.derived import derived_routes
from reconciler.model.interface import LinkState
from reconciler.model.route import Route
from reconciler.model.sandbox import Surroundings
from reconciler.values import replace
from tests.plan.sandboxes import found, hop, nic, route, wanted

ETH0 = nic("eth0", "192.0.2.2/24", "2001:db8::2/64")
READY = LinkState(ipv6=True)
LINK_LOCAL = ("eth0", "fe80::1/64")
HERE = ("interfaces", 0)
CONNECTED = "192.0.2.0/24 dev eth0 src 192.0.2.2"


def told(*foreign: Route, state: LinkState = READY, **around: Any) -> list[Finding]:
    """The warnings about NICs where the kernel has these routes before what it has derived."""
    routes = [*foreign, *derived_routes(ETH0, READY, ["fe80::1/64"])]
    surroundings: Surroundings = found(
        [ETH0],
        foreign=[each for each in routes if each.table != 255],
        local_table=tuple(each for each in routes if each.table == 255),
        **{"addresses": frozenset({LINK_LOCAL}), "states": {ETH0.device: state}} | around,
    ).around
    return list(others.warnings(wanted([ETH0]), surroundings))


def test_nothing_to_tell() -> None:
    assert told() == []


STATES = {
    "arp": (READY._replace(arp=False), "neither sends nor answers ARP; set it there: ip link set dev eth0 arp on"),
    "multicast": (
        READY._replace(multicast=False),
        "has no multicast, which IPv6 needs; set it there: ip link set dev eth0 multicast on",
    ),
    "broadcast": (
        READY._replace(broadcast="02:00:00:00:00:07"),
        "sends broadcasts to 02:00:00:00:00:07; set it there: ip link set dev eth0 broadcast ff:ff:ff:ff:ff:ff",
    ),
    "bridge": (
        READY._replace(master="br0"),
        "is a port of br0, which gets its packets; take it out there: ip link set dev eth0 nomaster",
    ),
    "protodown": (
        READY._replace(held=True),
        "has no carrier because of protodown; set it there: ip link set dev eth0 protodown off",
    ),
    "no link-local address": (
        READY._replace(generation="none"),
        "gets no link-local address; set it there: ip link set dev eth0 addrgenmode eui64",
    ),
}


@pytest.mark.parametrize(("state", "words"), STATES.values(), ids=STATES)
def test_the_state_of_a_link(state: LinkState, words: str) -> None:
    assert told(state=state) == [Finding(HERE, f"eth0 {words}")]


def test_a_link_that_is_so_by_nature() -> None:
    state = READY._replace(arp=False, multicast=False, broadcast="ff:ff:ff:ff:ff:ff")
    assert told(state=state, kinds={ETH0.device: "dummy"}) == []
    bare = state._replace(broadcast="0a:00:00:02", generation="other")
    around = found([ETH0], states={ETH0.device: bare}).around
    assert list(others.warnings(wanted([replace(ETH0, hw_addr="")]), around)) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Route(dest="192.0.2.0/24", type="throw", protocol=3), "throw 192.0.2.0/24 is not ours and takes its packets"),
        (
            route("192.0.2.0/24", hop("eth0", "192.0.2.9"), tos=8, protocol=3),
            "192.0.2.0/24 tos 0x8 via 192.0.2.9 dev eth0 is not ours and takes some of its packets",
        ),
    ],
    ids=["throw", "type of service"],
)
def test_a_route_before_a_connected_one(other: Route, words: str) -> None:
    assert told(other) == [Finding(HERE, f"{CONNECTED}: the route {words}; delete it in the sandbox")]


def test_what_harms_nobody_before_a_connected_route() -> None:
    assert told(route("192.0.2.0/24", hop("eth0"), protocol=3), route("10.0.0.0/8", hop("eth0"), protocol=3)) == []


def test_a_route_before_one_of_ours() -> None:
    ours = [route("10.8.0.0/16", hop("eth0", "192.0.2.1")), route("10.9.0.0/16", hop("eth0", "192.0.2.1"))]
    thrown = Route(dest="10.9.0.0/16", type="throw", protocol=3)
    around = found([ETH0], ours, foreign=[thrown], in_front=((thrown, ours[1]),)).around
    assert list(others.warnings(wanted([ETH0], ours), around)) == [
        Finding(
            ("routes", 1),
            "10.9.0.0/16 via 192.0.2.1 dev eth0: the route throw 10.9.0.0/16 is not ours and takes its packets; "
            "delete it in the sandbox",
        )
    ]
    # It goes.
    assert list(others.warnings(wanted([ETH0], ours[:1]), around)) == []

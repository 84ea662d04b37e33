"""How services and servers are told apart, what drains, and what belongs to somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.ipvs import DRAINING, THRESHOLD_MAX, Excluded, Server, Service, due
from reconciler.values import replace

SERVER = Server(address="172.16.0.1", port=80, weight=5, upper_threshold=9, lower_threshold=3)
SERVICE = Service(protocol="tcp", address="10.10.0.1", port=80)
YEAR = 365 * 86400


def test_a_service_is_the_same_by_protocol_address_and_port() -> None:
    other = replace(SERVICE, scheduler="rr", persistent=5, servers=(SERVER,), ignore=("weight",))
    assert SERVICE.key == other.key == ("tcp", "10.10.0.1", 80)
    others = [{"protocol": "udp"}, {"address": "10.10.0.2"}, {"port": 81}, {"protocol": "fwmark"}]
    assert len({replace(SERVICE, **change).key for change in others} | {SERVICE.key}) == 5  # type: ignore[arg-type]


def test_a_server_is_the_same_by_address_and_port() -> None:
    assert SERVER.key == replace(SERVER, weight=1, forward="dr").key == ("172.16.0.1", 80)
    assert replace(SERVER, port=0).key == ("172.16.0.1", 0)


@pytest.mark.parametrize(
    ("address", "is_ipv6"), [("10.0.0.1", False), ("fd00::1", True), ("0.0.0.0", False), ("::", True)]
)
def test_the_family_of_a_service(address: str, is_ipv6: bool) -> None:
    assert replace(SERVICE, address=address).is_ipv6 == is_ipv6


@given(st.integers(0, 2**40))
def test_a_drained_server_says_until_when(until: int) -> None:
    drained = SERVER.draining(until + 0.9)
    moment = until % DRAINING
    assert drained == replace(SERVER, weight=0, upper_threshold=DRAINING + moment, lower_threshold=0)
    assert drained.deadline == moment
    # Again, it is another moment of the same server.
    assert drained.draining(until + 1).deadline == (until + 1) % DRAINING


@pytest.mark.parametrize(
    "server",
    [
        SERVER,
        replace(SERVER, weight=0),
        replace(SERVER, weight=0, upper_threshold=0),
        # The most that a manifest can say.
        replace(SERVER, weight=0, upper_threshold=THRESHOLD_MAX),
        replace(SERVER, weight=1, upper_threshold=DRAINING),
        replace(SERVER, weight=0, upper_threshold=1 << 31),
    ],
)
def test_a_server_that_does_not_drain_has_no_deadline(server: Server) -> None:
    assert server.deadline is None


@given(st.integers(0, 2**33), st.integers(-16 * YEAR, 16 * YEAR))
def test_a_deadline_is_known_wherever_the_ring_ends(now: int, ahead: int) -> None:
    deadline = SERVER.draining(now + ahead).deadline
    assert deadline is not None
    assert due(deadline, now + 0.5) == now + ahead


@pytest.mark.parametrize(
    ("excluded", "covered"),
    [
        (Excluded(prefix="10.10.0.0/16"), {"a", "b"}),
        (Excluded(prefix="10.10.0.1/32"), {"a", "b"}),
        (Excluded(prefix="0.0.0.0/0"), {"a", "b", "c"}),
        (Excluded(prefix="::/0"), {"d"}),
        (Excluded(prefix="fd00::/64"), {"d"}),
        (Excluded(prefix="10.11.0.0/16"), set()),
        (Excluded(fwmark=7), {"e", "f"}),
        (Excluded(fwmark=8), set()),
        (Excluded(), set()),
    ],
)
def test_what_is_excluded_is_a_prefix_or_a_mark_of_either_family(excluded: Excluded, covered: set[str]) -> None:
    keys = {
        "a": ("tcp", "10.10.0.1", 80),
        "b": ("udp", "10.10.0.1", 7),
        "c": ("sctp", "192.0.2.1", 1),
        "d": ("tcp", "fd00::1", 80),
        "e": ("fwmark", "0.0.0.0", 7),
        "f": ("fwmark", "::", 7),
    }
    assert {name for name, key in keys.items() if excluded.covers(key)} == covered


def test_none_is_no_scheduler_and_needs_no_module() -> None:
    assert [replace(SERVICE, scheduler=name).scheduler_module for name in ("none", "wrr")] == ["", "ip_vs_wrr"]

"""Routes as users of kata-network have them are read and written, and selected by what is given of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.kata.fields import FieldError
from reconciler.formats.kata.route import RouteSelector, is_route, read_route, read_selector, write_route
from reconciler.model.route import NextHop, Route
from reconciler.values import replace
from tests.manifest.plain import data


def route(dest: str, gateway: str | None = None, device: str = "eth1") -> Route:
    return Route(dest=dest, nexthops=(NextHop(device=device, gateway=gateway),), metric=1024 if ":" in dest else 0)


@pytest.mark.parametrize(
    ("document", "expected", "printed"),
    [
        ({"dest": "default", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "0.0.0.0/0", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "default", "gateway": "FD00::1"}, route("::/0", "fd00::1"), ("default", "fd00::1")),
        ({"dest": "0.0.0.0/0"}, route("0.0.0.0/0"), ("0.0.0.0/0", "")),
        (
            {"dest": "177.17.0.0/24", "gateway": "177.17.25.1"},
            route("177.17.0.0/24", "177.17.25.1"),
            ("177.17.0.0/24", "177.17.25.1"),
        ),
        ({"dest": "172.17.10.10/24", "gateway": ""}, route("172.17.10.0/24"), ("172.17.10.0/24", "")),
        ({"dest": "172.17.10.10", "gateway": None}, route("172.17.10.10/32"), ("172.17.10.10/32", "")),
        ({"dest": "fd00::9/64"}, route("fd00::/64"), ("fd00::/64", "")),
    ],
)  # fmt: skip
def test_a_route(document: dict[str, Any], expected: Route, printed: tuple[str, str]) -> None:
    assert is_route(document)
    assert read_route(document | {"device": "eth1"}) == expected
    written = {"dest": printed[0], "gateway": printed[1], "device": "eth1"}
    assert write_route(expected) == [written]
    assert read_route(written) == expected


def test_a_route_of_several_next_hops_is_an_object_for_each() -> None:
    hops = (NextHop(device="eth0", gateway="10.0.0.1"), NextHop(device="eth1"))
    assert write_route(Route(dest="10.8.0.0/16", nexthops=hops)) == [
        {"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"},
        {"dest": "10.8.0.0/16", "gateway": "", "device": "eth1"},
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (7, "expected an object"),
        ({"gateway": "10.0.0.1", "device": "eth1"}, "dest: missing"),
        ({"dest": "default", "device": "eth1"}, "gateway: missing; a default route needs the IP address of a gateway"),
        (
            {"dest": "", "gateway": "", "device": "eth1"},
            "gateway: missing; a default route needs the IP address of a gateway",
        ),
        (
            {"dest": "10.0.0.0/33", "device": "eth1"},
            'dest: "10.0.0.0/33" has no valid prefix length; expected /0 to /32',
        ),
        ({"dest": "web", "device": "eth1"}, 'dest: "web" is not an IP address'),
        ({"dest": "10.8.0.0/16", "gateway": "10.0.0.1"}, "device: missing"),
        (
            {"dest": "10.8.0.0/16", "gateway": "10.0.0.300", "device": "eth1"},
            'gateway: "10.0.0.300" is not an IP address',
        ),
        ({"dest": "10.8.0.0/16", "gateway": "0.0.0.0", "device": "eth1"}, "gateway: 0.0.0.0 is not a unicast address"),
        (
            {"dest": "10.8.0.0/16", "gateway": "fd00::1", "device": "eth1"},
            "gateway: fd00::1 is IPv6, and the destination is IPv4",
        ),
        (
            {"dest": "10.8.0.0/16", "device": "eth1", "metric": 5},
            "metric: unknown field; expected one of: dest, gateway, device",
        ),
    ],
)  # fmt: skip
def test_a_bad_route(document: Any, message: str) -> None:
    with pytest.raises(FieldError) as error:
        read_route(document)
    assert str(error.value) == message


GATEWAYS = st.ip_addresses(v=4).map(str).filter(lambda each: 0 < int(each.split(".")[0]) < 224)


@given(st.sampled_from(("0.0.0.0/0", "10.8.0.0/16", "10.8.0.1/32")), st.none() | GATEWAYS)
def test_a_route_that_is_written_is_read_as_it_was(dest: str, gateway: str | None) -> None:
    (written,) = write_route(route(dest, gateway))
    assert read_route(written) == route(dest, gateway)


@given(data() | st.dictionaries(st.sampled_from(("dest", "gateway", "device")), data()))
def test_nothing_else_than_a_wrong_field_is_raised(document: Any) -> None:
    with suppress(FieldError):
        read_route(document)


BOTH = Route(
    dest="10.0.0.0/8",
    nexthops=(NextHop(device="eth1", gateway="10.1.0.1"), NextHop(device="eth2", gateway="10.2.0.1")),
)


@pytest.mark.parametrize(
    ("data", "covered", "other"),
    [
        ({"dest": "10.9.9.9/8"}, route("10.0.0.0/8", "10.1.0.1"), route("10.0.0.0/9", "10.1.0.1")),
        ({"dest": "10.0.0.0/8"}, BOTH, replace(BOTH, table=100)),
        ({"dest": "10.0.0.0/8"}, Route(dest="10.0.0.0/8", type="blackhole"), route("0.0.0.0/0")),
        ({"dest": "10.0.0.0/8", "gateway": ""}, BOTH, route("::/0")),
        ({"dest": "10.0.0.0/8", "device": "eth2"}, BOTH, route("10.0.0.0/8", device="eth1")),
        (
            {"dest": "10.0.0.0/8", "device": "eth2", "gateway": "10.2.0.1"},
            BOTH,
            replace(BOTH, nexthops=(NextHop(device="eth2", gateway="10.1.0.1"),)),
        ),
        ({"dest": "10.0.0.0/8", "gateway": "10.1.0.1"}, BOTH, route("10.0.0.0/8")),
        ({"dest": "default"}, route("::/0", "fd00::1"), route("10.0.0.0/8")),
        ({"dest": "default"}, route("0.0.0.0/0", "10.1.0.1"), route("10.0.0.0/8")),
        ({"dest": "default", "gateway": "fd00::1"}, route("::/0", "fd00::1"), route("0.0.0.0/0", "10.1.0.1")),
    ],
)
def test_a_route_is_selected_by_what_is_given(data: Any, covered: Route, other: Route) -> None:
    match = read_selector(data)
    assert match.selects(covered)
    assert not match.selects(other)


def test_what_selects_routes_is_checked() -> None:
    assert read_selector({"dest": "10.0.0.1", "gateway": "10.0.0.2", "device": "lo"}) == RouteSelector(
        ("10.0.0.1/32",), "10.0.0.2", "lo"
    )
    with pytest.raises(ValueError, match=r"^dest: missing$"):
        read_selector({"gateway": "10.0.0.2"})
    with pytest.raises(ValueError, match=r"^device: "):
        read_selector({"dest": "10.0.0.1", "device": "a b"})

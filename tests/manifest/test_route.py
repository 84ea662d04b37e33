"""A route in each legal spelling is the same route, and limits are met exactly."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.manifest import route
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import compose
from reconciler.manifest.finding import Finding
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check
from reconciler.model.route import NextHop, Route
from reconciler.values import replace
from tests.manifest.texts import SECOND, manifest, nic
from tests.manifest.texts import route as route_text

HOP = NextHop(device="eth0", gateway="10.0.0.1")
IPV4 = Route(dest="10.8.0.0/16", nexthops=(HOP,))
DIRECT = replace(IPV4, nexthops=(NextHop(device="eth0"),))
DEFAULT = replace(IPV4, dest="0.0.0.0/0")
HOP6 = NextHop(device="eth0", gateway="fd00::1")
IPV6 = Route(dest="2001:db8::/48", nexthops=(HOP6,), metric=1024)
DEFAULT6 = replace(IPV6, dest="::/0")
BLACKHOLE = Route(dest="10.8.0.0/16", type="blackhole")
SEVERAL = replace(
    IPV4, nexthops=(HOP, NextHop(device="eth0", gateway="10.0.0.9", weight=3), NextHop(device="eth1", weight=256))
)

BY_IPV6 = ("dest: 2001:db8::/48", "gateway: fd00::1")
HOPS = (
    "{gateway: 10.0.0.1, device: eth0}",
    "{gateway: 10.0.0.9, device: eth0, weight: 3}",
    "{device: eth1, weight: 256}",
)


def hops(*items: str) -> tuple[str, ...]:
    return "gateway", "device", f"nexthops: [{', '.join(items)}]"


SPELLINGS: list[tuple[tuple[str, ...], Route]] = [
    ((), IPV4),
    (("type: unicast",), IPV4),
    (("table: 254",), IPV4),
    (("metric: 0",), IPV4),
    (("onLink: false",), IPV4),
    (("gateway", "onLink: false"), DIRECT),
    (("gateway",), DIRECT),
    (("gateway: ''",), DIRECT),
    (("gateway: 10.0.0.1 # the router",), IPV4),
    (("dest: default",), DEFAULT),
    (("dest: 0.0.0.0/0",), DEFAULT),
    (("dest: 0.0.0.0/00",), DEFAULT),
    (("dest: default", "source: 10.0.0.2"), replace(DEFAULT, source="10.0.0.2")),
    (("dest: 0.0.0.0/0", "gateway"), replace(DIRECT, dest="0.0.0.0/0")),
    (("dest: 10.8.0.1",), replace(IPV4, dest="10.8.0.1/32")),
    (("dest: 10.8.0.1/32",), replace(IPV4, dest="10.8.0.1/32")),
    (BY_IPV6, IPV6),
    ((*BY_IPV6, "metric: 0"), IPV6),
    ((*BY_IPV6, "metric: 1024"), IPV6),
    ((*BY_IPV6, "metric: 1"), replace(IPV6, metric=1)),
    (("dest: 2001:0DB8:0:0::/48", "gateway: FD00:0::0:1"), IPV6),
    (("dest: '2001:db8:0:0:0:0:0:0/48'", "gateway: 'fd00::0.0.0.1'"), IPV6),
    (("dest: default", "gateway: fd00::1"), DEFAULT6),
    (("dest: ::/0", "gateway: fd00::1"), DEFAULT6),
    (("dest: 0::0/0", "gateway: fd00::1", "metric: 1024"), DEFAULT6),
    (("dest: ::/0", "gateway"), replace(DEFAULT6, nexthops=(NextHop(device="eth0"),))),
    (("dest: 2001:db8::7", "gateway: fd00::1"), replace(IPV6, dest="2001:db8::7/128")),
    (("dest: 2001:db8::7/128", "gateway: fd00::1"), replace(IPV6, dest="2001:db8::7/128")),
    (("gateway", "device", "type: blackhole"), BLACKHOLE),
    (("gateway: ''", "device", "type: blackhole", "metric: 0", "table: 254"), BLACKHOLE),
    (("dest: default", "gateway", "device", "type: prohibit"), Route(dest="0.0.0.0/0", type="prohibit")),
    (("dest: ::/0", "gateway", "device", "type: unreachable"), Route(dest="::/0", type="unreachable", metric=1024)),
    (hops(*HOPS), SEVERAL),
    (hops(*reversed(HOPS)), SEVERAL),
    (hops("{gateway: 10.0.0.1, device: eth0, weight: 1, onLink: false}", *HOPS[1:]), SEVERAL),
    (hops(*HOPS[:2], "{gateway: '', device: eth1, weight: 256}"), SEVERAL),
]  # fmt: skip

# On the right side of each bound, and gateways that are reached in each way.
ACCEPTED: list[tuple[tuple[str, ...], Route]] = [
    (("table: 1",), replace(IPV4, table=1)),
    (("table: 256",), replace(IPV4, table=256)),
    (("table: 4294967295",), replace(IPV4, table=4294967295)),
    (("metric: 4294967295",), replace(IPV4, metric=4294967295)),
    (("mtu: 68",), replace(IPV4, mtu=68)),
    (("mtu: 1500",), replace(IPV4, mtu=1500)),
    (("gateway", "device: lo", "mtu: 65520"), replace(IPV4, nexthops=(NextHop(device="lo"),), mtu=65520)),
    ((*BY_IPV6, "mtu: 1280"), replace(IPV6, mtu=1280)),
    (("advmss: 1",), replace(IPV4, metrics=(("advmss", 1),))),
    (("advmss: 65495",), replace(IPV4, metrics=(("advmss", 65495),))),
    (
        ("gateway: 192.0.2.1", "onLink: true"),
        replace(IPV4, nexthops=(NextHop(device="eth0", gateway="192.0.2.1", on_link=True),)),
    ),
    (("gateway: 10.9.0.1",), replace(IPV4, nexthops=(NextHop(device="eth0", gateway="10.9.0.1"),))),
    (
        ("gateway: 10.9.0.1", "table: 100"),
        replace(IPV4, nexthops=(NextHop(device="eth0", gateway="10.9.0.1"),), table=100),
    ),
    (("dest: default", "gateway: fe80::1"), replace(DEFAULT6, nexthops=(NextHop(device="eth0", gateway="fe80::1"),))),
    (("source: 10.0.0.2",), replace(IPV4, source="10.0.0.2")),
]  # fmt: skip


def read(*fields: str) -> tuple[Any, list[Finding]]:
    """Read a route that stands before one to 10.9.0.0/16 without a gateway, beside eth0 and eth1."""
    direct = route_text("dest: 10.9.0.0/16", "gateway")
    (document,) = compose(manifest(nics=[nic(), nic(*SECOND)], routes=[route_text(*fields), direct]))
    findings = check(document)
    draft = read_sections(document, findings)
    return (draft.items(route.SECTION) or [None])[0], [*findings, *check_sections(draft)]


@pytest.mark.parametrize(
    ("fields", "expected"), SPELLINGS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_each_spelling_is_the_same_route(fields: tuple[str, ...], expected: Route) -> None:
    assert read(*fields) == (expected, [])


@pytest.mark.parametrize(
    ("fields", "expected"), ACCEPTED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_limits_are_included(fields: tuple[str, ...], expected: Route) -> None:
    assert read(*fields) == (expected, [])


@pytest.mark.parametrize("count", [2, 64])
def test_2_to_64_next_hops(count: int) -> None:
    gateways = [f"10.0.0.{number}" for number in range(100, 100 + count)]
    expected = replace(IPV4, nexthops=tuple(NextHop(device="eth0", gateway=gateway) for gateway in gateways))
    assert read(*hops(*[f"{{gateway: {gateway}, device: eth0}}" for gateway in gateways])) == (expected, [])


WRITTEN: list[tuple[Route, dict[str, Any]]] = [
    (IPV4, {"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}),
    (DIRECT, {"dest": "10.8.0.0/16", "device": "eth0"}),
    (DEFAULT, {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}),
    (replace(DIRECT, dest="0.0.0.0/0"), {"dest": "0.0.0.0/0", "device": "eth0"}),
    (IPV6, {"dest": "2001:db8::/48", "gateway": "fd00::1", "device": "eth0"}),
    (DEFAULT6, {"dest": "default", "gateway": "fd00::1", "device": "eth0"}),
    (BLACKHOLE, {"dest": "10.8.0.0/16", "type": "blackhole"}),
    (replace(BLACKHOLE, dest="0.0.0.0/0"), {"dest": "0.0.0.0/0", "type": "blackhole"}),
    (
        SEVERAL,
        {
            "dest": "10.8.0.0/16",
            "nexthops": [
                {"gateway": "10.0.0.1", "device": "eth0"},
                {"gateway": "10.0.0.9", "device": "eth0", "weight": 3},
                {"device": "eth1", "weight": 256},
            ],
        },
    ),
]


@pytest.mark.parametrize(("each", "data"), WRITTEN)
def test_defaults_are_not_written(each: Route, data: dict[str, Any]) -> None:
    assert route.write(each) == data

"""Each field changed alone gives exactly the operations it needs, and afterwards there is nothing left to do."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.cli.main import main
from tests.system.box import MACS, SandboxPlace, is_refused, nic, without_details

ROUTE = {"dest": "192.168.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}
WORDS = "192.168.0.0/16 via 10.0.0.1 dev eth0"
ROUTE6 = {"dest": "2001:db8:9::/48", "gateway": "fd00::1", "device": "eth0"}
WORDS6 = "2001:db8:9::/48 via fd00::1 dev eth0 metric 1024"
# Where an interface has but one address, that of IPv6 is on the other interface.
OTHER6 = {"dest": "2001:db8:9::/48", "gateway": "fd01::1", "device": "eth1"}
OTHER_WORDS6 = "2001:db8:9::/48 via fd01::1 dev eth1 metric 1024"
ADDRESSES: list[list[Any]] = [
    ["10.0.0.2/16", {"address": "fd00::2/64", "dad": False}],
    [{"address": "fd01::2/64", "dad": False}],
]

# The field, its new value, and the commands.
ROUTE_CHANGES: list[tuple[str, Any, list[str]]] = [
    (
        "dest",
        "192.169.0.0/16",
        [
            "ip route add 192.169.0.0/16 via 10.0.0.1 dev eth0 proto 200",
            f"ip route del {WORDS} proto 200",
        ],
    ),
    ("gateway", "10.0.0.9", ["ip route replace 192.168.0.0/16 via 10.0.0.9 dev eth0 proto 200"]),
    ("gateway", "", ["ip route replace 192.168.0.0/16 dev eth0 proto 200"]),
    ("device", "eth1", ["ip route replace 192.168.0.0/16 via 10.0.0.1 dev eth1 onlink proto 200"]),
    ("onLink", True, [f"ip route replace {WORDS} onlink proto 200"]),
    (
        "metric",
        5,
        [
            "ip route add 192.168.0.0/16 via 10.0.0.1 dev eth0 metric 5 proto 200",
            f"ip route del {WORDS} proto 200",
        ],
    ),
    (
        "table",
        5000,
        [
            "ip route add 192.168.0.0/16 via 10.0.0.1 dev eth0 table 5000 proto 200",
            f"ip route del {WORDS} proto 200",
        ],
    ),
    ("source", "10.0.0.2", ["ip route replace 192.168.0.0/16 via 10.0.0.1 dev eth0 src 10.0.0.2 proto 200"]),
    ("mtu", 1400, ["ip route replace 192.168.0.0/16 via 10.0.0.1 dev eth0 mtu 1400 proto 200"]),
    ("advmss", 1000, ["ip route replace 192.168.0.0/16 via 10.0.0.1 dev eth0 advmss 1000 proto 200"]),
]
ROUTE6_CHANGES: list[tuple[str, Any, list[str]]] = [
    ("gateway", "fd01::9", ["ip -6 route replace 2001:db8:9::/48 via fd01::9 dev eth1 metric 1024 proto 200"]),
    ("gateway", "", ["ip -6 route replace 2001:db8:9::/48 dev eth1 metric 1024 proto 200"]),
    ("onLink", True, [f"ip -6 route replace {OTHER_WORDS6} onlink proto 200"]),
    (
        "metric",
        5,
        [
            "ip -6 route add 2001:db8:9::/48 via fd01::1 dev eth1 metric 5 proto 200",
            f"ip -6 route del {OTHER_WORDS6} proto 200",
        ],
    ),
    (
        "source",
        "fd01::2",
        ["ip -6 route replace 2001:db8:9::/48 via fd01::1 dev eth1 metric 1024 src fd01::2 proto 200"],
    ),
    ("mtu", 1400, ["ip -6 route replace 2001:db8:9::/48 via fd01::1 dev eth1 metric 1024 mtu 1400 proto 200"]),
    ("advmss", 1000, ["ip -6 route replace 2001:db8:9::/48 via fd01::1 dev eth1 metric 1024 advmss 1000 proto 200"]),
]


@pytest.fixture
def interfaces(place: SandboxPlace) -> list[dict[str, Any]]:
    return [
        nic(place.device(), f"eth{number}", number, addresses=place.addresses(*addresses))
        for number, addresses in enumerate(ADDRESSES)
    ]


def check(place: SandboxPlace, before: dict[str, Any], after: dict[str, Any], expected: list[str]) -> None:
    if is_refused(place, **before) or is_refused(place, **after):
        return
    place.apply(**before)
    assert place.diff(**before) == []
    assert place.diff(**after) == place.expected(before, after, expected)
    place.apply(**after)
    assert place.diff(**after) == []
    place.apply(**before)
    assert place.diff(**before) == []


@pytest.mark.parametrize(
    ("route", "field", "value", "expected"),
    [(ROUTE, *change) for change in ROUTE_CHANGES] + [(OTHER6, *change) for change in ROUTE6_CHANGES],
    ids=lambda value: str(value) if isinstance(value, str | int) else None,
)
def test_a_route_field(
    place: SandboxPlace,
    interfaces: list[dict[str, Any]],
    route: dict[str, Any],
    field: str,
    value: object,
    expected: list[str],
) -> None:
    changed = route | {field: value} | ({"onLink": True} if field == "device" else {})
    check(
        place, {"interfaces": interfaces, "routes": [route]}, {"interfaces": interfaces, "routes": [changed]}, expected
    )


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_type(place: SandboxPlace, interfaces: list[dict[str, Any]], kind: str) -> None:
    expected = [
        f"ip route replace {kind} 192.168.0.0/16 proto 200",
        f"ip -6 route replace {kind} 2001:db8:9::/48 metric 1024 proto 200",
    ]
    changed = [{"dest": route["dest"], "type": kind} for route in (ROUTE, ROUTE6)]
    before, after = ({"interfaces": interfaces, "routes": routes} for routes in ([ROUTE, ROUTE6], changed))
    check(place, before, after, expected)


@pytest.mark.parametrize("family", [4, 6])
def test_next_hops(place: SandboxPlace, interfaces: list[dict[str, Any]], family: int) -> None:
    near = "10.0.0." if family == 4 else "fd00::"
    dest = ROUTE["dest"] if family == 4 else ROUTE6["dest"]

    def route(*hops: tuple[int, int]) -> dict[str, Any]:
        listed = [{"gateway": f"{near}{host}", "device": "eth0", "weight": weight} for host, weight in hops]
        return {"interfaces": interfaces, "routes": [{"dest": dest, "nexthops": listed}]}

    ip_ = "ip route replace 192.168.0.0/16" if family == 4 else "ip -6 route replace 2001:db8:9::/48 metric 1024"
    hops = [f"nexthop via {near}{host} dev eth0 weight {weight}" for host, weight in ((7, 1), (8, 1), (8, 4), (9, 1))]
    if is_refused(place, **route((7, 1), (8, 1))):
        return
    # Their order says nothing.
    place.apply(**route((7, 1), (8, 1)))
    assert place.diff(**route((8, 1), (7, 1))) == []
    check(place, route((7, 1), (8, 1)), route((7, 1), (8, 4)), [f"{ip_} proto 200 {hops[0]} {hops[2]}"])
    check(place, route((7, 1), (8, 1)), route((7, 1), (9, 1)), [f"{ip_} proto 200 {hops[0]} {hops[3]}"])
    check(
        place, route((7, 1), (8, 1)), route((7, 1), (8, 1), (9, 1)), [f"{ip_} proto 200 {hops[0]} {hops[1]} {hops[3]}"]
    )


def test_mtu(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    changed = [interfaces[0] | {"mtu": 1400}, interfaces[1]]
    check(place, {"interfaces": interfaces}, {"interfaces": changed}, ["ip link set dev eth0 mtu 1400"])


def test_mac(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    changed = [interfaces[0] | {"hwAddr": MACS[9]}, interfaces[1]]
    check(place, {"interfaces": interfaces}, {"interfaces": changed}, [f"ip link set dev eth0 address {MACS[9]}"])


def test_name(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    both = [ROUTE, ROUTE6][: len(interfaces[0]["addresses"])]
    before = {"interfaces": interfaces, "routes": both}
    routes = [route | {"device": "net0"} for route in both]
    after = {"interfaces": [interfaces[0] | {"name": "net0"}, interfaces[1]], "routes": routes}
    expected = ["ip link set dev eth0 name net0"]
    if not place.differences.live_rename:
        expected = [
            "ip link set dev eth0 down",
            *expected,
            "ip link set dev net0 up",
            "ip address add fd00::2/64 dev net0 nodad",
            *(
                f"{words} proto 200".replace("eth0", "net0")
                for words in (f"ip route add {WORDS}", f"ip -6 route add {WORDS6}")
            ),
        ]
    check(place, before, after, expected)


def test_device(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    changed = [interfaces[0] | {"device": place.device()}, interfaces[1]]
    place.apply(interfaces=interfaces)
    if not place.differences.sees_all:
        assert place.diff(interfaces=changed) == []
        return
    assert without_details(place.diff(interfaces=changed)) == [
        *place.taken_back(interfaces[0]),
        *place.given(changed[0]),
        "ip address add 10.0.0.2/16 dev eth0",
        "ip address add fd00::2/64 dev eth0 nodad",
    ]
    place.apply(interfaces=changed)
    assert place.diff(interfaces=changed) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (["10.0.0.2/16"], ["ip address del fd00::2/64 dev eth0"]),
        (
            ["10.0.0.3/16", {"address": "fd00::2/64", "dad": False}],
            ["ip address del 10.0.0.2/16 dev eth0", "ip address add 10.0.0.3/16 dev eth0"],
        ),
        (
            ["10.5.0.3/16", {"address": "fd00::2/64", "dad": False}],
            ["ip address add 10.5.0.3/16 dev eth0", "ip address del 10.0.0.2/16 dev eth0"],
        ),
        (["10.0.0.2/16", "fd00::2/64"], ["ip address replace fd00::2/64 dev eth0"]),
        (
            ["10.0.0.2/16", {"address": "fd00::3/64", "dad": False}],
            ["ip address add fd00::3/64 dev eth0 nodad", "ip address del fd00::2/64 dev eth0"],
        ),
    ],
)
def test_addresses(
    place: SandboxPlace, interfaces: list[dict[str, Any]], after: list[Any], expected: list[str]
) -> None:
    changed = [interfaces[0] | {"addresses": place.addresses(*after)}, interfaces[1]]
    check(place, {"interfaces": interfaces}, {"interfaces": changed}, expected)


def test_the_first_address_of_a_subnet_takes_the_others_along(
    place: SandboxPlace, interfaces: list[dict[str, Any]]
) -> None:
    before = [interfaces[0] | {"addresses": ["10.0.0.2/16", "10.0.0.3/16", "10.0.0.4/16"]}, interfaces[1]]
    after = [interfaces[0] | {"addresses": ["10.0.0.3/16", "10.0.0.4/16"]}, interfaces[1]]
    route = ROUTE | {"source": "10.0.0.4"}
    expected = [
        "ip address del 10.0.0.2/16 dev eth0",
        "ip address replace 10.0.0.3/16 dev eth0",
        "ip address replace 10.0.0.4/16 dev eth0",
        "ip route replace 192.168.0.0/16 via 10.0.0.1 dev eth0 src 10.0.0.4 proto 200",
    ]
    check(
        place,
        {"interfaces": before, "routes": [route]},
        {"interfaces": after, "routes": [route]},
        expected,
    )


def test_the_last_ipv4_address_takes_the_routes_along(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    route = ROUTE | {"onLink": True}
    bare = [interfaces[0] | {"addresses": []}, interfaces[1]]
    expected = [
        "ip address del 10.0.0.2/16 dev eth0",
        f"ip route add {WORDS} onlink proto 200",
        "ip address del fd00::2/64 dev eth0",
    ]
    check(place, {"interfaces": interfaces, "routes": [route]}, {"interfaces": bare, "routes": [route]}, expected)


def test_a_link_that_is_down_comes_up_with_all_it_lost(
    place: SandboxPlace, interfaces: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"interfaces": interfaces, "routes": [ROUTE, ROUTE6][: len(interfaces[0]["addresses"])]}
    place.apply(**wanted)
    place.ip("link", "set", "dev", "eth0", "down")
    if not place.differences.sees_all:
        assert place.diff(**wanted) == place.expected(wanted | {"routes": []}, wanted, [])
        assert main(["apply", str(place.file)]) == 2
        assert "the kernel: Network is unreachable: Nexthop has invalid gateway" in capsys.readouterr().err
        place.ip("link", "set", "dev", "eth0", "up")
        place.apply(**wanted)
        return
    assert place.diff(**wanted) == [
        "ip link set dev eth0 up",
        "ip address add fd00::2/64 dev eth0 nodad",
        f"ip route add {WORDS} proto 200",
        f"ip -6 route add {WORDS6} proto 200",
    ]
    place.apply(**wanted)
    assert place.diff(**wanted) == []


def test_queues_that_the_device_does_not_have_are_refused(
    place: SandboxPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    single, multiple = place.device(), place.device("multi_queue")
    assert main(["apply", place.write(interfaces=[nic(single, queues=5)])]) == 2
    assert f": {single} is single-queue; interface eth0 asks for 5 queues\n" in capsys.readouterr().err
    place.apply(interfaces=[nic(multiple, queues=5)])
    more = nic(multiple, queues=6)
    if place.differences.counts_queues:
        again = [*place.taken_back(more), *place.given(more), "ip address add 10.0.0.2/16 dev eth0"]
        assert without_details(place.diff(interfaces=[more])) == again
        assert main(["apply", place.write(interfaces=[nic(multiple)])]) == 2
        assert capsys.readouterr().err == f"box: {multiple} is multi-queue; interface eth0 asks for a single queue\n"
    else:
        assert place.diff(interfaces=[more]) == []
        place.apply(interfaces=[nic(multiple)])

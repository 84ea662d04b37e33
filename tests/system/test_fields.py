"""Each field changed alone gives exactly the operations it needs, and afterwards there is nothing left to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel
from tests.system.box import MACS, Box, SandboxPlace, errors, is_refused, nic, without_details

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
    if before == after:
        # What changes cannot be said here.
        return
    assert_changes(place, before, after, expected)
    place.apply(**before)
    assert place.diff(**before) == []


def assert_changes(place: SandboxPlace, before: dict[str, Any], after: dict[str, Any], expected: list[str]) -> None:
    """Assert by which commands what is there becomes something else, and that then nothing is left to do."""
    assert place.diff(**after) == place.expected(before, after, expected)
    place.apply(**after)
    assert place.diff(**after) == []


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


RULE = {"priority": 100, "table": 100}
NETWORK = {"priority": 100, "from": "10.1.0.0/16", "table": 100}
SHOWN = {"family": "-4", "priority": 100, "src": "all", "table": "100", "protocol": "200"}
# What a rule has besides, or instead of its table; its words; and what `ip` shows of it.
RULE_CHANGES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"priority": 101}, "priority 101 from all lookup 100", {"priority": 101}),
    ({"from": "10.1.0.0/16"}, "priority 100 from 10.1.0.0/16 lookup 100", {"src": "10.1.0.0", "srclen": 16}),
    ({"to": "10.1.0.7"}, "priority 100 from all to 10.1.0.7/32 lookup 100", {"dst": "10.1.0.7"}),
    ({"iif": "eth0"}, "priority 100 from all iif eth0 lookup 100", {"iif": "eth0", "iif_detached": None}),
    ({"oif": "eth0"}, "priority 100 from all oif eth0 lookup 100", {"oif": "eth0", "oif_detached": None}),
    ({"fwmark": 16}, "priority 100 from all fwmark 0x10 lookup 100", {"fwmark": "0x10"}),
    ({"fwmark": 0}, "priority 100 from all fwmark 0x0/0xffffffff lookup 100", {"fwmark": "0"}),
    (
        {"fwmark": "0x10/0xff"},
        "priority 100 from all fwmark 0x10/0xff lookup 100",
        {"fwmark": "0x10", "fwmask": "0xff"},
    ),
    # No list of protocols has a name for it.
    ({"ipproto": 253}, "priority 100 from all ipproto 253 lookup 100", {"ipproto": "ipproto-253"}),
    ({"sport": 53}, "priority 100 from all sport 53 lookup 100", {"sport": 53}),
    ({"dport": "80-81"}, "priority 100 from all dport 80-81 lookup 100", {"dport_start": 80, "dport_end": 81}),
    ({"uidrange": "0-9"}, "priority 100 from all uidrange 0-9 lookup 100", {"uid_start": 0, "uid_end": 9}),
    ({"tos": 16}, "priority 100 from all tos 0x10 lookup 100", {"tos": "0x10"}),
    ({"table": 5000}, "priority 100 from all lookup 5000", {"table": "5000"}),
    (
        {"suppressPrefixlength": 0},
        "priority 100 from all lookup 100 suppress_prefixlength 0",
        {"suppress_prefixlen": 0},
    ),
    ({"l3mdev": True}, "priority 100 from all l3mdev", {"l3mdev": None}),
    ({"goto": 32766}, "priority 100 from all goto 32766", {"goto": 32766}),
    ({"action": "blackhole"}, "priority 100 from all blackhole", {"action": "blackhole"}),
    ({"action": "unreachable"}, "priority 100 from all unreachable", {"action": "unreachable"}),
    ({"action": "prohibit"}, "priority 100 from all prohibit", {"action": "prohibit"}),
]  # fmt: skip


def shown_rules(place: SandboxPlace) -> list[dict[str, Any]]:
    """Return our rules as `ip` shows them."""
    return [each for each in place.rules() if each["protocol"] == "200"]


def test_each_rule_field(place: SandboxPlace) -> None:
    """One sandbox for all, as a machine takes longest to be emptied."""
    for change, words, shown in RULE_CHANGES:
        decides = change.keys() & {"l3mdev", "goto", "action"}
        changed = {"priority": 100, **change} if decides else RULE | change
        if is_refused(place, rules=[changed]):
            continue
        place.apply(rules=[RULE])
        expected = [f"ip rule add {words} protocol 200", "ip rule del priority 100 from all lookup 100 protocol 200"]
        assert_changes(place, {"rules": [RULE]}, {"rules": [changed]}, expected)
        table = {"table"} if decides else set()
        assert shown_rules(place) == [{name: SHOWN[name] for name in SHOWN.keys() - table} | shown]


def test_a_rule_of_the_other_family(place: SandboxPlace) -> None:
    changed = RULE | {"family": "ipv6"}
    expected = [
        "ip -6 rule add priority 100 from all lookup 100 protocol 200",
        "ip rule del priority 100 from all lookup 100 protocol 200",
    ]
    check(place, {"rules": [RULE]}, {"rules": [changed]}, expected)
    if is_refused(place, rules=[changed]):
        return
    place.apply(rules=[changed])
    assert shown_rules(place) == [SHOWN | {"family": "-6"}]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            NETWORK,
            NETWORK | {"invert": True},
            ["priority 100 from 10.1.0.0/16 lookup 100", "not priority 100 from 10.1.0.0/16 lookup 100"],
        ),
        (
            {"priority": 100, "goto": 200},
            {"priority": 100, "goto": 300},
            ["priority 100 from all goto 200", "priority 100 from all goto 300"],
        ),
    ],
    ids=["invert", "goto"],
)
def test_a_rule_that_the_kernel_takes_for_the_new_one(
    place: SandboxPlace, before: dict[str, Any], after: dict[str, Any], words: list[str]
) -> None:
    expected = [f"ip rule del {words[0]} protocol 200", f"ip rule add {words[1]} protocol 200"]
    check(place, {"rules": [before]}, {"rules": [after]}, expected)


def test_rules_of_one_priority_of_which_one_selects_more(place: SandboxPlace) -> None:
    narrow, mark = "priority 100 from 10.1.0.0/16 lookup 100", "priority 100 from all fwmark 0x1 lookup 100"
    both = {"rules": [NETWORK, RULE]}
    expected = [
        f"ip rule del {narrow} protocol 200",
        "ip rule add priority 100 from all lookup 100 protocol 200",
        f"ip rule add {narrow} protocol 200",
    ]
    check(place, {"rules": [NETWORK]}, both, expected)
    if is_refused(place, **both):
        return
    # Somebody adds a broad one behind a narrow one, for which the kernel would delete the latter.
    place.apply(rules=[RULE | {"fwmark": 1}])
    place.ip("rule", "add", "priority", "100", "table", "100", "protocol", "200")
    expected = [
        f"ip rule del {mark} protocol 200",
        "ip rule del priority 100 from all lookup 100 protocol 200",
        f"ip rule add {mark} protocol 200",
    ]
    assert place.diff(rules=[RULE | {"fwmark": 1}]) == expected
    place.apply(rules=[RULE | {"fwmark": 1}])
    assert shown_rules(place) == [SHOWN | {"fwmark": "0x1"}]


NEIGHBOUR = {"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:f1"}
NEIGHBOUR6 = NEIGHBOUR | {"address": "fd01::1", "device": "eth1"}
PROXY = {"address": "10.0.0.1", "device": "eth0", "proxy": True}
NUD = "nud permanent"
NEAR = f"10.0.0.1 lladdr 02:42:20:6f:a3:f1 dev eth0 {NUD}"
NEAR6 = f"fd01::1 lladdr 02:42:20:6f:a3:f1 dev eth1 {NUD}"
SHOWN_NEAR = {
    "dst": "10.0.0.1",
    "dev": "eth0",
    "lladdr": "02:42:20:6f:a3:f1",
    "state": ["PERMANENT"],
    "protocol": "200",
}
# An entry before and after, the commands, and what `ip` shows of it.
NEIGHBOUR_CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], dict[str, Any]]] = {
    "address": (
        NEIGHBOUR,
        NEIGHBOUR | {"address": "10.0.0.9"},
        [f"replace {NEAR.replace('10.0.0.1', '10.0.0.9')} protocol 200", f"del {NEAR}"],
        SHOWN_NEAR | {"dst": "10.0.0.9"},
    ),
    "device": (
        NEIGHBOUR,
        NEIGHBOUR | {"device": "eth1"},
        [f"replace {NEAR.replace('eth0', 'eth1')} protocol 200", f"del {NEAR}"],
        SHOWN_NEAR | {"dev": "eth1"},
    ),
    "hwAddr": (
        NEIGHBOUR,
        NEIGHBOUR | {"hwAddr": "02:42:20:6f:a3:f2"},
        [f"replace {NEAR.replace('a3:f1', 'a3:f2')} protocol 200"],
        SHOWN_NEAR | {"lladdr": "02:42:20:6f:a3:f2"},
    ),
    "proxy": (
        NEIGHBOUR,
        PROXY,
        ["replace proxy 10.0.0.1 dev eth0 protocol 200", f"del {NEAR}"],
        {"dst": "10.0.0.1", "dev": "eth0", "proxy": None, "protocol": "200"},
    ),
    "router": (
        NEIGHBOUR6,
        NEIGHBOUR6 | {"router": True},
        [f"replace {NEAR6} router protocol 200"],
        SHOWN_NEAR | {"dst": "fd01::1", "dev": "eth1", "router": None},
    ),
    "router of a proxy": (
        PROXY | {"address": "fd01::1", "device": "eth1"},
        PROXY | {"address": "fd01::1", "device": "eth1", "router": True},
        ["replace proxy fd01::1 dev eth1 router protocol 200"],
        {"dst": "fd01::1", "dev": "eth1", "router": None, "proxy": None, "protocol": "200"},
    ),
}


def test_each_neighbour_field(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    """One sandbox for all, as a machine takes longest to be emptied."""
    for before, after, words, shown in NEIGHBOUR_CHANGES.values():
        old, new = ({"interfaces": interfaces, "neighbours": [each]} for each in (before, after))
        if is_refused(place, **old) or is_refused(place, **new):
            continue
        place.apply(**old)
        assert_changes(place, old, new, [f"ip neigh {each}" for each in words])
        assert place.neighbours() == [shown]


def test_neighbours_of_a_nic_that_loses_them(place: SandboxPlace, interfaces: list[dict[str, Any]]) -> None:
    """Its MAC address, its name, and its last IPv4 address change, with the section there and absent."""
    listed = [NEIGHBOUR, PROXY, NEIGHBOUR | {"address": "fd00::1", "router": True}, NEIGHBOUR6]
    if is_refused(place, interfaces=interfaces, neighbours=listed):
        return
    place.apply(interfaces=interfaces, neighbours=listed)
    expected = place.neighbours()
    assert len(expected) == 4
    changes: list[dict[str, Any]] = [
        {"hwAddr": MACS[9]},
        {"addresses": ["10.0.0.3/16"]},
        {"addresses": []},
        {"mtu": 1400},
    ]
    for change in changes:
        for sections in ({"neighbours": listed}, {}):
            for each in (interfaces[0] | change, interfaces[0]):
                place.apply(interfaces=[each, interfaces[1]], **sections)
                assert place.neighbours() == expected, (change, each)
    place.apply(interfaces=[interfaces[0] | {"name": "net0"}, interfaces[1]])
    renamed = [each | {"dev": "net0"} if each["dev"] == "eth0" else each for each in expected]
    assert place.neighbours() == sorted(renamed, key=json.dumps)
    place.apply(interfaces=[interfaces[0] | {"name": "net0", "mtu": 1000, "addresses": []}, interfaces[1]])
    assert [each["dst"] for each in place.neighbours()] == ["10.0.0.1", "10.0.0.1", "fd01::1"]
    place.apply(interfaces=[interfaces[1]])
    assert [each["dst"] for each in place.neighbours()] == ["fd01::1"]


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
        without = {**wanted, "routes": []}
        assert place.diff(**wanted) == place.expected(without, wanted, [])
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
        assert errors(capsys).endswith(
            f"interfaces[0].queues: {multiple} is multi-queue; interface eth0 asks for a single queue\n"
        )
    else:
        assert place.diff(interfaces=[more]) == []
        place.apply(interfaces=[nic(multiple)])


def test_a_lifetime_is_taken_away_in_place(box: Box, kernel: Kernel) -> None:
    """Also that of a primary address: those after it stay where they are."""
    wanted = ["10.0.0.2/16", "10.0.0.3/16", {"address": "fd00::2/64", "dad": False}]
    sections = {"interfaces": [nic(kernel.tap(), addresses=wanted)]}
    box.apply(**sections)
    before = box.ip("address")
    for address in ("10.0.0.2/16", "10.0.0.3/16", "fd00::2/64"):
        box.ip("address", "change", address, "dev", "eth0", "valid_lft", "600", "preferred_lft", "500")
        (command,) = without_details(box.diff(**sections))
        assert command.removesuffix(" nodad") == f"ip address replace {address} dev eth0"
        box.apply(**sections)
        assert box.ip("address") == before

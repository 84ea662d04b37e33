"""What the kernel made of our addresses, and lost, comes back; and an address is mended in place where it can be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.system.box import SandboxPlace, VmBox, make_box, nic

ADDRESSES = [
    "192.0.2.2/24",
    {"address": "2001:db8:1::2/64", "dad": False},
    {"address": "192.0.2.2", "peer": "198.18.0.9/32"},
    {"address": "2001:db8:3::2", "peer": "2001:db8:4::9/64", "dad": False},
]
ROUTES = [
    {"dest": "10.0.0.0/8", "gateway": "192.0.2.1", "device": "eth0"},
    {"dest": "2001:db8:2::/48", "gateway": "2001:db8:1::9", "device": "eth0"},
]
OURS4 = "ip route add 10.0.0.0/8 via 192.0.2.1 dev eth0 proto 200"
CONNECTED4 = "ip route add 192.0.2.0/24 dev eth0 src 192.0.2.2 proto kernel"
LOCAL4 = "ip route add local 192.0.2.2/32 dev eth0 table local src 192.0.2.2 proto kernel"
TO_PEER4 = "ip route add 198.18.0.9/32 dev eth0 src 192.0.2.2 proto kernel"
CONNECTED6 = "ip -6 route add 2001:db8:1::/64 dev eth0 metric 256 proto kernel"
LINK_LOCAL = "ip address add fe80::42:20ff:fe6f:a301/64 dev eth0"


@pytest.fixture(params=["netns", "vm"])
def place(request: pytest.FixtureRequest, kernel: Kernel, tmp_path: Path) -> Iterator[SandboxPlace]:
    """Give a sandbox of each kind that has NICs; the commands of kata-runtime do not report routes of the kernel."""
    if request.param == "netns":
        yield make_box(kernel, tmp_path)
        return
    box = VmBox(kernel, tmp_path / "box.yaml", request.getfixturevalue("guest"))
    yield box
    box.empty()


def seen(place: SandboxPlace) -> list[str]:
    """The words of all routes and addresses of the NIC."""
    lines = [*place.ip("route", "show", "table", "all").splitlines(), *place.ip("-o", "address").splitlines()]
    return sorted(line for line in lines if "eth0" in line)


BROKEN = [
    ("route del 192.0.2.0/24 dev eth0", [CONNECTED4]),
    ("route del 2001:db8:1::/64 dev eth0", [CONNECTED6]),
    ("-4 route flush table main", [CONNECTED4, TO_PEER4, OURS4]),
    ("route del 2001:db8:4::9 dev eth0", ["ip -6 route add 2001:db8:4::9/128 dev eth0 metric 256 proto kernel"]),
    (
        "address add 2001:db8:3::4 peer 2001:db8:4::9/64 dev eth0",
        [
            "ip address del 2001:db8:3::2 peer 2001:db8:4::9/64 dev eth0",
            "ip address del 2001:db8:3::4 peer 2001:db8:4::9/64 dev eth0",
            "ip address add 2001:db8:3::2 peer 2001:db8:4::9/64 dev eth0 nodad",
        ],
    ),
    ("route del local 192.0.2.2 table local", [LOCAL4]),
    ("address del fe80::42:20ff:fe6f:a301/64 dev eth0", [LINK_LOCAL]),
    (
        "route del multicast ff00::/8 dev eth0 table local",
        ["ip -6 route add multicast ff00::/8 dev eth0 table local metric 256 proto kernel"],
    ),
    (
        "route del local 2001:db8:1::2 table local",
        ["ip address del 2001:db8:1::2/64 dev eth0", "ip address add 2001:db8:1::2/64 dev eth0 nodad"],
    ),
    (
        "address change 192.0.2.2/24 dev eth0 valid_lft 600 preferred_lft 500",
        ["ip address replace 192.0.2.2/24 dev eth0"],
    ),
    ("address change 2001:db8:1::2/64 dev eth0 noprefixroute", ["ip address replace 2001:db8:1::2/64 dev eth0 nodad"]),
    (
        "address add 198.51.100.42 peer 203.0.113.1/32 dev eth0",
        ["ip address del 198.51.100.42 peer 203.0.113.1/32 dev eth0"],
    ),
]


def test_one_apply_brings_back_what_there_was(place: SandboxPlace) -> None:
    sections = {"interfaces": [nic(place.device(carrier=True), addresses=ADDRESSES)], "routes": ROUTES}
    place.apply(**sections)
    # The kernel gives the NIC its link-local address when it has noticed the carrier.
    deadline = time.monotonic() + 60
    while "fe80::" not in place.ip("-6", "address", "show", "dev", "eth0", "-tentative"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = seen(place)
    for command, expected in BROKEN:
        place.ip(*command.split())
        assert seen(place) != before, command
        assert place.diff(**sections) == expected
        place.apply(**sections)
        until_same(place, before)
        assert place.diff(**sections) == []
    # As the commands of a plan do: `ip` of Debian 12 cannot say who made an address.
    for verb in ("del", "add"):
        place.ip("address", verb, "fe80::42:20ff:fe6f:a301/64", "dev", "eth0")
    assert place.diff(**sections) == []


def test_an_interface_that_is_down_stays_so(place: SandboxPlace) -> None:
    device = place.device(carrier=True)
    down = {"interfaces": [nic(device, addresses=ADDRESSES, state="down")], "routes": []}
    place.apply(**down)
    assert place.diff(**down) == []
    again = [
        f"ip address add {each} dev eth0 nodad" for each in ("2001:db8:1::2/64", "2001:db8:3::2 peer 2001:db8:4::9/64")
    ]
    for command, expected in (
        ("link set dev eth0 up", ["ip link set dev eth0 down", *again]),
        ("-6 address flush dev eth0", again),
        ("route del local 192.0.2.2 table local", [LOCAL4]),
        ("link set dev eth0 up; route del local 192.0.2.2 table local", ["ip link set dev eth0 down", *again, LOCAL4]),
        ("route del local 2001:db8:1::2 table local", ["ip address del 2001:db8:1::2/64 dev eth0", again[0]]),
    ):
        for each in command.split("; "):
            place.ip(*each.split())
        assert place.diff(**down) == expected
        place.apply(**down)
        assert place.diff(**down) == []
    up = {"interfaces": [nic(device, addresses=ADDRESSES[::-1])], "routes": ROUTES}
    place.apply(**up)
    assert place.diff(**up) == []
    place.apply(**down)
    assert place.diff(**down) == []


def until_same(place: SandboxPlace, before: list[str]) -> None:
    """Wait for the end of duplicate address detection of a link-local address, for which apply does not wait."""
    deadline = time.monotonic() + 60
    while (after := seen(place)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert after == before


def test_a_route_stays_with_its_source_gone_where_another_route_leads_to_that(place: SandboxPlace) -> None:
    """Its own, in the table that is one with `local` until there is a rule: the kernel finds the address still."""
    first, second = place.device(), place.device()
    local = {"dest": "default", "type": "local", "device": "lo", "source": "198.51.100.2", "initcwnd": 20}
    place.ip("link", "set", "lo", "up")
    place.apply(interfaces=[nic(first, addresses=["192.0.2.2/24", "198.51.100.2/24"])], routes=[local])
    place.apply("--allow-delete", "all", interfaces=[nic(second, number=1, addresses=["192.0.2.2/24"])], routes=[])
    assert "local default" not in place.ip("route", "show")


def test_a_route_stays_with_its_source_gone_where_that_was_a_secondary_address(place: SandboxPlace) -> None:
    """The kernel looks for such routes with each address that is deleted, and for the first ones where a link goes."""
    device = place.device()
    routes = [
        {"dest": f"198.51.100.{number}/32", "type": "local", "device": "lo", "source": f"192.0.2.{number}"}
        for number in (2, 3)
    ]
    place.ip("link", "set", "lo", "up")
    place.apply(interfaces=[nic(device, addresses=["192.0.2.2/24", "192.0.2.3/24"])], routes=routes)
    other = nic(place.device(), number=1, addresses=["192.0.2.4/24"])
    place.apply("--allow-delete", "all", interfaces=[other], routes=[])
    assert "198.51.100" not in place.ip("route", "show")

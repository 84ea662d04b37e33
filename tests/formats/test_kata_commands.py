"""The JSON of `del-iface` and `del-route`, which only select, and the words of `cleanup`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from reconciler.formats.kata import (
    Match,
    read_cleanup,
    read_match,
    read_name,
    write_kept,
)
from reconciler.model.interface import Address, Interface
from reconciler.model.route import NextHop, Route

IFACE: dict[str, Any] = {
    "device": "tap-test",
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1500,
    "vhostUserSocket": "/usr/local/var/run/openvswitch/vhost-user1",
    "queues": 5,
}
INTERFACE = Interface(
    name="eth-test",
    device="tap-test",
    hw_addr="02:42:20:6f:a3:69",
    mtu=1500,
    addresses=(Address(address="172.16.0.3/16"),),
    queues=5,
    vhost_user_socket="/usr/local/var/run/openvswitch/vhost-user1",
)
BARE = replace(INTERFACE, addresses=(), queues=0, vhost_user_socket=None)
NEEDED = {name: IFACE[name] for name in ("device", "name", "hwAddr", "mtu")}


def test_only_the_name_selects_an_interface_to_delete() -> None:
    assert read_name({"name": "eth1"}) == "eth1"
    assert read_name({"name": "eth1", "device": 1, "mtu": "?"}) == "eth1"
    with pytest.raises(ValueError, match=r"^name: missing$"):
        read_name({"device": "tap0"})


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            IFACE,
            NEEDED | {"IPAddresses": [{"Family": 0, "Address": "172.16.0.3", "Mask": "16"}], "linkType": "tap"},
        ),
        ({"name": "eth1"}, {"name": "eth1"}),
        ({"name": 1, "IPAddresses": "?"}, {"name": 1, "IPAddresses": "?"}),
        ([IFACE], None),
        (None, None),
    ],
)
def test_what_could_not_be_deleted_is_said_again(said: Any, kept: Any) -> None:
    assert write_kept(said) == kept


def route(dest: str, gateway: str | None = None, device: str = "eth1") -> Route:
    return Route(dest=dest, nexthops=(NextHop(device=device, gateway=gateway),), metric=1024 if ":" in dest else 0)


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
    match = read_match(data)
    assert match.covers(covered)
    assert not match.covers(other)


def test_what_selects_routes_is_checked() -> None:
    assert read_match({"dest": "10.0.0.1", "gateway": "10.0.0.2", "device": "lo"}) == Match(
        ("10.0.0.1/32",), "10.0.0.2", "lo"
    )
    with pytest.raises(ValueError, match=r"^dest: missing$"):
        read_match({"gateway": "10.0.0.2"})
    with pytest.raises(ValueError, match=r"^device: "):
        read_match({"dest": "10.0.0.1", "device": "a b"})


@pytest.mark.parametrize(
    "text",
    [
        "--orig-dst 172.17.0.4 --protonum tcp",
        "--protonum tcp --orig-dst 172.17.0.4",
        "-d 172.17.0.4 -p tcp",
        " --orig-dst=172.17.0.4  -p=tcp ",
    ],
)
def test_what_is_cleaned_up(text: str) -> None:
    assert read_cleanup(text) == ("172.17.0.4", "tcp")


USAGE = "expected --orig-dst IP --protonum tcp|udp, each once and with its value"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--orig-dst is missing"),
        ("--orig-dst 172.17.0.4", "--protonum is missing"),
        ("-p udp", "--orig-dst is missing"),
        ("-d 172.17.0.4 -p", f"-p: {USAGE}"),
        ("-d 172.17.0.4 -d 172.17.0.5 -p tcp", f"-d: {USAGE}"),
        ("-d 172.17.0.4 --sport 80 -p tcp", f"--sport: {USAGE}"),
        ("-d 172.17.0.4 -p sctp", "--protonum sctp: expected tcp or udp"),
        ("-d 172.17.0 -p tcp", '--orig-dst: "172.17.0" is not an IP address'),
    ],
)
def test_what_cannot_be_cleaned_up(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_cleanup(text)

"""The documents of kata-network that its users have are read, written again they are the same, and what is wrong is named."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.kata import (
    FieldError,
    is_route,
    read_interface,
    read_route,
    write_interface,
    write_listed,
    write_route,
)
from reconciler.model.interface import Address, Interface
from reconciler.model.route import NextHop, Route
from tests.manifest.plain import data

TAKEN: dict[str, Any] = {
    "device": "tap-test",
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1500,
    "vhostUserSocket": "/usr/local/var/run/openvswitch/vhost-user1",
    "queues": 5,
}
PRINTED: dict[str, Any] = {
    "device": "tap_test",
    "name": "eth-test",
    "IPAddresses": [{"Family": 2, "Address": "173.85.100.1", "Mask": "24"}],
    "mtu": 1500,
    "hwAddr": "02:42:20:6e:03:01",
    "pciAddr": "01.0/00",
}
FAILED: dict[str, Any] = {
    "device": "tapname_fun_012",
    "name": "netport_test_1",
    "IPAddresses": [{"Family": 0, "Address": "177.17.0.1", "Mask": "8"}],
    "mtu": 1500,
    "hwAddr": "02:42:20:6e:a2:59",
    "linkType": "tap",
}
LISTED: dict[str, Any] = {
    "name": "container_eth",
    "mac": "02:42:20:6e:a2:59",
    "ip": ["172.17.25.23/8", "fd00::7/64"],
    "mtu": 1500,
}
LEAST: dict[str, Any] = {"device": "tap0", "name": "eth0", "hwAddr": "02:42:20:6f:a3:69", "mtu": 46}
NIC = Interface(device="tap0", name="eth0", hw_addr="02:42:20:6f:a3:69", mtu=46)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            TAKEN,
            Interface(
                device="tap-test",
                name="eth-test",
                hw_addr="02:42:20:6f:a3:69",
                mtu=1500,
                addresses=(Address(address="172.16.0.3/16"),),
                queues=5,
                vhost_user_socket="/usr/local/var/run/openvswitch/vhost-user1",
            ),
        ),
        (
            PRINTED,
            Interface(
                device="tap_test",
                name="eth-test",
                hw_addr="02:42:20:6e:03:01",
                mtu=1500,
                addresses=(Address(address="173.85.100.1/24"),),
            ),
        ),
        (
            FAILED,
            Interface(
                device="tapname_fun_012",
                name="netport_test_1",
                hw_addr="02:42:20:6e:a2:59",
                mtu=1500,
                addresses=(Address(address="177.17.0.1/8"),),
            ),
        ),
        (
            LISTED | {"device": "tap1"},
            Interface(
                device="tap1",
                name="container_eth",
                hw_addr="02:42:20:6e:a2:59",
                mtu=1500,
                addresses=(Address(address="172.17.25.23/8"), Address(address="fd00::7/64")),
            ),
        ),
        (LEAST, NIC),
        (LEAST | {"IPAddresses": None, "vhostUserSocket": "", "queues": 0}, NIC),
        (LEAST | {"hwAddr": "02-42-20-6F-A3-69"}, NIC),
        (
            LEAST | {"IPAddresses": [{"address": "FD00:0::3", "mask": 64}]},
            Interface(
                device="tap0",
                name="eth0",
                hw_addr="02:42:20:6f:a3:69",
                mtu=46,
                addresses=(Address(address="fd00::3/64"),),
            ),
        ),
    ],
)
def test_an_interface(document: dict[str, Any], expected: Interface) -> None:
    assert read_interface(document) == expected
    assert read_interface(write_interface(expected, "01.0/00")) == expected
    assert read_interface(write_listed(expected) | {"device": expected.device}).addresses == expected.addresses


def test_what_is_printed_of_an_interface() -> None:
    assert write_interface(read_interface(PRINTED), "01.0/00") == PRINTED
    assert list(write_interface(read_interface(PRINTED), "01.0/00")) == list(PRINTED)
    assert write_listed(read_interface(LISTED | {"device": "tap1"})) == LISTED
    written = write_interface(read_interface(TAKEN))
    assert written == TAKEN | {"IPAddresses": [{"Family": 2, "Address": "172.16.0.3", "Mask": "16"}]}
    ipv6 = read_interface(LEAST | {"IPAddresses": [{"address": "fd00::3", "mask": "64"}]})
    assert write_interface(ipv6)["IPAddresses"] == [{"Family": 10, "Address": "fd00::3", "Mask": "64"}]


NAME = "is no name of an interface; expected 1 to 15 letters, digits, '_', '-' and '.', the first a letter"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (["eth0"], "expected an object"),
        (None, "expected an object"),
        ({"name": "eth0"}, "device: missing"),
        (LISTED, "device: missing; list-ifaces does not say which device of the host it is, so add it"),
        (LEAST | {"device": 5}, "device: 5 is not a text"),
        (LEAST | {"device": "5tap"}, f'device: "5tap" {NAME}'),
        (LEAST | {"name": "e" * 16}, f'name: "{"e" * 16}" {NAME}'),
        (LEAST | {"name": "e" * 99}, f'name: "{"e" * 59}… {NAME}'),
        (LEAST | {"mtu": 45}, "mtu: 45: expected a number from 46 to 9600"),
        (LEAST | {"mtu": 9601}, "mtu: 9601: expected a number from 46 to 9600"),
        (LEAST | {"mtu": "1500"}, 'mtu: "1500": expected a number from 46 to 9600'),
        (LEAST | {"mtu": True}, "mtu: True: expected a number from 46 to 9600"),
        ({"device": "tap0", "name": "eth0", "hwAddr": "02:42:20:6f:a3:69"}, "mtu: missing; expected a number from 46 to 9600"),
        (LEAST | {"queues": 257}, "queues: 257: expected a number from 0 to 256"),
        (LEAST | {"hwAddr": "02:42"}, 'hwAddr: "02:42" is not a MAC address; expected six bytes such as 02:42:20:6f:a3:69'),
        (LEAST | {"hwAddr": None}, "hwAddr: None is not a text"),
        (LEAST | {"mac": "02:42:20:6f:a3:69"}, "mac: mac and hwAddr exclude each other"),
        (LEAST | {"quees": 5}, 'quees: unknown field; did you mean "queues"?'),
        (LEAST | {"IPAddresses": "172.16.0.3/16"}, 'IPAddresses: "172.16.0.3/16" is not a list'),
        (LEAST | {"IPAddresses": ["172.16.0.3/16"]}, 'IPAddresses: "172.16.0.3/16" is not an address such as {"address": "172.16.0.3", "mask": "16"}'),
        (LEAST | {"IPAddresses": [{"address": "172.16.0.3", "mask": "33"}]}, 'IPAddresses: "172.16.0.3/33" has no valid prefix length; expected /0 to /32'),
        (LEAST | {"IPAddresses": [{"address": "172.16.0.3/8", "mask": "16"}]}, 'IPAddresses: "172.16.0.3/8" has a length; that belongs in mask'),
        (LEAST | {"IPAddresses": [{"address": "172.16.0.3", "mask": "16", "dad": "no"}]}, "IPAddresses: an address has no dad"),
        (LEAST | {"ip": ["172.16.0.3"]}, 'ip: "172.16.0.3" is not an address with a length, such as 172.16.0.3/16'),
        (LEAST | {"vhostUserSocket": "vhost-user1"}, "vhostUserSocket: \"vhost-user1\": expected an absolute path of at most 107 letters, digits, '_', '-', '.' and '/'"),
        (LEAST | {"vhostUserSocket": "/" + "a" * 107}, f"vhostUserSocket: \"/{'a' * 58}…: expected an absolute path of at most 107 letters, digits, '_', '-', '.' and '/'"),
    ],
)  # fmt: skip
def test_a_bad_interface(document: Any, message: str) -> None:
    with pytest.raises(FieldError) as error:
        read_interface(document)
    assert str(error.value) == message


def route(dest: str, gateway: str | None = None, metric: int = 0) -> Route:
    return Route(dest=dest, nexthops=(NextHop(device="eth1", gateway=gateway),), metric=metric)


@pytest.mark.parametrize(
    ("document", "expected", "printed"),
    [
        ({"dest": "default", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "0.0.0.0/0", "gateway": "172.16.0.1"}, route("0.0.0.0/0", "172.16.0.1"), ("default", "172.16.0.1")),
        ({"dest": "default", "gateway": "FD00::1"}, route("::/0", "fd00::1", 1024), ("default", "fd00::1")),
        ({"dest": "0.0.0.0/0"}, route("0.0.0.0/0"), ("0.0.0.0/0", "")),
        ({"dest": "177.17.0.0/24", "gateway": "177.17.25.1"}, route("177.17.0.0/24", "177.17.25.1"), ("177.17.0.0/24", "177.17.25.1")),
        ({"dest": "172.17.10.10/24", "gateway": ""}, route("172.17.10.0/24"), ("172.17.10.0/24", "")),
        ({"dest": "172.17.10.10", "gateway": None}, route("172.17.10.10/32"), ("172.17.10.10/32", "")),
        ({"dest": "fd00::9/64"}, route("fd00::/64", None, 1024), ("fd00::/64", "")),
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
        ({"dest": "", "gateway": "", "device": "eth1"}, "gateway: missing; a default route needs the IP address of a gateway"),
        ({"dest": "10.0.0.0/33", "device": "eth1"}, 'dest: "10.0.0.0/33" has no valid prefix length; expected /0 to /32'),
        ({"dest": "web", "device": "eth1"}, 'dest: "web" is not an IP address'),
        ({"dest": "10.8.0.0/16", "gateway": "10.0.0.1"}, "device: missing"),
        ({"dest": "10.8.0.0/16", "gateway": "10.0.0.300", "device": "eth1"}, 'gateway: "10.0.0.300" is not an IP address'),
        ({"dest": "10.8.0.0/16", "gateway": "0.0.0.0", "device": "eth1"}, "gateway: 0.0.0.0 is not a unicast address"),
        ({"dest": "10.8.0.0/16", "gateway": "fd00::1", "device": "eth1"}, "gateway: fd00::1 is IPv6, and the destination is IPv4"),
        ({"dest": "10.8.0.0/16", "device": "eth1", "metric": 5}, "metric: unknown field; expected one of: dest, gateway, device"),
    ],
)  # fmt: skip
def test_a_bad_route(document: Any, message: str) -> None:
    with pytest.raises(FieldError) as error:
        read_route(document)
    assert str(error.value) == message


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", fullmatch=True)
IPV4 = st.ip_addresses(v=4).map(str)
ADDRESSES = st.builds("{}/{}".format, IPV4, st.integers(0, 32)) | st.sampled_from(("fd00::3/64", "2001:db8::/128"))


@given(
    st.builds(
        Interface,
        name=NAMES,
        device=NAMES,
        hw_addr=st.sampled_from(("02:42:20:6f:a3:69", "00:00:00:00:00:01")),
        mtu=st.integers(46, 9600),
        addresses=st.lists(st.builds(Address, address=ADDRESSES)).map(tuple),
        queues=st.integers(0, 256),
        vhost_user_socket=st.none() | st.from_regex(r"(/[A-Za-z0-9_.-]{1,9}){1,5}", fullmatch=True),
    )
)
def test_an_interface_that_is_written_is_read_as_it_was(interface: Interface) -> None:
    written = write_interface(interface)
    assert read_interface(written) == interface
    assert write_interface(read_interface(written)) == written


@given(
    st.sampled_from(("0.0.0.0/0", "10.8.0.0/16", "10.8.0.1/32")),
    st.none() | IPV4.filter(lambda each: 0 < int(each.split(".")[0]) < 224),
)
def test_a_route_that_is_written_is_read_as_it_was(dest: str, gateway: str | None) -> None:
    (written,) = write_route(route(dest, gateway))
    assert read_route(written) == route(dest, gateway)


@given(data() | st.dictionaries(st.sampled_from((*TAKEN, *LISTED, "dest", "gateway")), data()))
def test_nothing_else_than_a_wrong_field_is_raised(document: Any) -> None:
    for read in (read_interface, read_route):
        with suppress(FieldError):
            read(document)

"""Interfaces of kata-network are read, written again they are the same, and what is wrong is named."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.kata.fields import FieldError
from reconciler.formats.kata.interface import read_interface, read_name, write_failed, write_interface, write_listed
from reconciler.model.interface import Address, Interface
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


NAME = "is not the name of an interface; expected 1 to 15 letters, digits, '_', '-' and '.', the first a letter"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (["eth0"], "expected an object"),
        (None, "expected an object"),
        ({"name": "eth0"}, "device: missing"),
        (LISTED, "device: missing; list-ifaces does not print the device of the host, so add it"),
        (LEAST | {"device": 5}, "device: 5 is not a text"),
        (LEAST | {"device": "5tap"}, f'device: "5tap" {NAME}'),
        (LEAST | {"name": "e" * 16}, f'name: "{"e" * 16}" {NAME}'),
        (LEAST | {"name": "e" * 99}, f'name: "{"e" * 59}… {NAME}'),
        (LEAST | {"mtu": 45}, "mtu: 45: expected a number from 46 to 9600"),
        (LEAST | {"mtu": 9601}, "mtu: 9601: expected a number from 46 to 9600"),
        (LEAST | {"mtu": "1500"}, 'mtu: "1500": expected a number from 46 to 9600'),
        (LEAST | {"mtu": True}, "mtu: True: expected a number from 46 to 9600"),
        (
            {"device": "tap0", "name": "eth0", "hwAddr": "02:42:20:6f:a3:69"},
            "mtu: missing; expected a number from 46 to 9600",
        ),
        (LEAST | {"queues": 257}, "queues: 257: expected a number from 0 to 256"),
        (
            LEAST | {"hwAddr": "02:42"},
            'hwAddr: "02:42" is not a MAC address; expected six bytes such as 02:42:20:6f:a3:69',
        ),
        (LEAST | {"hwAddr": None}, "hwAddr: None is not a text"),
        (LEAST | {"mac": "02:42:20:6f:a3:69"}, "mac: mac and hwAddr exclude each other"),
        (LEAST | {"quees": 5}, 'quees: unknown field; did you mean "queues"?'),
        (LEAST | {"IPAddresses": "172.16.0.3/16"}, 'IPAddresses: "172.16.0.3/16" is not a list'),
        (
            LEAST | {"IPAddresses": ["172.16.0.3/16"]},
            'IPAddresses: "172.16.0.3/16" is not an address such as {"address": "172.16.0.3", "mask": "16"}',
        ),
        (
            LEAST | {"IPAddresses": [{"address": "172.16.0.3", "mask": "33"}]},
            'IPAddresses: "172.16.0.3/33" has no valid prefix length; expected /0 to /32',
        ),
        (
            LEAST | {"IPAddresses": [{"address": "172.16.0.3/8", "mask": "16"}]},
            'IPAddresses: "172.16.0.3/8" has a length; write it in mask',
        ),
        (
            LEAST | {"IPAddresses": [{"address": "172.16.0.3", "mask": "16", "dad": "no"}]},
            "IPAddresses: an address has no field dad",
        ),
        (LEAST | {"ip": ["172.16.0.3"]}, 'ip: "172.16.0.3" is not an address with a length, such as 172.16.0.3/16'),
        (
            LEAST | {"vhostUserSocket": "vhost-user1"},
            (
                "vhostUserSocket: \"vhost-user1\": expected an absolute path of at most 107 letters, digits, '_', "
                "'-', '.' and '/'"
            ),
        ),
        (
            LEAST | {"vhostUserSocket": "/" + "a" * 107},
            (
                f"vhostUserSocket: \"/{'a' * 58}…: expected an absolute path of at most 107 letters, digits, '_', "
                "'-', '.' and '/'"
            ),
        ),
    ],
)  # fmt: skip
def test_a_bad_interface(document: Any, message: str) -> None:
    with pytest.raises(FieldError) as error:
        read_interface(document)
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


@given(data() | st.dictionaries(st.sampled_from((*TAKEN, *LISTED)), data()))
def test_nothing_else_than_a_wrong_field_is_raised(document: Any) -> None:
    with suppress(FieldError):
        read_interface(document)


def test_only_the_name_selects_an_interface_to_delete() -> None:
    assert read_name({"name": "eth1"}) == "eth1"
    assert read_name({"name": "eth1", "device": 1, "mtu": "?"}) == "eth1"
    with pytest.raises(ValueError, match=r"^name: missing$"):
        read_name({"device": "tap0"})


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            TAKEN,
            {name: TAKEN[name] for name in ("device", "name", "hwAddr", "mtu")}
            | {"IPAddresses": [{"Family": 0, "Address": "172.16.0.3", "Mask": "16"}], "linkType": "tap"},
        ),
        ({"name": "eth1"}, {"name": "eth1"}),
        ({"name": 1, "IPAddresses": "?"}, {"name": 1, "IPAddresses": "?"}),
        ([TAKEN], None),
        (None, None),
    ],
)
def test_what_could_not_be_deleted_is_said_again(said: Any, kept: Any) -> None:
    assert write_failed(said) == kept

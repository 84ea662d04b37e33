"""An interface in each legal spelling is the same interface, and limits are met exactly."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.manifest import interface
from reconciler.manifest.compose import compose
from reconciler.manifest.finding import Finding
from reconciler.manifest.schema import check
from reconciler.model.interface import Address, Interface
from reconciler.values import replace
from tests.manifest.texts import with_nic

NIC = Interface(
    name="eth0",
    device="tap0",
    hw_addr="02:42:20:6f:a3:69",
    mtu=1500,
    addresses=(Address(address="10.0.0.2/24"), Address(address="fd00::2/64")),
)
BARE = replace(NIC, addresses=())

SPELLINGS: list[tuple[str, Interface]] = [
    ("name: 'eth0'", NIC),
    ('name: "eth0"', NIC),
    ("hwAddr: 02:42:20:6F:A3:69", NIC),
    ("hwAddr: 02-42-20-6f-a3-69", NIC),
    ("hwAddr: 02-42-20-6F-a3:69", NIC),
    ("hwAddr: '02:42:20:6f:a3:69'", NIC),
    ("hwAddr: 52:54:00:12:34:56", replace(NIC, hw_addr="52:54:00:12:34:56")),
    ("hwAddr: 12:40:37:27:57:41", replace(NIC, hw_addr="12:40:37:27:57:41")),
    ("queues: 0", NIC),
    ("queues: 1", replace(NIC, queues=1)),
    ("addresses: []", BARE),
    ('addresses: ["10.0.0.2/24", "fd00::2/64"]', NIC),
    ("addresses:\n- 10.0.0.2/24\n- fd00::2/64", NIC),
    ("addresses: [{address: 10.0.0.2/24}, {address: fd00::2/64}]", NIC),
    ("addresses: [10.0.0.2/24, {address: fd00::2/64, dad: true}]", NIC),
    ("addresses: [10.0.0.2/24, FD00::2/64]", NIC),
    ('addresses: [10.0.0.2/24, "fd00:0:0:0:0:0:0:2/64"]', NIC),
    ('addresses: [10.0.0.2/24, "fd00:0000::0.0.0.2/64"]', NIC),
    ("addresses: [10.0.0.2/24, fd00::0002/064]", NIC),
    (
        "addresses: [10.0.0.2/24, {address: fd00::2/64, dad: false}]",
        replace(NIC, addresses=(NIC.addresses[0], Address(address="fd00::2/64", dad=False))),
    ),
    (
        'addresses: ["fd00::2/64", 10.0.0.2/24]',
        replace(NIC, addresses=NIC.addresses[::-1]),
    ),
    ("addresses: [10.0.0.2/32]", replace(NIC, addresses=(Address(address="10.0.0.2/32"),))),
    (
        "addresses: [10.0.0.2/31, 10.0.0.4/31]",
        replace(NIC, addresses=(Address(address="10.0.0.2/31"), Address(address="10.0.0.4/31"))),
    ),
    ('addresses: ["fd00::/64"]', replace(NIC, addresses=(Address(address="fd00::/64"),))),
    ('addresses: ["fd00::1/0"]', replace(NIC, addresses=(Address(address="fd00::1/0"),))),
]  # fmt: skip

# On the right side of each bound; `addresses` goes where an MTU is too small for IPv6.
BOUNDS: list[tuple[tuple[str, ...], Interface]] = [
    (("name: e",), replace(NIC, name="e")),
    (("name: eth_.-789012345",), replace(NIC, name="eth_.-789012345")),
    (("device: T",), replace(NIC, device="T")),
    (("device: tap_.-789012345",), replace(NIC, device="tap_.-789012345")),
    (("mtu: 46", "addresses"), replace(BARE, mtu=46)),
    (("mtu: 1279", "addresses: [10.0.0.2/24]"), replace(NIC, mtu=1279, addresses=NIC.addresses[:1])),
    (("mtu: 1280",), replace(NIC, mtu=1280)),
    (("mtu: 9600",), replace(NIC, mtu=9600)),
    (("queues: 256",), replace(NIC, queues=256)),
    ((f"vhostUserSocket: /{'a' * 106}",), replace(NIC, vhost_user_socket="/" + "a" * 106)),
    (("vhostUserSocket: /a/_.-",), replace(NIC, vhost_user_socket="/a/_.-")),
    (
        (f"addresses: [{', '.join(f'10.{number >> 8}.{number & 255}.1/32' for number in range(1024))}]",),
        replace(NIC, addresses=tuple(Address(address=f"10.{n >> 8}.{n & 255}.1/32") for n in range(1024))),
    ),
]


def read(*fields: str) -> tuple[Any, list[Finding]]:
    """Read the interface of a manifest by itself: also what a namespace cannot have."""
    (document,) = compose(with_nic(*fields))
    findings = check(document)
    return interface.read(document["interfaces"][0], ("interfaces", 0), findings), findings


@pytest.mark.parametrize(("field", "expected"), SPELLINGS)
def test_each_spelling_is_the_same_interface(field: str, expected: Interface) -> None:
    assert read(field) == (expected, [])


@pytest.mark.parametrize(("fields", "expected"), BOUNDS, ids=lambda value: str(value)[:40])
def test_limits_are_included(fields: tuple[str, ...], expected: Interface) -> None:
    assert read(*fields) == (expected, [])


def test_an_interface_without_addresses_has_none() -> None:
    assert read("addresses") == (BARE, [])


def test_256_interfaces_and_no_more() -> None:
    (document,) = compose(with_nic())
    document["interfaces"] *= 256
    assert check(document) == []
    document["interfaces"] *= 2
    assert check(document) == [Finding(("interfaces",), "512 items; at most 256 are allowed")]


def test_defaults_are_not_written() -> None:
    assert interface.write(replace(NIC, addresses=(), queues=0)) == {
        "name": "eth0",
        "device": "tap0",
        "hwAddr": "02:42:20:6f:a3:69",
        "mtu": 1500,
    }

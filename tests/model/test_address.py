"""Addresses, networks and MAC addresses are read as the standard library reads them, into one text each."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.model.address import (
    contains,
    family_name,
    is_ipv6,
    is_unicast,
    network,
    pack,
    parse_address,
    parse_mac,
    parse_network,
    parse_prefix,
    split_prefix,
    unpack,
)

no_deadline = settings(deadline=None)

IPAddress = IPv4Address | IPv6Address

ADDRESSES: st.SearchStrategy[IPAddress] = st.ip_addresses()
LETTERS = st.text(alphabet="0123456789abcdefABCDEF:./%x- ", max_size=24)
NEARLY = st.builds("{}{}{}".format, LETTERS, ADDRESSES, LETTERS) | LETTERS | st.text(max_size=20)


def spellings(address: IPAddress) -> list[str]:
    """Give legal texts of an address: IPv6 in full, in capitals, short, and with its end as IPv4."""
    if isinstance(address, IPv4Address):
        return [str(address)]
    head, end = address.exploded.rsplit(":", 2)[0], IPv4Address(address.packed[12:])
    return [str(address), address.exploded, str(address).upper(), address.exploded.upper(), f"{head}:{end}"]


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[IPAddress, int]:
    address = draw(ADDRESSES)
    return address, draw(st.integers(0, address.max_prefixlen))


def whole(message: str) -> str:
    return rf"\A{re.escape(message)}\Z"


def read_by(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


@no_deadline
@given(ADDRESSES, st.data())
def test_equal_addresses_have_equal_text(address: IPAddress, data: st.DataObject) -> None:
    text = parse_address(data.draw(st.sampled_from(spellings(address))))
    assert text == parse_address(str(address))
    assert ipaddress.ip_address(text) == address
    assert (pack(text), unpack(address.packed)) == (address.packed, text)
    assert (is_ipv6(text), family_name(text)) == (address.version == 6, f"IPv{address.version}")


@no_deadline
@given(NEARLY)
@example("1.2.3")
@example("1.2.3.04")
@example("0x1.2.3.4")
@example("1.2.3.4\n")
@example("1.2.3.4\0")
@example("1::2::3")
@example("::1.2.3.4.5")
@example("\u0661.2.3.4")
@example("::12345")
def test_what_the_standard_library_refuses_is_refused(text: str) -> None:
    # A zone (fe80::1%eth0) is for sockets; no netlink message has one.
    expected = "%" not in text and read_by(ipaddress.ip_address, text)
    assert read_by(parse_address, text) == expected


@no_deadline
@given(prefixes(), st.data())
def test_equal_prefixes_have_equal_text_and_keep_their_host_bits(
    prefix: tuple[IPAddress, int], data: st.DataObject
) -> None:
    address, length = prefix
    written = data.draw(st.sampled_from(spellings(address)))
    assert parse_prefix(f"{written}/{length}") == f"{parse_address(str(address))}/{length}"
    assert split_prefix(f"{written}/{length}") == (address.packed, length)
    assert parse_prefix(written) == f"{parse_address(str(address))}/{address.max_prefixlen}"


@no_deadline
@given(prefixes())
def test_the_network_of_a_prefix(prefix: tuple[IPAddress, int]) -> None:
    address, length = prefix
    expected = ipaddress.ip_network((address, length), strict=False)
    found = network(f"{address}/{length}")
    assert ipaddress.ip_network(found) == expected
    assert parse_network(f"{expected.network_address.exploded}/{length}") == found


@no_deadline
@given(prefixes())
def test_a_network_has_no_host_bits(prefix: tuple[IPAddress, int]) -> None:
    address, length = prefix
    text = f"{address}/{length}"
    if read_by(ipaddress.ip_network, text):
        assert parse_network(text) == network(text)
    else:
        with pytest.raises(ValueError, match=whole(f"{text} has host bits set; the network is {network(text)}")):
            parse_network(text)


@no_deadline
@given(prefixes(), st.one_of(ADDRESSES, prefixes()))
def test_what_a_network_contains(prefix: tuple[IPAddress, int], other: IPAddress | tuple[IPAddress, int]) -> None:
    address, length = prefix
    candidate = other[0] if isinstance(other, tuple) else other
    expected = ipaddress.ip_network((address, length), strict=False)
    assert contains(f"{address}/{length}", str(candidate)) == (candidate in expected)
    assert contains(f"{address}/{length}", str(expected[-1]))


@no_deadline
@given(st.builds("{}{}{}".format, ADDRESSES, st.sampled_from(["/", "", "//"]), LETTERS))
@example("10.0.0.0/")
@example("10.0.0.0/+8")
@example("10.0.0.0/٨")
@example("10.0.0.0/8\n")
@example("10.0.0.0/33")
@example("::/129")
def test_what_is_no_prefix_is_refused(text: str) -> None:
    # The standard library takes netmasks and any number of zeros as well.
    length = text.partition("/")[2]
    plain = "%" not in text and "." not in length and len(length) <= 3
    assert read_by(parse_prefix, text) == (plain and read_by(ipaddress.ip_interface, text))


@no_deadline
@given(ADDRESSES)
@example(IPv4Address("223.255.255.255"))
@example(IPv4Address("224.0.0.0"))
@example(IPv4Address("255.255.255.255"))
@example(IPv4Address("0.0.0.0"))
@example(IPv4Address("0.0.0.1"))
@example(IPv6Address("feff::"))
@example(IPv6Address("ff00::"))
@example(IPv6Address("::"))
@example(IPv6Address("::1"))
def test_unicast_addresses(address: IPAddress) -> None:
    refused = address.is_multicast or address.is_unspecified
    above = isinstance(address, IPv4Address) and address >= IPv4Address("240.0.0.0")
    assert is_unicast(str(address)) == (not refused and not above)


MESSAGES = {
    parse_address: [
        ("", '"" is not an IP address'),
        ("10.0.0.256", '"10.0.0.256" is not an IP address'),
        ("10.0.0.1/24", '"10.0.0.1/24" is not an IP address; leave out the prefix length: 10.0.0.1'),
        ("10.0.0.010", '"10.0.0.010" is not an IP address; its numbers have no zeros in front: 10.0.0.10'),
        ("\u201cfd00::1\u201d", '"\u201cfd00::1\u201d" is not an IP address; it has typographic quotes'),
        ("fe80::1%eth0", '"fe80::1%eth0" is not an IP address'),
    ],
    parse_prefix: [
        ("10.0.0/24", '"10.0.0" is not an IP address'),
        ("10.0.0.0/33", '"10.0.0.0/33" has no valid prefix length; expected /0 to /32'),
        ("::/", '"::/" has no valid prefix length; expected /0 to /128'),
    ],
    parse_network: [
        ("10.0.0.1/24", "10.0.0.1/24 has host bits set; the network is 10.0.0.0/24"),
        ("2001:DB8::1/0", "2001:DB8::1/0 has host bits set; the network is ::/0"),
    ],
    parse_mac: [
        ("02:42:20:6f:a3", '"02:42:20:6f:a3" is not a MAC address; expected six bytes such as 02:42:20:6f:a3:69'),
        (
            "01:00:5e:00:00:01",
            "01:00:5e:00:00:01 is a multicast address; a NIC needs a unicast one (an even first byte)",
        ),
        (
            "FF:ff:ff:ff:ff:ff",
            "FF:ff:ff:ff:ff:ff is a multicast address; a NIC needs a unicast one (an even first byte)",
        ),
        ("00-00-00-00-00-00", "00:00:00:00:00:00 is not an address that a NIC can have"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("parse", "text", "message"), [(parse, *row) for parse, rows in MESSAGES.items() for row in rows]
)
def test_messages(parse: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        parse(text)


MACS = st.binary(min_size=6, max_size=6)


@no_deadline
@given(MACS, st.sampled_from(":-"), st.booleans())
def test_mac_addresses_have_one_text(packed: bytes, separator: str, upper: bool) -> None:
    text = packed.hex(separator)
    usable = not packed[0] & 1 and any(packed)
    assert read_by(parse_mac, text) == usable
    if usable:
        assert parse_mac(text.upper() if upper else text) == packed.hex(":")


@no_deadline
@given(st.builds("{}{}{}".format, LETTERS, MACS.map(lambda packed: packed.hex(":")), LETTERS.filter(bool)))
@example("02:42:20:6f:a3:69\n")
@example("02:42:20:6f:a3:٦٩")
def test_what_is_more_than_a_mac_address_is_refused(text: str) -> None:
    assert not read_by(parse_mac, text)

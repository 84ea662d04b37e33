"""IP addresses, prefixes and MAC addresses as canonical text: equal things have equal text.

They are text because text is what is printed, compared and typed. `inet_pton` (RFC 4291 forms, IPv4 without leading
zeros) parses them: it is ten times as fast as `ipaddress`, and manifests have tens of thousands of addresses.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

DEFAULT_IPV4 = "0.0.0.0/0"
DEFAULT_IPV6 = "::/0"

# Characters of what is no address that are looked at.
_LONGEST = 300
# Zeros at the beginning of a number of IPv4.
_ZEROS = re.compile(r"(?:(?<=\.)|^)0+(?=[0-9])")
_MAC = re.compile(r"[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\Z")


def is_ipv6(text: str) -> bool:
    """Return whether an address or prefix in canonical text is IPv6."""
    return ":" in text


def family_name(text: str) -> str:
    """Return the name of the family of an address or prefix, for messages: `IPv4` or `IPv6`."""
    return "IPv6" if ":" in text else "IPv4"


def pack(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address in network order. Raise ValueError if it is none."""
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError):
        raise ValueError(f'"{address}" is not an IP address{_why_not(address)}') from None


def _why_not(text: str) -> str:
    """Return the rest of a message about what is no address: what it is instead, if that is known."""
    text = text[:_LONGEST]
    address, slash, _ = text.partition("/")
    without_zeros = _ZEROS.sub("", address)
    if any(quote in text for quote in "\u201c\u201d\u201e\u2018\u2019"):
        return "; it has typographic quotes"
    if slash and _is_address(address):
        return f"; leave out the prefix length: {address}"
    if without_zeros != address and _is_address(without_zeros):
        return f"; its numbers have no zeros in front: {without_zeros}"
    return ""


def _is_address(text: str) -> bool:
    try:
        pack(text)
    except ValueError:
        return False
    return True


def unpack(packed: bytes) -> str:
    """Return the canonical text of 4 or 16 bytes in network order."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def parse_address(text: str) -> str:
    """Return an address as canonical text. Raise ValueError if it is none."""
    packed = pack(text)
    return unpack(packed) if len(packed) == 16 else text


def split_prefix(prefix: str) -> tuple[bytes, int]:
    """Return the packed address and the length of a prefix. A bare address has its full length, 32 or 128.

    Raise ValueError if it is no prefix.
    """
    text, slash, length = prefix.partition("/")
    packed = pack(text)
    bits = len(packed) * 8
    if not slash:
        return packed, bits
    if not (length.isascii() and length.isdecimal() and len(length) <= 3 and int(length) <= bits):
        raise ValueError(f'"{prefix}" has no valid prefix length; expected {_length_of(length, bits)}')
    return packed, int(length)


def _length_of(text: str, bits: int) -> str:
    """Return the prefix length that a netmask is, or all that there are."""
    mask = int.from_bytes(pack(text), "big") if bits == 32 and len(text) < _LONGEST and _is_address(text) else 0
    length = mask.bit_count()
    if mask and mask == (1 << 32) - (1 << 32 - length):
        return f"/{length} for the netmask {text}"
    return f"/0 to /{bits}"


def parse_prefix(text: str) -> str:
    """Return `address/length` (or a bare address: full length) as canonical text, with its host bits."""
    packed, length = split_prefix(text)
    return f"{unpack(packed)}/{length}"


def _network_bytes(packed: bytes, length: int) -> bytes:
    shift = len(packed) * 8 - length
    return (int.from_bytes(packed, "big") >> shift << shift).to_bytes(len(packed), "big")


def network(prefix: str) -> str:
    """Return the network of a prefix: the same with its host bits cleared."""
    packed, length = split_prefix(prefix)
    return f"{unpack(_network_bytes(packed, length))}/{length}"


def parse_network(text: str) -> str:
    """Return a destination as canonical text. Raise ValueError if it is none or has host bits set."""
    packed, length = split_prefix(text)
    shift = len(packed) * 8 - length
    if shift and int.from_bytes(packed, "big") & ((1 << shift) - 1):
        raise ValueError(f"{text} has host bits set; the network is {network(text)}")
    # IPv4 text that `inet_pton` accepts is canonical already.
    address = text.partition("/")[0] if len(packed) == 4 else unpack(packed)
    return f"{address}/{length}"


def contains(prefix: str, address: str) -> bool:
    """Return whether the network of a prefix contains an address; always False across families."""
    packed, length = split_prefix(prefix)
    other = pack(address)
    return len(packed) == len(other) and _network_bytes(packed, length) == _network_bytes(other, length)


def link_local(hw_addr: str) -> str:
    """Return the link-local address, with its prefix, that the kernel makes of a MAC address (RFC 4291, appendix A)."""
    mac = bytes.fromhex(hw_addr.replace(":", ""))
    return f"{unpack(bytes((0xFE, 0x80, *bytes(6), mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:])))}/64"


def is_of_ipv4(prefix: str) -> bool:
    """Return whether the kernel makes such an IPv6 address, with its prefix, of an IPv4 one (addrconf.c: add_v4_addrs).

    It gives them to tunnels of kind `sit`, and does not mark them as its own.
    """
    packed, length = split_prefix(prefix)
    start = {96: bytes(12), 64: b"\xfe\x80" + bytes(10)}.get(length)
    return len(packed) == 16 and packed[:12] == start and packed[12] != 0


def last_address(prefix: str) -> str:
    """Return the last address of the network of a prefix: for IPv4, its broadcast address."""
    packed, length = split_prefix(prefix)
    bits = len(packed) * 8 - length
    return unpack((int.from_bytes(packed, "big") | (1 << bits) - 1).to_bytes(len(packed), "big"))


def is_unicast(address: str) -> bool:
    """Return whether a host can have an address: it is not unspecified, multicast or above (RFC 1112, RFC 4291)."""
    packed = pack(address)
    return any(packed) and (packed[0] < 224 if len(packed) == 4 else packed[0] != 0xFF)


def is_loopback(address: str) -> bool:
    """Return whether an address in canonical text is one of the host itself (RFC 1122, RFC 4291)."""
    return address.startswith("127.") or address == "::1"


def is_link_local(address: str) -> bool:
    """Return whether an IPv6 address means something only together with a link (RFC 4291)."""
    packed = pack(address)
    return len(packed) == 16 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def parse_mac(text: str) -> str:
    """Return a unicast 48-bit MAC address in lower case with colons. Raise ValueError if it is none."""
    mac = text.lower()
    if not _MAC.match(mac):
        raise ValueError(f'"{text}" is not a MAC address; expected six bytes such as 02:42:20:6f:a3:69')
    mac = mac.replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise ValueError(f"{text} is a multicast address; a NIC needs a unicast one (an even first byte)")
    if mac == "00:00:00:00:00:00":
        raise ValueError("00:00:00:00:00:00 is not an address that a NIC can have")
    return mac

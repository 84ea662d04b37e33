"""What a virtual server listens on: addresses with a port, firewall marks, and groups of both."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.keepalived.statements import Position, Statement
from reconciler.formats.keepalived.value import INET, INET6, choice, parameter, read_port
from reconciler.model.address import family_name, pack, parse_network, split_prefix
from reconciler.model.ipvs import FWMARK, FWMARK_MAX, RULES_MAX
from reconciler.values import NamedTuple, dataclass, field


class AddressRange(NamedTuple):
    """Consecutive addresses of one family, as numbers of `size` bytes, and a port; 0: no port."""

    position: Position
    size: int
    first: int
    last: int
    port: int

    @property
    def services(self) -> int:
        """Return the number of services that it stands for."""
        return self.last - self.first + 1

    @property
    def family(self) -> str:
        """Return `inet` or `inet6`."""
        return INET if self.size == 4 else INET6


class FirewallMark(NamedTuple):
    """A firewall mark, and its family if that is written out (`inet`, `inet6`)."""

    position: Position
    number: int
    family: str = ""
    services: int = 1


Listener = AddressRange | FirewallMark


@dataclass(slots=True)
class Group:
    """A virtual_server_group as far as it has been read. `fault`: why it is not known as a whole, or "" if it is."""

    statement: Statement
    listeners: list[Listener] = field(default_factory=list)
    fault: str = ""

    @property
    def families(self) -> set[str]:
        """Return the families of the listeners that have one."""
        return {each.family for each in self.listeners if each.family}

    def problem(self, family: str) -> str:
        """Return why keepalived ignores a virtual server of a family (or "") that names this group, or "" if not."""
        if not self.listeners:
            return "the group has no entries"
        families = self.families
        if len(families) == 2:
            if any(not each.family for each in self.listeners):
                return "the group has both families, and a fwmark without a family"
            if family:
                return "the group has both families, and a server is not behind a tunnel (TUN)"
        elif families and family and families != {family}:
            here, there = (family_name("::" if each == INET6 else "0.0.0.0") for each in (family, *families))
            return f"it is {here} and the group is {there}"
        return ""


def read_listener(statement: Statement) -> Listener:
    """Read a line of a group. ValueError if it is wrong."""
    words = statement.words
    if words[0] == FWMARK:
        mark = to_number(FWMARK, parameter(statement), 1, FWMARK_MAX)
        return FirewallMark(statement.position, mark, choice(statement, (INET, INET6), 2) if len(words) > 2 else "")
    size, first, last = _read_range(words[0])
    addresses = AddressRange(statement.position, size, first, last, read_port(words))
    if addresses.services > RULES_MAX:
        raise ValueError(f"{words[0]}: {addresses.services:,} addresses; at most {RULES_MAX:,} services are allowed")
    bits = 8 if size == 4 else 16
    if first >> bits != last >> bits:
        raise ValueError(f"{words[0]}: keepalived counts only in the last {bits} bits of an address, so split this")
    return addresses


def _read_range(text: str) -> tuple[int, int, int]:
    """Read an address, `10.0.0.1-20`, `10.0.0.1-10.0.0.20` or `10.0.0.0/29`. ValueError if it is none of them.

    Return the number of bytes of an address, and the first and the last address as numbers.
    """
    if "/" in text:
        packed, length = split_prefix(parse_network(text))
        first = int.from_bytes(packed, "big")
        return len(packed), first, first | ((1 << (len(packed) * 8 - length)) - 1)
    start, dash, end = text.partition("-")
    packed = pack(start)
    first = int.from_bytes(packed, "big")
    if not dash:
        return len(packed), first, first
    if "." not in end and ":" not in end:
        last = _last_of_range(text, first, end, ipv6=len(packed) == 16)
        if last == first:
            raise ValueError(f"{text}: the end is not after the beginning, as keepalived requires")
    else:
        other = pack(end)
        if len(other) != len(packed):
            raise ValueError(f"{text}: both ends must be of one family")
        last = int.from_bytes(other, "big")
    if last < first:
        raise ValueError(f"{text}: the end is before the beginning")
    return len(packed), first, last


def _last_of_range(text: str, first: int, end: str, *, ipv6: bool) -> int:
    """Return the first address with `end` in place of its last part: 8 bits, or 16 in hexadecimal for IPv6.

    ValueError if `end` is no such part.
    """
    bits, base = (16, 16) if ipv6 else (8, 10)
    digits = "0123456789abcdefABCDEF"[: 22 if ipv6 else 10]
    if not end or len(end) > 4 or end.strip(digits) or int(end, base) >> bits:
        raise ValueError(f'{text}: "{end}" is not the last part of an address')
    return first >> bits << bits | int(end, base)


def address_range(position: Position, address: str, port: int) -> AddressRange:
    """Return the range of one address."""
    packed = pack(address)
    number = int.from_bytes(packed, "big")
    return AddressRange(position, len(packed), number, number, port)


def has_ranges(listeners: Iterable[Listener]) -> bool:
    """Return whether there are addresses among listeners."""
    return any(isinstance(each, AddressRange) for each in listeners)

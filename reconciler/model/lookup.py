"""Which route a packet takes, by rules and routes, as far as it depends on its addresses only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.model.address import contains, is_ipv6, pack, split_prefix, unpack
from reconciler.model.route import Route
from reconciler.model.rule import Rule

# Types of routes that say "nobody", at which a lookup ends.
REJECTED = ("blackhole", "unreachable", "prohibit")
# A lookup goes on in the next table.
_THROW = "throw"
_Networks = dict[tuple[int, int, int], list[Route]]


def is_plain(rule: Rule) -> bool:
    """Return whether a rule selects by addresses only."""
    others = (rule.fwmask, rule.iif, rule.oif, rule.ipproto, rule.sport, rule.dport, rule.uidrange, rule.tos)
    return not any(others) and not rule.l3mdev and not rule.opaque and not rule.invert


class Lookup:
    """The routes and rules of one network."""

    def __init__(self, routes: Iterable[Route], rules: Iterable[Rule] = ()) -> None:
        listed = tuple(rules)
        self._rules = {
            family: sorted((r for r in listed if r.family == family), key=lambda rule: rule.priority)
            for family in ("ipv4", "ipv6")
        }
        self._tables: dict[int, _Networks] = {}
        self._lengths: dict[tuple[int, int], list[int]] = {}
        for route in routes:
            if route.tos or route.from_:
                continue
            packed, length = split_prefix(route.dest)
            bits = len(packed) * 8
            key = bits, length, int.from_bytes(packed) >> (bits - length)
            self._tables.setdefault(route.table, {}).setdefault(key, []).append(route)
            lengths = self._lengths.setdefault((route.table, bits), [])
            if length not in lengths:
                lengths.append(length)
        for lengths in self._lengths.values():
            lengths.sort(reverse=True)

    @property
    def tables(self) -> frozenset[int]:
        """Return the tables that have a route."""
        return frozenset(self._tables)

    def route(self, address: str, source: str | None = None) -> Route | None:
        """Return the route of packets to an address, from another one if `source` is given; None if there is none."""
        goto = 0
        for rule in self._rules["ipv6" if is_ipv6(address) else "ipv4"]:
            if rule.priority < goto or not is_plain(rule) or not _selects(rule, address, source):
                continue
            if rule.action == "goto":
                goto = rule.goto
            elif rule.action in REJECTED:
                return Route(dest="::/0" if is_ipv6(address) else "0.0.0.0/0", type=rule.action)
            elif rule.action == "table":
                found = next(self.in_table(rule.table, address, rule.suppress_prefixlength), None)
                if found and found.type != _THROW:
                    return found
        return None

    def in_table(self, table: int, address: str, suppressed: int = -1) -> Iterator[Route]:
        """Yield the routes of a table to an address, the one that the kernel takes first."""
        packed = pack(address)
        bits, number = len(packed) * 8, int.from_bytes(packed)
        networks = self._tables.get(table, {})
        for length in self._lengths.get((table, bits), ()):
            if length > suppressed:
                found = networks.get((bits, length, number >> (bits - length)), ())
                yield from sorted(found, key=lambda route: route.metric)

    def sample(self, dest: str) -> str | None:
        """Return an address of a destination that no route to a part of it has; None if none is found quickly."""
        packed, length = split_prefix(dest)
        bits = len(packed) * 8
        first, size = int.from_bytes(packed), 1 << (bits - length)
        tried = (int.from_bytes(pack(each)) for each in _ANYWHERE[bits]) if not length else _places(first, size)
        return next((unpack(n.to_bytes(bits // 8)) for n in tried if not self._is_in_a_part(n, bits, length)), None)

    def _is_in_a_part(self, number: int, bits: int, length: int) -> bool:
        return any(
            (bits, more, number >> (bits - more)) in networks
            for table, networks in self._tables.items()
            for more in self._lengths.get((table, bits), ())
            if more > length
        )


# Addresses that could be anywhere, some of them for documentation.
_ANYWHERE = {
    32: ("203.0.113.113", "198.51.100.113", "192.0.2.113", "9.9.9.113", "100.127.3.113"),
    128: ("2001:db8:ffff::113", "2001:4:ffff::113", "2600:ffff::113"),
}


def _places(first: int, size: int) -> Iterator[int]:
    """Yield addresses of a network: its first ones, one in its middle, and one near its end."""
    yield from dict.fromkeys(
        min(first + each, first + size - 1)
        for each in (1 if size > 1 else 0, 2, 3, size // 2 + 1, size * 3 // 4, size - 2)
    )


def _selects(rule: Rule, address: str, source: str | None) -> bool:
    if rule.to and not contains(rule.to, address):
        return False
    return not rule.from_ or (source is not None and contains(rule.from_, source))

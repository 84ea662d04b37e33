"""Which route a packet takes, by rules and routes, as far as it depends on its addresses only."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import Network
from reconciler.model.address import contains, is_ipv6, pack, split_prefix
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
    """The rules and routes of one network."""

    def __init__(self, network: Network) -> None:
        self._rules = {
            family: sorted((r for r in network.rules if r.family == family), key=lambda rule: rule.priority)
            for family in ("ipv4", "ipv6")
        }
        self._tables: dict[int, _Networks] = {}
        self._lengths: dict[tuple[int, int], list[int]] = {}
        for route in network.routes:
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


def _selects(rule: Rule, address: str, source: str | None) -> bool:
    if rule.to and not contains(rule.to, address):
        return False
    return not rule.from_ or (source is not None and contains(rule.from_, source))

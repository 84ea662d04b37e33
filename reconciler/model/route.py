"""A route. Table, destination and metric identify it, as in the kernel (tos is always 0 here)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, contains, is_ipv6, network

# The kernel's numbers (linux/rtnetlink.h, net/ip6_route.h).
TABLE_MAIN = 254
IPV6_DEFAULT_METRIC = 1024
IPV6_CONNECTED_METRIC = 256
# Types without a next hop (rtm_type names of iproute2).
REJECT_TYPES = ("blackhole", "unreachable", "prohibit")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """A next hop. `weight` is 1 to 256. `on_link`: the gateway is on the link although no prefix covers it."""

    device: str
    gateway: str | None = None
    weight: int = 1
    on_link: bool = False


def canonical_hops(hops: Iterable[NextHop]) -> tuple[NextHop, ...]:
    """Return next hops in a fixed order: the kernel balances by weight, so that their order has no meaning."""
    return tuple(sorted(hops, key=lambda hop: (hop.device, hop.gateway or "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route.

    `dest` is a canonical network, `0.0.0.0/0` or `::/0` for default. `metric` is what the kernel stores, so that it is
    never 0 for IPv6, where 0 means 1024. `mtu` and `advmss` are in bytes; 0 means unset.
    `opaque` is the attributes of an observed route that no manifest can express; such a route always differs.
    """

    dest: str
    type: str = "unicast"
    nexthops: tuple[NextHop, ...] = ()
    table: int = TABLE_MAIN
    metric: int = 0
    source: str | None = None
    mtu: int = 0
    advmss: int = 0
    opaque: bytes = b""

    @property
    def key(self) -> tuple[int, str, int]:
        """Return table, destination and metric, which identify it in the kernel."""
        return (self.table, self.dest, self.metric)

    @property
    def is_ipv6(self) -> bool:
        """Return whether it is an IPv6 route."""
        return is_ipv6(self.dest)

    @property
    def is_default(self) -> bool:
        """Return whether it is a default route of the main table that carries traffic."""
        return self.dest in (DEFAULT_IPV4, DEFAULT_IPV6) and self.table == TABLE_MAIN and self.type == "unicast"

    @property
    def devices(self) -> set[str]:
        """Return the names of the NICs of its next hops."""
        return {hop.device for hop in self.nexthops}

    @property
    def needs_gateway(self) -> bool:
        """Return whether a gateway must be reachable before it can be added: routes without a gateway come first."""
        for hop in self.nexthops:  # noqa: SIM110 (a generator costs three times as much, 10,000 times over)
            if hop.gateway and not hop.on_link:
                return True
        return False


def connected_key(prefix: str) -> tuple[int, str, int]:
    """Return the key of the route that the kernel adds by itself for an address."""
    dest = network(prefix)
    return (TABLE_MAIN, dest, IPV6_CONNECTED_METRIC if is_ipv6(dest) else 0)


class DirectNetworks:
    """The networks of routes without a gateway. The kernel looks for a gateway in the route's own table and in main."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._networks: dict[tuple[str, int], list[str]] = {}
        for route in routes:
            for hop in route.nexthops:
                if hop.gateway is None:
                    self._networks.setdefault((hop.device, route.table), []).append(route.dest)

    def of(self, device: str, table: int) -> list[str]:
        """Return the networks on the link of a NIC, as a route in a table sees them."""
        return [dest for each in {table, TABLE_MAIN} for dest in self._networks.get((device, each), ())]


def is_reached(hop: NextHop, prefixes: Iterable[str]) -> bool:
    """Return whether the gateway of a next hop is on the link: in one of its prefixes, link-local, or `on_link`."""
    if hop.gateway is None or hop.on_link or (is_ipv6(hop.gateway) and contains("fe80::/10", hop.gateway)):
        return True
    return any(contains(prefix, hop.gateway) for prefix in prefixes)

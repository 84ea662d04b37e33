"""A route, as the kernel tells routes apart: by table, destination and metric (tos is always 0 here)."""

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
    """One way of a route: `weight` 1 to 256, `on_link` says the gateway is reached although no prefix covers it."""

    device: str
    gateway: str | None = None
    weight: int = 1
    on_link: bool = False


def canonical_hops(hops: Iterable[NextHop]) -> tuple[NextHop, ...]:
    """Order next hops: the kernel balances by weight, and their order says nothing."""
    return tuple(sorted(hops, key=lambda hop: (hop.device, hop.gateway or "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route.

    `dest` is a canonical network, `0.0.0.0/0` or `::/0` for default; `metric` is what the kernel stores (IPv6 has no 0:
    that means 1024); `mtu` and `advmss` 0 mean unset.
    `opaque` holds attributes that only an observed route can have and no manifest can say, so it always differs.
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
        """What identifies it in the kernel."""
        return (self.table, self.dest, self.metric)

    @property
    def is_ipv6(self) -> bool:
        """Tell its family."""
        return is_ipv6(self.dest)

    @property
    def is_default(self) -> bool:
        """Tell whether it is a default route of the main table that carries traffic."""
        return self.dest in (DEFAULT_IPV4, DEFAULT_IPV6) and self.table == TABLE_MAIN and self.type == "unicast"

    @property
    def devices(self) -> set[str]:
        """Give the NICs it goes through."""
        return {hop.device for hop in self.nexthops}

    @property
    def needs_gateway(self) -> bool:
        """Tell whether a gateway must be reachable for it, so that it comes after the routes that have none."""
        for hop in self.nexthops:  # noqa: SIM110 (a generator costs three times as much, 10,000 times over)
            if hop.gateway and not hop.on_link:
                return True
        return False


def connected_key(prefix: str) -> tuple[int, str, int]:
    """Give the key of the route that the kernel adds by itself for an address."""
    dest = network(prefix)
    return (TABLE_MAIN, dest, IPV6_CONNECTED_METRIC if is_ipv6(dest) else 0)


class DirectNetworks:
    """What routes reach without a gateway: for a gateway, the kernel looks in the route's own table and in main."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._networks: dict[tuple[str, int], list[str]] = {}
        for route in routes:
            for hop in route.nexthops:
                if hop.gateway is None:
                    self._networks.setdefault((hop.device, route.table), []).append(route.dest)

    def of(self, device: str, table: int) -> list[str]:
        """Give the networks that a route of a table can count on to be on a NIC's link."""
        return [dest for each in {table, TABLE_MAIN} for dest in self._networks.get((device, each), ())]


def is_reached(hop: NextHop, prefixes: Iterable[str]) -> bool:
    """Tell whether a next hop is on its link: in one of the prefixes there, link-local, or said to be."""
    if hop.gateway is None or hop.on_link or (is_ipv6(hop.gateway) and contains("fe80::/10", hop.gateway)):
        return True
    return any(contains(prefix, hop.gateway) for prefix in prefixes)

"""A route. Table, destination and metric identify it, as in the kernel, and what else it selects packets by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, contains, is_ipv6, network, pack, split_prefix
from reconciler.model.mark import PROTOCOL
from reconciler.model.metric import Metrics
from reconciler.values import dataclass, field, replace

# The kernel's numbers (linux/rtnetlink.h, net/ip6_route.h).
TABLE_MAIN, TABLE_LOCAL = 254, 255
PROTOCOL_KERNEL = 2
IPV6_DEFAULT_METRIC = 1024
IPV6_CONNECTED_METRIC = 256
# What begins the words of a route that gets its next hops from an object of `ip nexthop`.
NEXTHOP_OBJECT = "nhid "
# Types without a next hop (rtm_type names of iproute2), and those that lead to one device.
REJECT_TYPES = ("blackhole", "unreachable", "prohibit", "throw")
DIRECT_TYPES = ("local", "multicast")
# RT_SCOPE_* of linux/rtnetlink.h.
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}
# Of IPv6 routes (RFC 4191).
PREFERENCES = ("low", "medium", "high")


# Table, destination, metric, type of service, prefix that packets come from.
RouteKey = tuple[int, str, int, int, "str | None"]


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
    never 0 for IPv6, where 0 means 1024. `mtu` is in bytes; 0 means unset. `mtu_lock`: path MTU discovery
    leaves it. `scope` is None if it is the usual one: see `usual_scope`. `pref` is the preference of an IPv6 route.
    `protocol` is who made it; it is not compared: a foreign route can serve as a desired one.
    An observed route may have more: a `type` that no manifest has (`broadcast`), a prefix that packets come `from_`,
    and `opaque` attributes, in the words of iproute2. Such a route always differs from a desired one.
    """

    dest: str
    type: str = "unicast"
    nexthops: tuple[NextHop, ...] = ()
    table: int = TABLE_MAIN
    metric: int = 0
    source: str | None = None
    mtu: int = 0
    mtu_lock: bool = False
    metrics: Metrics = ()
    scope: str | None = None
    pref: str = "medium"
    protocol: int = field(default=PROTOCOL, compare=False)
    tos: int = 0
    from_: str | None = None
    opaque: tuple[str, ...] = ()

    @property
    def key(self) -> RouteKey:
        """Return what identifies it in the kernel."""
        return (self.table, self.dest, self.metric, self.tos, self.from_)

    @property
    def is_ipv6(self) -> bool:
        """Return whether it is an IPv6 route."""
        return is_ipv6(self.dest)

    @property
    def is_default(self) -> bool:
        """Return whether it is a default route of the main table that carries traffic."""
        return self.dest in (DEFAULT_IPV4, DEFAULT_IPV6) and self.table == TABLE_MAIN and self.type == "unicast"

    @property
    def outlives_link(self) -> bool:
        """Return whether the kernel keeps it while its link is down: an IPv4 route of scope host."""
        # fib_sync_down_dev of net/ipv4/fib_semantics.c
        return not self.is_ipv6 and (self.scope or usual_scope(self.type, self.nexthops, ipv6=False)) == "host"

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


def scope_named(text: str) -> str | None:
    """Return the scope that a name or a number in digits means; None if no manifest has it."""
    return next((name for name, number in SCOPES.items() if text in (name, str(number))), None)


def usual_scope(kind: str, hops: Sequence[NextHop], *, ipv6: bool) -> str:
    """Return the scope that iproute2 gives to a route of a type, if none is named; IPv6 knows no scopes."""
    if ipv6:
        return "global"
    if kind in {"local", "nat"}:
        return "host"
    direct = bool(hops) and not any(hop.gateway for hop in hops)
    return "link" if direct or kind in {"broadcast", "multicast", "anycast"} else "global"


def identified(route: Route) -> Route:
    """Return a route with no more next hops than identify it in a deletion.

    The kernel compares several next hops in the order in which they were added, which is unknown here, and none with
    those of an object of `ip nexthop`.
    """
    named = len(route.nexthops) == 1 and not any(words.startswith(NEXTHOP_OBJECT) for words in route.opaque)
    return route if named else replace(route, nexthops=())


def connected_key(prefix: str, metric: int = 0) -> RouteKey:
    """Return the key of the route that the kernel adds by itself for an address; `metric` is that of the address."""
    dest = network(prefix)
    return (TABLE_MAIN, dest, metric or (IPV6_CONNECTED_METRIC if is_ipv6(dest) else 0), 0, None)


class OnLink:
    """The networks on the links of NICs: of their addresses, and of routes without a gateway.

    The kernel looks for a gateway in the route's own table and in main. Networks are looked up by their prefix lengths,
    as there may be a hundred thousand of them, and as many gateways.

    `prefixes`: NIC → its addresses with their prefix lengths.
    """

    def __init__(self, prefixes: Mapping[str, Iterable[str]], routes: Iterable[Route]) -> None:
        self._networks: dict[tuple[str, int], dict[tuple[int, int], set[int]]] = {}
        for device, each in prefixes.items():
            for prefix in each:
                self._add(device, TABLE_MAIN, prefix)
        for route in routes:
            for hop in route.nexthops:
                if hop.gateway is None:
                    self._add(hop.device, route.table, route.dest)

    def _add(self, device: str, table: int, prefix: str) -> None:
        packed, length = split_prefix(prefix)
        size = len(packed) * 8
        networks = self._networks.setdefault((device, table), {}).setdefault((size, size - length), set())
        networks.add(int.from_bytes(packed, "big") >> (size - length))

    def reaches(self, hop: NextHop, table: int) -> bool:
        """Return whether the gateway of a next hop is on the link: in one of its networks, link-local, or `on_link`."""
        if hop.gateway is None or hop.on_link or (is_ipv6(hop.gateway) and contains("fe80::/10", hop.gateway)):
            return True
        packed = pack(hop.gateway)
        size, number = len(packed) * 8, int.from_bytes(packed, "big")
        return any(
            bits == size and number >> shift in networks
            for each in {table, TABLE_MAIN}
            for (bits, shift), networks in self._networks.get((hop.device, each), {}).items()
        )

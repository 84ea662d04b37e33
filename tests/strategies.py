"""Sandboxes that are right and that a real kernel takes: any two of them are a state and the next one.

All values come from small pools, so that two sandboxes often share devices, names, addresses and the keys of routes.
Left out is what takes a kernel seconds (duplicate address detection) or what it refuses: gateways that are its own
addresses or on no link, IPv6 next hops without a gateway beside others, sources that are no own address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from reconciler.model.address import is_ipv6, network
from reconciler.model.interface import Address, Interface
from reconciler.model.made import KINDS, made, made_key
from reconciler.model.metric import Metrics, ordered
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import (
    DIRECT_TYPES,
    IPV6_DEFAULT_METRIC,
    REJECT_TYPES,
    TABLE_LOCAL,
    TABLE_MAIN,
    NextHop,
    Route,
    canonical_hops,
    usual_scope,
)
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule
from reconciler.model.sandbox import DriverAddress, Sandbox
from reconciler.values import replace

INTERFACES_MAX = 3
ADDRESSES_MAX = 3
ROUTES_MAX = 8
NEIGHBOURS_MAX = 6
RULES_MAX = 8

NAMES = ("eth0", "eth1", "eth2", "uplink")
# Of links that are made in the sandbox.
MADE_NAMES = ("m0", "m1", "m2", "m3")
MACS = tuple(f"02:42:20:6f:a3:{number:02x}" for number in range(1, 7))
# Not below the IPv6 minimum (RFC 8200), where a kernel takes IPv6 off the link.
MTUS = (1280, 1400, 1500)
TABLES = (TABLE_MAIN, TABLE_MAIN, 100, 5000)
DIRECT_TABLE = 7000
IPV4_DESTINATIONS = ("0.0.0.0/0", "192.168.0.0/16", "192.168.7.0/24", "198.51.100.0/24", "198.51.100.7/32")
IPV6_DESTINATIONS = ("::/0", "2001:db8::/32", "2001:db8:7::/48", "2001:db8:7::7/128")
IPV4_METRICS = (0, 0, 100, 1024)
IPV6_METRICS = (IPV6_DEFAULT_METRIC, IPV6_DEFAULT_METRIC, 100)
ROUTE_MTUS = (0, 0, 1280, 1400)
# Each metric with a value or two.
METRICS: tuple[tuple[str, int | str], ...] = (
    *(("window", 9000), ("advmss", 1200), ("advmss", 1300), ("hoplimit", 7), ("initcwnd", 20), ("features", 1)),
    *(("rtoMin", 40), ("initrwnd", 30), ("quickack", 1), ("congctl", "cubic"), ("congctl", "reno")),
)
# Each is always named: one that is left out stays as it is.
ATTRIBUTES: dict[str, tuple[Any, ...]] = {
    "alias": ("", "uplink to rack 7"),
    "txQueueLen": (1000, 77),
    "gsoMaxSize": (65536, 30000),
    "arp": (True, True, False),
    "allmulticast": (False, True),
}
# Of each option of a link that is made in the sandbox, but for those that have the number of the link.
Options = Mapping[str, Mapping[str, Sequence[Any]]]
OPTIONS: Options = {
    "vlan": {"protocol": ("802.1q", "802.1q", "802.1ad")},
    "macvlan": {"mode": ("private", "bridge", "vepa")},
    "bridge": {
        "stp": (False, True),
        "forwardDelay": (15, 4),
        "ageingTime": (300, 60),
        "vlanFiltering": (False, True),
        "multicastSnooping": (True, False),
    },
    "bond": {
        "mode": ("balance-rr", "active-backup", "802.3ad"),
        "miimon": (100, 200),
        "minLinks": (0, 1),
        "transmitHashPolicy": ("layer2", "layer3+4"),
        "lacpRate": ("slow", "fast"),
    },
    "vrf": {},
    "dummy": {},
}
# Other ones than these the kernel of a host need not have.
USUAL_OPTIONS = {
    "macvlan": OPTIONS["macvlan"],
    "bridge": {name: values for name, values in OPTIONS["bridge"].items() if name != "vlanFiltering"},
}
# With the number of the device: no two NICs have the same one.
ALTNAMES = ("alt", "other")
ADDRESS_SCOPES = ("global", "global", "global", "link")
TOSES = (0, 0, 0, 8, 16)
PREFERENCES = ("medium", "medium", "low", "high")
# Routers, hosts on a link and off it.
NEIGHBOURS = ("10.0.0.1", "10.0.0.200", "203.0.113.9", "fd00::1", "fe80::1", "2001:db8::9")
WEIGHTS = (1, 1, 2, 256)
# In no subnet of a device and in no destination but the defaults.
IPV4_ON_LINK = "169.254.7.1"
IPV6_ON_LINK = "fd00:ffff::1"
# A router announces itself so; it needs no address of ours.
IPV6_LINK_LOCAL = "fe80::1"

_OWN_HOSTS = (2, 3, 4)
_GATEWAY_HOSTS = (1, 200)
# The peer of a host is that of this number and its own.
_PEERS = 10


def subnets(number: int) -> tuple[str, str, str]:
    """Give the subnets of the host device of a number: two of IPv4, one of IPv6, each of no other device."""
    return f"10.{number}.0.0/24", f"10.{number}.1.0/24", f"fd00:{number}::/64"


def addresses(number: int) -> st.SearchStrategy[Address]:
    """Addresses of the host device of a number: in its subnets, never one of `gateways`; IPv6 without detection."""
    has_peer = st.sampled_from((False, False, True))
    return st.builds(_address, st.sampled_from(subnets(number)), st.sampled_from(_OWN_HOSTS), has_peer, st.booleans())


def _address(subnet: str, host: int, has_peer: bool, is_alone: bool) -> Address:
    """An address, maybe with a peer, which is of the subnet as well, or is alone in its own."""
    network = ip_network(subnet)
    length = network.max_prefixlen if has_peer and is_alone else network.prefixlen
    peer = str(network[host + _PEERS]) if has_peer else None
    return Address(address=f"{network[host]}/{length}", peer=peer, dad=network.version == 4)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """What a manifest can say of the addresses of a network beside them; of most, nothing."""
    if draw(st.integers(0, 2)):
        return {}
    metric, scope = draw(st.sampled_from((0, 7, 300))), draw(st.sampled_from(ADDRESS_SCOPES))
    return {"metric": metric, "noprefixroute": not metric and draw(st.booleans()), "scope": scope}


def _optional(address: Address, said: dict[str, Any]) -> Address:
    """An address with these options; IPv6 has neither scopes nor labels."""
    return replace(address, **said | ({"scope": "global", "label": None} if is_ipv6(address.address) else {}))


@st.composite
def interfaces(draw: st.DrawFn, number: int, device: str, *, name: str, hw_addr: str) -> Interface:
    """The NIC with one queue of the host device of a number, under a name and MAC address of the caller's choice."""
    count = draw(st.integers(0, ADDRESSES_MAX))
    own = draw(st.lists(addresses(number), min_size=count, max_size=count, unique_by=lambda address: address.host))
    of_network = {network(subnet): draw(options()) for subnet in subnets(number)}
    labels = st.sampled_from((None, None, None, f"{name}:a"))
    own = [_optional(each, of_network.get(each.subnet, {}) | {"label": draw(labels)}) for each in own]
    return Interface(
        name=name,
        device=device,
        hw_addr=hw_addr,
        mtu=draw(st.sampled_from(MTUS)),
        addresses=tuple(own),
        altnames=tuple(sorted(f"{each}-{number}" for each in draw(st.sets(st.sampled_from(ALTNAMES))))),
        attributes=tuple((field, draw(st.sampled_from(values))) for field, values in ATTRIBUTES.items()),
    )


@st.composite
def made_links(draw: st.DrawFn, kinds: Options, nics: Sequence[Interface]) -> list[Interface]:
    """The NICs, some of them as ports, and links of these kinds that lie on them and on each other.

    Nothing is left to the kernel, which keeps what it once chose. Ports of bonds and VRFs have no addresses, as their
    routes are in other tables.
    """
    found: list[Interface] = []
    for number, name in enumerate(MADE_NAMES):
        kind = draw(st.sampled_from((None, *kinds)))
        # A VRF carries no frames, and a macvlan on a macvlan is one beside it.
        flat = {"vrf", kind} if kind == "macvlan" else {"vrf"}
        below = [each.name for each in (*nics, *found) if not (each.made and each.made.kind in flat)]
        if kind is None or (KINDS[kind].on_link and not below):
            continue
        numbered = number + draw(st.sampled_from((1000, 1010)))
        values = {option: draw(st.sampled_from(each)) for option, each in kinds[kind].items()}
        values |= {"vlan": {"id": numbered}, "vrf": {"table": numbered}}.get(kind, {})
        link = draw(st.sampled_from(below)) if KINDS[kind].on_link else ""
        own = draw(interfaces(10 + number, made_key(kind, name), name=name, hw_addr=f"02:42:20:6f:a4:{number:02x}"))
        addresses = () if kind == "vrf" else own.addresses
        found.append(replace(own, mtu=MTUS[0], made=made(kind, values, link), addresses=addresses))
    return [draw(_ports(each, found)) for each in (*nics, *found)]


def _ports(each: Interface, made: Sequence[Interface]) -> st.SearchStrategy[Interface]:
    """An interface as it is, and as a port of each link that takes it."""
    above = {other.made.kind for other in made if other.made and other.made.link == each.name}
    ways = [each, each]
    for master in made:
        kind = master.made.kind if master.made else ""
        bare = replace(each, master=master.name, addresses=())
        if each.made and each.made.kind != "dummy":
            continue
        if kind == "bridge" and "macvlan" not in above:
            ways.append(replace(each, master=master.name))
        elif kind == "vrf" or (kind == "bond" and each.made and not above):
            ways.append(bare)
    return st.sampled_from(ways)


@st.composite
def _some_down(draw: st.DrawFn, interfaces_: Sequence[Interface]) -> list[Interface]:
    """Interfaces, of which some are down: none on which another one lies, or that the kernel sets up."""
    bonds = {each.name for each in interfaces_ if each.made and each.made.kind == "bond"}
    needed = {each.made.link for each in interfaces_ if each.made}
    free = [each.name for each in interfaces_ if each.name not in needed and each.master not in bonds]
    down = draw(st.sets(st.sampled_from(free), max_size=1)) if free else set[str]()
    return [replace(each, up=each.name not in down) for each in interfaces_]


def gateways(interface: Interface, *, ipv6: bool) -> list[tuple[str, bool]]:
    """Gateways of a family on the link of an interface, and whether that must be said (`on_link`)."""
    # Without a connected route, nothing is on the link.
    networks = sorted(each for each in set(interface.connected) if not each.endswith(("/32", "/128")))
    reached = [
        (str(network[host]), False)
        for network in map(ip_network, networks)
        if network.version == (6 if ipv6 else 4)
        for host in _GATEWAY_HOSTS
    ]
    on_link = [(gateway, True) for gateway, _ in reached[:1]]
    if ipv6:
        return [*reached, *on_link, (IPV6_ON_LINK, True), (IPV6_LINK_LOCAL, False)]
    # A namespace without any IPv4 address has no local table, and its kernel refuses even a gateway that is on-link.
    return [*reached, *on_link, (IPV4_ON_LINK, True)] if reached else []


def next_hops(nics: Sequence[Interface], *, ipv6: bool) -> list[NextHop]:
    """Every way of a family through some interfaces, of weight 1; an IPv4 route may have a gateway of IPv6."""
    families = (True,) if ipv6 else (False, True)
    return [
        NextHop(device=interface.name, gateway=gateway, on_link=on_link)
        for interface in nics
        for gateway, on_link in [
            (None, False),
            *(each for family in families for each in gateways(interface, ipv6=family)),
        ]
    ]


def _ways(nics: Sequence[Interface], *, ipv6: bool) -> st.SearchStrategy[tuple[NextHop, ...]]:
    """One next hop of weight 1, or 2 or 3 of any weights; an IPv6 route of several has a gateway in each."""
    single = next_hops(nics, ipv6=ipv6)
    several = [hop for hop in single if hop.gateway or not ipv6]
    ways = st.tuples(st.sampled_from([hop for hop in single if not hop.gateway]) | st.sampled_from(single))
    if len({_place(hop) for hop in several}) == 1:
        return ways
    weighted = st.builds(replace, st.sampled_from(several), weight=st.sampled_from(WEIGHTS))
    return ways | ways | st.lists(weighted, min_size=2, max_size=3, unique_by=_place).map(canonical_hops)


def metrics() -> st.SearchStrategy[Metrics]:
    """Some metrics of a route, each once."""
    return st.lists(st.sampled_from(METRICS), max_size=3, unique_by=lambda each: each[0]).map(ordered)


def scopes(kind: str, hops: Sequence[NextHop]) -> st.SearchStrategy[str | None]:
    """Every scope that the kernel takes for an IPv4 route; None for the usual one."""
    if kind == "local":
        return st.none()
    taken = ["global", "site"]
    if not any(hop.gateway for hop in hops):
        taken += ["link", "host"] if len(hops) == 1 else ["link"]
    usual = usual_scope(kind, hops, ipv6=False)
    return st.none() | st.sampled_from([each for each in taken if each != usual])


def _place(hop: NextHop) -> tuple[str, str | None]:
    return hop.device, hop.gateway


@st.composite
def routes(draw: st.DrawFn, nics: Sequence[Interface]) -> Route:
    """A route of any type and family through some interfaces; without interfaces only one of the reject types."""
    ipv6 = draw(st.booleans())
    dest = draw(st.sampled_from(IPV6_DESTINATIONS if ipv6 else IPV4_DESTINATIONS))
    table = draw(st.sampled_from(TABLES))
    metric = draw(st.sampled_from(IPV6_METRICS if ipv6 else IPV4_METRICS))
    tos = 0 if ipv6 else draw(st.sampled_from(TOSES))
    kind = draw(st.sampled_from(("unicast",) * 8 + DIRECT_TYPES + REJECT_TYPES if nics else REJECT_TYPES))
    if kind in REJECT_TYPES:
        return Route(dest=dest, type=kind, table=table, metric=metric, tos=tos)
    if kind in DIRECT_TYPES:
        # All addresses as those of the sandbox, or of groups, leave no gateway in that table.
        table = DIRECT_TABLE if dest.endswith("/0") else draw(st.sampled_from((table, TABLE_LOCAL)))
        devices = [nic.name for nic in nics] + ["lo"] * (kind == "local")
        hops: tuple[NextHop, ...] = (NextHop(device=draw(st.sampled_from(devices))),)
    else:
        hops = draw(_ways(nics, ipv6=ipv6))
    # A path's MTU is not above that of its links.
    most = min((interface.mtu for interface in nics if interface.name in {hop.device for hop in hops}), default=1280)
    own = (
        []
        if ipv6
        else [each.address.partition("/")[0] for nic in nics for each in nic.addresses if not is_ipv6(each.address)]
    )
    mtu = draw(st.sampled_from([mtu for mtu in ROUTE_MTUS if mtu <= most]))
    return Route(
        dest=dest,
        type=kind,
        nexthops=hops,
        table=table,
        metric=metric,
        source=draw(st.none() | st.sampled_from(own)) if own else None,
        mtu=mtu,
        mtu_lock=bool(mtu) and draw(st.booleans()),
        metrics=draw(metrics()),
        scope=None if ipv6 else draw(scopes(kind, hops)),
        pref=draw(st.sampled_from(PREFERENCES)) if ipv6 else "medium",
        tos=tos,
    )


def neighbours(nics: Sequence[Interface]) -> st.SearchStrategy[Neighbour]:
    """A neighbour of any kind and family on some interface."""

    def made(address: str, device: str, mac: str, *, router: bool) -> Neighbour:
        # Without a MAC address it is a proxy.
        return Neighbour(address=address, device=device, hw_addr=mac, proxy=not mac, router=router and is_ipv6(address))

    devices = st.sampled_from([nic.name for nic in nics])
    return st.builds(made, st.sampled_from(NEIGHBOURS), devices, st.sampled_from((*MACS[:2], "")), router=st.booleans())


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule of any kind and family. Many have all but a field or two in common.

    The kernel looks for gateways by its rules (fib_check_nh: no protocol, port or mark, of root). None of these is for
    that.
    """
    ipv6 = draw(st.booleans())
    networks = st.none() | st.sampled_from(IPV6_DESTINATIONS[1:] if ipv6 else IPV4_DESTINATIONS[1:])
    action = draw(st.sampled_from(("table", "table", "table", "l3mdev", "goto", *REJECT_ACTIONS)))
    looks_up = action in {"table", "l3mdev"}
    decided = Rule(
        family="ipv6" if ipv6 else "ipv4",
        priority=draw(st.sampled_from((0, 100, 100, 100, 32766, 4294967290))),
        suppress_prefixlength=draw(st.sampled_from((NO_SUPPRESSION, 0, 8))) if looks_up else NO_SUPPRESSION,
        l3mdev=action == "l3mdev",
        action="table" if looks_up else action,
        table=draw(st.sampled_from((*TABLES, 255))) if action == "table" else 0,
        goto=draw(st.sampled_from((4294967291, 4294967292))) if action == "goto" else 0,
    )
    if draw(st.integers(0, 7)) == 0:
        return replace(decided, invert=True, uidrange=(0, 0))
    mask = draw(st.sampled_from((0, 0xFF, ALL_BITS)))
    ports = st.sampled_from((None, None, (53, 53), (8000, 8080)))
    ipproto, sport, dport = draw(st.sampled_from((0, 6, 253))), draw(ports), draw(ports)
    is_free = not (mask or ipproto or sport or dport)
    return replace(
        decided,
        from_=draw(networks),
        to=draw(networks),
        iif=draw(st.sampled_from(NAMES[:2] if is_free else (None, "lo", *NAMES[:2]))),
        oif=draw(st.sampled_from((None, None, "lo", NAMES[0]))),
        fwmark=0x10 & mask,
        fwmask=mask,
        ipproto=ipproto,
        sport=sport,
        dport=dport,
        uidrange=draw(st.sampled_from((None, None, (0, 0), (1000, 1999)))),
        tos=draw(st.sampled_from((0, 0, 0x10))),
    )


def _without_decoration(rule: Rule) -> Rule:
    """Return a rule without what no two rules of a kernel may differ by alone."""
    return replace(rule, invert=False, goto=0)


@st.composite
def sandboxes(
    draw: st.DrawFn,
    devices: Sequence[str],
    driver: DriverAddress,
    *,
    sandbox_id: str = "generated",
    kinds: Options = MappingProxyType({}),
) -> Sandbox:
    """A sandbox with all sections but IPVS, of some of the given host devices under names of its own.

    The same device has the same subnets in each sandbox, whatever its name there. `kinds`: of links that are made, with
    the values of their options.
    """
    count = draw(st.integers(0, min(len(devices), INTERFACES_MAX)))
    chosen = draw(st.permutations(range(len(devices))))[:count]
    names, macs = draw(st.permutations(NAMES)), draw(st.permutations(MACS))
    nics = tuple(
        draw(interfaces(number, devices[number], name=name, hw_addr=mac))
        for number, name, mac in zip(chosen, names, macs, strict=False)
    )
    interfaces_ = draw(_some_down(draw(made_links(kinds, nics)) if kinds else list(nics)))
    count = draw(st.integers(0, ROUTES_MAX))
    usable = [each for each in interfaces_ if each.up and (each.addresses or each in nics)]
    section = st.lists(routes(usable), min_size=count, max_size=count, unique_by=lambda route: route.key)
    near = st.lists(neighbours(nics), max_size=NEIGHBOURS_MAX, unique_by=lambda each: each.key) if nics else st.just([])
    return Sandbox(
        id=sandbox_id,
        driver=driver,
        interfaces=tuple(interfaces_),
        neighbours=tuple(draw(near)),
        routes=tuple(draw(section)),
        rules=tuple(draw(st.lists(rules(), max_size=RULES_MAX, unique_by=_without_decoration))),
    )

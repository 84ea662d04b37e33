"""A row for each field of each object: a manifest without it, one with it, and the value that a kernel must then have.

A field that has no default has another value before. Names and values are those of the model, as `readers` reads them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Ipvs, Server, Service, Timeouts
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Sandbox

Data = dict[str, Any]
MACS = [f"02:42:20:6f:b3:{number:02x}" for number in range(1, 6)]


@dataclasses.dataclass(frozen=True)
class Row:
    """One field of one kind of object.

    `before` and `after`: the object in a manifest. `value`: what the kernel has afterwards; `also`: other fields that
    have to change with it. `shows`: words that only a plan for `after` has. `variant` tells rows of one field apart.
    """

    kind: type
    field: str
    before: Data
    after: Data
    value: Any
    shows: str
    also: Data = dataclasses.field(default_factory=dict)
    variant: str = ""

    @property
    def id(self) -> str:
        return f"{self.kind.__name__}.{self.field}.{self.variant}".rstrip(".")


def rows(kind: type, base: Data, *changes: tuple[Any, ...], variant: str = "") -> list[Row]:
    """Make rows of (field, what the manifest says, value, words).

    Optional are fields that change with it, and another base.
    """
    made = []
    for name, said, value, shows, *rest in changes:
        also, more = (*rest, {}, {})[:2]
        made.append(Row(kind, name, base | more, base | more | said, value, shows, also, variant))
    return made


# `DEVICE` and `MULTIQUEUE` stand for devices of the host, `SOCKET` for that of a backend.
NIC = {"name": "eth0", "device": "DEVICE", "hwAddr": MACS[0], "mtu": 1500, "addresses": ["10.0.0.2/16"]}
INTERFACES = rows(
    Interface,
    NIC,
    ("name", {"name": "net0"}, "net0", "net0"),
    ("device", {"device": "OTHER"}, "OTHER", "OTHER"),
    ("hw_addr", {"hwAddr": MACS[1]}, MACS[1], MACS[1]),
    ("mtu", {"mtu": 1400}, 1400, "mtu 1400"),
    ("up", {"state": "down"}, False, "down"),
    (
        "addresses",
        {"addresses": ["10.0.0.2/16", "10.5.0.1/24"]},
        [("10.0.0.2/16", True), ("10.5.0.1/24", True)],
        "10.5.0.1/24",
    ),
    (
        "sysctls",
        {"sysctls": {"accept_ra": 0, "ipv6.forwarding": 1}},
        {"accept_ra": 0, "ipv6.forwarding": 1},
        "sysctl -w net.ipv6.conf.eth0.accept_ra=0",
        {},
        {"sysctls": {"accept_ra": 2, "ipv6.forwarding": 0}},
    ),
    # One that is left out stays as it is.
    (
        "attributes",
        {"alias": "it's mine", "txQueueLen": 77, "gsoMaxSize": 30000, "arp": False, "allmulticast": True},
        {"ifalias": "it's mine", "txqlen": 77, "gso_max_size": 30000, "NOARP": True, "ALLMULTI": True},
        """alias 'it'"'"'s mine' txqueuelen 77 gso_max_size 30000 arp off allmulticast on""",
        {},
        {"alias": "", "txQueueLen": 1000, "gsoMaxSize": 65536, "arp": True, "allmulticast": False},
    ),
    (
        "altnames",
        {"altnames": ["uplink-of-the-rack", "b"]},
        ["b", "uplink-of-the-rack"],
        "altname uplink-of-the-rack",
        {},
        {"altnames": ["a"]},
    ),
)
SYSCTLS = rows(
    Sandbox,
    {"sysctls": {"net.ipv4.ip_forward": 0, "net.ipv6.bindv6only": 0}},
    (
        "sysctls",
        {"sysctls": {"net.ipv4.ip_forward": 1, "net.ipv6.bindv6only": 0}},
        {"net.ipv4.ip_forward": 1, "net.ipv6.bindv6only": 0},
        "sysctl -w net.ipv4.ip_forward=1",
    ),
)
PLUGGED = rows(
    Interface,
    NIC,
    # A TAP of several queues is never plugged with the default, which is a single one.
    ("queues", {"queues": 3}, 3, "queues=3", {}, {"device": "MULTIQUEUE", "queues": 2}),
    ("vhost_user_socket", {"vhostUserSocket": "SOCKET"}, "SOCKET", "netdev_add vhost-user"),
)
ADDRESS = {"address": "fd00::2/64"}
ADDRESSES = [
    *rows(
        Address,
        ADDRESS,
        ("address", {"address": "fd00::3/64"}, "fd00::3/64", "fd00::3/64"),
        ("dad", {"dad": False}, False, "nodad"),
        ("metric", {"metric": 7}, 7, "metric 7", {"connected": [("fd00::/64", 7)]}),
        ("noprefixroute", {"noprefixroute": True}, True, "noprefixroute", {"connected": []}),
        (
            "peer",
            {"address": "fd00::2", "peer": "fd00::9/64", "dad": False},
            "fd00::9",
            "fd00::2 peer fd00::9/64",
            {"dad": False, "connected": [("fd00::9", 256), ("fd00::/64", 256)]},
        ),
    ),
    *rows(
        Address,
        {"address": "10.0.0.2/16"},
        ("label", {"label": "eth0:1"}, "eth0:1", "label eth0:1"),
        ("scope", {"scope": "link"}, "link", "scope link"),
        ("metric", {"metric": 7}, 7, "metric 7", {"connected": [("10.0.0.0/16", 7)]}),
        ("noprefixroute", {"noprefixroute": True}, True, "noprefixroute", {"connected": []}),
        (
            "peer",
            {"address": "10.0.0.2", "peer": "10.9.0.9/16"},
            "10.9.0.9",
            "10.0.0.2 peer 10.9.0.9/16",
            {"connected": [("10.9.0.0/16", 0)]},
        ),
        variant="ipv4",
    ),
]

ROUTE = {"dest": "10.8.0.0/16", "device": "eth0"}
ROUTE6 = {"dest": "2001:db8::/32", "device": "eth0"}
_HOP = {"device": "eth0", "gateway": None, "weight": 1, "on_link": False}
_OTHER_HOP = {"device": "eth1", "gateway": "10.1.0.1", "weight": 1, "on_link": False}
# A metric of a route, what a manifest says, what `ip` lists, and its words.
METRICS: list[tuple[Any, ...]] = [
    ("window", 9000, {"window": 9000}, "window 9000"),
    ("advmss", 1000, {"advmss": 1000}, "advmss 1000"),
    ("hoplimit", 7, {"hoplimit": 7}, "hoplimit 7"),
    ("initcwnd", 20, {"initcwnd": 20}, "initcwnd 20"),
    ("initrwnd", 30, {"initrwnd": 30}, "initrwnd 30"),
    # The kernel heeds it only if it is locked.
    ("rtoMin", 40, {"rto_min": 40}, "rto_min 40ms", {"locked": ["rto_min"]}),
    ("quickack", True, {"quickack": 1}, "quickack 1"),
    ("congctl", "cubic", {"congestion": "cubic"}, "congctl cubic"),
    ("features", ["ecn"], {"ecn": None}, "features ecn"),
]
ROUTES = [
    *rows(
        Route,
        ROUTE,
        ("dest", {"dest": "10.9.0.0/16"}, "10.9.0.0/16", "10.9.0.0/16"),
        ("type", {"type": "prohibit"}, "prohibit", "prohibit", {"nexthops": [], "scope": "global"}),
        ("table", {"table": 5000}, 5000, "table 5000"),
        ("metric", {"metric": 7}, 7, "metric 7"),
        ("source", {"source": "10.0.0.2"}, "10.0.0.2", "src 10.0.0.2"),
        ("mtu", {"mtu": 1400}, 1400, "mtu 1400"),
        ("mtu_lock", {"mtuLock": True}, True, "mtu lock 1400", {}, {"mtu": 1400}),
        ("scope", {"scope": "host"}, "host", "scope host"),
        ("tos", {"tos": 16}, 16, "tos 0x10"),
    ),
    *rows(
        Route,
        ROUTE6,
        ("dest", {"dest": "2001:db9::/32"}, "2001:db9::/32", "2001:db9::/32"),
        ("type", {"type": "blackhole"}, "blackhole", "blackhole", {"nexthops": []}),
        ("table", {"table": 7}, 7, "table 7"),
        ("metric", {"metric": 7}, 7, "metric 7"),
        ("source", {"source": "fd00::2"}, "fd00::2", "src fd00::2"),
        ("mtu", {"mtu": 1400}, 1400, "mtu 1400"),
        ("mtu_lock", {"mtuLock": True}, True, "mtu lock 1400", {}, {"mtu": 1400}),
        ("pref", {"pref": "high"}, "high", "pref high"),
        variant="ipv6",
    ),
    *(
        row
        for family, base in (("", ROUTE), ("6", ROUTE6))
        for name, said, value, shows, *also in METRICS
        for row in rows(Route, base, ("metrics", {name: said}, value, shows, *also), variant=f"{name}{family}")
    ),
    # The scope follows from the type, and the table of `ip` would.
    Row(Route, "type", ROUTE, ROUTE | {"type": "local"}, "local", "local 10.8.0.0/16", {"scope": "host"}, "local"),
    Row(Route, "type", ROUTE, ROUTE | {"type": "multicast"}, "multicast", "multicast 10.8.0.0/16", {}, "multicast"),
    Row(Route, "type", ROUTE6, ROUTE6 | {"type": "local"}, "local", "local 2001:db8::/32", {}, "local6"),
    *rows(Route, ROUTE | {"type": "local"}, ("table", {"table": 255}, 255, "table local"), variant="local"),
    Row(
        Route,
        "type",
        ROUTE,
        {"dest": "10.8.0.0/16", "type": "throw"},
        "throw",
        "throw 10.8.0.0/16",
        {"nexthops": [], "scope": "global"},
        "throw",
    ),
    # A route of another type has no device.
    Row(
        Route,
        "nexthops",
        {"dest": "10.8.0.0/16", "device": "eth0"},
        {"dest": "10.8.0.0/16", "nexthops": [{"device": "eth0"}, {"device": "eth1", "gateway": "10.1.0.1"}]},
        [_HOP, _OTHER_HOP],
        "nexthop via 10.1.0.1 dev eth1",
        {"scope": "global"},
    ),
]
for _row in ROUTES:
    if _row.field == "type" and _row.variant in {"", "ipv6"}:
        del _row.after["device"]

HOP = {"device": "eth0"}
HOPS = [
    *rows(
        NextHop,
        HOP,
        ("device", {"device": "eth1"}, "eth1", "nexthop dev eth1"),
        ("gateway", {"gateway": "10.0.0.1"}, "10.0.0.1", "via 10.0.0.1"),
        ("weight", {"weight": 256}, 256, "weight 256"),
        ("on_link", {"onLink": True}, True, "onlink", {}, {"gateway": "10.0.0.1"}),
    ),
    # An IPv4 route through a gateway of IPv6.
    *rows(NextHop, HOP, ("gateway", {"gateway": "fd00::9"}, "fd00::9", "via inet6 fd00::9"), variant="mixed"),
    *rows(
        NextHop,
        HOP | {"gateway": "10.0.0.1"},
        ("gateway", {"gateway": "fe80::9"}, "fe80::9", "via inet6 fe80::9"),
        variant="alone-mixed",
    ),
    *rows(
        NextHop,
        HOP | {"gateway": "fd00::1"},
        ("gateway", {"gateway": "fd00::9"}, "fd00::9", "via fd00::9"),
        ("weight", {"weight": 5}, 5, "weight 5"),
        ("on_link", {"onLink": True}, True, "onlink"),
        variant="ipv6",
    ),
    *rows(
        NextHop,
        HOP | {"gateway": "10.0.0.1"},
        ("gateway", {"gateway": "10.0.0.9"}, "10.0.0.9", "via 10.0.0.9"),
        ("on_link", {"onLink": True}, True, "onlink"),
        variant="alone",
    ),
]

RULE = {"priority": 100, "table": 5000}
_SELECTED = {"from": "10.0.0.0/16"}
RULES = [
    *rows(
        Rule,
        RULE,
        ("family", {"family": "ipv6"}, "ipv6", "ip -6 rule"),
        ("priority", {"priority": 101}, 101, "priority 101"),
        ("from_", {"from": "10.0.0.0/16"}, "10.0.0.0/16", "from 10.0.0.0/16"),
        ("to", {"to": "10.8.0.0/16"}, "10.8.0.0/16", "to 10.8.0.0/16"),
        ("iif", {"iif": "eth0"}, "eth0", "iif eth0"),
        ("oif", {"oif": "eth0"}, "eth0", "oif eth0"),
        ("fwmark", {"fwmark": 16}, 16, "fwmark 0x10", {"fwmask": 0xFFFFFFFF}),
        ("fwmask", {"fwmark": "0x0/0xff"}, 255, "fwmark 0x0/0xff"),
        ("ipproto", {"ipproto": "udp"}, 17, "ipproto 17"),
        ("sport", {"sport": "1000-2000"}, (1000, 2000), "sport 1000-2000"),
        ("dport", {"dport": 443}, (443, 443), "dport 443"),
        ("uidrange", {"uidrange": "1000-1999"}, (1000, 1999), "uidrange 1000-1999"),
        ("tos", {"tos": 16}, 16, "tos 0x10"),
        ("suppress_prefixlength", {"suppressPrefixlength": 0}, 0, "suppress_prefixlength 0"),
        ("invert", {"invert": True}, True, "not priority", {}, _SELECTED),
        ("table", {"table": 7}, 7, "lookup 7"),
    ),
    *(
        Row(Rule, name, RULE, {"priority": 100} | said, value, shows, {"table": 0} | also)
        for name, said, value, shows, also in (
            ("l3mdev", {"l3mdev": True}, True, "l3mdev", {}),
            ("action", {"action": "prohibit"}, "prohibit", "prohibit", {}),
            ("goto", {"goto": 200}, 200, "goto 200", {"action": "goto"}),
        )
    ),
    *rows(Rule, {"priority": 100, "goto": 200}, ("goto", {"goto": 300}, 300, "goto 300"), variant="alone"),
]
NEIGHBOUR = {"address": "10.0.0.9", "device": "eth0", "hwAddr": MACS[0]}
NEIGHBOURS = [
    *rows(
        Neighbour,
        NEIGHBOUR,
        ("address", {"address": "10.0.0.10"}, "10.0.0.10", "10.0.0.10"),
        ("device", {"device": "eth1"}, "eth1", "dev eth1 nud"),
        ("hw_addr", {"hwAddr": MACS[1]}, MACS[1], MACS[1]),
    ),
    *rows(Neighbour, NEIGHBOUR | {"address": "fd00::9"}, ("router", {"router": True}, True, "router")),
    Row(
        Neighbour,
        "proxy",
        NEIGHBOUR,
        {"address": "10.0.0.9", "device": "eth0", "proxy": True},
        True,
        "proxy 10.0.0.9",
        {"hw_addr": ""},
    ),
]

SERVER = {"address": "10.9.9.1:8080"}
_TUNNEL = {"address": "10.9.9.1", "forward": "tunnel"}
_GUE = _TUNNEL | {"tunType": "gue", "tunPort": 6080}
SERVERS = rows(
    Server,
    SERVER,
    ("address", {"address": "10.9.9.2:8080"}, "10.9.9.2", "-r 10.9.9.2:8080"),
    ("port", {"address": "10.9.9.1:8081"}, 8081, "-r 10.9.9.1:8081"),
    ("forward", {"forward": "dr"}, "dr", "-g", {}, {"address": "10.9.9.1"}),
    ("weight", {"weight": 7}, 7, "-w 7"),
    ("upper_threshold", {"upperThreshold": 9}, 9, "-x 9"),
    ("lower_threshold", {"lowerThreshold": 4}, 4, "-y 4", {}, {"upperThreshold": 9}),
    ("tun_type", {"tunType": "gre"}, "gre", "--tun-type gre", {}, _TUNNEL),
    ("tun_port", {"tunPort": 6081}, 6081, "--tun-port 6081", {}, _GUE),
    ("tun_checksum", {"tunChecksum": "csum"}, "csum", "--tun-csum", {}, _GUE),
)
SERVICE = {"udp": "10.1.0.1:53", "servers": []}
_STICKY = {"persistent": 60}
SERVICES = [
    *rows(
        Service,
        SERVICE,
        ("address", {"udp": "10.1.0.2:53"}, "10.1.0.2", "-u 10.1.0.2:53"),
        ("port", {"udp": "10.1.0.1:54"}, 54, "-u 10.1.0.1:54"),
        ("scheduler", {"scheduler": "rr"}, "rr", "-s rr"),
        ("scheduler_flags", {"schedulerFlags": ["flag-1", "flag-3"]}, ("flag-1", "flag-3"), "-b flag-1,flag-3"),
        ("persistent", {"persistent": 60}, 60, "-p 60"),
        ("netmask", {"netmask": "255.255.0.0"}, "255.255.0.0", "-M 255.255.0.0", {}, _STICKY),
        ("persistence_engine", {"persistenceEngine": "sip"}, "sip", "--pe sip", {}, _STICKY),
        ("one_packet", {"onePacket": True}, True, "-o"),
        ("servers", {"servers": [{"address": "10.9.9.1"}]}, ["10.9.9.1:53"], "-a -u 10.1.0.1:53"),
    ),
    Row(Service, "protocol", SERVICE, {"sctp": "10.1.0.1:53"}, "sctp", "--sctp-service 10.1.0.1:53"),
]
TIMEOUTS = rows(
    Timeouts,
    {},
    ("tcp", {"tcp": 100}, 100, "ipvsadm --set 100 0 0"),
    ("tcpfin", {"tcpfin": 7}, 7, "ipvsadm --set 0 7 0"),
    ("udp", {"udp": 1}, 1, "ipvsadm --set 0 0 1"),
)
TABLES = rows(
    Ipvs,
    {},
    ("services", {"services": [SERVICE]}, [("udp", "10.1.0.1", 53)], "-A -u 10.1.0.1:53"),
    ("timeouts", {"timeouts": {"udp": 7}}, (900, 120, 7), "ipvsadm --set 0 0 7"),
    ("sysctls", {"sysctls": {"conntrack": 1}}, {"conntrack": 1, "sloppy_tcp": 0}, "sysctl -w net.ipv4.vs.conntrack=1"),
)

INSIDE = [*SYSCTLS, *INTERFACES, *ADDRESSES, *ROUTES, *HOPS, *RULES, *NEIGHBOURS]
BALANCED = [*SERVERS, *SERVICES, *TIMEOUTS, *TABLES]
# Weights that the manifest leaves to others; a test of its own, as nothing in the kernel says so.
IGNORED = rows(
    Service,
    {"udp": "10.1.0.1:53", "servers": [{"address": "10.9.9.1"}]},
    ("ignore", {"ignore": ["weight"]}, ("weight",), ""),
)
ROWS = [*INSIDE, *PLUGGED, *BALANCED, *IGNORED]
KINDS: tuple[type, ...] = (
    Sandbox,
    Interface,
    Address,
    Route,
    NextHop,
    Rule,
    Neighbour,
    Server,
    Service,
    Timeouts,
    Ipvs,
)
# Fields that no manifest says, and those that no kernel keeps, each with the tests about it.
WITHOUT_ROW: dict[tuple[type, str], str] = {
    **dict.fromkeys(((Sandbox, name) for name in ("id", "driver", "paused", "checks")), "it is not in a kernel"),
    **dict.fromkeys(
        ((Sandbox, name) for name in ("interfaces", "neighbours", "routes", "rules", "ipvs")),
        "its objects have rows of their own",
    ),
    (Ipvs, "guard"): "it is of a watch: tests/watch/test_machines.py",
    (Interface, "made"): "each option of each kind: tests/made/test_kinds.py",
    (Interface, "master"): "it needs a second interface: tests/made/test_kinds.py",
    (Interface, "marked"): "no manifest has it: tests/adoption",
    **{(Address, field): "only observed: tests/adversary" for field in ("protocol", "opaque")},
    **{(Route, field): "only observed: tests/netlink/test_route.py" for field in ("protocol", "from_", "opaque")},
    **{(kind, field): "only observed: tests/netlink" for kind in (Rule, Neighbour) for field in ("protocol", "opaque")},
    (Neighbour, "permanent"): "a desired neighbour never expires: tests/netlink",
    (Service, "marked"): "no tool shows it: tests/ipvs/test_ownership.py",
    (Service, "draining"): "only while servers drain: tests/traffic/test_schedulers.py",
    (Service, "other_flags"): "only observed: tests/ipvs/test_unusual.py",
    (Ipvs, "exclude"): "it leaves services alone: tests/ipvs/test_ownership.py",
    (Ipvs, "drain"): "it delays deletions: tests/traffic/test_drain.py",
}


# NICs for the objects that go with one.
FIRST = NIC | {"addresses": ["10.0.0.2/16", {"address": "fd00::2/64", "dad": False}]}
SECOND = {
    "name": "eth1",
    "device": "OTHER",
    "hwAddr": MACS[4],
    "mtu": 1500,
    "addresses": ["10.1.0.2/16", {"address": "fd01::2/64", "dad": False}],
}


def sections(kind: type, said: Data, variant: str = "") -> Data:
    """Return the sections of a manifest that has an object of a kind."""
    nics = {"interfaces": [FIRST, SECOND]}
    found: dict[type, Data] = {
        Sandbox: nics | said,
        Interface: {"interfaces": [said]},
        Address: {"interfaces": [NIC | {"addresses": [said]}]},
        NextHop: nics | {"routes": [_route(said, variant)]},
        Route: nics | {"routes": [said]},
        Rule: nics | {"rules": [said]},
        Neighbour: nics | {"neighbours": [said]},
        Server: {"ipvs": {"services": [{"udp": "10.1.0.1:8080", "servers": [said]}]}},
        Service: {"ipvs": {"services": [said]}},
        Timeouts: {"ipvs": {"timeouts": said} if said else {}},
        Ipvs: {"ipvs": said},
    }
    return found[kind]


def _route(hop: Data, variant: str) -> Data:
    """Return a route whose first next hop is this one; only one that is alone has no other."""
    if variant.startswith("alone"):
        return {"dest": "10.8.0.0/16"} | hop
    ipv6 = variant == "ipv6"
    other = {"device": "eth1", "gateway": "fd01::1" if ipv6 else "10.1.0.1"}
    return {"dest": "2001:db8::/32" if ipv6 else "10.8.0.0/16", "nexthops": [hop, other]}

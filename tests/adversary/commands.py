"""What an adversary does with `ip`: commands with every option of links, addresses, routes, rules and neighbours.

`words` reads the options from the help of the installed `ip`; a test compares them with what stands here, so that an
option of tomorrow is not forgotten. Commands are lines of `ip -batch`, `;` separates several.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Literal

from reconciler.values import dataclass
from tests.system.box import MACS

OBJECTS = ("link", "address", "route", "rule", "neigh")

# What only reads, or stands for something in the grammar.
_READING = {
    *{"list", "show", "get", "save", "restore", "showdump", "help", "afstats", "xstats"},
    *{"bucket", "root", "match", "exact", "up", "type", "all", "fibmatch", "from", "oif", "mark", "uid", "default"},
    *{
        "inet",
        "ms",
        "medium",
        "permanent",
        "dynamic",
        "secondary",
        "primary",
        "tentative",
        "deprecated",
        "dadfailed",
        "temporary",
        "to",
    },
}
# Options of devices, tunnels and hardware that no NIC of a sandbox is, and of programs: none changes what is compared.
_ELSEWHERE = {
    **dict.fromkeys(("vf", "mac", "vlan", "qos", "rate", "max_tx_rate", "min_tx_rate", "spoofchk"), "SR-IOV"),
    **dict.fromkeys(("query_rss", "state", "auto", "enable", "disable", "trust", "node_guid", "port_guid"), "SR-IOV"),
    **dict.fromkeys(("xdp", "xdpgeneric", "xdpdrv", "xdpoffload", "object", "section", "program", "verbose"), "XDP"),
    **dict.fromkeys(("pinned", "endpoint"), "BPF"),
    **dict.fromkeys(("mpls", "seg6", "seg6local", "rpl", "ioam6", "xfrm", "bridge"), "an encapsulation or family"),
    **dict.fromkeys(("mode", "segs", "hmac", "cleanup", "encap", "inline", "l2encap", "action", "count"), "SRv6"),
    **dict.fromkeys(("flavors", "srh", "red", "nh4", "nh6", "vrftable", "psp", "usp", "usd", "next-csid"), "SRv6"),
    **dict.fromkeys(("trace", "prealloc", "ns", "size", "if_id", "link_dev"), "IOAM, XFRM"),
    "netns": "the NIC is elsewhere: tests/system/test_lifecycle.py",
    "link-netns": "of a device that is made",
    "parentdev": "finds a device on a bus",
    "numtxqueues": "of a device that is made",
    "numrxqueues": "of a device that is made",
    "link-netnsid": "a number for a namespace",
}

Expected = Literal["mended", "not ours", "enough"]


_IPV6 = re.compile(r"\b(2001:|fe80:|ff00:)|::/0")


@dataclass(frozen=True)
class Attack:
    """A command, and what takes it back where apply does not.

    `expected`: "not ours" if it changes what no manifest speaks of and what harms no packet (docs/manifest.md lists
    that), "enough" if the object is as desired but has lost our mark, "mended" in all other cases.
    """

    command: str
    undo: str = ""
    expected: Expected = "mended"

    @property
    def family(self) -> str:
        """Return the option of `ip` for the family; a destination such as `default` does not tell."""
        return "-6" if _IPV6.search(self.command) else "-4"


def words(kind: str) -> set[str]:
    """Return the words of the help of an object of `ip`, without placeholders and the kinds of links."""
    text = subprocess.run(["ip", kind, "help"], check=False, capture_output=True, text=True).stderr
    text = re.sub(r"^TYPE := \{ amt.*?\}", "", text, flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"(?<![A-Za-z0-9_])[a-z][a-z0-9_-]+", text)) - {"ip", "for", "get"}


def covered(kind: str) -> set[str]:
    """Return the words that are in a command for an object, or that need none."""
    tried = {word for each in attacks() for word in f"{each.command} {each.undo}".replace(";", " ").split()}
    return tried | _READING | set(_ELSEWHERE) | {kind}


def attacks() -> Iterator[Attack]:
    """Yield all commands."""
    yield from _links()
    yield from _made()
    yield from _down()
    yield from _addresses()
    yield from _routes()
    yield from _tuned()
    yield from _derived()
    yield from _nexthops()
    yield from _rules()
    yield from _neighbours()


def _links() -> Iterator[Attack]:
    for each in ("down", "mtu 1400", "mtu 1280", "mtu 1000", f"address {MACS[9]}"):
        yield Attack(f"link set dev eth0 {each}")
    for each in ("txqueuelen 77", "gso_max_size 30000", "arp off", "allmulticast on"):
        yield Attack(f"link set dev eth0 {each}")
    yield Attack("link set dev eth0 down; link set dev eth0 name adv0")
    yield Attack("link set dev eth0 name adv0")
    for each, back in (
        ("multicast off", "multicast on"),
        (f"broadcast {MACS[9]}", "broadcast ff:ff:ff:ff:ff:ff"),
        ("addrgenmode none", "addrgenmode eui64"),
        ("protodown on", "protodown off"),
        ("protodown_reason 3 on", "protodown_reason 3 off"),
        ("carrier off", "carrier on"),
    ):
        yield Attack(f"link set dev eth0 {each}", f"link set dev eth0 {back}")
    yield Attack("link set dev eth0 addrgenmode none; link set dev eth0 down", "link set dev eth0 addrgenmode eui64")
    for each, back in (
        ("dynamic on", "dynamic off"),
        ("promisc on", "promisc off"),
        ("trailers on", "trailers off"),
        ("group 7", "group default"),
        ("addrgenmode stable_secret", "addrgenmode eui64"),
        ("addrgenmode random", "addrgenmode eui64"),
        ("gso_max_segs 30", "gso_max_segs 65535"),
        ("gro_max_size 30000", "gro_max_size 65536"),
    ):
        yield Attack(f"link set dev eth0 {each}", f"link set dev eth0 {back}", "not ours")
    yield Attack("link property add dev eth0 altname another-name-of-eth0")
    yield Attack("link property del dev eth0 altname uplink")
    yield Attack("link set dev eth0 alias other")
    yield Attack(
        "link add adv0 type bridge; link set dev eth0 master adv0", "link set dev eth0 nomaster; link del adv0"
    )
    yield Attack(
        "link add adv0 type vrf table 77; link set dev adv0 up; link set dev eth0 vrf adv0",
        "link set dev eth0 nomaster; link delete dev adv0",
    )
    yield Attack("link add link eth0 name adv0 index 4711 address 02:00:00:00:00:77 type macvlan", "link del adv0")
    yield Attack(
        "link add adv0 type dummy; link set dev adv0 up; address add 192.0.2.2/24 dev adv0",
        "link del adv0; link del dummy0",
    )
    yield Attack("link set dev eth0 type macvlan mode bridge")


def _made() -> Iterator[Attack]:
    for each in (
        *("down", "mtu 1300", f"address {MACS[9]}", "name adv0", "type bridge ageing_time 7000"),
        *("type bridge forward_delay 700", "type bridge stp_state 1", "type bridge vlan_filtering 1"),
        *("type bridge mcast_snooping 1", "down; link set dev br0 name adv0"),
    ):
        yield Attack(f"link set dev br0 {each}")
    for each in ("down", f"address {MACS[9]}", "name adv0", "type macvlan mode vepa", "mtu 1300"):
        yield Attack(f"link set dev mv0 {each}")
    yield Attack("link del br0")
    yield Attack("link del mv0")
    yield Attack("link set dev eth1 down; link del mv0; link set dev eth1 up")
    yield Attack("link set dev port0 nomaster")
    yield Attack("link set dev port0 down; link del br0")
    yield Attack("address flush dev br0")
    yield Attack("address del 172.31.0.2/24 dev mv0; link set dev mv0 down")
    # Another link in its place, and one that has lost our mark.
    yield Attack("link del mv0; link add mv0 link eth1 type macvlan mode private", "link del mv0")
    mark = "dev br0 altname reconciler.made.br0"
    yield Attack(f"link property del {mark}", f"link property add {mark}")
    yield Attack("link set dev br0 alias adv", "link set dev br0 alias ''", "not ours")
    yield Attack("link set dev br0 type bridge priority 7", "link set dev br0 type bridge priority 32768", "not ours")


def _down() -> Iterator[Attack]:
    for each in ("up", "mtu 1400", "up name adv0", f"up address {MACS[9]}"):
        yield Attack(f"link set dev eth2 {each}")
    yield Attack("link set dev eth2 up; link set dev eth2 down")
    yield Attack("link set dev eth2 up; route add 10.40.0.0/16 via 172.29.0.1; route flush root 172.29.0.0/24 dev eth2")
    for host, address in (
        ("172.29.0.2", "172.29.0.2/24"),
        ("198.51.100.20", "198.51.100.20 peer 198.18.0.20/32"),
        ("2001:db8:28::2", "2001:db8:28::2 peer 2001:db8:28::9/64"),
    ):
        yield Attack(f"address del {address} dev eth2")
        yield Attack(f"address change {address} dev eth2 valid_lft 600 preferred_lft 500")
        yield Attack(f"address del {address} dev eth2; address add {host} dev eth2 noprefixroute")
        # Packets to the address come on other NICs still.
        yield Attack(f"route del local {host} dev eth2 table local")
        yield Attack(f"link set dev eth2 up; route del local {host} dev eth2 table local")
    kernels = "local 172.29.0.2 table local proto kernel scope host"
    yield Attack(f"route replace {kernels} dev lo", f"route replace {kernels} dev eth2 src 172.29.0.2")
    blackhole = "blackhole 172.29.0.2 table local"
    yield Attack(f"route prepend {blackhole} scope host", f"route del {blackhole}")


# An IPv4 and an IPv6 address with its prefix length, and what is in the same network.
_ADDRESSES = (("192.0.2.2", "24", "192.0.2.88"), ("2001:db8:1::2", "64", "2001:db8:1::88"))


def _addresses() -> Iterator[Attack]:
    for host, length, other in _ADDRESSES:
        address = f"{host}/{length}"
        yield Attack(f"address del {address} dev eth0")
        yield Attack(f"address flush to {address}")
        for each in ("change", "replace"):
            yield Attack(f"address {each} {address} dev eth0 valid_lft 600 preferred_lft 500")
        yield Attack(f"address change {address} dev eth0 preferred_lft 0")
        yield Attack(f"address change {address} dev eth0 preferred_lft 500")
        yield Attack(f"address change {address} dev eth0 metric 77")
        flags = ("nodad", "home", "mngtmpaddr", "noprefixroute", "autojoin")
        for flag in flags:
            yield Attack(f"address change {address} dev eth0 {flag}")
        brd = "192.0.2.254" if length == "24" else "2001:db8:1::ff"
        for option in (
            *flags,
            f"broadcast {brd}",
            f"anycast {brd}",
            "label eth0:adv",
            "scope link",
            "scope host",
            "scope 7",
            "metric 77",
            "valid_lft 600 preferred_lft forever",
            "valid_lft forever preferred_lft 77",
        ):
            yield Attack(f"address del {address} dev eth0; address add {address} dev eth0 {option}")
        # The same address with another length or peer.
        for again in (f"{host}/{int(length) + 1}", f"{host} peer {other}/{length}", f"{host} peer {other}"):
            yield Attack(f"address del {address} dev eth0; address add {again} dev eth0")
            yield Attack(f"address add {again} dev eth0")
        yield Attack(f"address add {other}/{length} dev eth0")
        yield Attack(f"address add {other}/{length} dev eth0 label eth0:adv")
        # Leased: not ours.
        yield Attack(
            f"address add {other}/{length} dev eth0 valid_lft 60 preferred_lft 50",
            f"address del {other}/{length} dev eth0",
        )
        yield Attack(f"address add {other}/{length} dev lo", f"address del {other}/{length} dev lo")
        yield Attack(f"address del {address} dev eth0; address add {address} dev eth1")
    yield Attack("address add 198.51.100.42 peer 203.0.113.1/32 dev eth0")
    for own, prefix in (("198.51.100.10", "198.18.0.9/32"), ("2001:db8:7::2", "2001:db8:7::9/64")):
        peer, _, length = prefix.partition("/")
        for again in (f"{own}/{length}", f"{own} peer {peer[:-1]}8/{length}"):
            yield Attack(f"address del {own} peer {prefix} dev eth0; address add {again} dev eth0")
        yield Attack(f"address add {own[:-1]}7 peer {prefix} dev eth0")
        yield Attack(f"route del {peer} dev eth0")
    yield Attack("address add fe80::77/64 dev eth0")
    yield Attack("address flush dev eth0")
    yield Attack("address flush scope link", "")
    yield Attack("address flush permanent dev eth0 scope global")
    yield Attack("address flush label eth0")
    for address, options in (
        ("192.0.2.130/27", ("metric 50 scope link", "label eth0:web metric 50", "label eth0:web metric 51 scope link")),
        ("192.0.2.162/27", ("", "noprefixroute label eth0:1", "noprefixroute label eth0:adv")),
        ("2001:db8:5::2/64", ("", "metric 71", "metric 70 noprefixroute")),
        ("198.51.100.10 peer 198.18.0.9/32", ("", "metric 71", "noprefixroute")),
        ("2001:db8:7::2 peer 2001:db8:7::9/64", ("", "metric 71", "noprefixroute")),
        ("2001:db8:6::2/64", ("", "metric 70")),
    ):
        for option in options:
            yield Attack(f"address del {address} dev eth0; address add {address} dev eth0 {option}")
            yield Attack(f"address change {address} dev eth0 {option}")
    yield Attack("route del 192.0.2.128/27 dev eth0")
    yield Attack("route del 2001:db8:5::/64 dev eth0")
    # The second address of a network becomes its first.
    yield Attack("address del 192.0.2.2/24 dev eth0; address add 192.0.2.2/24 dev eth0")


# A destination that is ours, its gateway, another gateway, its words (without gateway), and its options.
_ROUTES = (
    ("10.0.0.0/8", "via 192.0.2.1 dev eth0", "metric 100 src 192.0.2.3 mtu 1400 advmss 1360", "192.0.2.200"),
    (
        "2001:db8:10::/48",
        "via 2001:db8:1::1 dev eth0",
        "metric 100 src 2001:db8:1::3 mtu 1400 advmss 1340",
        "2001:db8:1::c8",
    ),
)
# The same of routes that have all metrics, with what is told by another option.
_TCP = "mtu lock 1400 window 9000 hoplimit 33 initcwnd 20 rto_min 40ms initrwnd 30 quickack 1 congctl cubic"
_TUNED = (
    ("10.20.0.0/16", "tos 16 via inet6 2001:db8:1::1 dev eth0", f"{_TCP} features ecn"),
    ("2001:db8:20::/48", "via 2001:db8:1::1 dev eth0 metric 1024", f"{_TCP} pref high"),
)
# Other values of what a manifest has, then what no manifest has.
_OPTIONS = (
    *("mtu 1300", "mtu lock 1400", "advmss 1000"),
    *("rtt 77ms", "rttvar 77ms", "reordering 7", "window 7000", "cwnd 7", "initcwnd 7", "ssthresh 7", "rto_min 77ms"),
    *("hoplimit 7", "initrwnd 7", "features ecn", "quickack 1", "congctl reno", "realms 7", "realms 3/7", "pref high"),
    *(
        "pref low",
        "expires 600",
        "fastopen_no_cookie 1",
        "ttl-propagate enabled",
        "ttl-propagate disabled",
        "onlink",
        "pervasive",
    ),
    *("scope link", "scope host", "scope 7", "as to 192.0.2.7", "as 192.0.2.7"),
)
_TYPES = (
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "throw",
    "unreachable",
    "prohibit",
    "blackhole",
    "nat",
    "unicast",
)


def _routes() -> Iterator[Attack]:
    for dest, via, usual, other in _ROUTES:
        yield Attack(f"route del {dest} metric 100")
        yield Attack(f"route flush exact {dest}")
        yield Attack(f"route flush {dest} table main")
        yield Attack(f"route change {dest} {via} metric 100 proto 200")
        for option in _OPTIONS:
            yield Attack(f"route replace {dest} {via} {usual} {option} proto 200")
        yield Attack(f"route replace {dest} via {other} dev eth0 {usual} proto 200")
        yield Attack(f"route replace {dest} dev eth0 metric 100 proto 200")
        for protocol in ("static", "boot", "kernel", "77"):
            yield Attack(f"route replace {dest} {via} {usual} proto {protocol}", _again(dest, via, usual), "enough")
        encap = "encap ip6 id 7 dst 2001:db8:1::7" if ":" in dest else "encap ip id 7 dst 192.0.2.7"
        yield Attack(f"route replace {dest} {encap} {via} {usual} proto 200")
        two = f"nexthop {via} weight 1 nexthop via {other} dev eth0 weight 7"
        yield Attack(f"route replace {dest} proto 200 metric 100 {two}")
        for kind in _TYPES:
            hop = "" if kind in {"throw", "unreachable", "prohibit", "blackhole"} else "dev eth0"
            place = f"{kind} {dest}"
            yield Attack(f"route replace {place} {hop} metric 100 proto 200", f"route del {place} metric 100")
            back = f"route del {place} metric 100 proto boot; {_again(dest, via, usual)}"
            yield Attack(f"route del {dest} metric 100; route add {place} {hop} metric 100", back)
            for how in ("prepend", "append"):
                yield Attack(f"route {how} {place} {hop} metric 100", f"route del {place} metric 100 proto boot")
            yield Attack(f"route add {place} {hop} metric 7", f"route del {place} metric 7")
            yield Attack(f"route add {place} {hop} metric 700", f"route del {place} metric 700")
        yield Attack(f"route prepend {dest} via {other} metric 100", f"route del {dest} via {other} metric 100")
        yield Attack(f"route add {dest} via {other} tos 8 metric 100", f"route del {dest} via {other} tos 8")
        yield Attack(f"route add {dest} via {other} tos 8 metric 100 proto 200")
        yield Attack(f"route add {dest} via {other} metric 100 table 7 proto 200")
    yield Attack(
        "route add 2001:db8:10::/48 from 2001:db8:1::/64 via 2001:db8:1::7",
        "route del 2001:db8:10::/48 from 2001:db8:1::/64",
    )
    yield Attack("route add 2001:db8:10::/48 from 2001:db8:1::/64 via 2001:db8:1::7 proto 200")
    yield Attack("route replace 10.0.0.0/8 via inet6 2001:db8:1::1 dev eth0 metric 100 proto 200")
    for dest in ("default", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16", "10.6.0.0/16"):
        yield Attack(f"route del {dest} proto 200")
    for dest in ("::/0", "2001:db8:11::/48", "2001:db8:13::/48", "2001:db8:14::/48"):
        yield Attack(f"route del {dest} proto 200")
    yield Attack("route replace 10.1.0.0/16 proto 200 nexthop via 192.0.2.1 dev eth0 nexthop via 203.0.113.1 dev eth1")
    yield Attack("route append 2001:db8:11::/48 via 2001:db8:1::7 dev eth0 metric 1024")
    yield Attack("route flush table 100")
    # What the kernel has made of `lo`, which is not ours, comes back with it.
    restored = "link set lo down; link set lo up"
    for table, more in (("main", ""), ("all", f"; {restored}"), ("local", f"; {restored}")):
        yield Attack(f"route flush table {table}{more}")
        yield Attack(f"route flush table {table} dev eth0")
    yield Attack("route flush proto 200")
    yield Attack("route flush proto kernel")
    yield Attack("route flush scope link")
    yield Attack("route flush type unicast")
    yield Attack("route flush vrf adv0")
    yield Attack(f"route flush root ::/0 table all; {restored}")
    yield Attack("route flush match ::/0 table main")


def _tuned() -> Iterator[Attack]:
    """Yield what changes the metrics, the scope, the preference or the type of routes."""
    for dest, via, usual in _TUNED:
        yield Attack(f"route del {dest} {via}")
        yield Attack(f"route replace {dest} {via} proto 200")
        options = usual.replace("mtu lock", "mtu_lock").split()
        for name, value in zip(options[::2], options[1::2], strict=True):
            left = usual.replace(f"{name.replace('_lock', ' lock')} {value}", "").strip()
            yield Attack(f"route replace {dest} {via} {left} proto 200")
        for change in ("mtu 1400", "mtu lock 1300", "window 7", "hoplimit 34", "initcwnd 21", "congctl reno"):
            name = change.split()[0]
            value = {"mtu": "lock 1400", "window": "9000", "hoplimit": "33", "initcwnd": "20", "congctl": "cubic"}[name]
            yield Attack(f"route replace {dest} {via} {usual.replace(f'{name} {value}', change)} proto 200")
    yield Attack("route replace 2001:db8:20::/48 via 2001:db8:1::1 dev eth0 metric 1024 pref low proto 200")
    yield Attack("route add 10.20.0.0/16 via inet6 2001:db8:1::1 dev eth0 tos 8 proto 200")
    yield Attack(
        "route replace 10.20.0.0/16 tos 16 via inet6 fe80::7 dev eth0 proto static",
        f"route replace 10.20.0.0/16 {_TUNED[0][1]} {_TUNED[0][2]} proto 200",
    )
    yield Attack("route replace 10.21.0.0/16 dev eth0 scope link proto 200")
    yield Attack("route replace 10.7.0.0/16 proto 200 dev eth0")
    yield Attack("route replace local 10.22.0.0/16 dev eth0 table 100 proto 200")
    yield Attack("route replace throw 10.22.0.0/16 table 100 proto 200")
    yield Attack("route replace 239.1.0.0/16 dev eth0 proto 200")
    for gone in ("local 10.22.0.0/16 table 100", "multicast 239.1.0.0/16", "throw 10.7.0.0/16", "10.21.0.0/16"):
        yield Attack(f"route del {gone}")
    yield Attack("route del local 2001:db8:22::/48 dev lo table local")


def _again(dest: str, via: str, usual: str) -> str:
    """Return what gives us back a route of ours."""
    return f"route replace {dest} {via} {usual} proto 200"


# What the kernel has made of 192.0.2.2/24 and of 2001:db8:1::2/64.
_CONNECTED = (("192.0.2.0/24", "src 192.0.2.2", "192.0.2.200"), ("2001:db8:1::/64", "metric 256", "2001:db8:1::c8"))


def _derived() -> Iterator[Attack]:
    """Yield what hits the objects that the kernel makes by itself."""
    for dest, usual, other in _CONNECTED:
        at = "metric 256" if ":" in dest else ""
        back = f"route replace {dest} dev eth0 {usual} proto kernel"
        yield Attack(f"route del {dest} dev eth0")
        for option in (*_OPTIONS, "src 192.0.2.3" if not at else "src 2001:db8:1::3"):
            yield Attack(f"route replace {dest} dev eth0 {usual} proto kernel {option}", back)
        yield Attack(f"route replace {dest} dev eth1 {at} proto kernel", back)
        yield Attack(f"route replace {dest} dev eth1 {at} proto static", back)
        yield Attack(f"route replace {dest} dev eth0 {at} proto static", back, "enough")
        yield Attack(f"route replace {dest} via {other} dev eth0 onlink {at}", back)
        for kind in ("throw", "unreachable", "prohibit", "blackhole"):
            gone = f"route del {kind} {dest} {at} proto boot"
            yield Attack(f"route prepend {kind} {dest} {at}", gone)
            yield Attack(f"route replace {kind} {dest} {at}", f"{gone}; {back}")
        yield Attack(f"route prepend {dest} via {other} dev eth0 onlink {at}", f"route del {dest} via {other} {at}")
        yield Attack(f"route add {dest} via {other} dev eth0 onlink tos 8 {at}", f"route del {dest} via {other} tos 8")
    for each in (
        *("local 192.0.2.2", "local 192.0.2.3", "local 198.51.100.2", "broadcast 192.0.2.255"),
        *("local 2001:db8:1::2", "local 2001:db8:1::3", "multicast ff00::/8"),
    ):
        yield Attack(f"route del {each} dev eth0 table local")
    yield Attack("route del fe80::/64 dev eth0")
    yield Attack(
        "route replace local 192.0.2.2 dev lo table local proto kernel scope host",
        "route replace local 192.0.2.2 dev eth0 table local proto kernel scope host src 192.0.2.2",
    )
    yield Attack(
        "route prepend blackhole 192.0.2.2 table local scope host", "route del blackhole 192.0.2.2 table local"
    )
    yield Attack("route add local 192.0.2.99 dev eth0", "route del local 192.0.2.99 dev eth0 table local")


def _nexthops() -> Iterator[Attack]:
    """Yield what uses objects of `ip nexthop`."""
    for (dest, via, usual, _), other in zip(_ROUTES, ("192.0.2.66", "2001:db8:1::66"), strict=True):
        made = f"nexthop add id 7 via {other} dev eth0"
        yield Attack(f"{made}; route replace {dest} nhid 7 metric 100 proto 200", "nexthop del id 7")
        yield Attack(f"{made}; route add {dest} nhid 7 metric 7 proto 200", "nexthop del id 7")
        yield Attack(f"nexthop add id 7 {via}; route replace {dest} nhid 7 {usual} proto 200", "nexthop del id 7")


def _rules() -> Iterator[Attack]:
    ours = "from 10.9.0.0/16 table 100 protocol 200"
    # Without the protocol, the kernel's own rules go as well: a warning, in tests/manifest/test_warn.py.
    yield Attack("rule flush protocol 200")
    for priority in range(100, 160, 10):
        yield Attack(f"rule del pref {priority}")
    yield Attack("rule del pref 160 from 2001:db8:9::/48")
    for selector in (
        *("to 10.0.0.0/8", "tos 8", "fwmark 7", "fwmark 7/0xff", "iif eth1", "oif eth1", "uidrange 1-2", "ipproto udp"),
        *("ipproto tcp sport 7", "ipproto tcp dport 7-9", "realms 7", "realms 3/7", "suppress_prefixlength 8"),
        *("suppress_ifgroup 7", "tun_id 7"),
    ):
        yield Attack(f"rule add pref 100 {ours} {selector}")
        yield Attack(f"rule del pref 100; rule add pref 100 {ours} {selector}")
    yield Attack("rule del pref 100; rule add pref 100 not from 10.9.0.0/16 table 100 protocol 200")
    yield Attack("rule add pref 101 l3mdev protocol 200")
    yield Attack("rule add pref 101 from 10.9.0.0/16 goto 150 protocol 200")
    for action in ("blackhole", "unreachable", "prohibit", "nop", "nat 192.0.2.7", "table 77", "table default"):
        yield Attack(f"rule add pref 101 from 10.9.0.0/16 {action} protocol 200")
        yield Attack(f"rule del pref 100; rule add pref 100 from 10.9.0.0/16 {action} protocol 200")
    yield Attack("rule del pref 100; rule add pref 99 " + ours)
    yield Attack(
        "rule del pref 100; rule add pref 100 from 10.9.0.0/16 table 100 protocol static",
        "rule del pref 100; rule add pref 100 " + ours,
        "enough",
    )
    yield Attack("rule add pref 7 from 10.9.0.0/16 table 77", "rule del pref 7")


def _neighbours() -> Iterator[Attack]:
    for address in ("192.0.2.9", "2001:db8:1::9"):
        router = "" if address[0] == "1" else "router "
        yield Attack(f"neigh del {address} dev eth0")
        yield Attack(f"neigh flush dev eth0 to {address} nud permanent")
        yield Attack(f"neigh change {address} lladdr {MACS[9]} dev eth0 nud permanent protocol 200")
        for state in ("delay", "failed", "incomplete", "noarp", "none", "permanent", "probe", "reachable", "stale"):
            yield Attack(f"neigh replace {address} lladdr {MACS[8]} dev eth0 nud {state} {router}protocol 200")
        for flag in ("router", "use", "managed", "extern_learn"):
            yield Attack(f"neigh replace {address} lladdr {MACS[8]} dev eth0 nud permanent {flag} protocol 200")
        yield Attack(
            f"neigh replace {address} lladdr {MACS[8]} dev eth0 nud permanent {router}protocol static",
            f"neigh replace {address} lladdr {MACS[8]} dev eth0 nud permanent {router}protocol 200",
            "enough",
        )
    yield Attack("neigh del proxy 192.0.2.77 dev eth0")
    yield Attack("neigh add 192.0.2.10 lladdr 02:00:00:00:00:77 dev eth0 protocol 200")
    yield Attack("neigh add proxy 192.0.2.78 dev eth0 protocol 200")
    yield Attack("neigh add 192.0.2.10 lladdr 02:00:00:00:00:77 dev eth0", "neigh del 192.0.2.10 dev eth0")
    yield Attack("neigh flush dev eth0 nud all")

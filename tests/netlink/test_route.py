from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from reconciler.errors import ProtocolError
from reconciler.model.address import split_prefix
from reconciler.model.route import NextHop, Route, canonical_hops
from reconciler.netlink import message, route
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import execute
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute, RouteOperation
from reconciler.values import replace
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine
from tests.netlink.strategies import INDEXES, NAMES, attribute_bytes, routes, spoiled

TYPE_NUMBERS = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw", 2: "local", 5: "multicast"}
ONLINK = 4

# What the kernel appends to a dumped IPv6 route: struct rta_cacheinfo, and the router preference: 0 is medium.
CACHE_INFO = message.attribute(route.CACHEINFO, bytes(32))


def preference(value: int) -> bytes:
    return message.attribute(route.PREF, bytes([value]))


def read_with_pyroute2(data: bytes) -> tuple[Any, Route]:
    """Decode a request with pyroute2: the message, and the route that it says by pyroute2's names and numbers."""
    told: Any = rtmsg(data)
    told.decode()
    values = dict(told["attrs"])
    metrics = dict(values["RTA_METRICS"]["attrs"]) if "RTA_METRICS" in values else {}
    hops = [
        NextHop(
            device=NAMES[hop["oif"]],
            gateway=_gateway(dict(hop["attrs"])),
            weight=hop["hops"] + 1,
            on_link=hop["flags"] == ONLINK,
        )
        for hop in values.get("RTA_MULTIPATH", ())
    ]
    if "RTA_OIF" in values:
        on_link = told["flags"] == ONLINK
        hops.append(NextHop(device=NAMES[values["RTA_OIF"]], gateway=_gateway(values), on_link=on_link))
    unspecified = "0.0.0.0" if told["family"] == AF_INET else "::"
    return told, Route(
        dest=f"{values.get('RTA_DST', unspecified)}/{told['dst_len']}",
        type=TYPE_NUMBERS[told["type"]],
        nexthops=tuple(hops),
        table=values["RTA_TABLE"],
        metric=values.get("RTA_PRIORITY", 0),
        source=values.get("RTA_PREFSRC"),
        mtu=metrics.get("RTAX_MTU", 0),
        mtu_lock=bool(metrics.get("RTAX_LOCK", 0) & 1 << 2),
        metrics=tuple((field, metrics[name]) for name, field in METRIC_NAMES.items() if name in metrics),
        pref={1: "high", 3: "low"}.get(values.get("RTA_PREF", 0), "medium"),
        tos=told["tos"],
    )


def _gateway(values: dict[str, Any]) -> str | None:
    via: str | None = values["RTA_VIA"]["addr"] if "RTA_VIA" in values else values.get("RTA_GATEWAY")
    return via


METRIC_NAMES = {
    "RTAX_WINDOW": "window",
    "RTAX_ADVMSS": "advmss",
    "RTAX_HOPLIMIT": "hoplimit",
    "RTAX_INITCWND": "initcwnd",
    "RTAX_FEATURES": "features",
    "RTAX_RTO_MIN": "rtoMin",
    "RTAX_INITRWND": "initrwnd",
    "RTAX_QUICKACK": "quickack",
    "RTAX_CC_ALGO": "congctl",
}
OPERATIONS = st.sampled_from(
    (
        (lambda wish: AddRoute(route=wish), message.NEW_ROUTE, 0x601),
        (lambda wish: ReplaceRoute(route=wish, before=Route(dest="::/0")), message.NEW_ROUTE, 0x501),
        (lambda wish: DeleteRoute(route=wish), message.DELETE_ROUTE, 0x001),
    )
)


@settings(deadline=None)
@given(routes(), OPERATIONS, st.integers(0, 0xFFFFFFFF))
def test_pyroute2_reads_in_a_request_what_was_meant(wish: Route, how: Any, sequence: int) -> None:
    make, kind, flags = how
    operation: RouteOperation = make(wish)
    data = route.encode(operation, INDEXES, sequence)
    told, said = read_with_pyroute2(data)
    # The kernel would compare next hops in the order in which it has them; the rest names the route to delete.
    unordered = isinstance(operation, DeleteRoute) and len(wish.nexthops) > 1
    # The scope is compared below.
    assert said == replace(wish, nexthops=() if unordered else wish.nexthops, scope=None)
    assert told["header"] == {
        "length": len(data),
        "type": kind,
        "flags": flags,
        "sequence_number": sequence,
        "pid": 0,
    }
    link_scope = bool(wish.nexthops) and not any(hop.gateway for hop in wish.nexthops)
    usual = 0 if wish.is_ipv6 else 254 if wish.type == "local" else 253 if link_scope else 0
    scope = usual if wish.scope is None else {"global": 0, "site": 200, "link": 253, "host": 254}[wish.scope]
    # A deletion asks for any scope.
    any_scope = not wish.is_ipv6 and isinstance(operation, DeleteRoute)
    assert {name: told[name] for name in ("family", "src_len", "tos", "table", "proto", "scope")} == {
        "family": AF_INET6 if wish.is_ipv6 else AF_INET,
        "src_len": 0,
        "tos": wish.tos,
        "table": wish.table if wish.table < 256 else 252,
        "proto": 200,
        "scope": 255 if any_scope else scope,
    }


@settings(deadline=None)
@given(routes())
def test_a_route_comes_back_as_it_was_encoded(wish: Route) -> None:
    assert route.decode(route.encode_body(wish, INDEXES), NAMES) == wish


@settings(deadline=None)
@given(routes())
def test_a_dump_of_a_desired_route_is_found_by_its_bytes(wish: Route) -> None:
    body = route.encode_body(wish, INDEXES)
    tail = CACHE_INFO + preference(0) if wish.is_ipv6 else b""
    assert route.find_expected(body + tail, {body: wish}) is wish


@settings(deadline=None)
@given(routes().filter(lambda wish: wish.is_ipv6), st.integers(1, 255))
def test_an_ipv6_route_with_another_router_preference_is_another_route(wish: Route, value: int) -> None:
    wish = replace(wish, pref="medium")
    body = route.encode_body(wish, INDEXES)
    dumped = body + CACHE_INFO + preference(value)
    assert route.find_expected(dumped, {body: wish}) is None
    named = {1: "high", 3: "low"}.get(value, "medium")
    words = () if value in (1, 3) else (f"pref {value:02x}",)
    assert route.decode(dumped, NAMES) == replace(wish, pref=named, opaque=words)


@settings(deadline=None)
@given(routes().filter(lambda wish: wish.is_ipv6), st.integers(1, 0x7FFFFFFF))
def test_an_ipv6_route_that_expires_is_another_route(wish: Route, jiffies: int) -> None:
    wish = replace(wish, pref="medium")
    body = route.encode_body(wish, INDEXES)
    cache_info = message.attribute(route.CACHEINFO, bytes(8) + struct.pack("=i", jiffies) + bytes(20))
    dumped = body + cache_info + preference(0)
    assert route.find_expected(dumped, {body: wish}) is None
    # Without the time that is left: words are compared.
    assert route.decode(dumped, NAMES) == replace(wish, opaque=("expires",))


@settings(deadline=None)
@given(routes(), routes())
def test_two_routes_have_the_same_bytes_only_if_they_are_the_same(one: Route, other: Route) -> None:
    assert (route.encode_body(one, INDEXES) == route.encode_body(other, INDEXES)) == (one == other)


def test_a_device_without_an_index_is_a_key_error() -> None:
    plain = Route(dest="10.0.0.0/8", nexthops=(NextHop(device="eth7", gateway="192.0.2.1"),))
    for wish in (plain, replace(plain, metric=1), replace(plain, nexthops=plain.nexthops * 2)):
        with pytest.raises(KeyError, match=r"^'eth7'$"):
            route.encode_body(wish, INDEXES)


def test_an_index_without_a_name_is_named_by_its_number() -> None:
    wish = Route(dest="10.0.0.0/8", nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),))
    found = route.decode(route.encode_body(wish, INDEXES), {})
    assert found == replace(wish, nexthops=(NextHop(device="if2", gateway="192.0.2.1"),))


def rtmsg_bytes(
    family: int = AF_INET,
    length: int = 8,
    source_length: int = 0,
    tos: int = 0,
    table: int = 254,
    protocol: int = 200,
    scope: int = 0,
    kind: int = 1,
    flags: int = 0,
) -> bytes:
    return struct.pack("=BBBBBBBBI", family, length, source_length, tos, table, protocol, scope, kind, flags)


@pytest.mark.parametrize(
    "payload",
    [rtmsg_bytes(flags=0x200), rtmsg_bytes(family=28), rtmsg_bytes(kind=12)],
    ids=["cached", "MPLS", "unknown type"],
)
def test_what_is_no_route_of_a_table_is_left_out(payload: bytes) -> None:
    assert route.decode(payload, NAMES) is None


UNUSUAL = {
    "local": (rtmsg_bytes(table=255, kind=2, scope=254, protocol=2), {"table": 255, "type": "local"}),
    "throw": (rtmsg_bytes(kind=9), {"type": "throw"}),
    "multicast": (rtmsg_bytes(kind=5, scope=253), {"type": "multicast"}),
    "traffic class": (rtmsg_bytes(tos=4), {"tos": 4}),
    "source-specific": (
        rtmsg_bytes(family=AF_INET6, source_length=64) + message.attribute(route.SRC, bytes(16)),
        {"dest": "::/8", "from_": "::/64"},
    ),
    "scope": (rtmsg_bytes(scope=7), {"opaque": ("scope 7",)}),
    "pervasive": (rtmsg_bytes(flags=2), {"opaque": ("pervasive",)}),
    "realms": (rtmsg_bytes() + message.attribute(11, struct.pack("=I", 3 << 16 | 4)), {"opaque": ("realms 3/4",)}),
    "nexthop object": (rtmsg_bytes() + message.attribute(30, struct.pack("=I", 7)), {"opaque": ("nhid 7",)}),
    "encapsulation": (
        rtmsg_bytes() + message.attribute(21, struct.pack("=H", 1)) + message.attribute(22, bytes(4)),
        {"opaque": ("encap mpls",)},
    ),
    "metrics": (
        rtmsg_bytes()
        + message.attribute(8, message.attribute(7, struct.pack("=I", 10)) + message.attribute(16, b"own\0")),
        {"opaque": ("cwnd 10", "congctl own")},
    ),
    "values of metrics": (
        rtmsg_bytes()
        + message.attribute(8, b"".join(message.attribute(n, struct.pack("=I", 5)) for n in (12, 13, 14, 15))),
        {"metrics": (("initrwnd", 5),), "opaque": ("features 5", "rto_min 5", "quickack 5")},
    ),
    "locks": (
        rtmsg_bytes()
        + message.attribute(
            8, b"".join(message.attribute(n, struct.pack("=I", v)) for n, v in ((1, 0x2404), (2, 1400), (10, 5)))
        ),
        {"mtu": 1400, "mtu_lock": True, "opaque": (f"lock {0x2400}", "hoplimit 5")},
    ),
    "what nobody knows yet": (rtmsg_bytes() + message.attribute(99, bytes(4)), {"opaque": ("attribute 99",)}),
}


@pytest.mark.parametrize(("payload", "fields"), UNUSUAL.values(), ids=UNUSUAL)
def test_what_no_manifest_can_say_is_in_the_words_of_iproute2(payload: bytes, fields: dict[str, Any]) -> None:
    expected = Route(**{"dest": "0.0.0.0/8"} | fields)
    assert route.decode(payload, NAMES) == expected
    alike = route.encode_body(replace(expected, opaque=()), INDEXES)
    assert not expected.opaque or route.find_expected(payload, {alike: expected}) is None


@pytest.mark.parametrize("state", [0x01, 0x10, 0x11, 0x40], ids=["dead", "link down", "both", "offloaded"])
@settings(deadline=None)
@given(wish=routes())
def test_the_state_of_a_link_is_no_part_of_a_route(wish: Route, state: int) -> None:
    body = route.encode_body(wish, INDEXES)
    (flags,) = struct.unpack_from("=I", body, 8)
    dumped = body[:8] + struct.pack("=I", flags | state) + body[12:]
    assert route.decode(dumped, NAMES) == wish
    assert route.find_expected(dumped, {body: wish}) is wish


MALFORMED = {
    "short": (bytes(11), "route message of 11 bytes"),
    "table": (
        rtmsg_bytes() + message.attribute(route.TABLE, bytes(3)),
        "route attribute of 3 bytes; 4 were expected",
    ),
    "destination": (
        rtmsg_bytes() + message.attribute(route.DST, bytes(16)),
        "address of 16 bytes; 4 were expected",
    ),
    "gateway": (
        rtmsg_bytes(family=AF_INET6)
        + message.attribute(route.OIF, bytes(4))
        + message.attribute(route.GATEWAY, bytes(4)),
        "address of 4 bytes; 16 were expected",
    ),
    "cut next hop": (rtmsg_bytes() + message.attribute(route.MULTIPATH, bytes(4)), "next hop of a route is cut off"),
    "long next hop": (
        rtmsg_bytes() + message.attribute(route.MULTIPATH, struct.pack("=HBBi", 9, 0, 0, 2)),
        "next hop claims 9 bytes, but 8 are left",
    ),
    "endless next hop": (
        rtmsg_bytes() + message.attribute(route.MULTIPATH, struct.pack("=HBBi", 0, 0, 0, 2)),
        "next hop claims 0 bytes, but 8 are left",
    ),
}


@pytest.mark.parametrize(("payload", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_a_protocol_error(payload: bytes, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        route.decode(payload, NAMES)
    assert str(caught.value) == expected


@pytest.mark.parametrize(("family", "length"), [(AF_INET, 33), (AF_INET6, 129), (AF_INET, 255)])
def test_a_prefix_longer_than_an_address_is_a_protocol_error(family: int, length: int) -> None:
    with pytest.raises(ProtocolError):
        route.decode(rtmsg_bytes(family=family, length=length, kind=6), NAMES)


class _EveryIndex(dict[str, int]):
    """The index of `if17` is 17."""

    def __missing__(self, name: str) -> int:
        return int(name.removeprefix("if"))


@settings(deadline=None)
@given(
    st.tuples(
        st.sampled_from((AF_INET, AF_INET6)), st.integers(0, 140), st.sampled_from((1, 6)), st.integers(0, 255)
    ).map(lambda fields: rtmsg_bytes(family=fields[0], length=fields[1], kind=fields[2], table=fields[3])),
    attribute_bytes() | spoiled(routes().map(lambda wish: route.encode_body(wish, INDEXES)[12:])),
)
def test_whatever_is_decoded_can_be_named_again_to_delete_it(head: bytes, tail: bytes) -> None:
    try:
        decoded = route.decode(head + tail, {})
    except ProtocolError:
        return
    if decoded is not None:
        assert split_prefix(decoded.dest)[1] == head[1]
        assert message.messages(route.encode(DeleteRoute(route=decoded), _EveryIndex(), 1))[0].type == 25


class Case(NamedTuple):
    """A route: as `ip route add` takes it, as the model has it, and as `ip -d route show table all` prints it."""

    words: str
    route: Route
    printed: str

    @property
    def family(self) -> str:
        return "-6" if self.route.is_ipv6 else "-4"


GATEWAY4 = NextHop(device="v0", gateway="192.0.2.1")
GATEWAY6 = NextHop(device="v0", gateway="2001:db8::1")
PLAIN4 = Route(dest="10.1.0.0/16", nexthops=(GATEWAY4,))
PLAIN6 = Route(dest="2001:db8:8::/48", nexthops=(GATEWAY6,), metric=1024)
VIA4 = "unicast 10.1.0.0/16 via 192.0.2.1 dev v0 table"
VIA6 = "unicast 2001:db8:8::/48 via 2001:db8::1 dev v0 table"


def hops(*each: NextHop) -> tuple[NextHop, ...]:
    return canonical_hops(each)


CASES = {
    "gateway": Case("10.1.0.0/16 via 192.0.2.1 dev v0", PLAIN4, f"{VIA4} main scope global"),
    "device": Case(
        "10.1.0.0/16 dev v0",
        replace(PLAIN4, nexthops=hops(NextHop(device="v0"))),
        "unicast 10.1.0.0/16 dev v0 table main scope link",
    ),
    "lo": Case(
        "10.1.0.0/16 dev lo",
        replace(PLAIN4, nexthops=hops(NextHop(device="lo"))),
        "unicast 10.1.0.0/16 dev lo table main scope link",
    ),
    "default": Case(
        "default via 192.0.2.1 dev v0",
        replace(PLAIN4, dest="0.0.0.0/0"),
        "unicast default via 192.0.2.1 dev v0 table main scope global",
    ),
    "host": Case(
        "203.0.113.7 via 192.0.2.1 dev v0",
        replace(PLAIN4, dest="203.0.113.7/32"),
        "unicast 203.0.113.7 via 192.0.2.1 dev v0 table main scope global",
    ),
    "metric": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 metric 4294967295",
        replace(PLAIN4, metric=4294967295),
        f"{VIA4} main scope global metric 4294967295",
    ),
    "table": Case("10.1.0.0/16 via 192.0.2.1 dev v0 table 100", replace(PLAIN4, table=100), f"{VIA4} 100 scope global"),
    "table of the old messages' escape": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 table 252", replace(PLAIN4, table=252), f"{VIA4} 252 scope global"
    ),
    "large table": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 table 4294967295",
        replace(PLAIN4, table=4294967295),
        f"{VIA4} 4294967295 scope global",
    ),
    "mtu": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 mtu 1400", replace(PLAIN4, mtu=1400), f"{VIA4} main scope global mtu 1400"
    ),
    "advmss": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 advmss 1360",
        replace(PLAIN4, metrics=(("advmss", 1360),)),
        f"{VIA4} main scope global advmss 1360",
    ),
    "source": Case(
        "10.1.0.0/16 via 192.0.2.1 dev v0 src 198.51.100.10",
        replace(PLAIN4, source="198.51.100.10"),
        f"{VIA4} main scope global src 198.51.100.10",
    ),
    "onlink": Case(
        "10.1.0.0/16 via 203.0.113.1 dev v0 onlink",
        replace(PLAIN4, nexthops=hops(NextHop(device="v0", gateway="203.0.113.1", on_link=True))),
        "unicast 10.1.0.0/16 via 203.0.113.1 dev v0 table main scope global onlink",
    ),
    "blackhole": Case(
        "blackhole 10.1.0.0/16",
        Route(dest="10.1.0.0/16", type="blackhole"),
        "blackhole 10.1.0.0/16 table main scope global",
    ),
    "unreachable": Case(
        "unreachable 10.1.0.0/16 metric 7",
        Route(dest="10.1.0.0/16", type="unreachable", metric=7),
        "unreachable 10.1.0.0/16 table main scope global metric 7",
    ),
    "prohibit": Case(
        "prohibit default table 100",
        Route(dest="0.0.0.0/0", type="prohibit", table=100),
        "prohibit default table 100 scope global",
    ),
    "next hops": Case(
        "10.1.0.0/16 nexthop via 198.51.100.1 dev v1 weight 256 nexthop via 192.0.2.1 dev v0",
        replace(PLAIN4, nexthops=hops(GATEWAY4, NextHop(device="v1", gateway="198.51.100.1", weight=256))),
        "unicast 10.1.0.0/16 table main scope global "
        "nexthop via 192.0.2.1 dev v0 weight 1 nexthop via 198.51.100.1 dev v1 weight 256",
    ),
    "next hop onlink": Case(
        "10.1.0.0/16 nexthop via 203.0.113.1 dev v0 onlink nexthop dev v1 weight 3",
        replace(
            PLAIN4,
            nexthops=hops(
                NextHop(device="v0", gateway="203.0.113.1", on_link=True), NextHop(device="v1", gateway=None, weight=3)
            ),
        ),
        "unicast 10.1.0.0/16 table main scope global "
        "nexthop via 203.0.113.1 dev v0 weight 1 onlink nexthop dev v1 weight 3",
    ),
    "next hops without a gateway": Case(
        "10.1.0.0/16 scope link nexthop dev v0 nexthop dev v1",
        replace(PLAIN4, nexthops=hops(NextHop(device="v0"), NextHop(device="v1"))),
        "unicast 10.1.0.0/16 table main scope link nexthop dev v0 weight 1 nexthop dev v1 weight 1",
    ),
    "everything": Case(
        "10.1.0.0/16 table 1000 metric 5 src 192.0.2.10 mtu 1400 advmss 1360 "
        "nexthop via 192.0.2.2 dev v0 nexthop via 192.0.2.1 dev v0",
        Route(
            dest="10.1.0.0/16",
            nexthops=hops(GATEWAY4, NextHop(device="v0", gateway="192.0.2.2")),
            table=1000,
            metric=5,
            source="192.0.2.10",
            mtu=1400,
            metrics=(("advmss", 1360),),
        ),
        "unicast 10.1.0.0/16 table 1000 scope global src 192.0.2.10 metric 5 mtu 1400 advmss 1360 "
        "nexthop via 192.0.2.1 dev v0 weight 1 nexthop via 192.0.2.2 dev v0 weight 1",
    ),
    "IPv6 gateway": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0", PLAIN6, f"{VIA6} main scope global metric 1024 pref medium"
    ),
    "IPv6 device": Case(
        "2001:db8:8::/48 dev v0",
        replace(PLAIN6, nexthops=hops(NextHop(device="v0"))),
        "unicast 2001:db8:8::/48 dev v0 table main scope global metric 1024 pref medium",
    ),
    "IPv6 lo": Case(
        "2001:db8:8::/48 dev lo",
        replace(PLAIN6, nexthops=hops(NextHop(device="lo"))),
        "unicast 2001:db8:8::/48 dev lo table main scope global metric 1024 pref medium",
    ),
    "IPv6 default": Case(
        "default via fe80::1 dev v0",
        replace(PLAIN6, dest="::/0", nexthops=hops(NextHop(device="v0", gateway="fe80::1"))),
        "unicast default via fe80::1 dev v0 table main scope global metric 1024 pref medium",
    ),
    "IPv6 host": Case(
        "2001:db8:8::1 via 2001:db8::1 dev v0",
        replace(PLAIN6, dest="2001:db8:8::1/128"),
        "unicast 2001:db8:8::1 via 2001:db8::1 dev v0 table main scope global metric 1024 pref medium",
    ),
    "IPv6 metric": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 metric 4294967295",
        replace(PLAIN6, metric=4294967295),
        f"{VIA6} main scope global metric 4294967295 pref medium",
    ),
    "IPv6 table": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 table 100",
        replace(PLAIN6, table=100),
        f"{VIA6} 100 scope global metric 1024 pref medium",
    ),
    "IPv6 large table": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 table 4294967295",
        replace(PLAIN6, table=4294967295),
        f"{VIA6} 4294967295 scope global metric 1024 pref medium",
    ),
    "IPv6 mtu": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 mtu 1400",
        replace(PLAIN6, mtu=1400),
        f"{VIA6} main scope global metric 1024 mtu 1400 pref medium",
    ),
    "IPv6 advmss": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 advmss 1360",
        replace(PLAIN6, metrics=(("advmss", 1360),)),
        f"{VIA6} main scope global metric 1024 advmss 1360 pref medium",
    ),
    "IPv6 source": Case(
        "2001:db8:8::/48 via 2001:db8::1 dev v0 src 2001:db8:1::10",
        replace(PLAIN6, source="2001:db8:1::10"),
        f"{VIA6} main scope global src 2001:db8:1::10 metric 1024 pref medium",
    ),
    "IPv6 onlink": Case(
        "2001:db8:8::/48 via 2001:db8:9::1 dev v0 onlink",
        replace(PLAIN6, nexthops=hops(NextHop(device="v0", gateway="2001:db8:9::1", on_link=True))),
        "unicast 2001:db8:8::/48 via 2001:db8:9::1 dev v0 table main scope global metric 1024 onlink pref medium",
    ),
    "IPv6 blackhole": Case(
        "blackhole 2001:db8:8::/48",
        Route(dest="2001:db8:8::/48", type="blackhole", metric=1024),
        "blackhole 2001:db8:8::/48 dev lo table main scope global metric 1024 pref medium",
    ),
    "IPv6 unreachable": Case(
        "unreachable 2001:db8:8::/48 metric 7",
        Route(dest="2001:db8:8::/48", type="unreachable", metric=7),
        "unreachable 2001:db8:8::/48 dev lo table main scope global metric 7 pref medium",
    ),
    "IPv6 prohibit": Case(
        "prohibit default table 100",
        Route(dest="::/0", type="prohibit", table=100, metric=1024),
        "prohibit default dev lo table 100 scope global metric 1024 pref medium",
    ),
    "IPv6 next hops": Case(
        "2001:db8:8::/48 nexthop via 2001:db8:1::1 dev v1 weight 256 nexthop via 2001:db8::1 dev v0",
        replace(PLAIN6, nexthops=hops(GATEWAY6, NextHop(device="v1", gateway="2001:db8:1::1", weight=256))),
        "unicast 2001:db8:8::/48 table main scope global metric 1024 pref medium "
        "nexthop via 2001:db8::1 dev v0 weight 1 nexthop via 2001:db8:1::1 dev v1 weight 256",
    ),
    "IPv6 next hop onlink": Case(
        "2001:db8:8::/48 nexthop via 2001:db8:9::1 dev v0 onlink nexthop via 2001:db8:1::1 dev v1",
        replace(
            PLAIN6,
            nexthops=hops(
                NextHop(device="v0", gateway="2001:db8:9::1", on_link=True),
                NextHop(device="v1", gateway="2001:db8:1::1"),
            ),
        ),
        "unicast 2001:db8:8::/48 table main scope global metric 1024 pref medium "
        "nexthop via 2001:db8:9::1 dev v0 weight 1 onlink nexthop via 2001:db8:1::1 dev v1 weight 1",
    ),
    "IPv6 everything": Case(
        "2001:db8:8::/48 table 1000 metric 5 src 2001:db8::10 mtu 1400 advmss 1360 "
        "nexthop via 2001:db8::2 dev v0 nexthop via 2001:db8::1 dev v0",
        Route(
            dest="2001:db8:8::/48",
            nexthops=hops(GATEWAY6, NextHop(device="v0", gateway="2001:db8::2")),
            table=1000,
            metric=5,
            source="2001:db8::10",
            mtu=1400,
            metrics=(("advmss", 1360),),
        ),
        "unicast 2001:db8:8::/48 table 1000 scope global src 2001:db8::10 metric 5 mtu 1400 advmss 1360 pref medium "
        "nexthop via 2001:db8::1 dev v0 weight 1 nexthop via 2001:db8::2 dev v0 weight 1",
    ),
}


@pytest.fixture(scope="module")
def network(root: None) -> Iterator[str]:
    """A namespace with a pair of links, both up, and addresses of both families on each."""
    made = Kernel(prefix=f"r{os.getpid()}route")
    try:
        name = made.namespace()
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", namespace=name)
        for link in ("lo", "v0", "v1"):
            ip("link", "set", link, "up", namespace=name)
        ip("address", "add", "192.0.2.10/24", "dev", "v0", namespace=name)
        ip("address", "add", "198.51.100.10/24", "dev", "v1", namespace=name)
        ip("address", "add", "2001:db8::10/64", "dev", "v0", "nodad", namespace=name)
        ip("address", "add", "2001:db8:1::10/64", "dev", "v1", "nodad", namespace=name)
        yield name
    finally:
        made.remove()


@pytest.fixture
def engine(network: str, open_engine: OpenEngine) -> Iterator[Engine]:
    yield open_engine(network)
    for family in ("-4", "-6"):
        ip(family, "route", "flush", "table", "all", "proto", "200", namespace=network)


def add(network: str, case: Case, protocol: str = "200") -> None:
    ip(case.family, "route", "add", "proto", protocol, *case.words.split(), namespace=network)


def indexes(engine: Engine) -> dict[str, int]:
    return {link.name: link.index for link in engine.links()}


def show(network: str, family: str) -> str:
    """What `ip` has to say of our routes, on one line."""
    return " ".join(ip("-d", family, "route", "show", "table", "all", "proto", "200", namespace=network).split())


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_what_ip_adds_is_decoded_to_the_model(network: str, engine: Engine, case: Case) -> None:
    add(network, case)
    assert engine.routes(indexes(engine), []).ours == [case.route]


@each_case
def test_what_the_engine_adds_is_printed_by_ip(network: str, engine: Engine, case: Case) -> None:
    operation = AddRoute(route=case.route)
    assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, Status.DONE)]]
    assert show(network, case.family) == case.printed


@each_case
def test_what_is_desired_and_there_is_the_very_object(engine: Engine, case: Case) -> None:
    operation = AddRoute(route=case.route)
    assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, Status.DONE)]]
    found = engine.routes(indexes(engine), [case.route]).ours
    assert found == [case.route]
    # The kernel puts IPv6 routes without a next hop on `lo`, which their request does not say.
    by_bytes = case.route.type == "unicast" or not case.route.is_ipv6
    assert (found[0] is case.route) == by_bytes


@each_case
def test_what_the_engine_deletes_is_gone(network: str, engine: Engine, case: Case) -> None:
    add(network, case)
    operation = DeleteRoute(route=case.route)
    assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, Status.DONE)]]
    assert engine.routes(indexes(engine), []).ours == []


@each_case
def test_a_deletion_is_of_our_protocol_only(network: str, engine: Engine, case: Case) -> None:
    add(network, case, protocol="static")
    try:
        operation = DeleteRoute(route=case.route)
        assert list(execute(engine, [operation], indexes(engine))) == [[Outcome(operation, Status.DONE)]]
        assert case.route in engine.routes(indexes(engine), [case.route]).foreign
    finally:
        ip(case.family, "route", "flush", "table", "all", "proto", "static", namespace=network)


@pytest.mark.parametrize("plain", [PLAIN4, PLAIN6], ids=["IPv4", "IPv6"])
def test_a_gateway_is_replaced_in_place(engine: Engine, plain: Route) -> None:
    gateway = "2001:db8::2" if plain.is_ipv6 else "192.0.2.2"
    after = replace(plain, nexthops=(NextHop(device="v0", gateway=gateway),))
    operations: list[RouteOperation] = [AddRoute(route=plain), ReplaceRoute(route=after, before=plain)]
    assert list(execute(engine, operations, indexes(engine))) == [[Outcome(each, Status.DONE) for each in operations]]
    assert engine.routes(indexes(engine), []).ours == [after]


@pytest.mark.parametrize("plain", [PLAIN4, PLAIN6], ids=["IPv4", "IPv6"])
def test_a_route_on_a_link_without_a_carrier_is_the_same_route(network: str, engine: Engine, plain: Route) -> None:
    routes = [plain, replace(plain, table=100, nexthops=(*plain.nexthops, NextHop(device="v1", gateway=None)))]
    if plain.is_ipv6:
        routes[1] = replace(routes[1], nexthops=(GATEWAY6, NextHop(device="v1", gateway="2001:db8:1::1")))
    ip("link", "add", "w0", "type", "veth", "peer", "name", "w1", namespace=network)
    try:
        address = ["2001:db8:5::1/64", "nodad"] if plain.is_ipv6 else ["203.0.113.1/24"]
        ip("link", "set", "w0", "up", namespace=network)
        ip("address", "add", *address, "dev", "w0", namespace=network)
        gateway = "2001:db8:5::2" if plain.is_ipv6 else "203.0.113.2"
        down = NextHop(device="w0", gateway=gateway)
        wishes = [replace(each, nexthops=hops(down, *each.nexthops[1:])) for each in routes]
        for wish in wishes:
            assert list(execute(engine, [AddRoute(route=wish)], indexes(engine))) == [
                [Outcome(AddRoute(route=wish), Status.DONE)]
            ]
        assert "linkdown" in show(network, "-6" if plain.is_ipv6 else "-4")
        found = engine.routes(indexes(engine), wishes).ours
        assert sorted(found, key=str) == sorted(wishes, key=str)
        assert next(each for each in found if each.table == wishes[0].table) is wishes[0]
    finally:
        ip("link", "del", "w0", namespace=network)


def test_routes_of_others_are_foreign(network: str, engine: Engine) -> None:
    add(network, CASES["gateway"], protocol="static")
    try:
        found = engine.routes(indexes(engine), [PLAIN4])
    finally:
        ip("route", "flush", "proto", "static", namespace=network)
    # Which link-local, multicast and loopback routes there are differs from kernel to kernel.
    foreign = [each for each in found.foreign if not each.dest.startswith(("f", "::1"))]
    assert found.ours == []
    assert sorted(foreign, key=str) == [
        PLAIN4,
        Route(dest="192.0.2.0/24", nexthops=(NextHop(device="v0"),), source="192.0.2.10"),
        Route(dest="198.51.100.0/24", nexthops=(NextHop(device="v1"),), source="198.51.100.10"),
        Route(dest="2001:db8:1::/64", nexthops=(NextHop(device="v1"),), metric=256),
        Route(dest="2001:db8::/64", nexthops=(NextHop(device="v0"),), metric=256),
    ]


OTHERS = {
    "locked mtu": ("10.1.0.0/16 via 192.0.2.1 dev v0 mtu lock 1400", replace(PLAIN4, mtu=1400)),
    "window": ("10.1.0.0/16 via 192.0.2.1 dev v0 window 1000", PLAIN4),
    "congestion control": ("10.1.0.0/16 via 192.0.2.1 dev v0 congctl cubic", PLAIN4),
    "IPv6 gateway of an IPv4 route": (
        "10.1.0.0/16 via inet6 2001:db8::1 dev v0",
        replace(PLAIN4, nexthops=hops(NextHop(device="v0"))),
    ),
    "IPv6 gateways of an IPv4 route": (
        "10.1.0.0/16 nexthop via inet6 2001:db8::1 dev v0 nexthop via inet6 2001:db8:1::1 dev v1",
        replace(PLAIN4, nexthops=hops(NextHop(device="v0"), NextHop(device="v1"))),
    ),
    "hop limit": ("2001:db8:8::/48 via 2001:db8::1 dev v0 hoplimit 5", PLAIN6),
    "router preference": ("2001:db8:8::/48 via 2001:db8::1 dev v0 pref high", PLAIN6),
}


@pytest.mark.parametrize(("words", "alike"), OTHERS.values(), ids=OTHERS)
def test_a_route_with_what_no_manifest_can_say_always_differs(
    network: str, engine: Engine, words: str, alike: Route
) -> None:
    ip("-6" if alike.is_ipv6 else "-4", "route", "add", "proto", "200", *words.split(), namespace=network)
    found = engine.routes(indexes(engine), [alike]).ours
    assert [(each.key, each == alike) for each in found] == [(alike.key, False)]

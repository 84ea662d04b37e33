"""Virtual servers are what keepalived makes of them; all else is named once; what is wrong is told with its line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.keepalived.statements import Position
from reconciler.formats.keepalived.variants import parse
from reconciler.model.ipvs import Server, Service
from reconciler.values import replace
from tests.formats.keepalived.generator import written
from tests.formats.strategies import services

Told = list[str]

SITE = """\
! Load balancer of the shop
global_defs {
    router_id LB1
    notification_email { ops@example.com "Duty, night" }   # a block on one line
}

vrrp_script chk { script "/usr/bin/killall -0 nginx" }
vrrp_instance VI_1
{
    state MASTER
    authentication { auth_type PASS auth_pass "s}cret{" }
    virtual_ipaddress {
        10.0.0.1
    }
}
static_routes { 192.168.9.0/24 via 10.0.0.254 }

virtual_server 10.0.0.1 443 {
    delay_loop 6
    lvs_sched mh
    mh-port
    lb_kind DR
    persistence_timeout 300
    persistence_granularity 255.255.255.0
    protocol TCP
    alpha
    quorum 2
    quorum_up "/bin/announce up"
    inhibit_on_failure
    sorry_server 10.0.1.99 443

    real_server 10.0.1.1 443 {
        weight 10
        uthreshold 1000
        lthreshold 800
        notify_down "/bin/page # 1"
        SSL_GET {
            url { path / status_code 200 }
            connect_timeout 3
        }
    }
    real_server 10.0.1.2 443
    {
        lvs_method TUN type gue port 6080 csum
        TCP_CHECK { }
        MISC_CHECK { misc_path "/bin/check { 10.0.1.2" }
    }
}
virtual_server fd00::1 53 {
    protocol udp
    ops
    real_server fd00::2 5353 { weight 0 }
}
SSL { password secret }
"""
SITE_SERVICES = [
    Service(
        protocol="tcp",
        address="10.0.0.1",
        port=443,
        scheduler="mh",
        scheduler_flags=("mh-port",),
        persistent=300,
        netmask="255.255.255.0",
        servers=(
            Server(address="10.0.1.1", port=443, forward="dr", weight=10, upper_threshold=1000, lower_threshold=800),
            Server(
                address="10.0.1.2",
                port=443,
                forward="tunnel",
                tun_type="gue",
                tun_port=6080,
                tun_checksum="csum",
            ),
        ),
    ),
    Service(
        protocol="udp",
        address="fd00::1",
        port=53,
        one_packet=True,
        servers=(Server(address="fd00::2", port=5353, weight=0),),
    ),
]
SITE_LEFT = [
    "a.conf:2: global_defs: not imported",
    "a.conf:7: vrrp_script chk: not imported",
    "a.conf:8: vrrp_instance VI_1: not imported",
    "a.conf:16: static_routes: not imported",
    "a.conf:19: delay_loop 6: not imported",
    "a.conf:26: alpha: not imported",
    "a.conf:27: quorum 2: not imported",
    "a.conf:28: quorum_up /bin/announce up: not imported",
    "a.conf:29: inhibit_on_failure: not imported",
    "a.conf:30: sorry_server 10.0.1.99 443: not imported",
    "a.conf:36: notify_down /bin/page # 1: not imported",
    "a.conf:37: SSL_GET: not imported",
    "a.conf:45: TCP_CHECK: not imported",
    "a.conf:46: MISC_CHECK: not imported",
    "a.conf:54: SSL: not imported",
]


def read(
    text: str, files: Mapping[str, str] | None = None, config_id: str | None = None
) -> tuple[list[Service], Told, Told]:
    """Return the services, the problems, and what is not imported, by file and line."""
    refused: Told = []
    left: list[tuple[Position, str]] = []

    def include(pattern: str, by: str) -> Iterator[tuple[str, str]]:
        if pattern == "unreadable":
            raise ValueError(f"{by} may not read it")
        yield from ((name, text) for name, text in (files or {}).items() if fnmatch(name, pattern))

    found = parse(
        "a.conf",
        text,
        include,
        lambda place, message: refused.append(f"{place}: {message}"),
        lambda place, message: left.append((place, message)),
        config_id,
    )
    return (
        [service for _, service in found.services],
        refused,
        [f"{place}: {message}" for place, message in sorted(left)],
    )


def virtual(*lines: str, head: str = "10.0.0.1 80", server: str = "real_server 10.9.9.9 8080 { }") -> str:
    """Write a virtual server: the lines are from the third on, behind its protocol."""
    return "\n".join((f"virtual_server {head} {{", "protocol TCP", *lines, server, "}"))


def group(lines: str) -> str:
    """Write a virtual server and its group, whose lines are from the sixth on."""
    return virtual(head="group G") + f"\nvirtual_server_group G {{\n{lines}\n}}"


NAT = Server(address="10.9.9.9", port=8080)
TCP = Service(protocol="tcp", address="10.0.0.1", port=80, servers=(NAT,))
DR = replace(NAT, port=80, forward="dr")


def test_a_whole_file() -> None:
    assert read(SITE) == (SITE_SERVICES, [], SITE_LEFT)


def test_where_a_service_stands() -> None:
    found = parse("a.conf", SITE, lambda *_: (), lambda *_: None, lambda *_: None)
    assert [place for place, _ in found.services] == [Position("a.conf", 18), Position("a.conf", 49)]


def with_server(**fields: object) -> Service:
    return replace(TCP, servers=(replace(NAT, **fields),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (virtual(), TCP),
        (virtual("lb_algo rr"), replace(TCP, scheduler="rr")),
        (virtual("lb_algo rr", "lvs_sched wrr"), replace(TCP, scheduler="wrr")),
        (virtual("flag-3", "flag-1"), replace(TCP, scheduler_flags=("flag-1", "flag-3"))),
        (
            virtual("flag-1", "lb_algo sh", "sh-port"),
            replace(TCP, scheduler="sh", scheduler_flags=("sh-fallback", "sh-port")),
        ),
        (virtual("persistence_timeout"), replace(TCP, persistent=360)),
        (virtual("persistence_timeout 2678400"), replace(TCP, persistent=2678400)),
        (virtual("persistence_granularity 255.255.0.0"), replace(TCP, persistent=360, netmask="255.255.0.0")),
        (virtual("persistence_granularity 255.255.255.255", "persistence_timeout 5"), replace(TCP, persistent=5)),
        (
            virtual("persistence_timeout 5", "persistence_engine sip"),
            replace(TCP, persistent=5, persistence_engine="sip"),
        ),
        (virtual("protocol sctp"), replace(TCP, protocol="sctp")),
        (virtual("protocol Udp", "ops"), replace(TCP, protocol="udp", one_packet=True)),
        (virtual("persistence_timeout 5", head="10.0.0.1"), replace(TCP, port=0, persistent=5)),
        (virtual("persistence_timeout 5", head="10.0.0.1 0"), replace(TCP, port=0, persistent=5)),
        (virtual("weight 7"), with_server(weight=7)),
        (virtual("weight 7", server="real_server 10.9.9.9 8080 { weight 0 }"), with_server(weight=0)),
        (virtual(server="real_server 10.9.9.9 {\n}"), with_server(port=80)),
        (virtual(server="real_server 10.9.9.9 80 {\n}\nlb_kind DR"), replace(TCP, servers=(DR,))),
        (virtual("lvs_method DR", server="real_server 10.9.9.9 {\n}"), replace(TCP, servers=(DR,))),
        (virtual("lb_kind DR", server="real_server 10.9.9.9 8080 { lvs_method NAT }"), TCP),
        (
            virtual("lb_kind TUN", server="real_server fd00::9 {}"),
            replace(TCP, servers=(Server(address="fd00::9", port=80, forward="tunnel"),)),
        ),
        (
            virtual("lb_kind TUN type gre csum", server="real_server 10.9.9.9 {}"),
            replace(TCP, servers=(replace(DR, forward="tunnel", tun_type="gre", tun_checksum="csum"),)),
        ),
        (
            virtual("lb_kind TUN remcsum port 5 type gue", server="real_server 10.9.9.9 {}"),
            replace(TCP, servers=(replace(DR, forward="tunnel", tun_type="gue", tun_port=5, tun_checksum="remcsum"),)),
        ),
        (
            virtual(head="FD00:0::1 80", server="real_server fd00::9 80 {}"),
            replace(TCP, address="fd00::1", servers=(Server(address="fd00::9", port=80),)),
        ),
        (
            virtual("persistence_granularity 64", head="fd00::1 80", server="real_server fd00::9 80 {}"),
            replace(
                TCP, address="fd00::1", persistent=360, netmask="64", servers=(Server(address="fd00::9", port=80),)
            ),
        ),
        # A server has the method of the lines above it.
        (
            virtual("lb_kind DR", server="real_server 10.9.9.9 80 {\n}\nlb_kind NAT\nreal_server 10.9.9.8 81 { }"),
            replace(TCP, servers=(DR, Server(address="10.9.9.8", port=81))),
        ),
        # An address ends at - or /.
        (
            virtual(head="10.0.0.1/24 80", server="real_server 10.9.9.9-12 8080 { }"),
            TCP,
        ),
        (virtual(head='"10.0.0.1" "80"', server='real_server "10.9.9.9" 8080 { "weight" "1" }'), TCP),
        (virtual(head="fwmark 7"), replace(TCP, protocol="fwmark", address="0.0.0.0", port=7)),
        (virtual("ops", head="fwmark 7"), replace(TCP, protocol="fwmark", address="0.0.0.0", port=7, one_packet=True)),
        (
            virtual("lb_kind DR", head="fwmark 7", server="real_server 10.9.9.9 {}"),
            replace(TCP, protocol="fwmark", address="0.0.0.0", port=7, servers=(replace(DR, port=0),)),
        ),
        (
            virtual(head="fwmark 7", server="real_server fd00::9 {}"),
            replace(TCP, protocol="fwmark", address="::", port=7, servers=(Server(address="fd00::9"),)),
        ),
        (
            virtual("lb_kind TUN", head="fwmark 7", server="real_server fd00::9 {}"),
            replace(
                TCP, protocol="fwmark", address="::", port=7, servers=(Server(address="fd00::9", forward="tunnel"),)
            ),
        ),
        (
            virtual("lb_kind TUN", "ip_family inet", head="fwmark 7", server="real_server fd00::9 {}"),
            replace(
                TCP,
                protocol="fwmark",
                address="0.0.0.0",
                port=7,
                servers=(Server(address="fd00::9", forward="tunnel"),),
            ),
        ),
        (
            virtual("lb_kind TUN", "persistence_granularity 64", head="fwmark 7", server="real_server 10.9.9.9 {}"),
            replace(
                TCP,
                protocol="fwmark",
                address="::",
                port=7,
                persistent=360,
                netmask="64",
                servers=(replace(DR, port=0, forward="tunnel"),),
            ),
        ),
    ],
)  # fmt: skip
def test_a_virtual_server(text: str, expected: Service) -> None:
    assert read(text) == ([expected], [], [])


GROUP = """\
virtual_server group G {
    protocol TCP
    real_server 10.9.9.9 8080 { }
}
virtual_server_group G {
    10.0.0.1 80
    10.0.0.254-10.0.0.255 80
    10.0.2.7-9 81
    10.0.3.4/31 80
    fwmark 7
}
"""


def test_a_group_is_expanded_in_its_order() -> None:
    found, refused, left = read(GROUP)
    keys = [("10.0.0.1", 80), ("10.0.0.254", 80), ("10.0.0.255", 80)]
    keys += [("10.0.2.7", 81), ("10.0.2.8", 81), ("10.0.2.9", 81), ("10.0.3.4", 80), ("10.0.3.5", 80)]
    expected = [replace(TCP, address=address, port=port) for address, port in keys]
    assert (refused, left) == ([], [])
    assert found == [*expected, replace(TCP, protocol="fwmark", address="0.0.0.0", port=7)]


def test_a_group_of_both_families() -> None:
    text = """\
virtual_server_group G { fd00::fffe-ffff 80
    fd00:1::/127 80
    10.0.0.1 80
    fwmark 7 inet
    fwmark 7 inet6
}
virtual_server group G {
    protocol TCP
    lb_kind TUN
    real_server 10.9.9.9 { }
}"""
    found, refused, left = read(text)
    assert (refused, left) == ([], [])
    assert [service.key for service in found] == [
        *(("tcp", address, 80) for address in ("fd00::fffe", "fd00::ffff", "fd00:1::", "fd00:1::1", "10.0.0.1")),
        ("fwmark", "0.0.0.0", 7),
        ("fwmark", "::", 7),
    ]


def test_servers_take_the_port_of_each_service_of_a_group() -> None:
    text = virtual("lb_kind DR", head="group G", server="real_server 10.9.9.9 80 {}")
    found, refused, left = read(f"{text}\nvirtual_server_group G {{\n10.0.0.1 80\n10.0.0.1 81\n10.0.0.2 81\n}}")
    assert [service.servers[0].port for service in found] == [80, 81, 81]
    assert (refused, left) == (
        [],
        [
            (
                "a.conf:4: real_server 10.9.9.9 80: its port 80 is ignored, as only NAT changes ports; "
                "it gets the port 81 of the service"
            )
        ],
    )


LEFT: list[tuple[str, str]] = [
    (
        virtual("lb_kind DR"),
        (
            "a.conf:4: real_server 10.9.9.9 8080: its port 8080 is ignored, as only NAT changes ports; "
            "it gets the port 80 of the service"
        ),
    ),
    (
        virtual("lb_kind DR", head="fwmark 7"),
        (
            "a.conf:4: real_server 10.9.9.9 8080: its port 8080 is ignored, as only NAT changes ports; "
            "it gets the port of each packet"
        ),
    ),
    (
        virtual("mh-port"),
        "a.conf:3: mh-port: not imported because no line above sets the scheduler to mh, as keepalived requires",
    ),
    (
        virtual("sh-port", "lb_algo sh"),
        "a.conf:3: sh-port: not imported because no line above sets the scheduler to sh, as keepalived requires",
    ),
    (virtual("ops"), "a.conf:3: ops: not imported; TCP services cannot have it, only UDP and firewall marks"),
    (
        virtual("persistence_engine sip"),
        "a.conf:3: persistence_engine sip: not imported because it has no effect without persistence",
    ),
    (virtual("persistence_timeout 0"), "a.conf:3: persistence_timeout 0: not imported because keepalived ignores 0"),
    (
        virtual(head="10.0.0.1"),
        "a.conf:1: virtual_server 10.0.0.1: imported as persistent for 360 s, as keepalived does without a port",
    ),
    (
        virtual().replace("protocol TCP", ""),
        "a.conf:1: virtual_server 10.0.0.1 80: imported as UDP, keepalived's default protocol",
    ),
    (virtual("hysteresis 3"), "a.conf:3: hysteresis 3: not imported"),
    (virtual("quorum 5"), "a.conf:3: quorum 5: not imported"),
    (virtual("sorry_server x"), "a.conf:3: sorry_server x: not imported"),
    (virtual(f"virtualhost {'w' * 99}"), f"a.conf:3: virtualhost {'w' * 68}…: not imported"),
    (
        virtual("connect_timeout ${_ENV TIMEOUT}"),
        "a.conf:3: connect_timeout ${_ENV TIMEOUT}: not imported",
    ),
    (
        virtual() + "\nvirtual_server $VIP 80 {\nreal_server 1.1.1.1 80 {\n}\n}",
        "a.conf:5: virtual_server $VIP 80: not imported because it uses an undefined name",
    ),
    (
        virtual() + "\nvirtual_server_group $G {\n10.0.0.1 80\n}",
        "a.conf:5: virtual_server_group $G: not imported because it uses an undefined name",
    ),
    (
        virtual() + "\nvirtual_server_group G {\n10.0.0.1 80\n}",
        "a.conf:5: virtual_server_group G: not imported because no virtual_server uses this group",
    ),
    (
        virtual() + "\nvirtual_server 10.0.0.2 80 {\n}",
        "a.conf:5: virtual_server 10.0.0.2 80: not imported because it has no real server, as in keepalived",
    ),
    (virtual("include none*.conf", "hysteresis 3"), "a.conf:4: hysteresis 3: not imported"),
    (
        "include nothing.conf\n" + virtual(),
        "a.conf:1: include nothing.conf: not imported because it finds no such file",
    ),
    (virtual(head="10.0.0.1/24 80", server="real_server 10.9.9.9-12 8080 { }\nalpha"), "a.conf:4: alpha: not imported"),
    (
        virtual("persistence_granularity 255.255.0.0", head="group G") + "\nvirtual_server_group G {\n10.0.0.1 80\n}",
        "a.conf:3: persistence_granularity 255.255.0.0: not imported because keepalived does not apply it to groups",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), LEFT)
def test_what_is_left_out(text: str, expected: str) -> None:
    found, refused, left = read(text)
    assert (len(found), refused, left) == (1, [], [expected])


NOT = "a.conf:1: virtual_server 10.0.0.1 80: not imported because"
GROUP_NOT = "a.conf:1: virtual_server group G: not imported because"
DIFFER = "comes from a definition, and versions of keepalived read that differently"
DEPENDS = "it depends on the configuration ID; choose one by --config-id:"
# What leaves out the whole virtual server, and only that.
LEFT_WHOLE: list[tuple[str, str]] = [
    (virtual("@main lb_algo rr"), f"{NOT} {DEPENDS} main"),
    (virtual("@^main lb_algo rr"), f"{NOT} {DEPENDS} main"),
    (
        virtual("$IF lb_algo rr", "$IF=").replace("protocol", "$IF=@^main\nprotocol"),
        f"{NOT} @^main lb_algo rr at a.conf:4 {DIFFER}",
    ),
    (
        virtual("$S= \\", "~SEQ(N,1,2) real_server 10.9.9.${N} 80 { } \\", "", "$S"),
        f"{NOT} ~SEQ(N,1,2) real_server 10.9.9.${{N}} 80 {{ }} at a.conf:6 {DIFFER}",
    ),
    (virtual("@a real_server 10.9.9.8 80 {", "@a }", "@b weight 2"), f"{NOT} {DEPENDS} a, b"),
    (virtual("$RS"), f"{NOT} $RS at a.conf:3 uses an undefined name"),
    (virtual("lb_algo $ALGO"), f"{NOT} lb_algo $ALGO at a.conf:3 uses an undefined name"),
    (virtual("$ALGO rr"), f"{NOT} $ALGO rr at a.conf:3 uses an undefined name"),
    (
        virtual("real_server 10.0.9.${N} 80 {", "weight 5", "}"),
        f"{NOT} real_server 10.0.9.${{N}} 80 at a.conf:3 uses an undefined name",
    ),
    (
        virtual("real_server 10.0.9.1 80 {", "uthreshold $U", "lthreshold 5", "}"),
        f"{NOT} uthreshold $U at a.conf:4 uses an undefined name",
    ),
    (
        virtual("real_server 10.0.9.1 80 {", "TCP_CHECK {", "connect_port ${P}", "}", "}"),
        f"{NOT} connect_port ${{P}} at a.conf:5 uses an undefined name",
    ),
    (virtual("delay_loop ${D}"), f"{NOT} delay_loop ${{D}} at a.conf:3 uses an undefined name"),
    (virtual("weight ${_INSTANCE}"), f"{NOT} weight ${{_INSTANCE}} at a.conf:3 uses an undefined name"),
    # A name for several lines counts only at the end of a line.
    (virtual("$A= \\", " weight 5 \\", "", "$A # all", "$A x"), f"{NOT} $A x at a.conf:7 uses an undefined name"),
    (virtual("@a @b weight 5"), f"{NOT} {DEPENDS} a"),
    (virtual("~FOO(N,1) weight 5"), f"{NOT} ~FOO(N,1) weight 5 at a.conf:3 is no line that keepalived evaluates"),
    (virtual("include {a,b}.conf"), f"{NOT} include {{a,b}}.conf at a.conf:3 finds no such file"),
    (virtual("includer nothing.conf"), f"{NOT} include nothing.conf at a.conf:3 finds no such file"),
    (virtual("{", "}"), f"{NOT} protocol TCP at a.conf:2 has a block, and keepalived knows no such block"),
    (virtual("TCP_CHECK { }"), f"{NOT} TCP_CHECK at a.conf:3 has a block, and keepalived knows no such block"),
    (
        virtual("real_server 10.0.9.1 80 {", "HTTP_CHECK {", "weight 5", "}", "}"),
        f"{NOT} HTTP_CHECK at a.conf:4 has a block, and keepalived knows no such block",
    ),
    (
        virtual("sorry_server 10.9.9.1 80", "real_server 10.9.9.8 80 {", "weight 2", "}", "quorum 3", "hysteresis 1"),
        f"{NOT} all its servers have a weight of 3 and so no quorum, and keepalived takes its sorry_server",
    ),
    (
        virtual("sorry_server 10.9.9.1 80", server="real_server 10.9.9.9 8080 { weight 0 }"),
        f"{NOT} all its servers have a weight of 0 and so no quorum, and keepalived takes its sorry_server",
    ),
    (
        virtual("sorry_server 10.9.9.1 80", "sorry_server_inhibit"),
        f"{NOT} sorry_server_inhibit keeps its sorry_server in the table",
    ),
    (group("10.0.0.1 80\n10.0.0.${N} 80"), f"{GROUP_NOT} 10.0.0.${{N}} 80 at a.conf:7 uses an undefined name"),
    (group("10.0.0.1 80\ninclude more"), f"{GROUP_NOT} include more at a.conf:7 finds no such file"),
    (group("10.0.0.1 80\n@a 10.0.0.2 80"), f"{GROUP_NOT} {DEPENDS} a"),
    (group(""), f"{GROUP_NOT} keepalived ignores it: the group has no entries"),
    (
        group("10.0.0.1 80\nfd00::1 80\nfwmark 7").replace("protocol TCP", "lb_kind TUN"),
        f"{GROUP_NOT} keepalived ignores it: the group has both families, and a fwmark without a family",
    ),
    (
        group("10.0.0.1 80\nfd00::1 80"),
        f"{GROUP_NOT} keepalived ignores it: the group has both families, and a server is not behind a tunnel (TUN)",
    ),
    (group("fd00::1 80"), f"{GROUP_NOT} keepalived ignores it: it is IPv4 and the group is IPv6"),
    (group("fwmark 1 inet6"), f"{GROUP_NOT} keepalived ignores it: it is IPv4 and the group is IPv6"),
    (
        group("10.0.0.1 80\n}\nglobal_defs {\nnftables_ipvs"),
        f"{GROUP_NOT} nftables_ipvs makes keepalived listen on a firewall mark of its own instead",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), LEFT_WHOLE)
def test_what_leaves_out_a_virtual_server(text: str, expected: str) -> None:
    other = virtual(head="10.0.0.99 80")
    found, refused, left = read(f"{text}\n{other}")
    assert (found, refused) == ([replace(TCP, address="10.0.0.99")], [])
    assert [each for each in left if "global_defs" not in each] == [expected]


NUMBER = "expected a number from"
REFUSED: list[tuple[str, str]] = [
    (virtual(head="10.0.0.1 99999"), f"a.conf:1: virtual_server 10.0.0.1 99999: port 99999: {NUMBER} 0 to 65535"),
    (virtual(head="web 80"), 'a.conf:1: virtual_server web 80: "web" is not an IP address'),
    (virtual(head="fwmark 0"), f"a.conf:1: virtual_server fwmark 0: fwmark 0: {NUMBER} 1 to 4294967295"),
    (virtual(head="fwmark"), "a.conf:1: virtual_server fwmark: virtual_server fwmark needs a value"),
    (virtual(head=""), "a.conf:1: virtual_server: virtual_server needs a value"),
    (virtual(head="group H"), "a.conf:1: virtual_server group H: this virtual_server_group is not defined"),
    (virtual("lb_algo wrl"), 'a.conf:3: lb_algo wrl: unknown; did you mean "wrr"?'),
    (virtual("lb_algo"), "a.conf:3: lb_algo needs a value"),
    (virtual("lb_kind nat"), 'a.conf:3: lb_kind nat: unknown; did you mean "NAT"?'),
    (
        virtual("lb_kind TUN type vxlan"),
        "a.conf:3: lb_kind TUN type vxlan: unknown type; expected one of: ipip, gue, gre",
    ),
    (virtual("lb_kind TUN type gue"), "a.conf:3: lb_kind TUN type gue: a gue tunnel needs a UDP port from 1 to 65535"),
    (virtual("lb_kind TUN port 5"), "a.conf:3: lb_kind TUN port 5: only a gue tunnel has a port; this one is ipip"),
    (virtual("lb_kind TUN csum"), "a.conf:3: lb_kind TUN csum: ipip tunnels cannot have csum; expected none"),
    (
        virtual("lb_kind TUN type gre remcsum"),
        "a.conf:3: lb_kind TUN type gre remcsum: gre tunnels cannot have remcsum; expected none or csum",
    ),
    (virtual("lb_kind TUN fast"), 'a.conf:3: lb_kind TUN fast: unexpected "fast"'),
    (virtual("protocol ICMP"), "a.conf:3: protocol ICMP: unknown; expected one of: tcp, udp, sctp"),
    (virtual("persistence_timeout 2678401"), f"a.conf:3: persistence_timeout 2678401: {NUMBER} 0 to 2678400"),
    (
        virtual("persistence_granularity 24"),
        "a.conf:3: persistence_granularity 24: not a netmask; expected one such as 255.255.255.0",
    ),
    (virtual("persistence_granularity"), "a.conf:3: persistence_granularity needs a value"),
    (virtual("persistence_engine rtp"), "a.conf:3: persistence_engine rtp: unknown; expected one of: sip"),
    (virtual("ip_family ipv6"), "a.conf:3: ip_family ipv6: unknown; expected one of: inet, inet6"),
    (virtual("weight 0"), f"a.conf:3: weight 0: {NUMBER} 1 to 65535"),
    (
        virtual("real_server 10.9.9.9 8080 {", "weight 65536", "}", server=""),
        f"a.conf:4: weight 65536: {NUMBER} 0 to 65535",
    ),
    (
        virtual("real_server 10.9.9.9 8080 {", "uthreshold -1", "}", server=""),
        f"a.conf:4: uthreshold -1: {NUMBER} 0 to 1073741823",
    ),
    (
        virtual("real_server 10.9.9.9 8080 {", "lthreshold 5", "}", server=""),
        "a.conf:3: real_server 10.9.9.9 8080: a lower threshold needs an upper one",
    ),
    (
        virtual(server="real_server 224.0.0.1 80 {}"),
        "a.conf:3: real_server 224.0.0.1 80: 224.0.0.1 is not a unicast address",
    ),
    (virtual(server="real_server {}"), "a.conf:3: real_server: an address is missing"),
    (
        virtual(server="real_server fd00::9 80 {}"),
        "a.conf:3: real_server fd00::9 80: fd00::9 is IPv6 and the service is IPv4; only a tunnel (TUN) can reach it",
    ),
    (
        virtual("real_server 10.9.9.9 8080 {", "}"),
        "a.conf:5: 10.9.9.9 port 8080 is already a server of this service, at a.conf:3",
    ),
    (
        virtual("real_server 10.9.9.9 8080 {} real_server 10.9.9.9 8080 {}", server=""),
        "a.conf:3: 10.9.9.9 port 8080 is already a server of this service, at a.conf:3",
    ),
    (
        virtual("lb_kind DR", "real_server 10.9.9.9 {", "}", server="real_server 10.9.9.9 80 {}"),
        "a.conf:6: 10.9.9.9 port 80 is already a server of this service, at a.conf:4",
    ),
    (group("10.0.0.1 80\n10.0.0.0-3 80"), "a.conf:7: tcp 10.0.0.1 port 80 is already defined at a.conf:6"),
    (group("fwmark 7\nfwmark 7"), "a.conf:7: fwmark 7 is already defined at a.conf:6"),
    (group("10.0.0.9-3 80"), "a.conf:6: 10.0.0.9-3: the end is before the beginning"),
    (group("10.0.0.9-256 80"), 'a.conf:6: 10.0.0.9-256: "256" is not the last part of an address'),
    (group("10.0.0.9- 80"), 'a.conf:6: 10.0.0.9-: "" is not the last part of an address'),
    (group("10.0.0.9-+9 80"), 'a.conf:6: 10.0.0.9-+9: "+9" is not the last part of an address'),
    (group("fd00::1-10000 80"), 'a.conf:6: fd00::1-10000: "10000" is not the last part of an address'),
    (group("10.0.0.1-fd00::1 80"), "a.conf:6: 10.0.0.1-fd00::1: both ends must be of one family"),
    (group("10.0.0.1/24 80"), "a.conf:6: 10.0.0.1/24 has host bits set; the network is 10.0.0.0/24"),
    (group("10.0.0.0/8 80"), "a.conf:6: 10.0.0.0/8: 16,777,216 addresses; at most 20,000 services are allowed"),
    (
        group("\n".join(f"10.0.{number}.0/24 80" for number in range(40))),
        "a.conf:1: virtual_server group G: 20,480 services and servers up to here; at most 20,000 are allowed",
    ),
    (
        group("10.0.0.254-10.0.1.1 80"),
        "a.conf:6: 10.0.0.254-10.0.1.1: keepalived counts only in the last 8 bits of an address, so split this",
    ),
    (
        group("fd00::/111 80").replace("fd00::/111", "fd00::ffff-fd00::1:1"),
        "a.conf:6: fd00::ffff-fd00::1:1: keepalived counts only in the last 16 bits of an address, so split this",
    ),
    (group("10.0.0.9-9 80"), "a.conf:6: 10.0.0.9-9: the end is not after the beginning, as keepalived requires"),
    (group("fwmark 7 ipv6"), "a.conf:6: fwmark 7 ipv6: unknown; expected one of: inet, inet6"),
    (
        group("10.0.0.1 80\n}\nvirtual_server_group G {\n10.0.0.2 80"),
        "a.conf:8: virtual_server_group G: this group is already defined at a.conf:5",
    ),
    (virtual() + "\nvirtual_server_group {\n}", "a.conf:5: virtual_server_group: a group needs a name"),
    (virtual() + "}", "a.conf:4: a } that belongs to no block"),
    (virtual() + "\n{ }", "a.conf:5: a { that belongs to no block"),
    (virtual() + "\nvirtual_server 10.0.0.2 80\nlb_algo rr", "a.conf:5: virtual_server 10.0.0.2 80: no block follows"),
    (virtual(server="real_server 10.9.9.9 8080"), "a.conf:3: real_server 10.9.9.9 8080: no block follows"),
    (virtual() + "\nvirtual_server 10.0.0.2 80 {", "a.conf:5: virtual_server 10.0.0.2 80: its block is not closed"),
    (virtual() + "\nglobal_defs {\na {\n}", "a.conf:5: global_defs: its block is not closed"),
    (virtual('quorum_up "/bin/up'), "a.conf:3: a quote is not closed on its line"),
    (virtual("include unreadable"), "a.conf:3: include unreadable: a.conf may not read it"),
    (virtual("$A=$A", "$A"), "a.conf:4: definitions make this line endless, or longer than 1,022 characters"),
    (virtual("$A=${A}b", "x ${A}"), "a.conf:4: definitions make this line endless, or longer than 1,022 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_what_is_refused(text: str, expected: str) -> None:
    _, refused, _ = read(text)
    assert refused == [expected]


def test_all_that_is_wrong_is_told_at_once() -> None:
    _, refused, _ = read(virtual("lb_algo x", "lb_kind y", "weight z", head="web 80"))
    assert [line.split(": ")[0] for line in refused] == ["a.conf:1", "a.conf:3", "a.conf:4", "a.conf:5"]


def test_definitions() -> None:
    text = """\
$NET=10.0.${SUB}
$SUB=0
$PORT=80  # the web
$BLOCK={ weight 5 }
$EMPTY=
virtual_server ${NET}.1 $PORT {
    protocol TCP
    $SUB=9
    real_server ${NET}.9 8080 $BLOCK
    lb_algo $EMPTY rr
}
"""
    server = Server(address="10.0.9.9", port=8080, weight=5)
    assert read(text) == ([replace(TCP, scheduler="rr", servers=(server,))], [], [])


def test_includes() -> None:
    files = {
        "sites/1.conf": virtual(),
        "sites/2.conf": virtual("include check", head="10.0.0.2 80") + "\nconnect_timeout 3",
        "check": "alpha\n",
    }
    found, refused, left = read("$X=1\ninclude sites/*.conf\nincludea  check # twice", files)
    assert found == [TCP, replace(TCP, address="10.0.0.2")]
    assert (refused, left) == ([], ["check:1: alpha: not imported", "sites/2.conf:6: connect_timeout 3: not imported"])


def test_a_block_may_begin_and_end_in_different_files() -> None:
    files = {"head": "virtual_server 10.0.0.1 80\n", "servers": "real_server 10.9.9.9 8080 {\n}\n"}
    assert read("include head\n{\nprotocol TCP\ninclude servers\n}", files) == ([TCP], [], [])


def test_includes_end() -> None:
    _, refused, _ = read("include a.conf", {"a.conf": ""})
    assert refused == ["a.conf:1: a.conf includes itself"]
    _, refused, _ = read("include b", {"b": "include c", "c": "\ninclude b"})
    assert refused == ["c:2: b includes itself"]
    chain = {str(number): f"include {number + 1}" for number in range(30)}
    _, refused, _ = read("include 0", chain)
    assert refused == ["15:1: includes nest deeper than 16 files"]
    twice = {str(number): f"include {number + 1}\n" * 2 for number in range(15)}
    _, refused, _ = read("include 0", twice | {"15": ""})
    assert refused == ["11:1: more than 1,000 files are included"]


MEGABYTE = 1 << 20
# Each is repeated for a megabyte on one line, or on as many lines.
REPEATED = (
    "{",
    "a {\n",
    "${",
    "${a",
    "$a ",
    "$a$b=",
    '"',
    '""',
    '"a\\',
    '"${',
    "\\",
    "\\a",
    '\\"',
    "~",
    "\n",
    "include ",
)
HOSTILE = [
    *(part * (MEGABYTE // len(part)) for part in REPEATED),
    *(start + "a" * MEGABYTE for start in ('"', "${", "$", "$A=", "\\")),
    '"' + "\\a" * (MEGABYTE // 2),
    " " * MEGABYTE + "x",
    "a" * MEGABYTE + " $a" * 300_000,
    "".join(f"$a{number}=${{a{number + 1}}}${{a{number + 1}}}\n" for number in range(99)) + "x $a0",
    "virtual_server_group g {\n" + "10.0.0.0/18 80\n" * 9_000 + "}\n" + virtual(head="group g") + "\n",
    "virtual_server_group g {\n10.0.0.0-10.255.255.255 80\n::-ffff:: 80\n}\n",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_end_soon(text: str) -> None:
    """What is not linear takes minutes for a megabyte."""
    start = time.process_time()
    read(text)
    assert time.process_time() - start < 5


def test_20_000_real_servers() -> None:
    checks = "weight 5\nTCP_CHECK {\nconnect_timeout 3\n}\n"
    servers = "".join(f"real_server 10.1.{n >> 8}.{n & 255} 80 {{\n{checks}}}\n" for n in range(19_999))
    found, refused, left = read(virtual(server=servers))
    assert (len(found), len(found[0].servers), refused, len(left)) == (1, 19_999, [], 19_999)


WORDS = st.sampled_from(
    (
        *("virtual_server", "virtual_server_group", "real_server", "group", "fwmark", "G", "10.0.0.1", "fd00::1", "80"),
        *("10.0.0.1-9", "10.0.0.0/30", "lb_algo", "sh", "sh-port", "lb_kind", "TUN", "DR", "protocol", "TCP", "weight"),
        *(
            "{",
            "}",
            "{",
            "}",
            "\n",
            "\n",
            "\n",
            '"',
            "#",
            "!",
            "$A",
            "$A=",
            "${A}",
            "\\",
            "@a",
            "~SEQ(",
            "include",
            "b",
        ),
        *("persistence_timeout", "persistence_granularity", "255.255.255.0", "64", "ops", "uthreshold", "lthreshold"),
    )
)


@given(st.lists(WORDS, max_size=60).map(" ".join) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    found, refused, _ = read(text, {"b": "weight 1\n}"})
    assert refused or all(service.servers for service in found)


def as_keepalived_has_it(service: Service) -> Service:
    """Return what a keepalived.conf can express: an engine needs persistence, a port 0 is that of the service."""
    own = 0 if service.protocol == "fwmark" else service.port
    return replace(
        service,
        persistence_engine=service.persistence_engine if service.persistent else None,
        servers=tuple(
            replace(server, port=(server.port or own) if server.forward == "nat" else own) for server in service.servers
        ),
    )


@given(services())
def test_services_that_are_written_are_read_as_they_were(wanted: list[Service]) -> None:
    # One without servers is none to keepalived; two servers that are one there are refused.
    wanted = [as_keepalived_has_it(service) for service in wanted if service.servers]
    wanted = [each for each in wanted if len({server.key for server in each.servers}) == len(each.servers)]
    found, refused, _ = read("\n".join(line for service in wanted for line in written(service)))
    assert (found, refused) == (wanted, [])

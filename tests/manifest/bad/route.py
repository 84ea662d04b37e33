"""What is wrong with a route of one next hop."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, route, with_route

LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
DEST = "default, a network such as 10.8.0.0/16, or an address"
GATEWAY = "the IP address of the next hop, or an empty string for none"
ON_LINK = "true or false: whether the gateway is on the link although no address or route covers it"
TYPE = "a route type: one of unicast, blackhole, unreachable, prohibit, throw, local, multicast"
TABLE = "a routing table from 1 to 4294967295; 254 is main, and 255 (local) takes only local and multicast routes"
METRIC = "a metric from 0 to 4294967295, of which the lowest wins; for IPv6, 0 means 1024"
SOURCE = "the source IP address of packets that take this route"
TOS = "the type of service of packets that take this IPv4 route: a multiple of 4 from 0 (any) to 252"
NOT_REACHED = "if it is on that link nevertheless: onLink: true"

ROWS: list[Row] = [
    (
        "route is text",
        manifest(routes=["- default"]),
        [
            (
                'bad.yaml:5:3: routes[0]: "default" is text; expected a route: a mapping with dest and '
                "device, such as {dest: default, gateway: 172.17.0.1, device: eth0}"
            )
        ],
    ),
    ("route is empty", manifest(routes=["- {}"]), [f"bad.yaml:5:3: routes[0].dest: missing; expected {DEST}"]),
    (
        "route is null",
        manifest(routes=["-"]),
        [
            (
                "bad.yaml:5:2: routes[0]: nothing is given; expected a route: a mapping with dest and "
                "device, such as {dest: default, gateway: 172.17.0.1, device: eth0}"
            )
        ],
    ),
    ("no dest", with_route("dest"), [f"bad.yaml:11:3: routes[0].dest: missing; expected {DEST}"]),
    (
        "no device of a route",
        with_route("device"),
        ["bad.yaml:11:3: routes[0].device: missing; expected the name of an interface, or lo"],
    ),
    (
        "misspelt gateway",
        with_route("gatway: 10.0.0.1", "gateway"),
        ['bad.yaml:13:3: routes[0].gatway: unknown field; did you mean "gateway"?'],
    ),
    (
        "word of iproute2",
        with_route("via: 10.0.0.1", "gateway"),
        ['bad.yaml:13:3: routes[0].via: unknown field; did you mean "gateway"?'],
    ),
    ("dest is empty", with_route("dest: ''"), [f'bad.yaml:11:9: routes[0].dest: "" is not valid; expected {DEST}']),
    ("dest is a number", with_route("dest: 10"), [f"bad.yaml:11:9: routes[0].dest: 10 is a number; expected {DEST}"]),
    ("dest is null", with_route("dest: ~"), [f"bad.yaml:11:9: routes[0].dest: nothing is given; expected {DEST}"]),
    (
        "dest of 65 characters",
        with_route(f"dest: {'1' * 65}"),
        [
            (
                'bad.yaml:11:9: routes[0].dest: "1111111111111111111111111111111111111…" (65 characters) is not '
                f"valid; expected {DEST}"
            )
        ],
    ),
    (
        "dest with a netmask",
        with_route("dest: 10.8.0.0/255.255.0.0"),
        [
            (
                'bad.yaml:11:9: routes[0].dest: "10.8.0.0/255.255.0.0" has no valid prefix length; '
                "expected /16 for the netmask 255.255.0.0"
            )
        ],
    ),
    ("dest abbreviated", with_route("dest: 10.8/16"), ['bad.yaml:11:9: routes[0].dest: "10.8" is not an IP address']),
    (
        "dest with a length above 32",
        with_route("dest: 10.8.0.0/33"),
        ['bad.yaml:11:9: routes[0].dest: "10.8.0.0/33" has no valid prefix length; expected /0 to /32'],
    ),
    (
        "dest with an empty length",
        with_route("dest: 10.8.0.0/"),
        ['bad.yaml:11:9: routes[0].dest: "10.8.0.0/" has no valid prefix length; expected /0 to /32'],
    ),
    (
        "dest in upper case",
        with_route("dest: Default"),
        [
            (
                'bad.yaml:11:9: routes[0].dest: "Default" is no destination; expected default, a '
                "network such as 10.8.0.0/16, or an address"
            )
        ],
    ),
    (
        "host bits",
        with_route("dest: 10.8.0.1/16"),
        ["bad.yaml:11:9: routes[0].dest: 10.8.0.1/16 has host bits set; the network is 10.8.0.0/16"],
    ),
    (
        "host bits of IPv6",
        with_route("dest: 2001:db8::1/48", "gateway: fd00::1"),
        ["bad.yaml:11:9: routes[0].dest: 2001:db8::1/48 has host bits set; the network is 2001:db8::/48"],
    ),
    (
        "host bits of all addresses",
        with_route("dest: 10.8.0.1/0"),
        ["bad.yaml:11:9: routes[0].dest: 10.8.0.1/0 has host bits set; the network is 0.0.0.0/0"],
    ),
    (
        "default without a gateway",
        with_route("dest: default", "gateway"),
        ["bad.yaml:11:3: routes[0].gateway: missing; a default route needs the IP address of a gateway"],
    ),
    (
        "default with an empty gateway",
        with_route("dest: default", "gateway: ''"),
        ["bad.yaml:12:12: routes[0].gateway: missing; a default route needs the IP address of a gateway"],
    ),
    (
        "gateway is null",
        with_route("gateway:"),
        [f"bad.yaml:12:11: routes[0].gateway: nothing is given; expected {GATEWAY}"],
    ),
    (
        "gateway is a number",
        with_route("gateway: 10"),
        [f"bad.yaml:12:12: routes[0].gateway: 10 is a number; expected {GATEWAY}"],
    ),
    (
        "gateway with a length",
        with_route("gateway: 10.0.0.1/24"),
        [
            (
                'bad.yaml:12:12: routes[0].gateway: "10.0.0.1/24" is not an IP address; leave out the '
                "prefix length: 10.0.0.1"
            )
        ],
    ),
    (
        "gateway unspecified",
        with_route("gateway: 0.0.0.0"),
        ["bad.yaml:12:12: routes[0].gateway: 0.0.0.0 is not a unicast address"],
    ),
    (
        "gateway of a group",
        with_route("gateway: 224.0.0.1"),
        ["bad.yaml:12:12: routes[0].gateway: 224.0.0.1 is not a unicast address"],
    ),
    (
        "gateway of another family",
        with_route("gateway: fd77::1"),
        [f"bad.yaml:12:12: routes[0].gateway: no address or route of eth0 reaches fd77::1; {NOT_REACHED}"],
    ),
    (
        "gateway nobody reaches",
        with_route("gateway: 10.0.1.1"),
        [f"bad.yaml:12:12: routes[0].gateway: no address or route of eth0 reaches 10.0.1.1; {NOT_REACHED}"],
    ),
    (
        "IPv6 gateway nobody reaches",
        with_route("dest: default", "gateway: fd00:0:0:1::1"),
        [f"bad.yaml:12:12: routes[0].gateway: no address or route of eth0 reaches fd00:0:0:1::1; {NOT_REACHED}"],
    ),
    (
        "gateway of 65 characters",
        with_route(f"gateway: {'1' * 65}"),
        [
            (
                'bad.yaml:12:12: routes[0].gateway: "1111111111111111111111111111111111111…" (65 characters) is not '
                f"valid; expected {GATEWAY}"
            )
        ],
    ),
    (
        "device of a route is a number",
        with_route("device: 0"),
        [f"bad.yaml:13:11: routes[0].device: 0 is a number; expected {LINK}"],
    ),
    (
        "device of a route is misspelt",
        with_route("device: eht0"),
        ['bad.yaml:13:11: routes[0].device: no interface is named "eht0"; did you mean "eth0"?'],
    ),
    (
        "device of a route is the host's",
        with_route("device: tap0"),
        ['bad.yaml:13:11: routes[0].device: no interface is named "tap0"; that is the device of eth0 on the host'],
    ),
    (
        "gateway on lo",
        with_route("device: lo"),
        [f"bad.yaml:12:12: routes[0].gateway: no address or route of lo reaches 10.0.0.1; {NOT_REACHED}"],
    ),
    (
        "device of an empty section",
        manifest("interfaces: []", routes=[route()]),
        ['bad.yaml:8:11: routes[0].device: no interface is named "eth0"; none is declared'],
    ),
    ("onLink yes", with_route("onLink: yes"), [f'bad.yaml:14:11: routes[0].onLink: "yes" is text; expected {ON_LINK}']),
    ("onLink 1", with_route("onLink: 1"), [f"bad.yaml:14:11: routes[0].onLink: 1 is a number; expected {ON_LINK}"]),
    (
        "onLink without a gateway",
        with_route("onLink: true", "gateway"),
        ["bad.yaml:13:11: routes[0].onLink: needs a gateway beside it"],
    ),
    (
        "type unknown",
        with_route("type: nat"),
        [f'bad.yaml:14:9: routes[0].type: "nat" is not valid; expected {TYPE}'],
    ),
    (
        "type in upper case",
        with_route("type: Blackhole"),
        [f'bad.yaml:14:9: routes[0].type: "Blackhole" is not valid; expected {TYPE}'],
    ),
    (
        "type is a list",
        with_route("type: [blackhole]"),
        [f"bad.yaml:14:9: routes[0].type: a list of 1 item is not valid; expected {TYPE}"],
    ),
    (
        "type is a boolean",
        with_route("type: true"),
        [f"bad.yaml:14:9: routes[0].type: true is not valid; expected {TYPE}"],
    ),
    (
        "blackhole through a gateway",
        with_route("type: blackhole"),
        [
            "bad.yaml:12:3: routes[0].gateway: a blackhole route has no gateway",
            "bad.yaml:13:3: routes[0].device: a blackhole route has no device",
        ],
    ),
    (
        "reject with all that it has not",
        with_route("gateway", "device", "type: prohibit", "source: 10.0.0.2", "mtu: 1400", "advmss: 1000"),
        [
            "bad.yaml:13:3: routes[0].source: a prohibit route has no source",
            "bad.yaml:14:3: routes[0].mtu: a prohibit route has no mtu",
            "bad.yaml:15:3: routes[0].advmss: a prohibit route has no advmss",
        ],
    ),
    ("table 0", with_route("table: 0"), ["bad.yaml:14:10: routes[0].table: 0 is below the minimum of 1"]),
    (
        "table 255",
        with_route("table: 255"),
        ["bad.yaml:14:10: routes[0].table: 255 is the table local, which takes routes of type local or multicast only"],
    ),
    (
        "IPv6 with fields of IPv4",
        with_route("dest: 2001:db8::/48", "gateway: fd00::1", "tos: 8", "scope: global"),
        [
            "bad.yaml:14:3: routes[0].tos: an IPv6 route has no tos",
            "bad.yaml:15:3: routes[0].scope: an IPv6 route has no scope",
        ],
    ),
    ("pref of IPv4", with_route("pref: low"), ["bad.yaml:14:3: routes[0].pref: an IPv4 route has no pref"]),
    ("lock without mtu", with_route("mtuLock: true"), ["bad.yaml:14:12: routes[0].mtuLock: needs an mtu beside it"]),
    (
        "scope with a gateway",
        with_route("scope: link"),
        ["bad.yaml:14:10: routes[0].scope: link: a route with a gateway has the scope global or site"],
    ),
    (
        "scope with two next hops",
        with_route("gateway", "device", "nexthops: [{device: eth0}, {device: lo}]", "scope: host"),
        ["bad.yaml:13:10: routes[0].scope: host: a route of that scope has one next hop"],
    ),
    (
        "scope of a local route",
        with_route("gateway", "type: local", "scope: link"),
        ["bad.yaml:14:10: routes[0].scope: link: a local route has the scope host"],
    ),
    (
        "scope that is a number",
        with_route("scope: 7"),
        [
            (
                "bad.yaml:14:10: routes[0].scope: 7 is not valid; expected how far away the destination of an IPv4 "
                "route is: one of global, site, link, host"
            )
        ],
    ),
    (
        "local through a gateway",
        with_route("type: local"),
        ["bad.yaml:12:3: routes[0].gateway: a local route has no gateway"],
    ),
    (
        "local without a device",
        with_route("gateway", "device", "type: local"),
        ["bad.yaml:11:3: routes[0].device: missing; expected the name of an interface, or lo"],
    ),
    (
        "multicast with several next hops",
        with_route("gateway", "device", "type: multicast", "nexthops: [{device: eth0}, {device: lo}]"),
        ["bad.yaml:13:3: routes[0].nexthops: a multicast route has no nexthops"],
    ),
    (
        "throw with a metric of TCP",
        with_route("gateway", "device", "type: throw", "initcwnd: 9"),
        ["bad.yaml:13:3: routes[0].initcwnd: a throw route has no initcwnd"],
    ),
    (
        "congestion control that is none",
        with_route("congctl: ../bbr"),
        [
            (
                'bad.yaml:14:12: routes[0].congctl: "../bbr" is not valid; expected a congestion control of TCP: '
                "one of bbr, bic, cdg, cubic, dctcp, highspeed, htcp, hybla, illinois, lp, nv, reno, scalable, vegas, "
                "veno, westwood, yeah"
            )
        ],
    ),
    (
        "feature that is none",
        with_route("features: [sack]"),
        ['bad.yaml:14:14: routes[0].features[0]: "sack" is not valid; expected a feature of TCP: ecn'],
    ),
    ("tos with bits of ECN", with_route("tos: 3"), [f"bad.yaml:14:8: routes[0].tos: 3 is not valid; expected {TOS}"]),
    (
        "IPv6 through a gateway of IPv4",
        with_route("dest: 2001:db8::/48"),
        ["bad.yaml:12:12: routes[0].gateway: 10.0.0.1 is IPv4, and the destination is IPv6"],
    ),
    (
        "table above",
        with_route("table: 4294967296"),
        ["bad.yaml:14:10: routes[0].table: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "table by name",
        with_route("table: main"),
        [f'bad.yaml:14:10: routes[0].table: "main" is text; expected {TABLE}'],
    ),
    ("metric below", with_route("metric: -1"), ["bad.yaml:14:11: routes[0].metric: -1 is below the minimum of 0"]),
    (
        "metric above",
        with_route("metric: 4294967296"),
        ["bad.yaml:14:11: routes[0].metric: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "metric in scientific notation",
        with_route("metric: 1e2"),
        [f'bad.yaml:14:11: routes[0].metric: "1e2" is text; expected {METRIC}'],
    ),
    (
        "metric is null",
        with_route("metric:"),
        [f"bad.yaml:14:10: routes[0].metric: nothing is given; expected {METRIC}"],
    ),
    ("source is empty", with_route("source: ''"), ["bad.yaml:14:11: routes[0].source: empty; expected an IP address"]),
    (
        "source with a length",
        with_route("source: 10.0.0.2/24"),
        ['bad.yaml:14:11: routes[0].source: "10.0.0.2/24" is not an IP address; leave out the prefix length: 10.0.0.2'],
    ),
    (
        "source of a group",
        with_route("source: 239.0.0.1"),
        ["bad.yaml:14:11: routes[0].source: 239.0.0.1 is not a unicast address"],
    ),
    (
        "source of another family",
        with_route("source: fd00::2"),
        ["bad.yaml:14:11: routes[0].source: fd00::2 is IPv6, and the destination is IPv4"],
    ),
    (
        "source of 65 characters",
        with_route(f"source: {'1' * 65}"),
        [
            (
                'bad.yaml:14:11: routes[0].source: "1111111111111111111111111111111111111…" (65 characters) is not '
                f"valid; expected {SOURCE}"
            )
        ],
    ),
    (
        "source is a number",
        with_route("source: 10"),
        [f"bad.yaml:14:11: routes[0].source: 10 is a number; expected {SOURCE}"],
    ),
    (
        "families of default",
        with_route("dest: default", "source: fd00::2"),
        ["bad.yaml:12:12: routes[0].gateway: 10.0.0.1 is IPv4, and the destination is IPv6"],
    ),
    ("route MTU below", with_route("mtu: 67"), ["bad.yaml:14:8: routes[0].mtu: 67 is below the minimum of 68"]),
    (
        "route MTU above",
        with_route("mtu: 65521"),
        ["bad.yaml:14:8: routes[0].mtu: 65521 is above the maximum of 65520"],
    ),
    (
        "route MTU below that of IPv6",
        with_route("dest: 2001:db8::/48", "gateway: fd00::1", "mtu: 1279"),
        ["bad.yaml:14:8: routes[0].mtu: 1279 is below the IPv6 minimum of 1280 (RFC 8200)"],
    ),
    (
        "route MTU above that of the interface",
        with_route("mtu: 1501"),
        ["bad.yaml:14:8: routes[0].mtu: 1501 is above the MTU of eth0, 1500"],
    ),
    ("advmss 0", with_route("advmss: 0"), ["bad.yaml:14:11: routes[0].advmss: 0 is below the minimum of 1"]),
    (
        "advmss above",
        with_route("advmss: 65496"),
        ["bad.yaml:14:11: routes[0].advmss: 65496 is above the maximum of 65495"],
    ),
    (
        "advmss is text",
        with_route("advmss: '1360'"),
        [
            (
                'bad.yaml:14:11: routes[0].advmss: "1360" is text; expected a TCP maximum segment size to'
                " advertise, from 1 to 65495 bytes; write 1360 without quotes"
            )
        ],
    ),
]

"""What objects of one manifest have against each other."""

from __future__ import annotations

from tests.manifest.texts import SECOND, THIRD, Row, manifest, nic, route

TAKEN = "routes[0] has this destination, table, metric and tos already; give another metric, or nexthops"
NOT_REACHED = "if it is on that link nevertheless: onLink: true"

ROWS: list[Row] = [
    (
        "name twice",
        manifest(nics=[nic(), nic("name: eth0", *SECOND[1:])]),
        ["bad.yaml:10:9: interfaces[1].name: eth0 is the name of interfaces[0] already"],
    ),
    (
        "device twice",
        manifest(nics=[nic(), nic(*SECOND, "device: tap0")]),
        ["bad.yaml:11:11: interfaces[1].device: tap0 is the device of interfaces[0] already"],
    ),
    (
        "MAC twice",
        manifest(nics=[nic(), nic(*SECOND, "hwAddr: 02-42-20-6F-A3-69")]),
        ["bad.yaml:12:11: interfaces[1].hwAddr: 02:42:20:6f:a3:69 is the hwAddr of interfaces[0] already"],
    ),
    (
        "all the same twice",
        manifest(nics=[nic(), nic()]),
        [
            "bad.yaml:10:9: interfaces[1].name: eth0 is the name of interfaces[0] already",
            "bad.yaml:11:11: interfaces[1].device: tap0 is the device of interfaces[0] already",
            "bad.yaml:12:11: interfaces[1].hwAddr: 02:42:20:6f:a3:69 is the hwAddr of interfaces[0] already",
        ],
    ),
    (
        "name thrice",
        manifest(nics=[nic(), nic("name: eth0", *SECOND[1:]), nic("name: eth0", *THIRD[1:])]),
        [
            "bad.yaml:10:9: interfaces[1].name: eth0 is the name of interfaces[0] already",
            "bad.yaml:15:9: interfaces[2].name: eth0 is the name of interfaces[0] already",
        ],
    ),
    ("route twice", manifest(nics=[nic()], routes=[route(), route()]), [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"]),
    (
        "route twice through other gateways",
        manifest(nics=[nic()], routes=[route(), route("gateway: 10.0.0.9")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "route twice of another type",
        manifest(nics=[nic()], routes=[route(), route("gateway", "device", "type: blackhole")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "metric 0 and none",
        manifest(nics=[nic()], routes=[route(), route("metric: 0")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "IPv6 metric 1024 and 0",
        manifest(
            nics=[nic()],
            routes=[
                route("dest: 2001:db8::/48", "gateway: fd00::1", "metric: 1024"),
                route("dest: 2001:DB8:0::/48", "gateway: fe80::1", "metric: 0"),
            ],
        ),
        [f"bad.yaml:15:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "default and 0.0.0.0/0",
        manifest(nics=[nic()], routes=[route("dest: default"), route("dest: 0.0.0.0/0", "gateway")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "bare address and /32",
        manifest(nics=[nic()], routes=[route("dest: 10.8.0.1"), route("dest: 10.8.0.1/32")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "table main and none",
        manifest(nics=[nic()], routes=[route(), route("table: 254")]),
        [f"bad.yaml:14:9: routes[1].dest: {TAKEN}"],
    ),
    (
        "gateway behind a blackhole",
        manifest(
            nics=[nic()],
            routes=[route("dest: 10.9.0.0/16", "gateway", "device", "type: blackhole"), route("gateway: 10.9.0.1")],
        ),
        [f"bad.yaml:14:12: routes[1].gateway: no address or route of eth0 reaches 10.9.0.1; {NOT_REACHED}"],
    ),
    (
        "gateway behind another gateway",
        manifest(nics=[nic()], routes=[route("dest: 10.9.0.0/16"), route("gateway: 10.9.0.1")]),
        [f"bad.yaml:15:12: routes[1].gateway: no address or route of eth0 reaches 10.9.0.1; {NOT_REACHED}"],
    ),
    (
        "gateway behind a route of another table",
        manifest(
            nics=[nic()], routes=[route("dest: 10.9.0.0/16", "gateway", "table: 100"), route("gateway: 10.9.0.1")]
        ),
        [f"bad.yaml:15:12: routes[1].gateway: no address or route of eth0 reaches 10.9.0.1; {NOT_REACHED}"],
    ),
    (
        "gateway behind a route that is wrong itself",
        manifest(nics=[nic()], routes=[route("dest: 10.9.0.1/16", "gateway"), route("gateway: 10.9.0.1")]),
        ["bad.yaml:11:9: routes[0].dest: 10.9.0.1/16 has host bits set; the network is 10.9.0.0/16"],
    ),
    (
        "gateway that is an own address",
        manifest(
            nics=[nic('addresses: ["fd00::2/64"]')], routes=[route('dest: "2001:db8::/32"', 'gateway: "fd00::2"')]
        ),
        ["bad.yaml:12:12: routes[0].gateway: fd00::2 is an address of eth0 itself"],
    ),
    (
        "gateway on another link",
        manifest(nics=[nic(), nic(*SECOND)], routes=[route("gateway: 10.1.0.1")]),
        [f"bad.yaml:17:12: routes[0].gateway: no address or route of eth0 reaches 10.1.0.1; {NOT_REACHED}"],
    ),
]

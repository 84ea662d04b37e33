"""What is wrong with a route of several next hops."""

from __future__ import annotations

from tests.manifest.texts import SECOND, Row, manifest, nic, route, with_route

LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
DEVICE = "the interface that the packets leave by: its name in `interfaces`, or lo"
GATEWAY = "the IP address of the next hop, or an empty string for none"
ON_LINK = "true or false: whether the gateway is on the link although no address or route covers it"
NOT_REACHED = "if it is on that link nevertheless: onLink: true"
HOP = "{gateway: 10.0.0.1, device: eth0}"
OTHER = "{gateway: 10.0.0.9, device: eth0}"


def hops(*items: str, dest: str = "10.8.0.0/16") -> str:
    """Write a manifest of one route with next hops, on line 12."""
    return with_route(f"dest: {dest}", "gateway", "device", f"nexthops: [{', '.join(items)}]")


def many(count: int) -> list[str]:
    return [f"{{gateway: 10.0.0.{number}, device: eth0}}" for number in range(3, count + 3)]


ROWS: list[Row] = [
    ("no next hops", hops(), ["bad.yaml:12:13: routes[0].nexthops: 0 items; at least 2 are needed"]),
    (
        "one next hop",
        hops("{gateway: 10.0.0.1, device: eth0}"),
        ["bad.yaml:12:13: routes[0].nexthops: 1 item; at least 2 are needed"],
    ),
    (
        "65 next hops",
        hops(*many(65)),
        ["bad.yaml:12:13: routes[0].nexthops: 65 items; at most 64 are allowed"],
    ),
    (
        "65 next hops and a wrong weight",
        hops(*many(64), "{device: eth0, weight: 0}"),
        [
            "bad.yaml:12:13: routes[0].nexthops: 65 items; at most 64 are allowed",
            "bad.yaml:12:2334: routes[0].nexthops[64].weight: 0 is below the minimum of 1",
        ],
    ),
    (
        "next hop is text",
        hops("{gateway: 10.0.0.1, device: eth0}", "10.0.0.9"),
        [
            (
                'bad.yaml:12:49: routes[0].nexthops[1]: "10.0.0.9" is text; expected a next hop: a '
                "mapping with device, such as {gateway: 172.18.0.1, device: eth1, weight: 3}"
            ),
        ],
    ),
    (
        "next hop without a device",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9}"),
        [
            f"bad.yaml:12:49: routes[0].nexthops[1].device: missing; expected {DEVICE}",
        ],
    ),
    (
        "next hop with a metric",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9, device: eth0, metric: 5}"),
        [
            (
                "bad.yaml:12:83: routes[0].nexthops[1].metric: unknown field; "
                "expected one of: gateway, device, weight, onLink"
            ),
        ],
    ),
    (
        "weight 0",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9, device: eth0, weight: 0}"),
        [
            "bad.yaml:12:91: routes[0].nexthops[1].weight: 0 is below the minimum of 1",
        ],
    ),
    (
        "weight above",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9, device: eth0, weight: 257}"),
        [
            "bad.yaml:12:91: routes[0].nexthops[1].weight: 257 is above the maximum of 256",
        ],
    ),
    (
        "weight is text",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9, device: eth0, weight: 1e2}"),
        [
            (
                'bad.yaml:12:91: routes[0].nexthops[1].weight: "1e2" is text; '
                "expected a share of the traffic from 1 to 256, relative to the other next hops"
            ),
        ],
    ),
    (
        "gateway of a next hop is a number",
        hops("{gateway: 10, device: eth0}", OTHER),
        [
            f"bad.yaml:12:24: routes[0].nexthops[0].gateway: 10 is a number; expected {GATEWAY}",
        ],
    ),
    (
        "device of a next hop is a number",
        hops("{device: 10}", OTHER),
        [
            f"bad.yaml:12:23: routes[0].nexthops[0].device: 10 is a number; expected {LINK}",
        ],
    ),
    (
        "onLink of a next hop on",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.9, device: eth0, onLink: on}"),
        [
            f'bad.yaml:12:91: routes[0].nexthops[1].onLink: "on" is text; expected {ON_LINK}',
        ],
    ),
    (
        "onLink of a next hop without a gateway",
        hops("{gateway: 10.0.0.1, device: eth0}", "{device: eth0, onLink: true}"),
        ["bad.yaml:12:72: routes[0].nexthops[1].onLink: needs a gateway beside it"],
    ),
    (
        "the same next hop twice",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.0.1, device: eth0, weight: 2}"),
        ["bad.yaml:12:49: routes[0].nexthops[1]: the same next hop is listed twice"],
    ),
    (
        "default with a next hop without a gateway",
        hops("{gateway: 10.0.0.1, device: eth0}", "{device: eth0}", dest="default"),
        ["bad.yaml:12:49: routes[0].nexthops[1].gateway: missing; a default route needs the IP address of a gateway"],
    ),
    (
        "next hop of another family",
        hops('{gateway: "fd00::1", device: eth0}', "{gateway: 10.0.0.1, device: eth0}", dest="2001:db8::/48"),
        ["bad.yaml:12:60: routes[0].nexthops[1].gateway: 10.0.0.1 is IPv4, and the destination is IPv6"],
    ),
    (
        "IPv6 next hop without a gateway",
        hops('{gateway: "fd00::1", device: eth0}', "{device: eth0}", dest="2001:db8::/48"),
        ["bad.yaml:12:13: routes[0].nexthops: each next hop of an IPv6 route needs a gateway"],
    ),
    (
        "next hop nobody reaches",
        hops("{gateway: 10.0.0.1, device: eth0}", "{gateway: 10.0.1.1, device: eth0}"),
        [f"bad.yaml:12:13: routes[0].nexthops: no address or route of eth0 reaches 10.0.1.1; {NOT_REACHED}"],
    ),
    (
        "device of a next hop not declared",
        hops("{gateway: 10.0.0.1, device: eth0}", "{device: eth1}"),
        ['bad.yaml:12:13: routes[0].nexthops: no interface is named "eth1"; did you mean "eth0"?'],
    ),
    (
        "next hops beside a gateway",
        with_route("onLink: true", f"nexthops: [{HOP}, {OTHER}]"),
        [
            "bad.yaml:12:3: routes[0].gateway: gateway and nexthops exclude each other",
            "bad.yaml:13:3: routes[0].device: device and nexthops exclude each other",
            "bad.yaml:14:3: routes[0].onLink: onLink and nexthops exclude each other",
        ],
    ),
    (
        "next hops of a blackhole",
        with_route("gateway", "device", "type: blackhole", f"nexthops: [{HOP}, {OTHER}]"),
        ["bad.yaml:13:3: routes[0].nexthops: a blackhole route has no nexthops"],
    ),
    (
        "next hops is a mapping",
        with_route("gateway", "device", "nexthops: {gateway: 10.0.0.1, device: eth0}"),
        [
            (
                "bad.yaml:12:13: routes[0].nexthops: a mapping with gateway, device; "
                "expected a list of 2 to 64 next hops, in place of gateway and device"
            )
        ],
    ),
    (
        "MTU above those of two next hops",
        manifest(
            nics=[nic(), nic(*SECOND)],
            routes=[route("gateway", "device", "nexthops: [{device: eth0}, {device: eth1}]", "mtu: 1501")],
        ),
        [
            "bad.yaml:18:8: routes[0].mtu: 1501 is above the MTU of eth0, 1500",
            "bad.yaml:18:8: routes[0].mtu: 1501 is above the MTU of eth1, 1500",
        ],
    ),
]

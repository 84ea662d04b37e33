"""Several problems of one file, and their places."""

from __future__ import annotations

from tests.manifest.texts import SECOND, THIRD, Row, manifest, nic, route, with_nic, with_route

ID = "a sandbox ID or name: 1 to 64 letters, digits, '_', '-' and '.', the first a letter or digit"
LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
DEVICE = "the name of the device on the host: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
DRIVER = "one driver and its address, such as {netns: {name: web-1}}"
MAC = "a unicast MAC address such as 02:42:20:6f:a3:69"
QUEUES = "a number of queues from 0 to 256; 0 means a single queue"
NIC_FIELDS = (
    "one of: name, device, hwAddr, mtu, state, addresses, vlan, bridge, bond, vrf, macvlan, dummy, master, queues, "
    "vhostUserSocket, sysctls, alias, altnames, txQueueLen, gsoMaxSize, arp, allmulticast"
)
NOT_REACHED = "if it is on that link nevertheless: onLink: true"


def many(count: int) -> list[str]:
    return [
        f"- {{name: e{number}, device: t{number}, hwAddr: 02:42:20:6f:00:{number:02x}, mtu: 1500}}"
        for number in range(count)
    ]


ROWS: list[Row] = [
    (
        "many of one interface",
        with_nic("name: 0", "device: tap/0", "hwAddr: 5", "mtu: 1", "queues: x", "color: red"),
        [
            f"bad.yaml:5:9: interfaces[0].name: 0 is a number; expected {LINK}",
            f'bad.yaml:6:11: interfaces[0].device: "tap/0" is not valid; expected {LINK}',
            f"bad.yaml:7:11: interfaces[0].hwAddr: 5 is a number; expected {MAC}",
            "bad.yaml:8:8: interfaces[0].mtu: 1 is below the minimum of 46",
            f'bad.yaml:10:11: interfaces[0].queues: "x" is text; expected {QUEUES}',
            f"bad.yaml:11:3: interfaces[0].color: unknown field; expected {NIC_FIELDS}",
        ],
    ),
    (
        "many of one route",
        with_route("gateway: 10.0.0.1/24", "source: x", "dest: 10.8.0.1/16"),
        [
            "bad.yaml:11:9: routes[0].dest: 10.8.0.1/16 has host bits set; the network is 10.8.0.0/16",
            (
                'bad.yaml:12:12: routes[0].gateway: "10.0.0.1/24" is not an IP address; leave out the '
                "prefix length: 10.0.0.1"
            ),
            'bad.yaml:14:11: routes[0].source: "x" is not an IP address',
        ],
    ),
    (
        "of the schema, of meaning and of references",
        manifest(
            "sandbox: web 1",
            nics=[
                nic("mtu: 9601"),
                nic(*SECOND, "hwAddr: 03:42:20:6f:a3:69"),
                nic(*THIRD),
                nic("name: eth3", *THIRD[1:]),
            ],
            routes=[
                route("dest: 10.8.0.1/16"),
                route("device: eth9"),
                route("metric: -1"),
                route("dest: 10.9.0.0/16", "device: eth1"),
                route("dest: default", "gateway: 10.7.0.1", "device: eth2"),
            ],
        ),
        [
            f'bad.yaml:2:10: sandbox: "web 1" is not valid; expected {ID}',
            "bad.yaml:8:8: interfaces[0].mtu: 9601 is above the maximum of 9600",
            (
                "bad.yaml:12:11: interfaces[1].hwAddr: 03:42:20:6f:a3:69 is a multicast address; "
                "a NIC needs a unicast one (an even first byte)"
            ),
            "bad.yaml:21:11: interfaces[3].device: tap2 is the device of interfaces[2] already",
            "bad.yaml:22:11: interfaces[3].hwAddr: 02:42:20:6f:a3:6b is the hwAddr of interfaces[2] already",
            "bad.yaml:26:9: routes[0].dest: 10.8.0.1/16 has host bits set; the network is 10.8.0.0/16",
            'bad.yaml:31:11: routes[1].device: no interface is named "eth9"; did you mean "eth3"?',
            "bad.yaml:35:11: routes[2].metric: -1 is below the minimum of 0",
            f"bad.yaml:40:12: routes[4].gateway: no address or route of eth2 reaches 10.7.0.1; {NOT_REACHED}",
        ],
    ),
    (
        "what is behind an interface in which something is wrong",
        manifest(nics=[nic("mtu: 9601")], routes=[route("gateway: 10.99.0.1")]),
        ["bad.yaml:8:8: interfaces[0].mtu: 9601 is above the maximum of 9600"],
    ),
    (
        "too many interfaces, and one of them wrong",
        manifest(nics=[*many(256), "- {name: e256, device: t256, hwAddr: 02:42:20:6f:01:00, mtu: 9601}"]),
        [
            "bad.yaml:5:1: interfaces: 257 items; at most 256 are allowed",
            "bad.yaml:261:62: interfaces[256].mtu: 9601 is above the maximum of 9600",
        ],
    ),
    (
        "several documents",
        with_nic("mtu: 9601") + "---\n" + manifest("driver") + "---\n" + with_route("device: eth9"),
        [
            "bad.yaml:8:8: interfaces[0].mtu: 9601 is above the maximum of 9600",
            f"bad.yaml:11:1: driver: missing; expected {DRIVER}",
            'bad.yaml:26:11: routes[0].device: no interface is named "eth9"; did you mean "eth0"?',
        ],
    ),
    (
        "JSON",
        (
            '{"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": {"netns": {"name": "web-1"}}, "routes": '
            '[{"dest": "10.8.0.1/16", "device": "eth0"}]}'
        ),
        ["bad.yaml:1:113: routes[0].dest: 10.8.0.1/16 has host bits set; the network is 10.8.0.0/16"],
    ),
    (
        "below an alias",
        manifest(nics=[nic("addresses: &list [10.0.0.2/24, 10.0.0.0/24]"), nic(*SECOND, "addresses: *list")]),
        [
            (
                "bad.yaml:9:34: interfaces[0].addresses[1]: 10.0.0.0/24 is the address of the network itself; "
                "a host needs one within it"
            ),
            (
                "bad.yaml:14:14: interfaces[1].addresses[1]: 10.0.0.0/24 is the address of the network itself; "
                "a host needs one within it"
            ),
        ],
    ),
    (
        "characters of other alphabets before it",
        manifest(nics=["- {name: eth0, 東京: 1, mtu: 9601}"]),
        [
            f"bad.yaml:5:3: interfaces[0].device: missing; expected {DEVICE}",
            f"bad.yaml:5:16: interfaces[0].東京: unknown field; expected {NIC_FIELDS}",
            "bad.yaml:5:28: interfaces[0].mtu: 9601 is above the maximum of 9600",
        ],
    ),
    (
        "lines that end as on Windows",
        with_nic("mtu: 9601").replace("\n", "\r\n"),
        ["bad.yaml:8:8: interfaces[0].mtu: 9601 is above the maximum of 9600"],
    ),
    (
        "byte order mark first",
        "\ufeff" + manifest("sandbox: web 1"),
        [f'bad.yaml:2:10: sandbox: "web 1" is not valid; expected {ID}'],
    ),
    (
        "comments and blank lines",
        manifest("sandbox: # the first\n\n  web 1 # no name"),
        [f'bad.yaml:4:3: sandbox: "web 1" is not valid; expected {ID}'],
    ),
]

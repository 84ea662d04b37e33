"""What is wrong with a neighbour."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, neighbour, nic, with_neighbour

LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
MAC = "missing; expected the MAC address of the neighbour, or proxy: true"
TAKEN = "neighbours[0] has this address on this device already"

ROWS: list[Row] = [
    (
        "neighbours are a mapping",
        manifest("neighbours: {}"),
        [
            (
                "bad.yaml:4:13: neighbours: an empty mapping; "
                "expected a list of static entries of the neighbour tables of the sandbox (ARP, NDP)"
            )
        ],
    ),
    (
        "neighbour is text",
        manifest("neighbours: [a]"),
        [
            (
                'bad.yaml:4:14: neighbours[0]: "a" is text; expected a neighbour: a mapping with address,'
                " device, and hwAddr or proxy: true, such as {address: 172.17.0.1, device: eth0, hwAddr: "
                '"02:42:20:6f:a3:01"}'
            )
        ],
    ),
    (
        "neighbour without address",
        with_neighbour("address"),
        [
            (
                "bad.yaml:11:3: neighbours[0].address: missing; "
                "expected the IP address of the neighbour, without a prefix length"
            )
        ],
    ),
    (
        "neighbour without device",
        with_neighbour("device"),
        ["bad.yaml:11:3: neighbours[0].device: missing; expected the name of an interface in the sandbox"],
    ),
    (
        "neighbour on a device without MAC addresses",
        manifest(
            nics=[nic("hwAddr")], neighbours=[neighbour(), neighbour("address: 10.0.0.9", "hwAddr", "proxy: true")]
        ),
        ["bad.yaml:11:11: neighbours[0].device: eth0 has no hwAddr, so no neighbour there has one"],
    ),
    ("neighbour without hwAddr", with_neighbour("hwAddr"), [f"bad.yaml:11:3: neighbours[0].hwAddr: {MAC}"]),
    (
        "no proxy and no hwAddr",
        with_neighbour("hwAddr", "proxy: false"),
        [f"bad.yaml:11:3: neighbours[0].hwAddr: {MAC}"],
    ),
    (
        "proxy with a hwAddr",
        with_neighbour("proxy: true"),
        [
            (
                "bad.yaml:13:3: neighbours[0].hwAddr: is of another host; "
                "with proxy: true the NIC answers with its own address"
            )
        ],
    ),
    (
        "word of iproute2 in a neighbour",
        with_neighbour("hwAddr", "lladdr: 02:42:20:6f:a3:01"),
        ['bad.yaml:13:3: neighbours[0].lladdr: unknown field; did you mean "hwAddr"?'],
    ),
    (
        "misspelt hwAddr of a neighbour",
        with_neighbour("hwAdr: 02:42:20:6f:a3:01", "hwAddr"),
        ['bad.yaml:13:3: neighbours[0].hwAdr: unknown field; did you mean "hwAddr"?'],
    ),
    (
        "neighbour with a length",
        with_neighbour("address: 10.0.0.1/24"),
        [
            (
                'bad.yaml:11:12: neighbours[0].address: "10.0.0.1/24" is not an IP address; leave out '
                "the prefix length: 10.0.0.1"
            )
        ],
    ),
    (
        "address of a neighbour is a number",
        with_neighbour("address: 10"),
        [
            (
                "bad.yaml:11:12: neighbours[0].address: 10 is a number; "
                "expected the IP address of the neighbour, without a prefix length"
            )
        ],
    ),
    (
        "address of a neighbour is a name",
        with_neighbour("address: router"),
        ['bad.yaml:11:12: neighbours[0].address: "router" is not an IP address'],
    ),
    (
        "neighbour is a group",
        with_neighbour("address: 224.0.0.1"),
        ["bad.yaml:11:12: neighbours[0].address: 224.0.0.1 is not a unicast address"],
    ),
    (
        "neighbour is an IPv6 group",
        with_neighbour("address: ff02::1"),
        ["bad.yaml:11:12: neighbours[0].address: ff02::1 is not a unicast address"],
    ),
    (
        "neighbour unspecified",
        with_neighbour("address: 0.0.0.0"),
        ["bad.yaml:11:12: neighbours[0].address: 0.0.0.0 is not a unicast address"],
    ),
    (
        "neighbour is the broadcast address",
        with_neighbour("address: 255.255.255.255"),
        ["bad.yaml:11:12: neighbours[0].address: 255.255.255.255 is not a unicast address"],
    ),
    (
        "MAC of a neighbour is short",
        with_neighbour("hwAddr: 02:42:20:6f:a3"),
        [
            (
                'bad.yaml:13:11: neighbours[0].hwAddr: "02:42:20:6f:a3" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC of a neighbour is a group",
        with_neighbour("hwAddr: 01:00:5e:00:00:01"),
        [
            (
                "bad.yaml:13:11: neighbours[0].hwAddr: 01:00:5e:00:00:01 is a multicast address; "
                "a NIC needs a unicast one (an even first byte)"
            )
        ],
    ),
    (
        "MAC of a neighbour is zero",
        with_neighbour("hwAddr: 00:00:00:00:00:00"),
        ["bad.yaml:13:11: neighbours[0].hwAddr: 00:00:00:00:00:00 is not an address that a NIC can have"],
    ),
    (
        "MAC of a neighbour is a number",
        with_neighbour("hwAddr: 2"),
        [
            (
                "bad.yaml:13:11: neighbours[0].hwAddr: 2 is a number; "
                "expected the MAC address of the neighbour, such as 02:42:20:6f:a3:01; none with proxy: true"
            )
        ],
    ),
    (
        "device of a neighbour is misspelt",
        with_neighbour("device: eht0"),
        ['bad.yaml:12:11: neighbours[0].device: no interface is named "eht0"; did you mean "eth0"?'],
    ),
    (
        "device of a neighbour is the host's",
        with_neighbour("device: tap0"),
        ['bad.yaml:12:11: neighbours[0].device: no interface is named "tap0"; that is the device of eth0 on the host'],
    ),
    (
        "neighbour on lo",
        with_neighbour("device: lo"),
        ['bad.yaml:12:11: neighbours[0].device: no interface is named "lo"; expected one of: eth0'],
    ),
    (
        "device of a neighbour is no name",
        with_neighbour("device: '0'"),
        [f'bad.yaml:12:11: neighbours[0].device: "0" is not valid; expected {LINK}'],
    ),
    (
        "router of IPv4",
        with_neighbour("router: true"),
        ["bad.yaml:14:11: neighbours[0].router: 10.0.0.1 is IPv4; only IPv6 marks its routers"],
    ),
    (
        "router is text",
        with_neighbour("address: fd00::1", "router: yes"),
        ['bad.yaml:14:11: neighbours[0].router: "yes" is text; expected true: the neighbour is an IPv6 router'],
    ),
    (
        "proxy is a number",
        with_neighbour("hwAddr", "proxy: 1"),
        [
            (
                "bad.yaml:13:10: neighbours[0].proxy: 1 is a number; "
                "expected true: the interface answers for this address with its own MAC address"
            )
        ],
    ),
    (
        "all wrong with a neighbour",
        with_neighbour("address: 224.0.0.1", "hwAddr: x", "device: eth9"),
        [
            "bad.yaml:11:12: neighbours[0].address: 224.0.0.1 is not a unicast address",
            (
                'bad.yaml:13:11: neighbours[0].hwAddr: "x" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            ),
        ],
    ),
    (
        "neighbour twice",
        manifest(nics=[nic()], neighbours=[neighbour(), neighbour()]),
        [f"bad.yaml:14:12: neighbours[1].address: {TAKEN}"],
    ),
    (
        "IPv6 neighbour twice with another MAC",
        manifest(
            nics=[nic()],
            neighbours=[neighbour("address: fd00::1"), neighbour("address: FD00:0::1", "hwAddr: 02:42:20:6f:a3:02")],
        ),
        [f"bad.yaml:14:12: neighbours[1].address: {TAKEN}"],
    ),
    (
        "proxy twice",
        manifest(nics=[nic()], neighbours=[neighbour("hwAddr", "proxy: true"), neighbour("hwAddr", "proxy: true")]),
        [f"bad.yaml:14:12: neighbours[1].address: {TAKEN}"],
    ),
    (
        "neighbour and no interface",
        manifest("interfaces: []", neighbours=[neighbour()]),
        ['bad.yaml:7:11: neighbours[0].device: no interface is named "eth0"; none is declared'],
    ),
    (
        "IPv6 neighbour on a small MTU",
        manifest(nics=[nic("mtu: 1000", "addresses: [10.0.0.2/24]")], neighbours=[neighbour("address: fd00::1")]),
        ["bad.yaml:11:12: neighbours[0].address: eth0 has an MTU of 1000; IPv6 needs 1280 (RFC 8200)"],
    ),
]

"""What is wrong with an interface."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, nic, with_nic

LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
NAME = "the name of the interface in the sandbox: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
DEVICE = "the name of the device on the host: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
INTERFACE = (
    "an interface: a mapping with name, and with device, mtu and mostly hwAddr, or one of vlan, bridge, bond, vrf, "
    "macvlan and dummy"
)
MAC = "a unicast MAC address such as 02:42:20:6f:a3:69"
NO_MAC = "missing; expected a unicast MAC address: only a network namespace takes a device without one"
MTU = "an MTU from 46 to 9600 bytes"
QUEUES = "a number of queues from 0 to 256; 0 means a single queue"
SOCKET = (
    "the absolute path of a vhost-user socket (such as one of DPDK), in place of a TAP: at most 107 letters, digits, "
    "'_', '-', '.' and '/'"
)
ADDRESS = "an address such as 172.16.0.3/16, or {address: fd00::1/64, dad: false}"
NIC_FIELDS = (
    "one of: name, device, hwAddr, mtu, state, addresses, vlan, bridge, bond, vrf, macvlan, dummy, master, queues, "
    "vhostUserSocket, sysctls, alias, altnames, txQueueLen, gsoMaxSize, arp, allmulticast"
)

ROWS: list[Row] = [
    (
        "interface is text",
        manifest(nics=["- eth0"]),
        [
            (
                'bad.yaml:5:3: interfaces[0]: "eth0" is text; expected an interface: a mapping with name,'
                " and with device, mtu and mostly hwAddr, or one of vlan, bridge, bond, vrf, macvlan and dummy, "
                "such as {name: eth0, device: tap-web-1, hwAddr: "
                '"02:42:20:6f:a3:69", mtu: 1500, addresses: [172.17.0.7/16]}'
            )
        ],
    ),
    (
        "interface is null",
        manifest(nics=["-"]),
        [
            (
                "bad.yaml:5:2: interfaces[0]: nothing is given; expected an interface: a mapping with "
                "name, and with device, mtu and mostly hwAddr, or one of vlan, bridge, bond, vrf, macvlan and dummy, "
                "such as {name: eth0, device: tap-web-1, hwAddr: "
                '"02:42:20:6f:a3:69", mtu: 1500, addresses: [172.17.0.7/16]}'
            )
        ],
    ),
    (
        "interface is a list",
        manifest(nics=["- [eth0]"]),
        [f"bad.yaml:5:3: interfaces[0]: a list of 1 item; expected {INTERFACE}"],
    ),
    (
        "interface is empty",
        manifest(nics=["- {}"]),
        [
            f"bad.yaml:5:3: interfaces[0].name: missing; expected {NAME}",
            f"bad.yaml:5:3: interfaces[0].device: missing; expected {DEVICE}",
            f"bad.yaml:5:3: interfaces[0].mtu: missing; expected {MTU}",
        ],
    ),
    ("no name", with_nic("name"), [f"bad.yaml:5:3: interfaces[0].name: missing; expected {NAME}"]),
    ("no device", with_nic("device"), [f"bad.yaml:5:3: interfaces[0].device: missing; expected {DEVICE}"]),
    *(
        (
            f"no hwAddr in a {driver.partition(':')[0]}",
            manifest(f"driver: {{{driver}}}", nics=[nic("hwAddr", "addresses: [10.0.0.2/24]")]),
            [f"bad.yaml:5:3: interfaces[0].hwAddr: {NO_MAC}"],
        )
        for driver in ("vm: {name: web-1}", "libvirt: {domain: web-1}", "kata: {id: web-1}")
    ),
    ("no mtu", with_nic("mtu"), [f"bad.yaml:5:3: interfaces[0].mtu: missing; expected {MTU}"]),
    (
        "misspelt hwAddr",
        with_nic("hwaddr: 02:42:20:6f:a3:69", "hwAddr"),
        [
            'bad.yaml:9:3: interfaces[0].hwaddr: unknown field; did you mean "hwAddr"?',
        ],
    ),
    (
        "imperative address",
        with_nic("IPAddresses: []"),
        ['bad.yaml:10:3: interfaces[0].IPAddresses: unknown field; did you mean "addresses"?'],
    ),
    (
        "unknown field of an interface",
        with_nic("up: true"),
        [f"bad.yaml:10:3: interfaces[0].up: unknown field; expected {NIC_FIELDS}"],
    ),
    ("name is empty", with_nic("name: ''"), [f'bad.yaml:5:9: interfaces[0].name: "" is not valid; expected {LINK}']),
    (
        "name of 16 characters",
        with_nic("name: eth0123456789012"),
        [f'bad.yaml:5:9: interfaces[0].name: "eth0123456789012" is not valid; expected {LINK}'],
    ),
    (
        "name begins with a digit",
        with_nic("name: 0eth"),
        [f'bad.yaml:5:9: interfaces[0].name: "0eth" is not valid; expected {LINK}'],
    ),
    (
        "name with a slash",
        with_nic("name: eth/0"),
        [f'bad.yaml:5:9: interfaces[0].name: "eth/0" is not valid; expected {LINK}'],
    ),
    (
        "name with a blank",
        with_nic("name: eth 0"),
        [f'bad.yaml:5:9: interfaces[0].name: "eth 0" is not valid; expected {LINK}'],
    ),
    (
        "name with a line end",
        with_nic('name: "eth0\\n"'),
        [f'bad.yaml:5:9: interfaces[0].name: "eth0\\n" is not valid; expected {LINK}'],
    ),
    (
        "name of another alphabet",
        with_nic("name: ëth0"),
        [f'bad.yaml:5:9: interfaces[0].name: "ëth0" is not valid; expected {LINK}'],
    ),
    ("name is a number", with_nic("name: 0"), [f"bad.yaml:5:9: interfaces[0].name: 0 is a number; expected {LINK}"]),
    ("name is null", with_nic("name: ~"), [f"bad.yaml:5:9: interfaces[0].name: nothing is given; expected {LINK}"]),
    (
        "name is a boolean",
        with_nic("name: true"),
        [f"bad.yaml:5:9: interfaces[0].name: true is a boolean; expected {LINK}"],
    ),
    (
        "device of 16 characters",
        with_nic("device: tap0123456789012"),
        [f'bad.yaml:6:11: interfaces[0].device: "tap0123456789012" is not valid; expected {LINK}'],
    ),
    (
        "device is a number",
        with_nic("device: 7"),
        [f"bad.yaml:6:11: interfaces[0].device: 7 is a number; expected {LINK}"],
    ),
    (
        "device is an alternative",
        with_nic("device: [tap0, tap1]"),
        [f"bad.yaml:6:11: interfaces[0].device: a list of 2 items; expected {LINK}"],
    ),
    (
        "MAC of digits without colons",
        with_nic("hwAddr: 525400123456"),
        [f"bad.yaml:7:11: interfaces[0].hwAddr: 525400123456 is a number; expected {MAC}"],
    ),
    (
        "MAC in hexadecimal",
        with_nic("hwAddr: 0x525400123456"),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "0x525400123456" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC of five bytes",
        with_nic("hwAddr: 02:42:20:6f:a3"),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "02:42:20:6f:a3" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC of seven bytes",
        with_nic("hwAddr: 02:42:20:6f:a3:69:01"),
        [f'bad.yaml:7:11: interfaces[0].hwAddr: "02:42:20:6f:a3:69:01" is not valid; expected {MAC}'],
    ),
    (
        "MAC of no hexadecimal digit",
        with_nic("hwAddr: 02:42:20:6f:a3:6g"),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "02:42:20:6f:a3:6g" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC of single digits",
        with_nic("hwAddr: 2:42:20:6f:a3:9"),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "2:42:20:6f:a3:9" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC in Cisco form",
        with_nic("hwAddr: 0242.206f.a369"),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "0242.206f.a369" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC with a line end",
        with_nic('hwAddr: "02:42:20:6f:a3:6\\n"'),
        [
            (
                'bad.yaml:7:11: interfaces[0].hwAddr: "02:42:20:6f:a3:6\\n" is not a MAC address; '
                "expected six bytes such as 02:42:20:6f:a3:69"
            )
        ],
    ),
    (
        "MAC of a group",
        with_nic("hwAddr: 03:42:20:6f:a3:69"),
        [
            (
                "bad.yaml:7:11: interfaces[0].hwAddr: 03:42:20:6f:a3:69 is a multicast address; "
                "a NIC needs a unicast one (an even first byte)"
            )
        ],
    ),
    (
        "MAC of zeros",
        with_nic("hwAddr: 00:00:00:00:00:00"),
        ["bad.yaml:7:11: interfaces[0].hwAddr: 00:00:00:00:00:00 is not an address that a NIC can have"],
    ),
    (
        "MAC is empty",
        with_nic("hwAddr: ''"),
        ['bad.yaml:7:11: interfaces[0].hwAddr: "" is not a MAC address; expected six bytes such as 02:42:20:6f:a3:69'],
    ),
    ("MTU below", with_nic("mtu: 45", "addresses"), ["bad.yaml:8:8: interfaces[0].mtu: 45 is below the minimum of 46"]),
    ("MTU above", with_nic("mtu: 9601"), ["bad.yaml:8:8: interfaces[0].mtu: 9601 is above the maximum of 9600"]),
    ("MTU below zero", with_nic("mtu: -1500"), ["bad.yaml:8:8: interfaces[0].mtu: -1500 is below the minimum of 46"]),
    (
        "MTU in scientific notation",
        with_nic("mtu: 1e3"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "1e3" is text; expected {MTU}'],
    ),
    (
        "MTU octal of YAML 1.1",
        with_nic("mtu: 0777"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "0777" is text; expected {MTU}'],
    ),
    (
        "MTU octal of YAML 1.2",
        with_nic("mtu: 0o777"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "0o777" is text; expected {MTU}'],
    ),
    ("MTU hexadecimal", with_nic("mtu: 0x5dc"), [f'bad.yaml:8:8: interfaces[0].mtu: "0x5dc" is text; expected {MTU}']),
    (
        "MTU with an underscore",
        with_nic("mtu: 1_500"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "1_500" is text; expected {MTU}'],
    ),
    ("MTU sexagesimal", with_nic("mtu: 25:00"), [f'bad.yaml:8:8: interfaces[0].mtu: "25:00" is text; expected {MTU}']),
    ("MTU with a sign", with_nic("mtu: +1500"), [f'bad.yaml:8:8: interfaces[0].mtu: "+1500" is text; expected {MTU}']),
    (
        "MTU with a fraction",
        with_nic("mtu: 1500.0"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "1500.0" is text; expected {MTU}'],
    ),
    (
        "MTU quoted",
        with_nic("mtu: '1500'"),
        [
            (
                'bad.yaml:8:8: interfaces[0].mtu: "1500" is text; expected an MTU from 46 to 9600 bytes; '
                "write 1500 without quotes"
            )
        ],
    ),
    ("MTU on", with_nic("mtu: on"), [f'bad.yaml:8:8: interfaces[0].mtu: "on" is text; expected {MTU}']),
    ("MTU is null", with_nic("mtu:"), [f"bad.yaml:8:7: interfaces[0].mtu: nothing is given; expected {MTU}"]),
    (
        "MTU is a boolean",
        with_nic("mtu: true"),
        [f"bad.yaml:8:8: interfaces[0].mtu: true is a boolean; expected {MTU}"],
    ),
    (
        "MTU of 19 digits",
        with_nic("mtu: 1500000000000000000"),
        [f'bad.yaml:8:8: interfaces[0].mtu: "1500000000000000000" is text; expected {MTU}'],
    ),
    (
        "MTU below that of IPv6",
        with_nic("mtu: 1279"),
        [
            (
                "bad.yaml:9:28: interfaces[0].addresses[1]: fd00::2/64 needs an MTU of at least 1280 (RFC 8200); "
                "this interface has 1279"
            )
        ],
    ),
    ("queues below", with_nic("queues: -1"), ["bad.yaml:10:11: interfaces[0].queues: -1 is below the minimum of 0"]),
    (
        "queues above",
        with_nic("queues: 257"),
        ["bad.yaml:10:11: interfaces[0].queues: 257 is above the maximum of 256"],
    ),
    (
        "queues off",
        with_nic("queues: off"),
        [f'bad.yaml:10:11: interfaces[0].queues: "off" is text; expected {QUEUES}'],
    ),
    (
        "queues is null",
        with_nic("queues: null"),
        [f"bad.yaml:10:11: interfaces[0].queues: nothing is given; expected {QUEUES}"],
    ),
    (
        "socket relative",
        with_nic("vhostUserSocket: run/vhost-user1"),
        [f'bad.yaml:10:20: interfaces[0].vhostUserSocket: "run/vhost-user1" is not valid; expected {SOCKET}'],
    ),
    (
        "socket with a blank",
        with_nic("vhostUserSocket: /run/vhost user1"),
        [f'bad.yaml:10:20: interfaces[0].vhostUserSocket: "/run/vhost user1" is not valid; expected {SOCKET}'],
    ),
    (
        "socket is a folder",
        with_nic("vhostUserSocket: /run/"),
        [f'bad.yaml:10:20: interfaces[0].vhostUserSocket: "/run/" is not valid; expected {SOCKET}'],
    ),
    (
        "socket with a line end",
        with_nic('vhostUserSocket: "/run/vhost-user1\\n"'),
        [f'bad.yaml:10:20: interfaces[0].vhostUserSocket: "/run/vhost-user1\\n" is not valid; expected {SOCKET}'],
    ),
    (
        "socket longer than unix sockets are",
        with_nic(f"vhostUserSocket: /{'a' * 107}"),
        [
            (
                'bad.yaml:10:20: interfaces[0].vhostUserSocket: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (108 '
                f"characters) is not valid; expected {SOCKET}"
            )
        ],
    ),
    (
        "socket of a namespace",
        with_nic("vhostUserSocket: /run/vhost-user1"),
        [
            (
                "bad.yaml:10:20: interfaces[0].vhostUserSocket: a network namespace has no vhost-user NICs; "
                "those are for virtual machines"
            )
        ],
    ),
    (
        "addresses is text",
        with_nic("addresses: 10.0.0.2/24"),
        [
            (
                'bad.yaml:9:14: interfaces[0].addresses: "10.0.0.2/24" is text; '
                "expected a list of addresses such as 172.16.0.3/16"
            )
        ],
    ),
    (
        "1025 addresses",
        with_nic(f"addresses: [{', '.join(['10.0.0.2/24'] * 1025)}]"),
        ["bad.yaml:9:14: interfaces[0].addresses: 1025 items; at most 1024 are allowed"],
    ),
    (
        "address is a number",
        with_nic("addresses: [7]"),
        [f"bad.yaml:9:15: interfaces[0].addresses[0]: 7 is a number; expected {ADDRESS}"],
    ),
    (
        "address is null",
        with_nic("addresses: [~]"),
        [f"bad.yaml:9:15: interfaces[0].addresses[0]: nothing is given; expected {ADDRESS}"],
    ),
    (
        "address without a length",
        with_nic("addresses: [10.0.0.2]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: 10.0.0.2 has no prefix length; "
                "write that of its network, such as 10.0.0.2/24"
            )
        ],
    ),
    (
        "IPv6 address without a length",
        with_nic('addresses: ["fd00::2"]'),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: fd00::2 has no prefix length; "
                "write that of its network, such as fd00::2/64"
            )
        ],
    ),
    (
        "no address at all",
        with_nic("addresses: [dhcp]"),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "dhcp" is not an IP address'],
    ),
    (
        "address is empty",
        with_nic("addresses: ['']"),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "" is not an IP address'],
    ),
    (
        "address with a leading zero",
        with_nic("addresses: [10.0.0.02/24]"),
        [
            (
                'bad.yaml:9:15: interfaces[0].addresses[0]: "10.0.0.02" is not an IP address; its '
                "numbers have no zeros in front: 10.0.0.2"
            )
        ],
    ),
    (
        "address above 255",
        with_nic("addresses: [10.0.0.256/24]"),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "10.0.0.256" is not an IP address'],
    ),
    (
        "address with a netmask",
        with_nic("addresses: [10.0.0.2/255.255.255.0]"),
        [
            (
                'bad.yaml:9:15: interfaces[0].addresses[0]: "10.0.0.2/255.255.255.0" has no valid prefix '
                "length; expected /24 for the netmask 255.255.255.0"
            )
        ],
    ),
    (
        "length above 32",
        with_nic("addresses: [10.0.0.2/33]"),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "10.0.0.2/33" has no valid prefix length; expected /0 to /32'],
    ),
    (
        "length above 128",
        with_nic('addresses: ["fd00::2/129"]'),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "fd00::2/129" has no valid prefix length; expected /0 to /128'],
    ),
    (
        "length below zero",
        with_nic("addresses: [10.0.0.2/-1]"),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "10.0.0.2/-1" has no valid prefix length; expected /0 to /32'],
    ),
    (
        "address with a zone",
        with_nic('addresses: ["fe80::2%eth0/64"]'),
        ['bad.yaml:9:15: interfaces[0].addresses[0]: "fe80::2%eth0" is not an IP address'],
    ),
    (
        "address of a group",
        with_nic('addresses: [224.0.0.1/24, "ff02::1/64"]'),
        [
            "bad.yaml:9:15: interfaces[0].addresses[0]: 224.0.0.1/24 is not a unicast address",
            "bad.yaml:9:29: interfaces[0].addresses[1]: ff02::1/64 is not a unicast address",
        ],
    ),
    (
        "address unspecified",
        with_nic('addresses: [0.0.0.0/32, "::/128"]'),
        [
            "bad.yaml:9:15: interfaces[0].addresses[0]: 0.0.0.0/32 is not a unicast address",
            "bad.yaml:9:27: interfaces[0].addresses[1]: ::/128 is not a unicast address",
        ],
    ),
    (
        "address of the network",
        with_nic("addresses: [10.0.0.0/24]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: 10.0.0.0/24 is the address of the network itself; "
                "a host needs one within it"
            )
        ],
    ),
    (
        "IPv6 address listed twice, with another length",
        with_nic('addresses: ["fd00::2/64", "fd00::2/48"]'),
        ["bad.yaml:9:29: interfaces[0].addresses[1]: fd00::2/48 is listed twice"],
    ),
    (
        "loopback address",
        with_nic('addresses: ["::1/128"]'),
        ["bad.yaml:9:15: interfaces[0].addresses[0]: ::1/128 is the loopback address, which only lo has"],
    ),
    (
        "label of IPv6",
        with_nic("addresses: [{address: 'fd00::2/64', label: eth0}]"),
        ["bad.yaml:9:15: interfaces[0].addresses[0]: fd00::2/64 is IPv6; a label is IPv4 only"],
    ),
    (
        "label of another interface",
        with_nic("addresses: [{address: 10.0.0.2/16, label: 'eth1:1'}]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: the label eth1:1 has to begin with the name of the "
                "interface, such as eth0:1"
            )
        ],
    ),
    (
        "metric without a route",
        with_nic("addresses: [{address: 10.0.0.2/16, metric: 7, noprefixroute: true}]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: 10.0.0.2/16 has noprefixroute, so there is no connected "
                "route that could have a metric"
            )
        ],
    ),
    (
        "two metrics in a network",
        with_nic("addresses: [10.0.0.2/16, {address: 10.0.0.3/16, metric: 7}]"),
        [
            (
                "bad.yaml:9:28: interfaces[0].addresses[1]: 10.0.0.3/16 has another scope, metric or noprefixroute "
                "than another address of 10.0.0.0/16"
            )
        ],
    ),
    (
        "address listed twice",
        with_nic('addresses: ["fd00::2/64", "FD00:0::0:2/64"]'),
        ["bad.yaml:9:29: interfaces[0].addresses[1]: fd00::2/64 is listed twice"],
    ),
    (
        "address of 65 characters",
        with_nic(f"addresses: [{'1' * 65}]"),
        [
            (
                'bad.yaml:9:15: interfaces[0].addresses[0]: "1111111111111111111111111111111111111…" (65 characters) '
                f"is not valid; expected {ADDRESS}"
            )
        ],
    ),
    (
        "address mapping without address",
        with_nic("addresses: [{dad: false}]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0].address: missing; expected an address such as fd00::1/64, "
                "or without the length if it has a peer"
            )
        ],
    ),
    (
        "address mapping with more",
        with_nic('addresses: [{address: "fd00::2/64", gateway: "fd00::1"}]'),
        [
            (
                "bad.yaml:9:39: interfaces[0].addresses[0].gateway: unknown field; expected one of: address, peer, "
                "dad, label, scope, metric, noprefixroute"
            )
        ],
    ),
    (
        "what needs a link that is up",
        with_nic("state: down")
        + "- {name: lan, vlan: {link: eth0, id: 7}}\n"
        + "- {name: bond0, bond: {}}\n"
        + "- {name: p, device: tap1, hwAddr: '02:42:20:6f:a3:70', mtu: 1500, master: bond0, state: down}\n"
        + "routes: [{dest: 10.1.0.0/16, device: eth0}, {dest: 'fd01::/64', device: bond0, source: 'fd00::2'}]\n",
        [
            (
                "bad.yaml:11:28: interfaces[1].vlan.link: eth0 has state: down, and the kernel sets no vlan up on a "
                "link that is down"
            ),
            "bad.yaml:13:75: interfaces[3].master: p has state: down, and the kernel sets a port of a bond up",
            (
                "bad.yaml:14:38: routes[0].device: eth0 has state: down, and the kernel refuses routes over a link "
                "that is down"
            ),
            "bad.yaml:14:88: routes[1].source: fd00::2 is tentative while eth0 has state: down; give it dad: false",
        ],
    ),
    (
        "peers",
        with_nic(
            "addresses: [{address: 10.0.0.2/24, peer: 10.0.0.3/32}, {address: 10.0.0.2}, {address: 10.0.0.2, "
            "peer: '10.0.0.2/24'}, {address: 10.0.0.2, peer: 'fd00::1/64'}, {address: 10.0.0.2, peer: 224.0.0.1/32}, "
            "{address: 10.0.0.2, peer: 10.0.0.9}, "
            "{address: 10.0.0.4, peer: 10.0.0.5/24}, {address: 10.0.0.4, peer: 10.0.0.6/24}, "
            "{address: 10.0.0.6, peer: 10.0.0.4/32}, {address: 'fd00::2', peer: 'fd00::4/64'}, "
            "{address: 'fd00::3', peer: 'fd00::4/128'}]"
        ),
        [
            f"bad.yaml:9:{column}: interfaces[0].addresses{message}"
            for column, message in (
                (15, "[0]: 10.0.0.2/24 has a peer, so the prefix length is that of the peer; write 10.0.0.2"),
                (58, "[1]: 10.0.0.2 has no prefix length; write that of its network, such as 10.0.0.2/24"),
                (79, "[2]: 10.0.0.2 is its own peer; for an address without a peer, write 10.0.0.2/24"),
                (121, "[3]: 10.0.0.2 and its peer fd00::1/64 are not of the same family"),
                (162, "[4]: the peer 224.0.0.1/32 is not a unicast address"),
                (203, "[5]: the peer 10.0.0.9 has no prefix length; for a single host, write 10.0.0.9/32"),
                (280, "[7]: 10.0.0.4 peer 10.0.0.6/24 is listed twice"),
                (306, "[7].peer: 10.0.0.6 is an address of the interface itself"),
                (346, "[8].peer: 10.0.0.4 is an address of the interface itself"),
                (
                    429,
                    "[10].peer: fd00::4 is the peer of another address, with which the kernel deletes the route to it",
                ),
            )
        ],
    ),
    (
        "dad off",
        with_nic('addresses: [{address: "fd00::2/64", dad: off}]'),
        [
            (
                'bad.yaml:9:44: interfaces[0].addresses[0].dad: "off" is text; '
                "expected true or false: whether the kernel makes sure that no other host has this IPv6 address "
                "(duplicate address detection)"
            )
        ],
    ),
    (
        "dad of IPv4",
        with_nic("addresses: [{address: 10.0.0.2/24, dad: true}]"),
        [
            (
                "bad.yaml:9:15: interfaces[0].addresses[0]: 10.0.0.2/24 is IPv4; "
                "duplicate address detection (dad) is IPv6 only"
            )
        ],
    ),
    (
        "flow mapping of IPv6 unquoted",
        with_nic("addresses: [{address: fd00::2/64, dad: 0}]"),
        [
            (
                "bad.yaml:9:42: interfaces[0].addresses[0].dad: 0 is a number; "
                "expected true or false: whether the kernel makes sure that no other host has this IPv6 address "
                "(duplicate address detection)"
            )
        ],
    ),
    (
        "alias and names that mark what is ours",
        with_nic(
            'alias: "reconciler: device=tap0 hwaddr=02:00:00:00:00:01 mtu=1500"',
            "altnames: [lan, reconciler.made.eth0]",
        ),
        [
            "bad.yaml:10:10: interfaces[0].alias: reconciler itself gives devices such an alias; choose another one",
            (
                "bad.yaml:11:19: interfaces[0].altnames[1]: reconciler.made.eth0: names that begin with reconciler. "
                "are marks of reconciler itself"
            ),
        ],
    ),
    (
        "an alternative name that is taken",
        with_nic("altnames: [lan, eth0]"),
        ["bad.yaml:10:13: interfaces[0].altnames: eth0 is a name of an interface already"],
    ),
]

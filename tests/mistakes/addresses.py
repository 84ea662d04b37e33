"""Mistakes in addresses, prefixes, families, names and references."""

from __future__ import annotations

from tests.mistakes.manifest import IPVS, Row

ROWS: list[Row] = [
    Row(
        "no prefix length",
        "excellent",
        "192.0.2.10/24",
        "192.0.2.10",
        (
            "10:17: interfaces[0].addresses[0]: 192.0.2.10 has no prefix length; write that of its "
            "network, such as 192.0.2.10/24"
        ),
    ),
    Row(
        "netmask",
        "excellent",
        "192.0.2.10/24",
        "192.0.2.10/255.255.255.0",
        (
            '10:17: interfaces[0].addresses[0]: "192.0.2.10/255.255.255.0" has no valid prefix '
            "length; expected /24 for the netmask 255.255.255.0"
        ),
    ),
    Row(
        "prefix too long",
        "excellent",
        "192.0.2.10/24",
        "192.0.2.10/33",
        ('10:17: interfaces[0].addresses[0]: "192.0.2.10/33" has no valid prefix length; expected /0 to /32'),
    ),
    Row(
        "number above 255",
        "good",
        "192.0.2.10/24",
        "192.0.2.256/24",
        '10:17: interfaces[0].addresses[0]: "192.0.2.256" is not an IP address',
    ),
    Row(
        "zero in front",
        "excellent",
        "192.0.2.10/24",
        "192.0.2.010/24",
        (
            '10:17: interfaces[0].addresses[0]: "192.0.2.010" is not an IP address; its numbers have '
            "no zeros in front: 192.0.2.10"
        ),
    ),
    Row(
        "address of the network",
        "excellent",
        "192.0.2.10/24",
        "192.0.2.0/24",
        (
            "10:17: interfaces[0].addresses[0]: 192.0.2.0/24 is the address of the network itself; a "
            "host needs one within it"
        ),
    ),
    Row(
        "colons of IPv6",
        "good",
        "2001:db8::10/64",
        "2001:db8:::10/64",
        '10:32: interfaces[0].addresses[1]: "2001:db8:::10" is not an IP address',
    ),
    Row(
        "address twice",
        "excellent",
        "[192.0.2.10/24,",
        "[192.0.2.10/24, 192.0.2.10/24,",
        "10:32: interfaces[0].addresses[1]: 192.0.2.10/24 is listed twice",
    ),
    Row(
        "host bits in a destination",
        "excellent",
        "198.51.100.0/24",
        "198.51.100.7/24",
        "13:12: routes[1].dest: 198.51.100.7/24 has host bits set; the network is 198.51.100.0/24",
    ),
    Row(
        "0.0.0.0 as a destination",
        "excellent",
        "dest: default",
        "dest: 0.0.0.0",
        ("12:12: routes[0].dest: 0.0.0.0 alone is a single address; write default, or 0.0.0.0/0, for all addresses"),
    ),
    Row(
        "any as a destination",
        "excellent",
        "dest: default",
        "dest: any",
        (
            '12:12: routes[0].dest: "any" is no destination; expected default, a network such as '
            "10.8.0.0/16, or an address"
        ),
    ),
    Row(
        "prefix for a gateway",
        "excellent",
        "gateway: 192.0.2.1,",
        "gateway: 192.0.2.1/24,",
        ('12:30: routes[0].gateway: "192.0.2.1/24" is not an IP address; leave out the prefix length: 192.0.2.1'),
    ),
    Row(
        "gateway of the other family",
        "excellent",
        "198.51.100.0/24, gateway: 192.0.2.2",
        '"2001:db8:9::/48", gateway: 192.0.2.2',
        "13:40: routes[1].gateway: 192.0.2.2 is IPv4, and the destination is IPv6",
    ),
    Row(
        "gateway out of reach",
        "excellent",
        "gateway: 192.0.2.1,",
        "gateway: 203.0.113.1,",
        (
            "12:30: routes[0].gateway: no address or route of eth0 reaches 203.0.113.1; if it is on "
            "that link nevertheless: onLink: true"
        ),
    ),
    Row(
        "MAC too short",
        "excellent",
        "02:42:20:6f:a3:69",
        "02:42:20:6f:a3",
        (
            '8:13: interfaces[0].hwAddr: "02:42:20:6f:a3" is not a MAC address; expected six bytes '
            "such as 02:42:20:6f:a3:69"
        ),
    ),
    Row(
        "MAC of Cisco",
        "excellent",
        "02:42:20:6f:a3:69",
        "0242.206f.a369",
        (
            '8:13: interfaces[0].hwAddr: "0242.206f.a369" is not a MAC address; expected six bytes '
            "such as 02:42:20:6f:a3:69"
        ),
    ),
    Row(
        "MAC of a group",
        "excellent",
        "02:42:20:6f:a3:69",
        "03:42:20:6f:a3:69",
        (
            "8:13: interfaces[0].hwAddr: 03:42:20:6f:a3:69 is a multicast address; a NIC needs a "
            "unicast one (an even first byte)"
        ),
    ),
    Row(
        "route over an unknown interface",
        "excellent",
        "192.0.2.1, device: eth0",
        "192.0.2.1, device: eth1",
        '12:49: routes[0].device: no interface is named "eth1"; did you mean "eth0"?',
    ),
    Row(
        "route over the device of the host",
        "excellent",
        "192.0.2.1, device: eth0",
        "192.0.2.1, device: tap0",
        '12:49: routes[0].device: no interface is named "tap0"; that is the device of eth0 on the host',
    ),
    Row(
        "route twice",
        "excellent",
        "198.51.100.0/24, gateway: 192.0.2.2",
        "default, gateway: 192.0.2.2",
        (
            "13:12: routes[1].dest: routes[0] has this destination, table, metric and tos already; give "
            "another metric, or nexthops"
        ),
    ),
    Row(
        "interface twice",
        "good",
        "routes:",
        "  - {name: eth0, device: tap1, hwAddr: 02:42:20:6f:a3:70, mtu: 1500}\nroutes:",
        "11:12: interfaces[1].name: eth0 is the name of interfaces[0] already",
    ),
    Row(
        "MAC twice",
        "good",
        "routes:",
        "  - {name: eth1, device: tap1, hwAddr: 02:42:20:6f:a3:69, mtu: 1500}\nroutes:",
        "11:40: interfaces[1].hwAddr: 02:42:20:6f:a3:69 is the hwAddr of interfaces[0] already",
    ),
    Row(
        "name too long",
        "excellent",
        "name: eth0",
        "name: eth0-frontend-uplink",
        (
            '6:11: interfaces[0].name: "eth0-frontend-uplink" is not valid; expected an interface '
            "name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
        ),
    ),
    Row(
        "name with a space",
        "excellent",
        "name: eth0",
        "name: eth 0",
        (
            '6:11: interfaces[0].name: "eth 0" is not valid; expected an interface name: 1 to 15 '
            "letters, digits, '_', '-' and '.', the first a letter"
        ),
    ),
    Row(
        "name is lo",
        "excellent",
        "name: eth0",
        "name: lo",
        ("6:11: interfaces[0].name: lo is the loopback interface, which each sandbox has already; choose another name"),
    ),
    Row(
        "device is lo",
        "excellent",
        "device: tap0",
        "device: lo",
        (
            "7:13: interfaces[0].device: lo is the loopback interface of the host, which cannot leave"
            " it; each sandbox has one of its own"
        ),
    ),
    Row(
        "service without a port",
        "excellent",
        "192.0.2.10:80",
        "192.0.2.10",
        "16:12: ipvs.services[0].tcp: 192.0.2.10 has no port; write 192.0.2.10:80 for port 80",
        IPVS,
    ),
    Row(
        "port too large",
        "excellent",
        "192.0.2.10:80",
        "192.0.2.10:80000",
        '16:12: ipvs.services[0].tcp: "192.0.2.10:80000" has no valid port; expected 1 to 65535',
        IPVS,
    ),
    Row(
        "IPv6 service without brackets",
        "excellent",
        "tcp: 192.0.2.10:80",
        'tcp: "2001:db8::10:80"',
        (
            "16:12: ipvs.services[0].tcp: 2001:db8::10:80 is an address without a port; write "
            "[2001:db8::10]:80 if 80 is the port"
        ),
        IPVS,
    ),
    Row(
        "name of a host",
        "good",
        "tcp: 192.0.2.10:80",
        "tcp: www.example.com:80",
        '16:12: ipvs.services[0].tcp: "www.example.com" is not an IP address',
        IPVS,
    ),
    Row(
        "server of the other family",
        "excellent",
        "address: 192.0.2.4:80",
        'address: "[2001:db8::4]:80"',
        (
            "19:21: ipvs.services[0].servers[0].address: 2001:db8::4 is IPv6 and the service is IPv4;"
            " only a tunnel (forward: tunnel) can reach it"
        ),
        IPVS,
    ),
    Row(
        "server twice",
        "good",
        "        - {address: 192.0.2.4:80, weight: 100}\n",
        "        - {address: 192.0.2.4:80, weight: 100}\n        - {address: 192.0.2.4:80, weight: 1}\n",
        "20:21: ipvs.services[0].servers[1].address: 192.0.2.4:80 duplicates servers[0]",
        IPVS,
    ),
    Row(
        "service twice",
        "good",
        "  services:\n",
        "  services:\n    - {tcp: 192.0.2.10:80}\n",
        "17:12: ipvs.services[1].tcp: 192.0.2.10:80 duplicates services[0]",
        IPVS,
    ),
    Row(
        "file of rules is missing",
        "good",
        (
            "  services:\n    - tcp: 192.0.2.10:80\n      scheduler: rr\n      servers:\n        - "
            "{address: 192.0.2.4:80, weight: 100}\n"
        ),
        "  rulesFile: web.rules\n",
        "15:14: ipvs.rulesFile: web.rules: No such file or directory",
        IPVS,
    ),
]

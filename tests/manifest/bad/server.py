"""What is wrong with servers, and what services of one manifest have against each other."""

from __future__ import annotations

from tests.manifest.texts import Row, service, with_ipvs, with_server, with_service, with_services

REAL = 'an address such as 172.17.0.4 or "[fd00::4]:80", with or without a port'
CROSSES = "only a tunnel (forward: tunnel) can reach it"
NO_TUNNEL = "this setting needs a tunnel (forward: tunnel)"
SERVICE_FIELDS = (
    "one of: tcp, udp, sctp, fwmark, family, scheduler, schedulerFlags, persistent, netmask, persistenceEngine, "
    "onePacket, ignore, servers"
)
PORT = "has no valid port; expected 1 to 65535"

ROWS: list[Row] = [
    (
        "server without address",
        with_service("servers: [{weight: 1}]"),
        [f"bad.yaml:7:15: ipvs.services[0].servers[0].address: missing; expected {REAL}"],
    ),
    (
        "server is text",
        with_service("servers: [172.17.0.4:80]"),
        [
            (
                'bad.yaml:7:15: ipvs.services[0].servers[0]: "172.17.0.4:80" is text; expected a server: '
                'a mapping with address, such as {address: "172.17.0.4:80", weight: 100}'
            )
        ],
    ),
    (
        "server of a name",
        with_server("address: web-1:80"),
        ['bad.yaml:8:16: ipvs.services[0].servers[0].address: "web-1" is not an IP address'],
    ),
    (
        "server port above",
        with_server("address: 172.17.0.4:70000"),
        [f'bad.yaml:8:16: ipvs.services[0].servers[0].address: "172.17.0.4:70000" {PORT}'],
    ),
    (
        "server is multicast",
        with_server("address: 224.0.0.1:80"),
        ["bad.yaml:8:16: ipvs.services[0].servers[0].address: 224.0.0.1 is not a unicast address"],
    ),
    (
        "server of no address",
        with_server("address: 0.0.0.0:80"),
        ["bad.yaml:8:16: ipvs.services[0].servers[0].address: 0.0.0.0 is not a unicast address"],
    ),
    (
        "server of the other family",
        with_server("address: fd00::4", "forward: dr"),
        [f"bad.yaml:8:16: ipvs.services[0].servers[0].address: fd00::4 is IPv6 and the service is IPv4; {CROSSES}"],
    ),
    (
        "server of the other family for IPv6",
        with_services("- {udp: '[fd00::7]:53', servers: [{address: 10.0.0.1}]}"),
        [f"bad.yaml:6:47: ipvs.services[0].servers[0].address: 10.0.0.1 is IPv4 and the service is IPv6; {CROSSES}"],
    ),
    (
        "dr to another port",
        with_server("address: 172.17.0.4:8080", "forward: dr"),
        ["bad.yaml:8:16: ipvs.services[0].servers[0].address: dr does not change the port; expected 80, or no port"],
    ),
    (
        "tunnel to any port",
        with_server("address: 172.17.0.4:0", "forward: tunnel"),
        [
            (
                "bad.yaml:8:16: ipvs.services[0].servers[0].address: tunnel does not change the port; "
                "expected 80, or no port"
            )
        ],
    ),
    (
        "weight above",
        with_server("weight: 65536"),
        ["bad.yaml:9:15: ipvs.services[0].servers[0].weight: 65536 is above the maximum of 65535"],
    ),
    (
        "weight below",
        with_server("weight: -1"),
        ["bad.yaml:9:15: ipvs.services[0].servers[0].weight: -1 is below the minimum of 0"],
    ),
    (
        "forward unknown",
        with_server("forward: masq"),
        [
            (
                'bad.yaml:9:16: ipvs.services[0].servers[0].forward: "masq" is not valid; '
                "expected a forwarding method: one of nat, dr, tunnel"
            )
        ],
    ),
    (
        "threshold above",
        with_server("upperThreshold: 1073741824"),
        ["bad.yaml:9:23: ipvs.services[0].servers[0].upperThreshold: 1073741824 is above the maximum of 1073741823"],
    ),
    (
        "lower threshold alone",
        with_server("lowerThreshold: 1"),
        ["bad.yaml:9:7: ipvs.services[0].servers[0].lowerThreshold: a lower threshold needs an upper one"],
    ),
    (
        "lower threshold above the upper",
        with_server("upperThreshold: 10", "lowerThreshold: 11"),
        [
            (
                "bad.yaml:10:23: ipvs.services[0].servers[0].lowerThreshold: the lower threshold 11 is above the "
                "upper one, 10"
            )
        ],
    ),
    (
        "tunnel fields with nat",
        with_server("tunType: gue", "tunPort: 6080", "tunChecksum: csum"),
        [
            f"bad.yaml:9:7: ipvs.services[0].servers[0].tunType: {NO_TUNNEL}",
            f"bad.yaml:10:7: ipvs.services[0].servers[0].tunPort: {NO_TUNNEL}",
            f"bad.yaml:11:7: ipvs.services[0].servers[0].tunChecksum: {NO_TUNNEL}",
        ],
    ),
    (
        "gue without a port",
        with_server("forward: tunnel", "tunType: gue"),
        ["bad.yaml:8:7: ipvs.services[0].servers[0].tunPort: a gue tunnel needs a UDP port from 1 to 65535"],
    ),
    (
        "gre with a port",
        with_server("forward: tunnel", "tunType: gre", "tunPort: 6080"),
        ["bad.yaml:11:7: ipvs.services[0].servers[0].tunPort: only a gue tunnel has a port; this one is gre"],
    ),
    (
        "ipip with a checksum",
        with_server("forward: tunnel", "tunChecksum: csum"),
        ["bad.yaml:10:20: ipvs.services[0].servers[0].tunChecksum: ipip tunnels cannot have csum; expected none"],
    ),
    (
        "gre with remcsum",
        with_server("forward: tunnel", "tunType: gre", "tunChecksum: remcsum"),
        [
            (
                "bad.yaml:11:20: ipvs.services[0].servers[0].tunChecksum: gre tunnels cannot have remcsum; "
                "expected none or csum"
            )
        ],
    ),
    (
        "tunnel port 0",
        with_server("forward: tunnel", "tunType: gue", "tunPort: 0"),
        ["bad.yaml:11:16: ipvs.services[0].servers[0].tunPort: 0 is below the minimum of 1"],
    ),
    (
        "service twice",
        with_services(service(), service("tcp: 172.17.0.8:80"), service()),
        ["bad.yaml:10:10: ipvs.services[2].tcp: 172.17.0.7:80 duplicates services[0]"],
    ),
    (
        "fwmark twice",
        with_services("- {fwmark: 7}", "- {fwmark: 7, family: ipv6}", "- {fwmark: 7, family: ipv4}"),
        ["bad.yaml:8:14: ipvs.services[2].fwmark: fwmark 7 duplicates services[0]"],
    ),
    (
        "IPv6 service twice",
        with_services("- {udp: '[fd00::7]:53'}", "- {udp: '[fd00:0::7]:053'}"),
        ["bad.yaml:7:11: ipvs.services[1].udp: [fd00::7]:53 duplicates services[0]"],
    ),
    (
        "server twice",
        with_service("servers: [{address: 172.17.0.4}, {address: 172.17.0.5}, {address: 172.17.0.4:80, weight: 2}]"),
        ["bad.yaml:7:71: ipvs.services[0].servers[2].address: 172.17.0.4:80 duplicates servers[0]"],
    ),
    (
        "service excluded",
        with_ipvs(
            "exclude: [10.0.0.0/8, fd00::/8, {fwmark: 7}]",
            "services:",
            "- {tcp: 10.1.2.3:80}",
            "- {fwmark: 7}",
            "- {tcp: '[fd00::7]:80'}",
            "- {tcp: 11.0.0.1:80}",
            "- {fwmark: 8}",
        ),
        [
            "bad.yaml:7:11: ipvs.services[0].tcp: 10.1.2.3:80 is excluded by ipvs.exclude[0]; remove one of the two",
            "bad.yaml:8:14: ipvs.services[1].fwmark: fwmark 7 is excluded by ipvs.exclude[2]; remove one of the two",
            "bad.yaml:9:11: ipvs.services[2].tcp: [fd00::7]:80 is excluded by ipvs.exclude[1]; remove one of the two",
        ],
    ),
    (
        "excluded by the widest and the narrowest",
        with_ipvs(
            "exclude: [0.0.0.0/0, 10.1.2.3]",
            "services:",
            "- {tcp: 10.1.2.3:80}",
            "- {tcp: '[::1]:80'}",
            "- {fwmark: 8}",
        ),
        ["bad.yaml:7:11: ipvs.services[0].tcp: 10.1.2.3:80 is excluded by ipvs.exclude[0]; remove one of the two"],
    ),
    (
        "20,001 rules",
        with_services(
            "- {tcp: 172.17.0.7:80}",
            *[f"- {{fwmark: {mark}, servers: [{{address: 172.17.0.4}}]}}" for mark in range(1, 10_001)],
        ),
        ["bad.yaml:6:3: ipvs.services: 20,001 rules (10,001 services and 10,000 servers); at most 20,000 are allowed"],
    ),
    (
        "20,001 services",
        with_services(*[f"- {{fwmark: {mark}}}" for mark in range(1, 20_002)]),
        ["bad.yaml:6:3: ipvs.services: 20001 items; at most 20000 are allowed"],
    ),
    (
        "many of one service and another",
        with_services(
            service("tcp: 172.17.0.7", "onePacket: true", "scheduler: sh", "schedulerFlags: [mh-port]"),
            service("weight: 1"),
            service("servers: [{address: x}, {address: 10.0.0.1:80}, {address: 10.0.0.2:0x50}, {weight: -1}]"),
            service(
                "tcp: 172.17.0.9:80",
                (
                    "servers: [{address: y, lowerThreshold: 3, tunPort: 80}, {address: 10.0.0.1:80}, {address: "
                    "10.0.0.2:0x50}]"
                ),
            ),
        ),
        [
            "bad.yaml:6:10: ipvs.services[0].tcp: 172.17.0.7 has no port; write 172.17.0.7:80 for port 80",
            "bad.yaml:8:16: ipvs.services[0].onePacket: is possible only for udp and fwmark services; this one is tcp",
            (
                "bad.yaml:10:22: ipvs.services[0].schedulerFlags[0]: mh-port is not a flag of sh; "
                "expected one of: sh-fallback, sh-port, flag-3"
            ),
            f"bad.yaml:13:5: ipvs.services[1].weight: unknown field; expected {SERVICE_FIELDS}",
            f"bad.yaml:15:79: ipvs.services[2].servers[3].address: missing; expected {REAL}",
            "bad.yaml:15:88: ipvs.services[2].servers[3].weight: -1 is below the minimum of 0",
            'bad.yaml:17:25: ipvs.services[3].servers[0].address: "y" is not an IP address',
            "bad.yaml:17:28: ipvs.services[3].servers[0].lowerThreshold: a lower threshold needs an upper one",
            f"bad.yaml:17:47: ipvs.services[3].servers[0].tunPort: {NO_TUNNEL}",
            f'bad.yaml:17:95: ipvs.services[3].servers[2].address: "10.0.0.2:0x50" {PORT}',
        ],
    ),
    (
        "wrong server of a long list",
        with_service(
            "servers:\n"
            + "\n".join(
                f"- {{address: 10.0.{n // 250}.{n % 250 + 1}, weight: {70_000 if n in (700, 999) else 1}}}"
                for n in range(1000)
            )
        ),
        [
            "bad.yaml:708:37: ipvs.services[0].servers[700].weight: 70000 is above the maximum of 65535",
            "bad.yaml:1007:37: ipvs.services[0].servers[999].weight: 70000 is above the maximum of 65535",
        ],
    ),
]

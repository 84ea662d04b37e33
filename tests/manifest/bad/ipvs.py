"""What is wrong with an IPVS section and its services."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, with_ipvs, with_service, with_services

SECTION = "a mapping with services, rules or rulesFile, and with timeouts, sysctls, exclude and drain"
EXCLUDED = "a network such as 10.9.0.0/24, or {fwmark: 7}"
SERVICE = "a service: a mapping with exactly one of tcp, udp, sctp and fwmark"
VIRTUAL = 'an address and port such as "172.17.0.7:80" or "[fd00::7]:80"'
SCHEDULER = "a scheduler: one of rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf, twos"
NETMASK = "an IPv4 service needs one such as 255.255.255.0"
PORT = "has no valid port; expected 1 to 65535"

ROWS: list[Row] = [
    ("section is a list", manifest("ipvs: []"), [f"bad.yaml:4:7: ipvs: an empty list; expected {SECTION}"]),
    ("section is null", manifest("ipvs:"), [f"bad.yaml:4:6: ipvs: nothing is given; expected {SECTION}"]),
    (
        "section of an unknown field",
        with_ipvs("service: []"),
        ['bad.yaml:5:3: ipvs.service: unknown field; did you mean "services"?'],
    ),
    (
        "timeouts of a number",
        with_ipvs("timeouts: 100"),
        ["bad.yaml:5:13: ipvs.timeouts: 100 is a number; expected a mapping with tcp, tcpfin and udp, each in seconds"],
    ),
    (
        "timeout above",
        with_ipvs("timeouts: {tcp: 1296001, tcpfin: -1, udp: 1.5}"),
        [
            "bad.yaml:5:19: ipvs.timeouts.tcp: 1296001 is above the maximum of 1296000",
            "bad.yaml:5:36: ipvs.timeouts.tcpfin: -1 is below the minimum of 0",
            (
                'bad.yaml:5:45: ipvs.timeouts.udp: "1.5" is text; '
                "expected seconds from 0 to 1296000 until the kernel forgets an idle UDP flow; "
                "0 leaves the timeout as it is"
            ),
        ],
    ),
    (
        "timeout unknown",
        with_ipvs("timeouts: {sctp: 100}"),
        ["bad.yaml:5:14: ipvs.timeouts.sctp: unknown field; expected one of: tcp, tcpfin, udp"],
    ),
    (
        "sysctl unknown",
        with_ipvs("sysctls: {contrack: 1}"),
        ['bad.yaml:5:13: ipvs.sysctls.contrack: unknown field; did you mean "conntrack"?'],
    ),
    (
        "sysctl above",
        with_ipvs("sysctls: {conntrack: 2147483648, sloppy_tcp: true}"),
        [
            "bad.yaml:5:24: ipvs.sysctls.conntrack: 2147483648 is above the maximum of 2147483647",
            (
                "bad.yaml:5:48: ipvs.sysctls.sloppy_tcp: true is a boolean; "
                "expected an integer from 0 to 2147483647: whether any TCP packet may begin a connection"
            ),
        ],
    ),
    (
        "drain above",
        with_ipvs("drain: 2678401"),
        ["bad.yaml:5:10: ipvs.drain: 2678401 is above the maximum of 2678400"],
    ),
    (
        "drain with a unit",
        with_ipvs("drain: 5m"),
        [
            (
                'bad.yaml:5:10: ipvs.drain: "5m" is text; '
                "expected seconds from 0 to 2678400 that the connections of a removed server get to end"
            )
        ],
    ),
    (
        "exclude with host bits",
        with_ipvs("exclude: [10.9.0.1/24, 10.9.0.0/16]"),
        ["bad.yaml:5:13: ipvs.exclude[0]: 10.9.0.1/24 has host bits set; the network is 10.9.0.0/24"],
    ),
    (
        "exclude of no network",
        with_ipvs("exclude: [web, '', 7, {fwmark: 0}, {}]"),
        [
            'bad.yaml:5:13: ipvs.exclude[0]: "web" is not an IP address',
            f'bad.yaml:5:18: ipvs.exclude[1]: "" is not valid; expected {EXCLUDED}',
            f"bad.yaml:5:22: ipvs.exclude[2]: 7 is a number; expected {EXCLUDED}",
            "bad.yaml:5:34: ipvs.exclude[3].fwmark: 0 is below the minimum of 1",
            (
                "bad.yaml:5:38: ipvs.exclude[4].fwmark: missing; "
                "expected the firewall mark of a service to leave alone, from 1 to 4294967295"
            ),
        ],
    ),
    (
        "exclude of 1025",
        with_ipvs("exclude: [" + ", ".join(["10.9.0.1"] * 1025) + "]"),
        ["bad.yaml:5:12: ipvs.exclude: 1025 items; at most 1024 are allowed"],
    ),
    (
        "service of no protocol",
        with_service("tcp", "scheduler: rr"),
        [f"bad.yaml:6:5: ipvs.services[0]: a mapping with servers, scheduler is not valid; expected {SERVICE}"],
    ),
    (
        "service of two protocols",
        with_service("udp: 172.17.0.7:80"),
        [f"bad.yaml:6:5: ipvs.services[0]: a mapping with tcp, servers, udp is not valid; expected {SERVICE}"],
    ),
    (
        "protocol misspelt",
        with_service("tcp", "tpc: 172.17.0.7:80"),
        ['bad.yaml:7:5: ipvs.services[0].tpc: unknown field; did you mean "tcp"?'],
    ),
    (
        "service is text",
        with_services("- 172.17.0.7:80"),
        [f'bad.yaml:6:5: ipvs.services[0]: "172.17.0.7:80" is text; expected {SERVICE}'],
    ),
    (
        "address without port",
        with_service("tcp: 172.17.0.7"),
        ["bad.yaml:6:10: ipvs.services[0].tcp: 172.17.0.7 has no port; write 172.17.0.7:80 for port 80"],
    ),
    (
        "IPv6 address without port",
        with_service("tcp: fd00::7"),
        ["bad.yaml:6:10: ipvs.services[0].tcp: fd00::7 has no port; write [fd00::7]:80 for port 80"],
    ),
    (
        "IPv6 address that may end with a port",
        with_service("tcp: fd00::7:80"),
        [
            (
                "bad.yaml:6:10: ipvs.services[0].tcp: fd00::7:80 is an address without a port; "
                "write [fd00::7]:80 if 80 is the port"
            )
        ],
    ),
    (
        "IPv6 address that cannot end with a port",
        with_service("tcp: fd00::7:8a"),
        ["bad.yaml:6:10: ipvs.services[0].tcp: fd00::7:8a has no port; write [fd00::7:8a]:80 for port 80"],
    ),
    (
        "IPv6 address without port in brackets",
        with_service("tcp: '[fd00::7]'"),
        ["bad.yaml:6:10: ipvs.services[0].tcp: [fd00::7] has no port; write [fd00::7]:80 for port 80"],
    ),
    (
        "IPv6 address in brackets without quotes",
        with_service("tcp: [fd00::7]"),
        [f"bad.yaml:6:10: ipvs.services[0].tcp: a list of 1 item; expected {VIRTUAL}"],
    ),
    (
        "IPv4 address in brackets",
        with_service("tcp: '[172.17.0.7]:80'"),
        ['bad.yaml:6:10: ipvs.services[0].tcp: "[172.17.0.7]:80" is not an address and port'],
    ),
    (
        "bracket left open",
        with_service("tcp: '[fd00::7:80'"),
        ['bad.yaml:6:10: ipvs.services[0].tcp: "[fd00::7:80" is not an address and port'],
    ),
    (
        "text after the bracket",
        with_service("tcp: '[fd00::7]80'"),
        ['bad.yaml:6:10: ipvs.services[0].tcp: "[fd00::7]80" is not an address and port'],
    ),
    (
        "port above",
        with_service("tcp: 172.17.0.7:65536"),
        [f'bad.yaml:6:10: ipvs.services[0].tcp: "172.17.0.7:65536" {PORT}'],
    ),
    (
        "port of a name",
        with_service("tcp: 172.17.0.7:http"),
        [f'bad.yaml:6:10: ipvs.services[0].tcp: "172.17.0.7:http" {PORT}'],
    ),
    (
        "port of nothing",
        with_service("tcp: '172.17.0.7:'"),
        [f'bad.yaml:6:10: ipvs.services[0].tcp: "172.17.0.7:" {PORT}'],
    ),
    (
        "port of other digits",
        with_service("tcp: 172.17.0.7:٨٠"),
        [f'bad.yaml:6:10: ipvs.services[0].tcp: "172.17.0.7:٨٠" {PORT}'],
    ),
    (
        "port 0",
        with_service("tcp: 172.17.0.7:0"),
        ["bad.yaml:6:10: ipvs.services[0].tcp: 172.17.0.7:0 means all ports, which needs a persistent service"],
    ),
    (
        "address of a name",
        with_service("tcp: web:80"),
        ['bad.yaml:6:10: ipvs.services[0].tcp: "web" is not an IP address'],
    ),
    (
        "address is a number",
        with_service("tcp: 80"),
        [f"bad.yaml:6:10: ipvs.services[0].tcp: 80 is a number; expected {VIRTUAL}"],
    ),
    (
        "address is empty",
        with_service("tcp: ''"),
        [f'bad.yaml:6:10: ipvs.services[0].tcp: "" is not valid; expected {VIRTUAL}'],
    ),
    (
        "fwmark 0",
        with_service("tcp", "fwmark: 0"),
        ["bad.yaml:7:13: ipvs.services[0].fwmark: 0 is below the minimum of 1"],
    ),
    (
        "fwmark above",
        with_service("tcp", "fwmark: 4294967296"),
        ["bad.yaml:7:13: ipvs.services[0].fwmark: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "fwmark is text",
        with_service("tcp", "fwmark: 0x7"),
        ['bad.yaml:7:13: ipvs.services[0].fwmark: "0x7" is text; expected a firewall mark from 1 to 4294967295'],
    ),
    (
        "family of an address",
        with_service("family: ipv4"),
        ["bad.yaml:8:5: ipvs.services[0].family: needs fwmark beside it"],
    ),
    (
        "family unknown",
        with_service("tcp", "fwmark: 7", "family: IPv6"),
        [
            (
                'bad.yaml:8:13: ipvs.services[0].family: "IPv6" is not valid; '
                "expected the address family of a firewall mark: one of ipv4, ipv6"
            )
        ],
    ),
    (
        "scheduler unknown",
        with_service("scheduler: wlcr"),
        [f'bad.yaml:8:16: ipvs.services[0].scheduler: "wlcr" is not valid; expected {SCHEDULER}'],
    ),
    (
        "flag of another scheduler",
        with_service("scheduler: mh", "schedulerFlags: [sh-port]"),
        [
            (
                "bad.yaml:9:22: ipvs.services[0].schedulerFlags[0]: sh-port is not a flag of mh; "
                "expected one of: mh-fallback, mh-port, flag-3"
            )
        ],
    ),
    (
        "flag unknown",
        with_service("schedulerFlags: [flag-4]"),
        [
            (
                'bad.yaml:8:22: ipvs.services[0].schedulerFlags[0]: "flag-4" is not valid; '
                "expected a scheduler flag: one of flag-1, flag-2, flag-3; for sh also sh-fallback, sh-port; "
                "for mh also mh-fallback, mh-port"
            )
        ],
    ),
    (
        "flag twice",
        with_service("scheduler: sh", "schedulerFlags: [flag-3, sh-port, flag-2]"),
        ["bad.yaml:9:39: ipvs.services[0].schedulerFlags[2]: flag-2 is listed twice"],
    ),
    (
        "persistent above",
        with_service("persistent: 2678401"),
        ["bad.yaml:8:17: ipvs.services[0].persistent: 2678401 is above the maximum of 2678400"],
    ),
    (
        "persistent 0",
        with_service("persistent: 0"),
        ["bad.yaml:8:17: ipvs.services[0].persistent: 0 is below the minimum of 1"],
    ),
    (
        "persistent is a boolean",
        with_service("persistent: true"),
        [
            (
                "bad.yaml:8:17: ipvs.services[0].persistent: true is a boolean; "
                "expected seconds from 1 to 2678400 for which a client stays with its server"
            )
        ],
    ),
    (
        "netmask without persistent",
        with_service("netmask: 255.255.255.0"),
        ["bad.yaml:8:5: ipvs.services[0].netmask: needs persistent beside it"],
    ),
    (
        "netmask of a length",
        with_service("persistent: 300", "netmask: 24"),
        [
            (
                "bad.yaml:9:14: ipvs.services[0].netmask: 24 is a prefix length; "
                "the netmask of an IPv4 service is 255.255.255.0"
            )
        ],
    ),
    (
        "netmask of an impossible length",
        with_service("persistent: 300", "netmask: 64"),
        [f'bad.yaml:9:14: ipvs.services[0].netmask: "64" is not a netmask; {NETMASK}'],
    ),
    (
        "netmask of no address",
        with_service("persistent: 300", "netmask: 255.255.255"),
        [f'bad.yaml:9:14: ipvs.services[0].netmask: "255.255.255" is not a netmask; {NETMASK}'],
    ),
    (
        "netmask of IPv6 in IPv4",
        with_service("persistent: 300", "netmask: 'ffff::'"),
        [f'bad.yaml:9:14: ipvs.services[0].netmask: "ffff::" is not a netmask; {NETMASK}'],
    ),
    (
        "netmask of IPv4 in IPv6",
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: 255.255.255.0}"),
        [
            (
                "bad.yaml:6:53: ipvs.services[0].netmask: 255.255.255.0 is not a prefix length; "
                "an IPv6 service needs one from 1 to 128"
            )
        ],
    ),
    (
        "netmask of IPv6 above",
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: 129}"),
        ["bad.yaml:6:53: ipvs.services[0].netmask: 129 is above the maximum of 128"],
    ),
    (
        "netmask of IPv6 above in text",
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: '129'}"),
        [
            (
                "bad.yaml:6:53: ipvs.services[0].netmask: 129 is not a prefix length; "
                "an IPv6 service needs one from 1 to 128"
            )
        ],
    ),
    (
        "engine without persistent",
        with_service("persistenceEngine: sip"),
        ["bad.yaml:8:5: ipvs.services[0].persistenceEngine: needs persistent beside it"],
    ),
    (
        "engine unknown",
        with_service("persistent: 300", "persistenceEngine: http"),
        ['bad.yaml:9:24: ipvs.services[0].persistenceEngine: "http" is not valid; expected a persistence engine: sip'],
    ),
    (
        "one packet of tcp",
        with_service("onePacket: true"),
        ["bad.yaml:8:16: ipvs.services[0].onePacket: is possible only for udp and fwmark services; this one is tcp"],
    ),
    (
        "one packet of sctp",
        with_service("tcp", "sctp: 172.17.0.7:80", "onePacket: true"),
        ["bad.yaml:8:16: ipvs.services[0].onePacket: is possible only for udp and fwmark services; this one is sctp"],
    ),
    (
        "ignore of another field",
        with_service("ignore: [weight, forward]"),
        [
            "bad.yaml:8:13: ipvs.services[0].ignore: 2 items; at most 1 are allowed",
            (
                'bad.yaml:8:22: ipvs.services[0].ignore[1]: "forward" is not valid; '
                "expected a server field that another program may change: weight"
            ),
        ],
    ),
    (
        "servers of a mapping",
        with_service("servers: {address: 172.17.0.4:80}"),
        [
            (
                "bad.yaml:7:14: ipvs.services[0].servers: a mapping with address; "
                "expected a list of the servers of the service"
            )
        ],
    ),
]

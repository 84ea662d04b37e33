"""A rule in each spelling is the same rule, limits are met exactly, and what is wrong is said with its line."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.formats.ipvsadm.write import (
    save_rules,
    server_key_options,
    server_options,
    service_key_options,
    service_options,
)
from reconciler.model.ipvs import Server, Service
from reconciler.values import replace
from tests.formats.strategies import services

Refused = list[tuple[int, str]]

TCP = Service(protocol="tcp", address="10.0.0.1", port=80)
UDP = replace(TCP, protocol="udp")
SCTP = replace(TCP, protocol="sctp")
TCP6 = replace(TCP, address="fd00::1")
MARK = Service(protocol="fwmark", address="0.0.0.0", port=7)
MARK6 = replace(MARK, address="::")
PERSISTENT = replace(TCP, persistent=300)
NAT = Server(address="10.9.9.9", port=8080)
DR = replace(NAT, port=80, forward="dr")
TUNNEL = replace(DR, forward="tunnel")


def parse(*lines: str) -> tuple[list[Service], Refused]:
    refused: Refused = []
    found = parse_rules("\n".join(lines), lambda number, message: refused.append((number, message)))
    return found, refused


SERVICES: list[tuple[str, Service]] = [
    ("-A -t 10.0.0.1:80", TCP),
    ("-A -t 10.0.0.1:80 -s wlc", TCP),
    ("-A -t10.0.0.1:80 -swlc", TCP),
    ("-A -t=10.0.0.1:80 -s=wlc", TCP),
    ("-At 10.0.0.1:80", TCP),
    ("-A -s wlc -t 10.0.0.1:80", TCP),
    ("--add-service --tcp-service 10.0.0.1:80 --scheduler wlc", TCP),
    ("--add-service --tcp-service=10.0.0.1:80 --scheduler=wlc", TCP),
    ("  ipvsadm\t-A  -t 10.0.0.1:00080  \r", TCP),
    ("-A -t 10.0.0.1:1", replace(TCP, port=1)),
    ("-A -t 10.0.0.1:65535", replace(TCP, port=65535)),
    ("-A -t 10.0.0.1:80 -M 255.255.0.0", TCP),
    ("-A -t 10.0.0.1:80 -s rr", replace(TCP, scheduler="rr")),
    ("-A -u 10.0.0.1:80", UDP),
    ("-A --udp-service 10.0.0.1:80", UDP),
    ("-A --sctp-service 10.0.0.1:80", SCTP),
    ("-A -t [FD00:0::1]:80", TCP6),
    ("-A -t fd00::1 -p 1", replace(TCP6, port=0, persistent=1)),
    ("-A -t [fd00::1] -p 1", replace(TCP6, port=0, persistent=1)),
    ("-A -t 10.0.0.1 -p 1", replace(TCP, port=0, persistent=1)),
    ("-A -t 10.0.0.1:0 -p 1", replace(TCP, port=0, persistent=1)),
    ("-A -t 10.0.0.1:0 -s wlc -p 1", replace(TCP, port=0, persistent=1)),
    ("-A -t 0.0.0.0:80", replace(TCP, address="0.0.0.0")),
    ("-A -f 7", MARK),
    ("-A --fwmark-service 7", MARK),
    ("-A -f 7 -6", MARK6),
    ("-A --ipv6 -f7", MARK6),
    ("-A -f 4294967295", replace(MARK, port=4294967295)),
    ("-A -t 10.0.0.1:80 -p", replace(TCP, persistent=360)),
    ("-A -p -t 10.0.0.1:80", replace(TCP, persistent=360)),
    ("-A -t 10.0.0.1:80 -p300", PERSISTENT),
    ("-A -t 10.0.0.1:80 -p=300", PERSISTENT),
    ("-A -t 10.0.0.1:80 --persistent=300", PERSISTENT),
    ("-A -t 10.0.0.1:80 -p 2678400", replace(TCP, persistent=2678400)),
    ("-A -t 10.0.0.1:80 -p 300 -M 255.255.255.255", PERSISTENT),
    ("-A -t 10.0.0.1:80 -p 300 -M 255.0.255.0", replace(PERSISTENT, netmask="255.0.255.0")),
    ("-A -M 0.0.0.0 -p 300 -t 10.0.0.1:80", replace(PERSISTENT, netmask="0.0.0.0")),
    ("-A -t [fd00::1]:80 -p 300 --netmask 64", replace(TCP6, persistent=300, netmask="64")),
    ("-A -M 64 -p 300 -t [fd00::1]:80", replace(TCP6, persistent=300, netmask="64")),
    ("-A -f 7 -p 300 -M 1 -6", replace(MARK6, persistent=300, netmask="1")),
    ("-A -t [fd00::1]:80 -p 300 -M 128", replace(TCP6, persistent=300)),
    ("-A -t [fd00::1]:80 -M 64", TCP6),
    ("-A -u 10.0.0.1:80 -o", replace(UDP, one_packet=True)),
    ("-A -u 10.0.0.1:80 -op300", replace(UDP, one_packet=True, persistent=300)),
    ("-A -f 7 --ops", replace(MARK, one_packet=True)),
    ("-A -t 10.0.0.1:80 --pe sip", replace(TCP, persistence_engine="sip")),
    ("-A -t 10.0.0.1:80 -p 300 --pe=sip", replace(PERSISTENT, persistence_engine="sip")),
    ("-A -t 10.0.0.1:80 -b flag-3,flag-1,flag-1", replace(TCP, scheduler_flags=("flag-1", "flag-3"))),
    (
        "-A -t 10.0.0.1:80 -b sh-port,sh-fallback, -s sh",
        replace(TCP, scheduler="sh", scheduler_flags=("sh-fallback", "sh-port")),
    ),
    (
        "-A -t 10.0.0.1:80 -s mh --sched-flags flag-2,flag-3",
        replace(TCP, scheduler="mh", scheduler_flags=("mh-port", "flag-3")),
    ),
]  # fmt: skip

SERVERS: list[tuple[str, Server]] = [
    ("-t 10.0.0.1:80 -r 10.9.9.9", DR),
    ("-t 10.0.0.1:80 -r 10.9.9.9:90", DR),
    ("-t 10.0.0.1:80 -r 10.9.9.9:90 -g", DR),
    ("-t 10.0.0.1:80 -r 10.9.9.9:90 --gatewaying -w 1", DR),
    ("-t 10.0.0.1:80 -r 10.9.9.9:90 -i", TUNNEL),
    ("-t 10.0.0.1:80 -r 10.9.9.9 --ipip --tun-type ipip", TUNNEL),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m", NAT),
    ("-t 10.0.0.1:80 --real-server=10.9.9.9:8080 --masquerading --weight=1", NAT),
    ("-t 10.0.0.1:80 -mw1 -r10.9.9.9:8080", NAT),
    ("-t 10.0.0.1:80 -r 10.9.9.9 -m", replace(NAT, port=80)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:0 -m", replace(NAT, port=0)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:65535 -m", replace(NAT, port=65535)),
    ("-f 7 -r 10.9.9.9", replace(DR, port=0)),
    ("-f 7 -r 10.9.9.9:90 -g", replace(DR, port=90)),
    ("-f 7 -r 10.9.9.9:90 -i", replace(TUNNEL, port=90)),
    ("-f 7 -r 10.9.9.9:8080 -m", NAT),
    ("-f 7 -6 -r fd00::9 -m", replace(NAT, address="fd00::9", port=0)),
    ("-t [fd00::1]:80 -r [FD00::9]:8080 -m", replace(NAT, address="fd00::9")),
    ("-t [fd00::1]:80 -r [fd00::9] -m", replace(NAT, address="fd00::9", port=80)),
    ("-t [fd00::1]:80 -r 10.9.9.9:80 -i", TUNNEL),
    ("-t 10.0.0.1:80 -r [fd00::9]:80 -i", replace(TUNNEL, address="fd00::9")),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m -w 0", replace(NAT, weight=0)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m -w 65535", replace(NAT, weight=65535)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m -x 5", replace(NAT, upper_threshold=5)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m -x 5 -y 5", replace(NAT, upper_threshold=5, lower_threshold=5)),
    ("-t 10.0.0.1:80 -r 10.9.9.9:8080 -m -x 0 -y 0", NAT),
    (
        "-t 10.0.0.1:80 -r 10.9.9.9:8080 -m --u-threshold 1073741823 --l-threshold 1",
        replace(NAT, upper_threshold=1073741823, lower_threshold=1),
    ),
    ("-t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gre", replace(TUNNEL, tun_type="gre")),
    ("-t 10.0.0.1:80 -r 10.9.9.9 --tun-csum --tun-type gre -i", replace(TUNNEL, tun_type="gre", tun_checksum="csum")),
    (
        "-t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue --tun-port 1 --tun-nocsum",
        replace(TUNNEL, tun_type="gue", tun_port=1),
    ),
    (
        "-t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue --tun-port 65535 --tun-remcsum",
        replace(TUNNEL, tun_type="gue", tun_port=65535, tun_checksum="remcsum"),
    ),
]  # fmt: skip

# The services of SERVERS, after them.
DEFINED = ("-A -t 10.0.0.1:80", "-A -t [fd00::1]:80", "-A -f 7", "-A -f 7 -6")


@pytest.mark.parametrize(("line", "expected"), SERVICES)
def test_a_service(line: str, expected: Service) -> None:
    assert parse(line) == ([expected], [])


@pytest.mark.parametrize(("options", "expected"), SERVERS)
def test_a_server(options: str, expected: Server) -> None:
    found, refused = parse(f"-a {options}", *DEFINED)
    assert [server for service in found for server in service.servers] == [expected]
    assert not refused
    assert parse(f"--add-server {options}", *DEFINED) == (found, [])


NUMBER = "expected a number from"
SAVE_NUMBERS = "; `ipvsadm -Sn` saves numbers instead of names"
REFUSED: list[tuple[str, str]] = [
    ("hello", "only -A and -a lines belong in a rules file"),
    ("-D -t 10.0.0.1:80", "only -A and -a lines belong in a rules file"),
    ("-C", "only -A and -a lines belong in a rules file"),
    ("--set 1 2 3", "only -A and -a lines belong in a rules file"),
    ("-t 10.0.0.1:80 -A", "only -A and -a lines belong in a rules file"),
    ("--add-services -t 10.0.0.1:80", "only -A and -a lines belong in a rules file"),
    ("-A -t 10.0.0.1:80 -A", "-A is given twice"),
    ("-A -t 10.0.0.1:80 -a", "-A and -a exclude each other"),
    ("-A -t 10.0.0.1:80 -D", "unknown option -D"),
    ("-A -t 10.0.0.1:80 --schedular rr", 'unknown option --schedular; did you mean "--scheduler"?'),
    ("-A -t 10.0.0.1:80 rr", 'unexpected "rr"'),
    ("-A -t 10.0.0.1:80 -", 'unexpected "-"'),
    ("-A -t 10.0.0.1:80 # web", 'unexpected "#"'),
    ("-A -t 10.0.0.1:80 -s", "-s needs a value"),
    ("-A -u 10.0.0.1:80 -o=1", "-o takes no value"),
    ("-A -u 10.0.0.1:80 --ops=1", "-o takes no value"),
    ("-A -t 10.0.0.1:80 -s rr -s rr", "-s is given twice"),
    ("-A -t 10.0.0.1:80 -u 10.0.0.1:80", "-t and -u exclude each other"),
    ("-A -t 10.0.0.1:80 -w 1", "-w is not possible on an -A line"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -s rr", "-s is not possible on an -a line"),
    ("-A -s rr", "no service; expected one of -t, -u, --sctp-service, -f"),
    ("-a -t 10.0.0.1:80 -m", "no server; expected -r"),
    ("-A -t web:80", f'-t web:80: "web" is not an IP address (host names are not looked up{SAVE_NUMBERS})'),
    ("-A -t 10.1:80", '-t 10.1:80: "10.1" is not an IP address (host names are not looked up)'),
    ("-A -t [10.0.0.1]:80", '-t [10.0.0.1]:80: "[10.0.0.1]" is not an IP address (host names are not looked up)'),
    ("-A -t [fd00::1]80", '-t [fd00::1]80: "[fd00::1]80" is not an IP address (host names are not looked up)'),
    (
        "-A -t 10.0.0.1:http",
        f"-t 10.0.0.1:http: port http: {NUMBER} 0 to 65535 (names are not looked up{SAVE_NUMBERS})",
    ),
    (
        "-A -t [fd00::1]:http",
        f"-t [fd00::1]:http: port http: {NUMBER} 0 to 65535 (names are not looked up{SAVE_NUMBERS})",
    ),
    ("-A -t 10.0.0.1:65536", f"-t 10.0.0.1:65536: port 65536: {NUMBER} 0 to 65535"),
    ("-A -t 10.0.0.1:", f"-t 10.0.0.1:: port : {NUMBER} 0 to 65535"),
    ("-A -t 10.0.0.1:²", f"-t 10.0.0.1:²: port ²: {NUMBER} 0 to 65535"),
    ("-A -t 10.0.0.1:٣", f"-t 10.0.0.1:٣: port ٣: {NUMBER} 0 to 65535"),
    ("-A -t 10.0.0.1:0", "no port; only a persistent service (-p) may have port 0, which means all ports"),
    ("-A -t 10.0.0.1:0 -s rr", "no port; only a persistent service (-p) may have port 0, which means all ports"),
    ("-A -t fd00::1:80", "no port; only a persistent service (-p) may have port 0, which means all ports"),
    ("-A -t 10.0.0.1:80 -6", "-6 is possible only with -f"),
    ("-A -f 0", f"-f 0: {NUMBER} 1 to 4294967295"),
    ("-A -f 4294967296", f"-f 4294967296: {NUMBER} 1 to 4294967295"),
    ("-A -f -1", f"-f -1: {NUMBER} 1 to 4294967295"),
    ("-A -f 0x10", f"-f 0x10: {NUMBER} 1 to 4294967295"),
    ("-A -t 10.0.0.1:80 -s wrl", '-s wrl: unknown; did you mean "wrr"?'),
    ("-A -t 10.0.0.1:80 --pe foo", "--pe foo: unknown; expected one of: sip"),
    ("-A -t 10.0.0.1:80 -p 0", f"-p 0: {NUMBER} 1 to 2678400"),
    ("-A -t 10.0.0.1:80 -s rr -p 2678401", f"-p 2678401: {NUMBER} 1 to 2678400"),
    ("-A -t 10.0.0.1:80 -p=", f"-p : {NUMBER} 1 to 2678400"),
    ("-A -t 10.0.0.1:80 -p -5", "unknown option -5"),
    ("-A -t 10.0.0.1:80 -p 5 -M 24", "-M 24: not a netmask; expected one such as 255.255.255.0"),
    ("-A -t 10.0.0.1:80 -p 5 -M ::", "-M ::: not a netmask; expected one such as 255.255.255.0"),
    ("-A -t 10.0.0.1:80 -M foo", "-M foo: not a netmask; expected one such as 255.255.255.0"),
    ("-A -t [fd00::1]:80 -p 5 -M 0", f"-M 0: {NUMBER} 1 to 128"),
    ("-A -t [fd00::1]:80 -p 5 -M 129", f"-M 129: {NUMBER} 1 to 128"),
    ("-A -t [fd00::1]:80 -p 5 -M 255.255.255.0", f"-M 255.255.255.0: {NUMBER} 1 to 128"),
    ("-A -t 10.0.0.1:80 -o", "-o is possible only for UDP services and firewall marks"),
    ("-A --sctp-service 10.0.0.1:80 -o", "-o is possible only for UDP services and firewall marks"),
    ("-A -t 10.0.0.1:80 -b flag-4", '-b flag-4: wlc has no flag "flag-4"; did you mean "flag-3"?'),
    ("-A -t 10.0.0.1:80 -s mh -b sh-port", '-b sh-port: mh has no flag "sh-port"; did you mean "mh-port"?'),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -w 65536", f"-w 65536: {NUMBER} 0 to 65535"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9:1 -m -w -1", f"-w -1: {NUMBER} 0 to 65535"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9:65536 -m", f"-r 10.9.9.9:65536: port 65536: {NUMBER} 0 to 65535"),
    ("-a -t 10.0.0.1:80 -r web -m", f'-r web: "web" is not an IP address (host names are not looked up{SAVE_NUMBERS})'),
    ("-A -t db:80", f'-t db:80: "db" is not an IP address (host names are not looked up{SAVE_NUMBERS})'),
    ("-a -t 10.0.0.1:80 -r 224.0.0.1 -m", "-r 224.0.0.1: 224.0.0.1 is not a unicast address"),
    ("-a -t 10.0.0.1:80 -r 0.0.0.0", "-r 0.0.0.0: 0.0.0.0 is not a unicast address"),
    (
        "-a -t 10.0.0.1:80 -r fd00::9 -m",
        "-r fd00::9: fd00::9 is IPv6 and the service is IPv4; only a tunnel (-i) can reach it",
    ),
    (
        "-a -t [fd00::1]:80 -r 10.9.9.9",
        "-r 10.9.9.9: 10.9.9.9 is IPv4 and the service is IPv6; only a tunnel (-i) can reach it",
    ),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -m -g", "-m and -g exclude each other"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -y 1", "-y 1: a lower threshold needs an upper one"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -x 5 -y 6", "-y 6: the lower threshold 6 is above the upper one, 5"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -x 1073741824", f"-x 1073741824: {NUMBER} 0 to 1073741823"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -x 5 -y 1073741824", f"-y 1073741824: {NUMBER} 0 to 1073741823"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -m --tun-type ipip", "--tun-type ipip: this setting needs a tunnel (-i)"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 --tun-csum", "--tun-csum: this setting needs a tunnel (-i)"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type foo", "--tun-type foo: unknown; expected one of: ipip, gue, gre"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue", "--tun-port: a gue tunnel needs a UDP port from 1 to 65535"),
    (
        "-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gre --tun-port 5",
        "--tun-port 5: only a gue tunnel has a port; this one is gre",
    ),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-port 5", "--tun-port 5: only a gue tunnel has a port; this one is ipip"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue --tun-port 0", f"--tun-port 0: {NUMBER} 1 to 65535"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue --tun-port 65536", f"--tun-port 65536: {NUMBER} 1 to 65535"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-csum", "--tun-csum: ipip tunnels cannot have csum; expected none"),
    (
        "-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gre --tun-remcsum",
        "--tun-remcsum: gre tunnels cannot have remcsum; expected none or csum",
    ),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-nocsum", "--tun-nocsum: ipip tunnels have no checksum"),
    ("-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-csum --tun-nocsum", "--tun-csum and --tun-nocsum exclude each other"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_what_is_wrong_is_said(line: str, message: str) -> None:
    assert parse("", line) == ([], [(2, message)])


def test_everything_wrong_is_reported_in_the_order_of_the_text_and_the_rest_is_read() -> None:
    found, refused = parse(
        "-a -t 10.10.11.12:100 -r 10.9.9.9:8080 -m",
        "# a comment",
        "",
        "-A -t 10.0.0.1:80",
        "-a -t 10.0.0.1:80 -r 10.9.9.9:8080 -m",
        "-a -t 10.0.0.1:80 -r 10.9.9.9:8080 -m -w 2",
        "-a -t 10.0.0.1:80 -r 10.9.9.9:80 -m",
        "-a -t 10.0.0.1:80 -r 10.9.9.9:8080 -g",
        "-A -t 10.0.0.1:80 -s rr",
        "-C",
        "-a -f 7 -r 10.9.9.9",
        "-a -t 10.10.11.12:100 -r 10.9.9.9:8081 -m",
        "   # another",
    )
    assert found == [replace(TCP, servers=(NAT, replace(NAT, port=80)))]
    assert refused == [
        (1, "-a -t 10.10.11.12:100: no -A line has this service"),
        (6, "-a -t 10.0.0.1:80 -r 10.9.9.9:8080: an earlier line has this server already"),
        (8, "-a -t 10.0.0.1:80 -r 10.9.9.9:80: an earlier line has this server already"),
        (9, "-A -t 10.0.0.1:80: an earlier line has this service already"),
        (10, "only -A and -a lines belong in a rules file"),
        (11, "-a -f 7: no -A line has this service"),
        (12, "-a -t 10.10.11.12:100: no -A line has this service"),
    ]


@pytest.mark.parametrize("options", ["-s foo", "-p 0", "--foo", "-s", "foo"])
def test_servers_of_a_service_that_is_wrong_are_no_mistakes_of_their_own(options: str) -> None:
    found, refused = parse(f"-A -t 10.0.0.1:80 {options}", "-a -t 10.0.0.1:80 -r 10.9.9.9:8080 -m")
    assert not found
    assert [number for number, _ in refused] == [1]


def test_the_order_of_services_and_of_servers_is_that_of_the_text() -> None:
    found, refused = parse(
        "-a -f 7 -r 10.9.9.9:8080 -m", "-A -u 10.0.0.1:80", "-A -f 7", "-a -f 7 -r 10.9.9.9:1 -m", "-A -t 10.0.0.1:80"
    )
    assert found == [UDP, replace(MARK, servers=(NAT, replace(NAT, port=1))), TCP]
    assert not refused


def test_nothing_is_no_service() -> None:
    assert parse("") == parse("", " ", "#") == ([], [])


@given(services())
def test_what_is_saved_is_read_back(expected: list[Service]) -> None:
    assert parse(*save_rules(expected)) == (expected, [])


@given(services(), st.randoms(use_true_random=False))
def test_rules_may_stand_in_any_order(expected: list[Service], random: Random) -> None:
    lines = list(save_rules(expected))
    random.shuffle(lines)
    found, refused = parse(*lines)
    assert not refused
    assert {service.key: unordered(service) for service in found} == {
        service.key: unordered(service) for service in expected
    }


def unordered(service: Service) -> tuple[Service, frozenset[Server]]:
    return replace(service, servers=()), frozenset(service.servers)


WORDS = st.sampled_from(
    (
        "-A", "-a", "-t", "-u", "-f", "10.0.0.1:80", "10.0.0.1:0", "10.0.0.1", "[fd00::1]:80", "fd00::1", "web:80",
        "10.0.0.1:http", "-s", "rr", "foo", "-p", "300", "0", "-p300",
        "-r", "10.9.9.9:8080", "10.9.9.9", "[fd00::9]:1", "224.0.0.1", "-m", "-g", "-i",
        "-w", "7", "70000", "-1", "-x", "=", "-", "--", "#",
    )
)  # fmt: skip
SHAPES = st.one_of(
    st.lists(WORDS, max_size=9),
    st.tuples(st.just("-A"), WORDS, WORDS, st.just("-s"), WORDS),
    st.tuples(st.just("-A"), st.just("-t"), WORDS, st.just("-s"), WORDS, st.just("-p"), WORDS),
    st.tuples(st.just("-a"), st.just("-t"), WORDS, st.just("-r"), WORDS, WORDS),
    st.tuples(st.just("-a"), st.just("-u"), WORDS, st.just("-r"), WORDS, st.just("-m"), st.just("-w"), WORDS),
)
LINES = st.lists(SHAPES.map(" ".join), max_size=4)


@given(LINES | services().map(save_rules).map(list))
def test_a_common_shape_is_read_as_any_other(lines: list[str]) -> None:
    """Two blanks between words are no common shape."""
    assert parse(*lines, *DEFINED[:2]) == parse(*(line.replace(" ", "  ") for line in lines), *DEFINED[:2])


@given(st.text() | st.text("-Aatuf =[]:.,0189\n#wrsmpM"))
def test_any_text_is_read_or_refused(text: str) -> None:
    _, refused = parse(text)
    assert all(1 <= number <= text.count("\n") + 1 for number, _ in refused)


def test_options_as_ipvsadm_orders_them() -> None:
    full = replace(
        UDP,
        scheduler="sh",
        scheduler_flags=("sh-fallback", "sh-port"),
        persistent=3000,
        netmask="255.255.0.0",
        persistence_engine="sip",
        one_packet=True,
    )
    assert service_options(full) == "-u 10.0.0.1:80 -s sh -p 3000 -M 255.255.0.0 --pe sip -o -b sh-fallback,sh-port"
    assert service_options(TCP) == "-t 10.0.0.1:80 -s wlc"
    limited = replace(NAT, weight=100, upper_threshold=9, lower_threshold=3)
    assert server_options(limited) == "-r 10.9.9.9:8080 -m -w 100 -x 9 -y 3"
    gue = replace(TUNNEL, address="fd00::9", upper_threshold=9, tun_type="gue", tun_port=6080, tun_checksum="remcsum")
    assert server_options(gue) == "-r [fd00::9]:80 -i -w 1 -x 9 --tun-type gue --tun-port 6080 --tun-remcsum"
    assert server_options(TUNNEL) == "-r 10.9.9.9:80 -i -w 1 --tun-type ipip"


def test_keys() -> None:
    keys = [service_key_options(service.key) for service in (TCP, UDP, SCTP, TCP6, MARK, MARK6)]
    assert keys == [
        "-t 10.0.0.1:80",
        "-u 10.0.0.1:80",
        "--sctp-service 10.0.0.1:80",
        "-t [fd00::1]:80",
        "-f 7",
        "-f 7 -6",
    ]
    assert server_key_options(("fd00::9", 80)) == "-r [fd00::9]:80"


def test_a_deadline_is_no_threshold() -> None:
    assert server_options(replace(NAT, weight=5).draining(1_700_000_000)) == "-r 10.9.9.9:8080 -m -w 0"

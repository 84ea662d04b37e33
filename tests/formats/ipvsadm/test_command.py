"""Command lines of ipvsadm, in short and long options; those that are not taken say why."""

from __future__ import annotations

import re

import pytest

from reconciler.formats.ipvsadm.command import IpvsadmCommand, parse_command
from reconciler.formats.ipvsadm.listing import in_order, list_services
from reconciler.model.ipvs import Server, ServerKey, Service, ServiceKey, Timeouts
from reconciler.values import replace

WEB = Service(protocol="tcp", address="172.17.0.7", port=80)
STICKY = replace(WEB, scheduler="rr", persistent=3000)
SERVER = Server(address="172.17.0.4", port=80, weight=100)
KEY = WEB.key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "--add-service --tcp-service 172.17.0.7:80 --scheduler rr --persistent 3000",
            IpvsadmCommand("-A", KEY, STICKY),
        ),
        ("-A -t 172.17.0.7:80 -s rr -p 3000", IpvsadmCommand("-A", KEY, STICKY)),
        ("-A -t 172.17.0.7:80", IpvsadmCommand("-A", KEY, WEB)),
        ("-E -t 172.17.0.7:80 -s rr -p 3000", IpvsadmCommand("-E", KEY, STICKY)),
        ("-D -t 172.17.0.7:80", IpvsadmCommand("-D", KEY)),
        ("--delete-service --fwmark-service 7 -6", IpvsadmCommand("-D", ("fwmark", "::", 7))),
        (
            "--add-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80 --weight 100",
            IpvsadmCommand("-a", KEY, server=SERVER),
        ),
        ("-a -t 172.17.0.7:80 -r 172.17.0.4", IpvsadmCommand("-a", KEY, server=replace(SERVER, weight=1))),
        (
            "-a -t 172.17.0.7:80 -r 172.17.0.4:81 -m",
            IpvsadmCommand("-a", KEY, server=replace(SERVER, weight=1, port=81)),
        ),
        (
            "-e -t 172.17.0.7:80 -r 172.17.0.4 -g -w 0",
            IpvsadmCommand("-e", KEY, server=replace(SERVER, weight=0, forward="dr")),
        ),
        ("-d -t 172.17.0.7:80 -r 172.17.0.4:81", IpvsadmCommand("-d", KEY, server=replace(SERVER, weight=1, port=81))),
        ("-C", IpvsadmCommand("-C")),
        ("--clear", IpvsadmCommand("-C")),
        ("--list", IpvsadmCommand("-L")),
        ("-l", IpvsadmCommand("-L")),
        ("-Ln", IpvsadmCommand("-L")),
        ("-L --numeric", IpvsadmCommand("-L")),
        ("--list --tcp-service 172.17.0.7:80", IpvsadmCommand("-L", KEY)),
        ("-Lnt 172.17.0.7:80", IpvsadmCommand("-L", KEY)),
        ("-Sn", IpvsadmCommand("-S")),
        ("--save", IpvsadmCommand("-S")),
        ("--set 100 100 200", IpvsadmCommand("--set", timeouts=Timeouts(100, 100, 200))),
        ("--set 0 1296000 0", IpvsadmCommand("--set", timeouts=Timeouts(tcpfin=1296000))),
    ],
)
def test_a_command(text: str, expected: IpvsadmCommand) -> None:
    assert parse_command(text) == expected


COMMANDS = "-A -E -D -C -a -e -d -L -S --set"
NEEDED = "--set needs three numbers: the seconds for TCP, for TCP after a FIN, and for UDP"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"nothing to do; expected one of {COMMANDS}, and its options"),
        ("list", 'unexpected "list"'),
        ("-t 172.17.0.7:80 -A", f"-t needs a command before it: one of {COMMANDS}"),
        ("-A -D -t 172.17.0.7:80", "-A and -D exclude each other"),
        ("-A", "no service; expected one of -t, -u, --sctp-service, -f"),
        ("-D -t 172.17.0.7:80 -s rr", "-s is not possible on an -D line"),
        ("-d -t 172.17.0.7:80", "no server; expected -r"),
        ("-a -t 172.17.0.7:80 -r 172.17.0.4 -w 65536", "-w 65536: expected a number from 0 to 65535"),
        ("-A -t 172.17.0.7:0", "no port; only a persistent service (-p) may have port 0, which means all ports"),
        ("-A -t 172.17.0.7:80 -p 2678401", "-p 2678401: expected a number from 1 to 2678400"),
        ("-S -t 172.17.0.7:80", "-t is not possible on an -S line"),
        ("-L -c", "unknown option -c"),
        ("-L --stats", "unknown option --stats; did you mean"),
        ("-Z", "-Z is not supported: reconciler does not manage counters"),
        ("-R", "-R is not supported: use `ipvsadm --restore FILE` to read rules"),
        (
            "--start-daemon master",
            "--start-daemon is not supported: reconciler does not manage the synchronization of connections",
        ),
        ("--set 1 2", NEEDED),
        ("--set 1 2 3 4", NEEDED),
        ("--set 1 2 1296001", "--set 1296001: expected a number from 0 to 1296000"),
        ("--set 1 2 -3", "--set -3: expected a number from 0 to 1296000"),
    ],
)
def test_a_command_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_command(text)


def test_the_order_is_that_of_addresses_and_not_of_text() -> None:
    servers = (Server(address="fd00::1"), Server(address="10.0.0.10"), Server(address="10.0.0.9"))
    found = in_order(
        [
            Service(protocol="fwmark", address="0.0.0.0", port=7),
            replace(WEB, address="fd00::7"),
            replace(WEB, protocol="udp", address="1.1.1.1"),
            replace(WEB, address="172.17.0.10"),
            replace(WEB, servers=servers),
        ]
    )
    assert [service.key for service in found] == [
        WEB.key,
        ("tcp", "172.17.0.10", 80),
        ("udp", "1.1.1.1", 80),
        ("tcp", "fd00::7", 80),
        ("fwmark", "0.0.0.0", 7),
    ]
    assert found[0].servers == servers[::-1]


def test_connections_are_listed_with_the_server_that_has_them() -> None:
    def counts(service: ServiceKey, server: ServerKey) -> tuple[int, int]:
        return (12, 345) if (service, server) == (KEY, SERVER.key) else (0, 0)

    assert list(list_services([replace(STICKY, servers=(SERVER,))], counts)) == [
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
        "TCP  172.17.0.7:80 rr persistent 3000",
        "  -> 172.17.0.4:80                Masq    100    12         345       ",
    ]

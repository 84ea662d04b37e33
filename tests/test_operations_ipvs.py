"""Operations of IPVS as an engineer would type them."""

from __future__ import annotations

import shlex
from typing import get_args

import pytest

from reconciler.cli.script import render_script
from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.formats.ipvsadm.write import service_options
from reconciler.manifest.load import Manifest
from reconciler.model.ipvs import Server, Service, Timeouts
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    EndOperation,
    IpvsOperation,
    MarkService,
    MessageOperation,
    ServerOperation,
    ServiceOperation,
    SetSysctl,
    SetTimeouts,
    SettingOperation,
    StartExpiring,
    StopExpiring,
    StopFallback,
)
from reconciler.operations.outcome import is_independent
from reconciler.operations.segment import Table
from reconciler.plan import Plan
from reconciler.preview import Preview
from reconciler.values import replace

SANDBOX = Sandbox(id="web-1", driver=NetnsAddress(name="web-1"))
REAL = Server(address="172.16.0.1", port=8080, weight=100)
REAL6 = Server(address="fd00:16::1", port=80)
FULL = replace(
    REAL,
    address="fd00:16::1",
    forward="tunnel",
    weight=65535,
    upper_threshold=9,
    lower_threshold=3,
    tun_type="gue",
    tun_port=6080,
    tun_checksum="remcsum",
)
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr", servers=(REAL,))
WEB6 = Service(protocol="tcp", address="fd00:10::1", port=80)
SCTP = Service(protocol="sctp", address="10.10.0.1", port=3868, scheduler="wrr")
MARK = Service(protocol="fwmark", address="0.0.0.0", port=7)
MARK6 = Service(protocol="fwmark", address="::", port=4294967295)
THICK = Service(
    protocol="udp",
    address="10.10.0.1",
    port=5060,
    scheduler="mh",
    scheduler_flags=("mh-fallback", "mh-port", "flag-3"),
    persistent=300,
    netmask="255.255.255.0",
    persistence_engine="sip",
    one_packet=True,
)
THICK6 = replace(
    THICK, address="fd00:10::1", scheduler="sh", scheduler_flags=("sh-port",), netmask="64", persistence_engine=None
)
HASHING = replace(WEB, scheduler="mh", scheduler_flags=("mh-port",))
UNTIL = 1_800_000_060.0

# An operation, its sign, its command and its comment.
OPERATIONS: list[tuple[IpvsOperation, str, str, str]] = [
    (SetSysctl(name="conntrack", value=1, before=0), "~", "sysctl -w net.ipv4.vs.conntrack=1", "was 0"),
    (SetSysctl(name="drop_entry", value=-1), "~", "sysctl -w net.ipv4.vs.drop_entry=-1", ""),
    (
        SetTimeouts(timeouts=Timeouts(60, 5, 7), before=Timeouts(900, 120, 300)),
        *("~", "ipvsadm --set 60 5 7", "was 900 120 300"),
    ),
    (
        SetTimeouts(timeouts=Timeouts(None, 60, None), before=Timeouts(900, 120, 300)),
        *("~", "ipvsadm --set 0 60 0", "was 900 120 300"),
    ),
    (AddService(service=WEB), "+", "ipvsadm -A -t 10.10.0.1:80 -s rr", ""),
    (AddService(service=WEB6), "+", "ipvsadm -A -t [fd00:10::1]:80 -s wlc", ""),
    (AddService(service=SCTP), "+", "ipvsadm -A --sctp-service 10.10.0.1:3868 -s wrr", ""),
    (AddService(service=MARK), "+", "ipvsadm -A -f 7 -s wlc", ""),
    (AddService(service=MARK6), "+", "ipvsadm -A -f 4294967295 -6 -s wlc", ""),
    (
        AddService(service=THICK),
        *(
            "+",
            "ipvsadm -A -u 10.10.0.1:5060 -s mh -p 300 -M 255.255.255.0 --pe sip -o -b mh-fallback,mh-port,flag-3",
            "",
        ),
    ),
    (AddService(service=THICK6), "+", "ipvsadm -A -u [fd00:10::1]:5060 -s sh -p 300 -M 64 -o -b sh-port", ""),
    (
        EditService(service=replace(WEB, scheduler="wrr", persistent=60), before=WEB),
        *("~", "ipvsadm -E -t 10.10.0.1:80 -s wrr -p 60", "was -t 10.10.0.1:80 -s rr"),
    ),
    (
        EditService(service=MARK6, before=replace(MARK6, one_packet=True)),
        *("~", "ipvsadm -E -f 4294967295 -6 -s wlc", "was -f 4294967295 -6 -s wlc -o"),
    ),
    (
        EditService(service=replace(HASHING, draining=True), before=HASHING),
        *(
            "~",
            "ipvsadm -E -t 10.10.0.1:80 -s mh -b mh-fallback,mh-port",
            "was -t 10.10.0.1:80 -s mh -b mh-port; the fallback is on only while servers drain",
        ),
    ),
    (
        StopFallback(service=HASHING),
        *(
            "~",
            "ipvsadm -E -t 10.10.0.1:80 -s mh -b mh-port",
            "no server drains any more, so the fallback ends",
        ),
    ),
    (MarkService(service=WEB), "~", "ipvsadm -E -t 10.10.0.1:80 -s rr", "marks it as ours"),
    (
        MarkService(service=replace(WEB, servers=())),
        *("~", "ipvsadm -E -t 10.10.0.1:80 -s rr", "marks it as ours"),
    ),
    (DeleteService(service=THICK), "-", "ipvsadm -D -u 10.10.0.1:5060", ""),
    (DeleteService(service=WEB6), "-", "ipvsadm -D -t [fd00:10::1]:80", ""),
    (DeleteService(service=MARK6), "-", "ipvsadm -D -f 4294967295 -6", ""),
    (
        AddServer(service=WEB.key, server=REAL),
        *("+", "ipvsadm -a -t 10.10.0.1:80 -r 172.16.0.1:8080 -m -w 100", ""),
    ),
    (
        AddServer(service=WEB6.key, server=replace(REAL6, forward="dr", weight=0)),
        *("+", "ipvsadm -a -t [fd00:10::1]:80 -r [fd00:16::1]:80 -g -w 0", ""),
    ),
    (
        AddServer(service=MARK.key, server=FULL),
        *(
            "+",
            ("ipvsadm -a -f 7 -r [fd00:16::1]:8080 -i -w 65535 -x 9 -y 3 --tun-type gue --tun-port 6080 --tun-remcsum"),
            "",
        ),
    ),
    (
        AddServer(service=WEB.key, server=replace(REAL, forward="tunnel", tun_type="gre")),
        *("+", "ipvsadm -a -t 10.10.0.1:80 -r 172.16.0.1:8080 -i -w 100 --tun-type gre --tun-nocsum", ""),
    ),
    (
        AddServer(service=WEB.key, server=replace(REAL, forward="tunnel")),
        *("+", "ipvsadm -a -t 10.10.0.1:80 -r 172.16.0.1:8080 -i -w 100 --tun-type ipip", ""),
    ),
    (
        EditServer(service=WEB.key, server=replace(REAL, weight=1), before=REAL),
        *("~", "ipvsadm -e -t 10.10.0.1:80 -r 172.16.0.1:8080 -m -w 1", "was -r 172.16.0.1:8080 -m -w 100"),
    ),
    # Thresholds come back with an edit that leaves them; the deadline of what drained is none.
    (
        EditServer(
            service=WEB.key,
            server=replace(REAL, upper_threshold=9, lower_threshold=3),
            before=REAL.draining(UNTIL),
        ),
        *(
            "~",
            "ipvsadm -e -t 10.10.0.1:80 -r 172.16.0.1:8080 -m -w 100 -x 9 -y 3",
            "was -r 172.16.0.1:8080 -m -w 0",
        ),
    ),
    (
        DrainServer(service=WEB.key, server=REAL.draining(UNTIL), before=REAL),
        *(
            "-",
            "ipvsadm -e -t 10.10.0.1:80 -r 172.16.0.1:8080 -m -w 0",
            "to be deleted when its connections have ended",
        ),
    ),
    (
        DeleteServer(service=WEB.key, server=FULL),
        *("-", "ipvsadm -d -t 10.10.0.1:80 -r [fd00:16::1]:8080", ""),
    ),
    (DeleteServer(service=MARK6.key, server=REAL6), "-", "ipvsadm -d -f 4294967295 -6 -r [fd00:16::1]:80", ""),
    (
        StartExpiring(),
        *("~", "sysctl -w net.ipv4.vs.expire_nodest_conn=2", "frees the connections of servers that go"),
    ),
    (StopExpiring(), "~", "sleep 0.5; sysctl -w net.ipv4.vs.expire_nodest_conn=0", ""),
    (
        DeleteConntrack(address="10.10.0.1", protocol="udp"),
        *("-", "conntrack -D --orig-dst 10.10.0.1 --protonum udp", ""),
    ),
    (
        DeleteConntrack(address="fd00:10::1", protocol="udp"),
        *("-", "conntrack -D --orig-dst fd00:10::1 --protonum udp", ""),
    ),
]


@pytest.mark.parametrize(("operation", "sign", "command", "comment"), OPERATIONS)
def test_an_operation_reads_like_the_command(operation: Operation, sign: str, command: str, comment: str) -> None:
    assert (operation.sign, operation.command, operation.comment) == (sign, command, comment)
    assert is_independent(operation)
    assert operation.kind == type(operation).__name__
    assert shlex.split(command.replace(";", "")) == command.replace(";", "").split()


def test_every_operation_is_shown() -> None:
    kinds = {*get_args(ServiceOperation), *get_args(ServerOperation), SetTimeouts, *get_args(SettingOperation)}
    assert {type(operation) for operation, *_ in OPERATIONS} == kinds == set(get_args(IpvsOperation))
    assert set(get_args(MessageOperation)) == kinds - set(get_args(SettingOperation))


def test_what_holds_of_each_operation() -> None:
    ends = {type(operation).__name__ for operation, *_ in OPERATIONS if isinstance(operation, EndOperation)}
    assert ends == {"DeleteService", "DeleteServer", "StopFallback", "StartExpiring", "StopExpiring", "DeleteConntrack"}
    manifest = Manifest(file="web-1.yaml", text="", document=0, sandbox=SANDBOX)
    within, special = "nsenter --net=/run/netns/web-1 ", {}
    for operation, _, command, _ in OPERATIONS:
        shown = Preview(desired=SANDBOX, observed=Observed(sandbox=SANDBOX), plan=Plan((Table((operation,)),)))
        _, line = render_script(manifest, shown).splitlines()
        if line != within + command:
            special[type(operation).__name__] = line.replace(command, "COMMAND")
    # A sequence of commands is one word to `nsenter`, and there may be no connection to forget.
    assert special == {
        "StopExpiring": f"{within}sh -c 'COMMAND'",
        "DeleteConntrack": f"{within}COMMAND || true",
    }


@pytest.mark.parametrize(
    "operation", [each for each, *_ in OPERATIONS if isinstance(each, AddService)], ids=lambda each: each.command
)
def test_the_command_of_a_service_says_all_of_it(operation: AddService) -> None:
    refused: list[object] = []
    rule = operation.command.removeprefix("ipvsadm ")
    assert parse_rules(rule, lambda *told: refused.append(told)) == [replace(operation.service, servers=())]
    assert refused == []
    assert rule == f"-A {service_options(operation.service)}"

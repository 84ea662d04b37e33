"""What applies cleanly and carries no packet is told, at its place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.errors import Problem
from reconciler.manifest.load import load, warnings
from reconciler.model.machine import Machine, Tap
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Surroundings
from reconciler.values import replace
from tests.manifest.texts import (
    SECOND,
    THIRD,
    manifest,
    nic,
    route,
    rule,
    service,
    with_ipvs,
    with_server,
    with_service,
    with_services,
)

NOTHING_OBSERVED = Surroundings()
NO_SERVERS = "has no servers; its packets are rejected"
NOT_LOCAL = "is not an address of these interfaces; if the sandbox does not have it, nat gets no packet"
ITSELF = "172.17.0.7 is the address of the service itself; its connections stay in the sandbox"
DRAIN = (
    "clients of a persistent service keep returning to a server that drains; "
    "sysctls: {expire_quiescent_template: 1} prevents that"
)
ONE_PACKET = (
    "answers of nat servers come from the address of the server, not of the service, so clients ignore them; "
    "use dr or tunnel, or no one-packet scheduling"
)
LOOPBACK = (
    "the kernel drops packets of other hosts that nat sends to 127.0.0.1, a loopback address; "
    "use another address of the sandbox"
)
QUIET = "servers: [{address: 172.17.0.4}, {address: 172.17.0.5, weight: 0}]"
REFUSES = "refuses the clients of a server"
FALLBACK = "; schedulerFlags: [mh-fallback] sends them to another server"
NO_FALLBACK = "; other schedulers send them to another server"
STICKY = "- {tcp: 172.17.0.7:80, persistent: 300, servers: [{address: 172.17.0.4}]}"


def with_nics(*services: str) -> str:
    return (
        manifest(nics=[nic()])
        + with_services(*services).partition("ipvs:")[1]
        + with_services(*services).partition("ipvs:")[2]
    )


CASES: dict[str, tuple[str, list[str]]] = {
    "nothing": (with_service(), []),
    "no section": (manifest(nics=[nic()]), []),
    "no services": (with_ipvs("services: []"), []),
    "a service without servers": (
        with_services("- {tcp: 172.17.0.7:80}", "- {fwmark: 7, servers: []}"),
        [
            f"w.yaml:6:11: ipvs.services[0].tcp: 172.17.0.7:80 {NO_SERVERS}",
            f"w.yaml:7:14: ipvs.services[1].fwmark: fwmark 7 {NO_SERVERS}",
        ],
    ),
    "all weights 0": (
        with_service("servers: [{address: 172.17.0.4, weight: 0}, {address: 172.17.0.5, weight: 0}]"),
        ["w.yaml:7:14: ipvs.services[0].servers: all weights of 172.17.0.7:80 are 0; new connections get no server"],
    ),
    "one weight not 0": (
        with_service("servers: [{address: 172.17.0.4, weight: 0}, {address: 172.17.0.5, weight: 1}]"),
        [],
    ),
    "all weights 0 for now": (with_service("servers: [{address: 172.17.0.4, weight: 0}]", "ignore: [weight]"), []),
    "a service that is its own server": (
        with_service("servers: [{address: 172.17.0.4}, {address: 172.17.0.7:8080}]"),
        [f"w.yaml:7:48: ipvs.services[0].servers[1].address: {ITSELF}"],
    ),
    "a service that is its own server, routed": (with_server("address: 172.17.0.7", "forward: dr"), []),
    "a multicast service": (
        with_service("tcp: 224.0.0.1:80"),
        ["w.yaml:6:10: ipvs.services[0].tcp: 224.0.0.1 is not a unicast address; IPVS gets no packet for it"],
    ),
    "router advertisements on an interface that forwards": (
        manifest(
            "sysctls: {net.ipv6.conf.all.forwarding: 1}",
            nics=[
                nic("sysctls: {accept_ra: 1}"),
                nic(*SECOND, "sysctls: {accept_ra: 1, ipv6.forwarding: 0}"),
                nic(*THIRD, "sysctls: {accept_ra: 2}"),
            ],
        ),
        [
            (
                "w.yaml:11:24: interfaces[0].sysctls.accept_ra: 1 has no effect on an interface that forwards IPv6; "
                "2 accepts router advertisements there"
            )
        ],
    ),
    "sip over tcp": (
        with_service("persistent: 300", "persistenceEngine: sip"),
        [
            "w.yaml:9:24: ipvs.services[0].persistenceEngine: sip is for UDP; the packets of a tcp service are dropped",
        ],
    ),
    "sip over udp": (
        with_service("tcp", "udp: 172.17.0.7:5060", "persistent: 300", "persistenceEngine: sip"),
        [],
    ),
    "a persistent service that drains": (
        with_ipvs("drain: 60", "services:", STICKY),
        [f"w.yaml:5:10: ipvs.drain: {DRAIN}"],
    ),
    "one that drains at last": (
        with_ipvs("drain: 60", "sysctls: {expire_quiescent_template: 1}", "services:", STICKY),
        [],
    ),
    "one that never drains": (with_ipvs("sysctls: {expire_quiescent_template: 0}", "services:", STICKY), []),
    "single packets by nat": (
        with_service("tcp", "udp: 172.17.0.7:53", "onePacket: true"),
        [f"w.yaml:8:16: ipvs.services[0].onePacket: {ONE_PACKET}"],
    ),
    "single packets of a mark, some by nat": (
        with_service(
            "tcp",
            "fwmark: 7",
            "onePacket: true",
            "servers: [{address: 172.17.0.4, forward: tunnel}, {address: 172.17.0.5}]",
        ),
        [f"w.yaml:8:16: ipvs.services[0].onePacket: {ONE_PACKET}"],
    ),
    "single packets, routed": (
        with_service("tcp", "udp: 172.17.0.7:53", "onePacket: true", "servers: [{address: 172.17.0.4, forward: dr}]"),
        [],
    ),
    "a loopback server": (
        with_service("servers: [{address: 172.17.0.4}, {address: 127.0.0.1:8080}]"),
        [f"w.yaml:7:48: ipvs.services[0].servers[1].address: {LOOPBACK}"],
    ),
    "an IPv6 loopback server": (
        with_services("- {fwmark: 7, family: ipv6, servers: [{address: '::1'}]}"),
        [f"w.yaml:6:51: ipvs.services[0].servers[0].address: {LOOPBACK.replace('127.0.0.1', '::1')}"],
    ),
    "a loopback server, routed": (with_service("servers: [{address: 127.0.0.2, forward: dr}]"), []),
    "a loopback server of a loopback service": (
        with_services("- {tcp: 127.0.0.1:80, servers: [{address: 127.0.0.2}]}"),
        [],
    ),
    "weight 0 with a hash": (
        with_service("scheduler: mh", "schedulerFlags: [mh-port]", QUIET),
        [f"w.yaml:7:68: ipvs.services[0].servers[1].weight: mh {REFUSES} of weight 0 that had one before{FALLBACK}"],
    ),
    "weight 0 with sh": (
        with_service("scheduler: sh", QUIET),
        [
            f"w.yaml:7:68: ipvs.services[0].servers[1].weight: sh {REFUSES} of weight 0{FALLBACK.replace('mh', 'sh')}",
        ],
    ),
    "weight 0 with dh": (
        with_service("scheduler: dh", QUIET),
        [f"w.yaml:7:68: ipvs.services[0].servers[1].weight: dh {REFUSES} of weight 0{NO_FALLBACK}"],
    ),
    "weight 0 with a hash that falls back": (with_service("scheduler: sh", "schedulerFlags: [sh-fallback]", QUIET), []),
    "weight 0 without a hash": (with_service("scheduler: lblcr", QUIET), []),
    "weights of others with a hash": (
        with_service("scheduler: mh", "ignore: [weight]", "servers: [{address: 172.17.0.4}, {address: 172.17.0.5}]"),
        [
            ("w.yaml:9:13: ipvs.services[0].ignore: "
            f"mh {REFUSES} whose weight another program sets to 0{FALLBACK}"),
        ],
    ),
    "a threshold with a hash": (
        with_service("scheduler: mh", "servers: [{address: 172.17.0.4, upperThreshold: 9}, {address: 172.17.0.5}]"),
        [
            ("w.yaml:7:53: ipvs.services[0].servers[0].upperThreshold: "
            f"mh {REFUSES} that has reached its upper threshold{FALLBACK}"),
        ],
    ),
    "a drain with dh": (
        with_ipvs("drain: 60", "services:", "- {tcp: 172.17.0.7:80, scheduler: dh, servers: [{address: 172.17.0.4}]}"),
        [
            ("w.yaml:7:37: ipvs.services[0].scheduler: dh refuses the clients of a server that drains, "
            "so its servers are deleted at once, with their connections; mh, sh and lblc can drain"),
        ],
    ),
    "a drain with a hash": (
        with_ipvs("drain: 60", "services:", "- {tcp: 172.17.0.7:80, scheduler: mh, servers: [{address: 172.17.0.4}]}"),
        [],
    ),
    "an address of nobody": (
        with_nics(
            service(), service("tcp: 10.0.0.2:80", "servers: [{address: 10.0.0.4}]"), service("tcp: 127.1.2.3:80")
        ),
        [f"w.yaml:12:10: ipvs.services[0].tcp: 172.17.0.7 {NOT_LOCAL}"],
    ),
    "an IPv6 address of nobody": (
        with_nics(
            "- {udp: '[fd00::7]:53', servers: [{address: fd00::4}]}",
            "- {udp: '[fd00::2]:53', servers: [{address: fd00::4}]}",
        ),
        [f"w.yaml:12:11: ipvs.services[0].udp: fd00::7 {NOT_LOCAL}"],
    ),
    "an address of nobody, routed": (with_nics(service("servers: [{address: 172.17.0.4, forward: dr}]")), []),
    "lines of rules": (
        with_ipvs(
            "drain: 60",
            (
                "rules: |\n  # saved\n  -A -t 172.17.0.7:80 -p 300\n\n  -a -t 172.17.0.8:80 -r 172.17.0.4 -w 0 -m\n"
                "  -A -t 172.17.0.8:80\n"
            ),
        ),
        [
            f"w.yaml:5:10: ipvs.drain: {DRAIN}",
            f"w.yaml:8:5: ipvs.rules line 2: 172.17.0.7:80 {NO_SERVERS}",
            "w.yaml:11:5: ipvs.rules line 5: all weights of 172.17.0.8:80 are 0; new connections get no server",
        ],
    ),
    "rules that have no lines": (
        with_ipvs('rules: "-A -t 172.17.0.7:80\\n-A -t 172.17.0.8:80"'),
        [
            f"w.yaml:5:10: ipvs.rules: 172.17.0.7:80 {NO_SERVERS}",
            f"w.yaml:5:10: ipvs.rules: 172.17.0.8:80 {NO_SERVERS}",
        ],
    ),
    "the same of many services": (
        with_services(*[f"- {{fwmark: {mark}}}" for mark in range(1, 8)]),
        [
            *(f"w.yaml:{5 + n}:14: ipvs.services[{n - 1}].fwmark: fwmark {n} {NO_SERVERS}" for n in range(1, 5)),
            f"w.yaml:10:14: ipvs.services[4].fwmark: fwmark 5 {NO_SERVERS} (the same is true of 2 more services)",
        ],
    ),
    "two documents": (
        with_services("- {fwmark: 1}") + "---\n" + with_services("- {fwmark: 2}").replace("web-1", "web-2"),
        [
            f"w.yaml:6:14: ipvs.services[0].fwmark: fwmark 1 {NO_SERVERS}",
            f"w.yaml:13:14: ipvs.services[0].fwmark: fwmark 2 {NO_SERVERS}",
        ],
    ),
}  # fmt: skip


def warned(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, around: Surroundings = NOTHING_OBSERVED
) -> list[Problem]:
    monkeypatch.chdir(folder)
    Path("w.yaml").write_text(text)
    return warnings([(each, around) for each in load(["w.yaml"])])


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_it_is_told_at_its_place(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [str(problem) for problem in warned(text, tmp_path, monkeypatch)] == expected


def with_table(*rules: str, dest: str = "10.8.0.0/16", table: int = 100) -> str:
    """Write a manifest with a route in a table, which is on line 14, and with these rules, if there are some."""
    gateway = "fd00::1" if ":" in dest else "10.0.0.1"
    routes = [route(f"dest: {dest}", f"gateway: {gateway}", f"table: {table}")]
    return manifest(nics=[nic()], routes=routes, rules=rules or None)


KERNELS = tuple(
    Rule(family=family, priority=priority, table=table)
    for family, priorities in (("ipv4", {0: 255, 32766: 254, 32767: 253}), ("ipv6", {0: 255, 32766: 254}))
    for priority, table in priorities.items()
)
OTHERS = replace(KERNELS[0], priority=7, table=100)
DIRECTED = "so no packet takes this route"
UNSAID = f"w.yaml:14:10: routes[0].table: no IPv4 rule of this manifest looks up table 100, {DIRECTED}"
UNSEEN = f"w.yaml:14:10: routes[0].table: no IPv4 rule looks up table 100, {DIRECTED}"
UNSEEN6 = f"w.yaml:14:10: routes[0].table: no IPv6 rule looks up table 100, {DIRECTED}"

# A manifest, the rules of others as far as they were observed, and the warnings.
TABLES: dict[str, tuple[str, tuple[Rule, ...], list[str]]] = {
    "no rules and nothing observed": (with_table(), (), []),
    "no rules but the kernel's": (with_table(), KERNELS, [UNSEEN]),
    "a rule of another owner": (with_table(), (*KERNELS, OTHERS), []),
    "a rule of another owner for the other family": (
        with_table(),
        (*KERNELS, replace(OTHERS, family="ipv6")),
        [UNSEEN],
    ),
    "a rule": (with_table(rule()), (), []),
    "a rule with a selector": (with_table(rule("from: 10.1.0.0/16", "invert: true")), KERNELS, []),
    "a rule for another table": (with_table(rule("table: 101")), (), [UNSAID]),
    "a rule for another table, and the kernel's": (with_table(rule("table: 101")), KERNELS, [UNSEEN]),
    "a rule for the other family": (with_table(rule("family: ipv6")), KERNELS, [UNSEEN]),
    "a rule that looks up no table": (with_table(rule("table", "action: prohibit")), KERNELS, [UNSEEN]),
    "a VRF": (with_table(rule("table", "l3mdev: true")), KERNELS, []),
    "a VRF of another owner": (with_table(), (*KERNELS, replace(OTHERS, table=0, l3mdev=True)), []),
    "a table of the kernel's": (with_table(table=253), KERNELS, []),
    "an IPv6 route": (with_table(dest="2001:db8::/32"), KERNELS, [UNSEEN6]),
    "an IPv6 route and an IPv4 rule": (with_table(rule(), dest="2001:db8::/32"), KERNELS, [UNSEEN6]),
    "an IPv6 route and a rule": (with_table(rule("family: ipv6"), dest="2001:db8::/32"), KERNELS, []),
    "an empty section": (with_table() + "rules: []\n", (), [UNSAID]),
    "several routes in one table": (
        manifest(
            nics=[nic()],
            routes=[route(), *(route(f"dest: 10.{n}.0.0/16", f"table: {100 + n // 10}") for n in (8, 9, 10))],
        ),
        KERNELS,
        [
            f"w.yaml:17:10: routes[1].table: no IPv4 rule looks up table 100, {DIRECTED}",
            f"w.yaml:25:10: routes[3].table: no IPv4 rule looks up table 101, {DIRECTED}",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "observed", "expected"), TABLES.values(), ids=TABLES)
def test_a_route_in_a_table_that_no_rule_looks_up_is_told(
    text: str, observed: tuple[Rule, ...], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = warned(text, tmp_path, monkeypatch, Surroundings(rules=observed))
    assert [str(problem) for problem in found] == expected


FORWARD4, FORWARD6 = (
    f"{name} is 0 there: answers of {kind} nat servers do not reach their clients; sysctls: {{{name}: 1}}"
    for kind, name in (("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding"))
)
FOUR = "- {tcp: 172.17.0.7:80, servers: [{address: 172.17.0.4}]}"
SIX = "- {tcp: '[fd00::7]:80', servers: [{address: fd00::4}]}"
BOTH = "- {tcp: 172.17.0.7:80, servers: [{address: fd00::4, forward: tunnel}]}"


@pytest.mark.parametrize("four", [False, True])
@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize(
    ("services", "families"),
    [
        ((FOUR,), {4}),
        ((SIX,), {6}),
        ((FOUR, SIX), {4, 6}),
        ((BOTH,), set()),
        (("- {fwmark: 7, family: ipv6, servers: [{address: fd00::4}]}",), {6}),
        (("- {tcp: 172.17.0.7:80, servers: [{address: 172.17.0.5}]}",), set()),
    ],
)
def test_forwarding_is_missed_for_the_families_of_nat_servers(
    services: tuple[str, ...],
    families: set[int],
    four: bool,
    six: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 172.17.0.5 is in the sandbox: it answers from within.
    local = frozenset({"127.0.0.1", "::1", "172.17.0.7", "fd00::7", "172.17.0.5"})
    around = Surroundings(forwarding=four, forwarding6=six, local=local)
    found = [each.message for each in warned(with_services(*services), tmp_path, monkeypatch, around)]
    assert found == [FORWARD4] * (4 in families and not four) + [FORWARD6] * (6 in families and not six)


LO_DOWN = "lo is down in the sandbox, so nothing there reaches its own addresses, such as 127.0.0.1"
LO_UP = "ip -n web-1 link set lo up"
NO_CARRIER = "eth0 has no carrier (NO-CARRIER), so no packet passes"
TO_ITSELF = "is an address of the sandbox itself, so packets that take this route go nowhere"
HOPS = "[{gateway: 10.0.0.1, device: eth0}, {gateway: 10.0.0.2, device: eth0}]"
TAP_DOWN = Machine(taps={"tap0": Tap(is_tap=True, multi_queue=False, mtu=1500, up=False, busy=False)})

# A manifest, what was observed, and the warnings.
LINKS: dict[str, tuple[str, Surroundings, list[str]]] = {
    "nothing observed": (manifest(nics=[nic()]), NOTHING_OBSERVED, []),
    "lo is down": (manifest(), Surroundings(loopback=False), [f"w.yaml:3:9: driver: {LO_DOWN}; {LO_UP}"]),
    "lo is down and a route needs it": (
        manifest(nics=[nic()], routes=[route(), route("dest: 10.9.0.0/16", "gateway", "device: lo")]),
        Surroundings(loopback=False),
        [f"w.yaml:15:11: routes[1].device: {LO_DOWN}; {LO_UP}"],
    ),
    "lo of a namespace without a name is down": (
        manifest("driver: {netns: {pid: 7}}"),
        Surroundings(loopback=False),
        [f"w.yaml:3:9: driver: {LO_DOWN}; set it up"],
    ),
    "a TAP that no process uses": (
        manifest(nics=[nic()]),
        Surroundings(no_carrier=frozenset({"tap0"}), kinds={"tap0": "tun"}),
        [f"w.yaml:6:11: interfaces[0].device: {NO_CARRIER}: no process uses it"],
    ),
    "a pair whose other end is down": (
        manifest(nics=[nic()]),
        Surroundings(no_carrier=frozenset({"tap0"}), kinds={"tap0": "veth"}),
        [f"w.yaml:6:11: interfaces[0].device: {NO_CARRIER}: its peer is down"],
    ),
    "another NIC without a carrier": (manifest(nics=[nic()]), Surroundings(no_carrier=frozenset({"tap9"})), []),
    "a TAP that is down on the host": (
        manifest("driver: {vm: {name: web-1}}", nics=[nic()]),
        Surroundings(machine=TAP_DOWN, no_carrier=frozenset({"tap0"})),
        [("w.yaml:6:11: interfaces[0].device: tap0 is down on the host, so no packet passes; ip link set tap0 up")],
    ),
    "gateways that are addresses of the manifest": (
        manifest(
            nics=[nic()],
            routes=[
                route("gateway: 10.0.0.2"),
                route("dest: 10.9.0.0/16", "gateway: 10.0.0.2"),
                f"- {{dest: 10.10.0.0/16, nexthops: {HOPS}}}",
                route("dest: 10.11.0.0/16"),
            ],
        ),
        NOTHING_OBSERVED,
        [f"w.yaml:12:12: routes[0].gateway: 10.0.0.2 {TO_ITSELF}"],
    ),
    "a gateway that is an address of another NIC": (
        manifest(
            nics=[nic(), nic(*SECOND, 'addresses: ["fd00::1/64"]')],
            routes=[route("dest: fd01::/64", "gateway: fd00::1")],
        ),
        NOTHING_OBSERVED,
        [f"w.yaml:17:12: routes[0].gateway: fd00::1 {TO_ITSELF}"],
    ),
    "a next hop that is an address of the sandbox": (
        manifest(routes=[f"- {{dest: 10.8.0.0/16, nexthops: {HOPS}}}"]),
        Surroundings(local=frozenset({"10.0.0.2", "127.0.0.1"})),
        [f"w.yaml:5:33: routes[0].nexthops: 10.0.0.2 {TO_ITSELF}"],
    ),
}


@pytest.mark.parametrize(("text", "observed", "expected"), LINKS.values(), ids=LINKS)
def test_a_link_or_a_gateway_that_carries_nothing_is_told(
    text: str, observed: Surroundings, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = warned(text, tmp_path, monkeypatch, observed)
    assert [str(problem) for problem in found] == expected


def test_a_warning_shows_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = with_ipvs("rules: |\n    -A -t 172.17.0.7:80\n")
    assert warned(text, tmp_path, monkeypatch) == [
        Problem("w.yaml", 6, 7, "ipvs.rules line 1", f"172.17.0.7:80 {NO_SERVERS}", "      -A -t 172.17.0.7:80", 19)
    ]


@pytest.mark.parametrize(
    ("written", "found", "warns"),
    [("", True, False), ("", False, True), ("1", False, False), ("0", True, True)],
)
def test_forwarding_is_what_the_manifest_says_or_else_what_is_there(
    written: str, found: bool, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service_, name, observed, message in (
        ("127.0.0.9:80", "net.ipv4.ip_forward", replace(NOTHING_OBSERVED, forwarding=found), FORWARD4),
        ("'[::1]:80'", "net.ipv6.conf.all.forwarding", replace(NOTHING_OBSERVED, forwarding6=found), FORWARD6),
    ):
        address = "fd00::4" if "::" in service_ else "172.17.0.4"
        text = with_services(f"- {{tcp: {service_}, servers: [{{address: '{address}'}}]}}")
        text += f"sysctls: {{{name}: {written}}}\n" if written else ""
        seen = warned(text, tmp_path, monkeypatch, observed)
        assert [problem.message for problem in seen] == ([message] if warns else [])


def test_a_line_of_a_rules_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.rules").write_text("# saved\n-A -f 7\n")
    assert warned(with_ipvs("rulesFile: web.rules"), tmp_path, monkeypatch) == [
        Problem("web.rules", 2, 1, "", f"fwmark 7 {NO_SERVERS}", "-A -f 7", 7)
    ]


def test_a_file_of_many_documents_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "---\n".join(with_services("- {fwmark: 1}").replace("web-1", f"web-{number}") for number in range(500))
    before = time.process_time()
    found = warned(text, tmp_path, monkeypatch)
    assert time.process_time() - before < 3
    assert [problem.line for problem in found] == [6 + 7 * number for number in range(500)]

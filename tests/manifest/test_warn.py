"""What applies cleanly and carries no packet is told, at its place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.errors import Problem
from reconciler.manifest.load import load, warnings
from reconciler.model.sandbox import Surroundings
from tests.manifest.texts import manifest, nic, service, with_ipvs, with_server, with_service, with_services

NO_SERVERS = "has no servers; its packets are rejected"
NOT_LOCAL = "is not an address of these interfaces; if the sandbox does not have it, nat gets no packet"
ITSELF = "172.17.0.7 is the address of the service itself; its connections stay in the sandbox"
DRAIN = (
    "clients of a persistent service keep returning to a server that drains; "
    "sysctls: {expire_quiescent_template: 1} prevents that"
)
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
    "an address of nobody": (
        with_nics(service(), service("tcp: 10.0.0.2:80", "servers: [{address: 10.0.0.4}]"), service("tcp: 127.1.2.3:80")),
        [f"w.yaml:12:10: ipvs.services[0].tcp: 172.17.0.7 {NOT_LOCAL}"],
    ),
    "an IPv6 address of nobody": (
        with_nics("- {udp: '[fd00::7]:53', servers: [{address: fd00::4}]}", "- {udp: '[fd00::2]:53', servers: [{address: fd00::4}]}"),
        [f"w.yaml:12:11: ipvs.services[0].udp: fd00::7 {NOT_LOCAL}"],
    ),
    "an address of nobody, routed": (with_nics(service("servers: [{address: 172.17.0.4, forward: dr}]")), []),
    "lines of rules": (
        with_ipvs(
            "drain: 60",
            "rules: |\n  # saved\n  -A -t 172.17.0.7:80 -p 300\n\n  -a -t 172.17.0.8:80 -r 172.17.0.4 -w 0 -m\n  -A -t 172.17.0.8:80\n",
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


def warned(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    monkeypatch.chdir(folder)
    Path("w.yaml").write_text(text)
    return warnings([(each, Surroundings()) for each in load(["w.yaml"])])


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_it_is_told_at_its_place(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [str(problem) for problem in warned(text, tmp_path, monkeypatch)] == expected


def test_a_warning_shows_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = with_ipvs("rules: |\n    -A -t 172.17.0.7:80\n")
    assert warned(text, tmp_path, monkeypatch) == [
        Problem("w.yaml", 6, 7, "ipvs.rules line 1", f"172.17.0.7:80 {NO_SERVERS}", "      -A -t 172.17.0.7:80", 19)
    ]


def test_a_line_of_a_rules_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.rules").write_text("# saved\n-A -f 7\n")
    assert warned(with_ipvs("rulesFile: web.rules"), tmp_path, monkeypatch) == [
        Problem("web.rules", 2, 1, "", f"fwmark 7 {NO_SERVERS}", "-A -f 7", 7)
    ]


def test_a_file_of_many_documents_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "---\n".join(with_services("- {fwmark: 1}").replace("web-1", f"web-{number}") for number in range(1000))
    before = time.process_time()
    found = warned(text, tmp_path, monkeypatch)
    assert time.process_time() - before < 3
    assert [problem.line for problem in found] == [6 + 7 * number for number in range(1000)]

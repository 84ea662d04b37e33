"""An IPVS section in each legal spelling is the same section, and limits are met exactly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.formats.ipvsadm.write import save_rules
from reconciler.manifest import ipvs, service
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import compose
from reconciler.manifest.finding import Finding
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service, Timeouts
from reconciler.values import replace
from tests.examples import examples
from tests.manifest.services import sections, services
from tests.manifest.texts import with_ipvs, with_server, with_service, with_services

SERVER = Server(address="172.17.0.4", port=80)
TCP = Service(protocol="tcp", address="172.17.0.7", port=80, servers=(SERVER,))
IPV6 = Service(protocol="tcp", address="fd00::7", port=80, servers=(Server(address="fd00::4", port=80),))
MARK = Service(protocol="fwmark", address="0.0.0.0", port=7)
STICKY = replace(TCP, persistent=300)


def served(**fields: Any) -> Service:
    return replace(TCP, servers=(replace(SERVER, **fields),))


SPELLINGS: list[tuple[str, Service]] = [
    (with_service(), TCP),
    (with_service("tcp: '172.17.0.7:80'"), TCP),
    (with_service("tcp: 172.17.0.7:080"), TCP),
    (with_service("scheduler: wlc", "schedulerFlags: []", "onePacket: false", "ignore: []"), TCP),
    (with_service("servers:\n- address: 172.17.0.4"), TCP),
    (
        with_service(
            "servers: [{address: 172.17.0.4:80, weight: 1, forward: nat, upperThreshold: 0, lowerThreshold: 0}]"
        ),
        TCP,
    ),
    (with_service("servers: []"), replace(TCP, servers=())),
    (with_service("servers"), replace(TCP, servers=())),
    (with_services("- {tcp: '[fd00::7]:80', servers: [{address: fd00::4}]}"), IPV6),
    (with_services("- {tcp: '[FD00:0::7]:80', servers: [{address: '[fd00:0:0:0:0:0:0:4]:80'}]}"), IPV6),
    (with_services("- {tcp: '[fd00::0.0.0.7]:80', servers: [{address: '[fd00::4]'}]}"), IPV6),
    (with_services("- {fwmark: 7}"), MARK),
    (with_services("- {fwmark: 7, family: ipv4}"), MARK),
    (with_services("- {fwmark: 7, family: ipv6}"), replace(MARK, address="::")),
    (
        with_services("- {fwmark: 7, servers: [{address: 10.0.0.1}]}"),
        replace(MARK, servers=(Server(address="10.0.0.1"),)),
    ),
    (
        with_services("- {fwmark: 7, servers: [{address: 10.0.0.1:8080, forward: dr}]}"),
        replace(MARK, servers=(Server(address="10.0.0.1", port=8080, forward="dr"),)),
    ),
    (with_service("persistent: 300", "netmask: 255.255.255.255"), STICKY),
    (
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: 128}"),
        replace(IPV6, persistent=300, servers=()),
    ),
    (
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: 64}"),
        replace(IPV6, persistent=300, netmask="64", servers=()),
    ),
    (
        with_services("- {tcp: '[fd00::7]:80', persistent: 300, netmask: '064'}"),
        replace(IPV6, persistent=300, netmask="64", servers=()),
    ),
    (
        with_service("scheduler: sh", "schedulerFlags: [flag-2, flag-1]"),
        replace(TCP, scheduler="sh", scheduler_flags=("sh-fallback", "sh-port")),
    ),
    (
        with_service("scheduler: mh", "schedulerFlags: [flag-3, mh-port]"),
        replace(TCP, scheduler="mh", scheduler_flags=("mh-port", "flag-3")),
    ),
    (with_service("schedulerFlags: [flag-3, flag-1]"), replace(TCP, scheduler_flags=("flag-1", "flag-3"))),
    (with_server("forward: tunnel"), served(forward="tunnel")),
    (with_server("forward: tunnel", "tunType: ipip", "tunChecksum: none"), served(forward="tunnel")),
    (with_server("address: 172.17.0.4", "forward: dr"), served(forward="dr")),
    (with_server("address: 172.17.0.4:80", "forward: dr"), served(forward="dr")),
]  # fmt: skip

ACCEPTED: list[tuple[str, Service]] = [
    (with_service("tcp: 172.17.0.7:1"), replace(TCP, port=1)),
    (with_service("tcp: 172.17.0.7:65535"), replace(TCP, port=65535)),
    (with_service("tcp: 172.17.0.7:0", "persistent: 1"), replace(TCP, port=0, persistent=1)),
    (
        with_service("tcp: 172.17.0.7:0", "persistent: 1", "servers: [{address: 172.17.0.4}]"),
        replace(TCP, port=0, persistent=1, servers=(Server(address="172.17.0.4"),)),
    ),
    (
        with_services("- {udp: 172.17.0.7:53, onePacket: true}"),
        Service(protocol="udp", address="172.17.0.7", port=53, one_packet=True),
    ),
    (with_services("- {sctp: 172.17.0.7:80}"), replace(TCP, protocol="sctp", servers=())),
    (with_services("- {fwmark: 1, onePacket: true}"), replace(MARK, port=1, one_packet=True)),
    (with_services("- {fwmark: 4294967295}"), replace(MARK, port=4294967295)),
    (with_service("persistent: 2678400", "netmask: 0.0.0.0"), replace(TCP, persistent=2678400, netmask="0.0.0.0")),
    (
        with_services("- {udp: '[fd00::7]:53', persistent: 1, netmask: 1, persistenceEngine: sip}"),
        Service(protocol="udp", address="fd00::7", port=53, persistent=1, netmask="1", persistence_engine="sip"),
    ),
    (with_service("ignore: [weight]"), replace(TCP, ignore=("weight",))),
    (with_server("address: 172.17.0.4:0"), served(port=0)),
    (with_server("address: 172.17.0.4:8080"), served(port=8080)),
    (with_server("weight: 0"), served(weight=0)),
    (with_server("weight: 65535"), served(weight=65535)),
    (
        with_server("upperThreshold: 1073741823", "lowerThreshold: 1073741823"),
        served(upper_threshold=1073741823, lower_threshold=1073741823),
    ),
    (
        with_server("address: fd00::4", "forward: tunnel"),
        replace(TCP, servers=(Server(address="fd00::4", port=80, forward="tunnel"),)),
    ),
    (
        with_server("forward: tunnel", "tunType: gue", "tunPort: 65535", "tunChecksum: remcsum"),
        served(forward="tunnel", tun_type="gue", tun_port=65535, tun_checksum="remcsum"),
    ),
    (
        with_server("forward: tunnel", "tunType: gre", "tunChecksum: csum"),
        served(forward="tunnel", tun_type="gre", tun_checksum="csum"),
    ),
]  # fmt: skip

SECTIONS: list[tuple[str, Ipvs]] = [
    ("services: []", Ipvs(services=())),
    ("drain: 0", Ipvs()),
    ("drain: 2678400", Ipvs(drain=2678400)),
    ("timeouts: {}", Ipvs()),
    ("timeouts: {tcp: 0, tcpfin: 0, udp: 0}", Ipvs()),
    ("timeouts: {tcp: 1296000, udp: 1}", Ipvs(timeouts=Timeouts(tcp=1296000, udp=1))),
    ("sysctls: {}", Ipvs()),
    (
        "sysctls: {expire_nodest_conn: 0, conntrack: 2147483647}",
        Ipvs(sysctls=(("conntrack", 2147483647), ("expire_nodest_conn", 0))),
    ),
    ("exclude: []", Ipvs()),
    (
        "exclude: [10.9.0.0/24, 10.9.1.1, 'FD00:0::/16', {fwmark: 7}]",
        Ipvs(exclude=(Excluded("10.9.0.0/24"), Excluded("10.9.1.1/32"), Excluded("fd00::/16"), Excluded(fwmark=7))),
    ),
    (
        "exclude: [172.17.0.8, '::/0', {fwmark: 80}]\nservices: [{tcp: 172.17.0.7:80}]",
        Ipvs(
            services=(replace(TCP, servers=()),),
            exclude=(Excluded("172.17.0.8/32"), Excluded("::/0"), Excluded(fwmark=80)),
        ),
    ),
]  # fmt: skip


def read(text: str) -> tuple[Ipvs | None, list[Finding]]:
    (document,) = compose(text)
    findings = check(document)
    draft = read_sections(document, findings)
    findings += check_sections(draft)
    section = draft.sections["ipvs"]
    return section.ipvs if section else None, findings


def spelling(value: object) -> str:
    return value.partition("ipvs:")[2] if isinstance(value, str) else ""


@pytest.mark.parametrize(("text", "expected"), SPELLINGS, ids=spelling)
def test_each_spelling_is_the_same_service(text: str, expected: Service) -> None:
    assert read(text) == (Ipvs(services=(expected,)), [])


@pytest.mark.parametrize(("text", "expected"), ACCEPTED, ids=spelling)
def test_limits_are_included(text: str, expected: Service) -> None:
    assert read(text) == (Ipvs(services=(expected,)), [])


@pytest.mark.parametrize(("fields", "expected"), SECTIONS)
def test_each_field_of_the_section(fields: str, expected: Ipvs) -> None:
    assert read(with_ipvs(fields)) == (expected, [])


def test_20_000_rules() -> None:
    marks = [
        f"- {{fwmark: {mark}, servers: [{{address: 172.17.0.4}}, {{address: 172.17.0.5}}, {{address: 172.17.0.6}}]}}"
        for mark in range(1, 5001)
    ]
    found, findings = read(with_services(*marks))
    assert findings == []
    assert found is not None
    assert sum(1 + len(each.servers) for each in found.services or ()) == 20_000


@pytest.mark.parametrize("forward", ["nat", "dr", "tunnel"])
def test_the_same_words_are_another_server_in_another_service(forward: str) -> None:
    servers = f"servers: [{{address: 172.17.0.4, forward: {forward}}}]"
    found, findings = read(
        with_services(
            f"- {{tcp: 172.17.0.7:80, {servers}}}",
            f"- {{tcp: 172.17.0.7:443, {servers}}}",
            f"- {{fwmark: 7, {servers}}}",
        )
    )
    assert findings == []
    assert found is not None
    assert [each.servers for each in found.services or ()] == [
        (Server(address="172.17.0.4", port=port, forward=forward),) for port in (80, 443, 0)
    ]


WRITTEN: list[tuple[Service, dict[str, Any]]] = [
    (TCP, {"tcp": "172.17.0.7:80", "servers": [{"address": "172.17.0.4:80"}]}),
    (IPV6, {"tcp": "[fd00::7]:80", "servers": [{"address": "[fd00::4]:80"}]}),
    (MARK, {"fwmark": 7}),
    (replace(MARK, address="::"), {"fwmark": 7, "family": "ipv6"}),
    (replace(MARK, servers=(Server(address="10.0.0.1"),)), {"fwmark": 7, "servers": [{"address": "10.0.0.1"}]}),
    (served(port=0), {"tcp": "172.17.0.7:80", "servers": [{"address": "172.17.0.4:0"}]}),
    (
        replace(IPV6, port=0, persistent=300, netmask="64", servers=(Server(address="fd00::4"),)),
        {"tcp": "[fd00::7]:0", "persistent": 300, "netmask": 64, "servers": [{"address": "fd00::4"}]},
    ),
    (
        replace(STICKY, netmask="255.255.255.0", scheduler="sh", scheduler_flags=("sh-port",), servers=()),
        {
            "tcp": "172.17.0.7:80",
            "scheduler": "sh",
            "schedulerFlags": ["sh-port"],
            "persistent": 300,
            "netmask": "255.255.255.0",
        },
    ),
]


@pytest.mark.parametrize(("each", "data"), WRITTEN)
def test_defaults_are_not_written(each: Service, data: dict[str, Any]) -> None:
    assert service.write(each) == data


@pytest.mark.parametrize("section", [Ipvs(), Ipvs(services=())])
def test_a_section_of_nothing(section: Ipvs) -> None:
    assert ipvs.write(section) == ({} if section.services is None else {"services": []})


@given(sections())
@settings(max_examples=examples(200), deadline=None)
def test_what_is_written_is_read_as_it_was(section: Ipvs) -> None:
    document = {"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": {"vm": {"name": "web-1"}}}
    document["ipvs"] = ipvs.write(section)
    findings = check(document)
    draft = read_sections(document, findings)
    assert [*findings, *check_sections(draft)] == []
    assert draft.sections["ipvs"] == ipvs.IpvsDraft(
        section, list(section.services or ()), rules=section.services is None
    )


@given(st.lists(services(), min_size=1, max_size=4, unique_by=lambda each: each.key))
@settings(max_examples=examples(100), deadline=None)
def test_rules_are_the_same_as_services(wanted: list[Service]) -> None:
    expected = tuple(replace(each, ignore=()) for each in wanted)
    text = "\n    ".join(save_rules(expected))
    assert read(with_ipvs(f"rules: |\n    {text}")) == (Ipvs(services=expected), [])


EXCLUDED = [
    Excluded("10.0.0.0/8"),
    Excluded("172.17.0.4/31"),
    Excluded("0.0.0.0/0"),
    Excluded("10.0.0.1/32"),
    Excluded("fd00::/8"),
    Excluded("::ffff:0:0/96"),
    Excluded(fwmark=7),
    Excluded(fwmark=80),
]


@given(st.lists(st.sampled_from(EXCLUDED)), st.lists(services(), max_size=4, unique_by=lambda each: each.key))
@settings(max_examples=examples(100), deadline=None)
def test_what_is_excluded_is_what_the_model_excludes(exclude: list[Excluded], wanted: list[Service]) -> None:
    document = {"ipvs": ipvs.write(Ipvs(services=tuple(wanted), exclude=tuple(exclude)))}
    findings = list(check_sections(read_sections(document, [])))
    covered = [index for index, each in enumerate(wanted) if any(one.covers(each.key) for one in exclude)]
    assert [finding.path[2] for finding in findings] == covered


def test_only_a_document_with_the_section_pays_for_it() -> None:
    script = """
import sys
from reconciler.manifest.load import load, warnings
from reconciler.model.sandbox import Surroundings
warnings([(each, Surroundings()) for each in load(["examples/web-1.yaml"])])
print([name for name in sys.modules if "ipvs" in name or "formats" in name])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"

"""A rule in each legal spelling is the same rule, is written with its defaults left out, and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from reconciler.manifest import rule
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import compose
from reconciler.manifest.finding import Finding
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check
from reconciler.model.rule import ALL_BITS, Rule
from reconciler.values import replace
from tests.manifest.texts import manifest
from tests.manifest.texts import rule as rule_text
from tests.netlink.strategies import rules

PLAIN = Rule(family="ipv4", priority=100, table=100)
PLAIN6 = replace(PLAIN, family="ipv6")

SPELLINGS: list[tuple[tuple[str, ...], Rule]] = [
    ((), PLAIN),
    (("family: ipv4",), PLAIN),
    (("tos: 0", "invert: false", "l3mdev: false"), PLAIN),
    (("family: ipv6",), PLAIN6),
    (("from: 10.1.0.0/16",), replace(PLAIN, from_="10.1.0.0/16")),
    (("from: 10.1.0.7",), replace(PLAIN, from_="10.1.0.7/32")),
    (("from: 10.1.0.7/32", "family: ipv4"), replace(PLAIN, from_="10.1.0.7/32")),
    (("from: 2001:0DB8:0:0::/32",), replace(PLAIN6, from_="2001:db8::/32")),
    (("to: 203.0.113.0/24",), replace(PLAIN, to="203.0.113.0/24")),
    (("to: 'fd00::7'",), replace(PLAIN6, to="fd00::7/128")),
    (("from: fd00::/8", "to: fd01::/16", "family: ipv6"), replace(PLAIN6, from_="fd00::/8", to="fd01::/16")),
    (("iif: eth0",), replace(PLAIN, iif="eth0")),
    (("iif: lo", "oif: eth1"), replace(PLAIN, iif="lo", oif="eth1")),
    (("fwmark: 16",), replace(PLAIN, fwmark=16, fwmask=ALL_BITS)),
    (("fwmark: '16'",), replace(PLAIN, fwmark=16, fwmask=ALL_BITS)),
    (("fwmark: 0x10",), replace(PLAIN, fwmark=16, fwmask=ALL_BITS)),
    (("fwmark: '0x10/0xffffffff'",), replace(PLAIN, fwmark=16, fwmask=ALL_BITS)),
    (("fwmark: 16/4294967295",), replace(PLAIN, fwmark=16, fwmask=ALL_BITS)),
    (("fwmark: 0x10/0xFF",), replace(PLAIN, fwmark=16, fwmask=255)),
    (("fwmark: 0",), replace(PLAIN, fwmark=0, fwmask=ALL_BITS)),
    (("fwmark: 0/0x1",), replace(PLAIN, fwmark=0, fwmask=1)),
    (("ipproto: tcp",), replace(PLAIN, ipproto=6)),
    (("ipproto: 6",), replace(PLAIN, ipproto=6)),
    *(
        ((f"ipproto: {name}",), replace(PLAIN, ipproto=number))
        for name, number in (
            ("icmp", 1), ("udp", 17), ("gre", 47), ("esp", 50), ("ah", 51), ("ipv6-icmp", 58), ("sctp", 132),
        )
    ),
    (("ipproto: 89",), replace(PLAIN, ipproto=89)),
    (("sport: 53",), replace(PLAIN, sport=(53, 53))),
    (("sport: '53'",), replace(PLAIN, sport=(53, 53))),
    (("sport: 53-53",), replace(PLAIN, sport=(53, 53))),
    (("dport: 8000-8080",), replace(PLAIN, dport=(8000, 8080))),
    (("uidrange: 1000",), replace(PLAIN, uidrange=(1000, 1000))),
    (("uidrange: 1000-1999",), replace(PLAIN, uidrange=(1000, 1999))),
    (("uidrange: 0",), replace(PLAIN, uidrange=(0, 0))),
    (("tos: 16",), replace(PLAIN, tos=16)),
    (("invert: true", "from: 10.1.0.0/16"), replace(PLAIN, invert=True, from_="10.1.0.0/16")),
    (("suppressPrefixlength: 0",), replace(PLAIN, suppress_prefixlength=0)),
    (("table", "l3mdev: true"), replace(PLAIN, table=0, l3mdev=True)),
    (
        ("table", "l3mdev: true", "suppressPrefixlength: 8"),
        replace(PLAIN, table=0, l3mdev=True, suppress_prefixlength=8),
    ),
    (("table", "goto: 200"), replace(PLAIN, table=0, action="goto", goto=200)),
    *(
        (("table", f"action: {each}"), replace(PLAIN, table=0, action=each))
        for each in ("blackhole", "unreachable", "prohibit")
    ),
]  # fmt: skip

# On the right side of each bound.
ACCEPTED: list[tuple[tuple[str, ...], Rule]] = [
    (("priority: 0",), replace(PLAIN, priority=0)),
    (("priority: 32766",), replace(PLAIN, priority=32766)),
    (("priority: 4294967295",), replace(PLAIN, priority=4294967295)),
    (("table: 1",), replace(PLAIN, table=1)),
    (("table: 252",), replace(PLAIN, table=252)),
    (("table: 255",), replace(PLAIN, table=255)),
    (("table: 256",), replace(PLAIN, table=256)),
    (("table: 4294967295",), replace(PLAIN, table=4294967295)),
    (("table", "goto: 101"), replace(PLAIN, table=0, action="goto", goto=101)),
    (("table", "goto: 4294967295"), replace(PLAIN, table=0, action="goto", goto=4294967295)),
    (("fwmark: 4294967295/4294967295",), replace(PLAIN, fwmark=ALL_BITS, fwmask=ALL_BITS)),
    (("fwmark: 4294967295",), replace(PLAIN, fwmark=ALL_BITS, fwmask=ALL_BITS)),
    (("ipproto: 1",), replace(PLAIN, ipproto=1)),
    (("ipproto: 255",), replace(PLAIN, ipproto=255)),
    (("sport: 1-65535",), replace(PLAIN, sport=(1, 65535))),
    (("dport: 65535",), replace(PLAIN, dport=(65535, 65535))),
    (("uidrange: 0-4294967294",), replace(PLAIN, uidrange=(0, 4294967294))),
    (("tos: 4",), replace(PLAIN, tos=4)),
    (("tos: 252",), replace(PLAIN, tos=252)),
    (("suppressPrefixlength: 32",), replace(PLAIN, suppress_prefixlength=32)),
    (("family: ipv6", "suppressPrefixlength: 128"), replace(PLAIN6, suppress_prefixlength=128)),
    (("from: 128.0.0.0/1",), replace(PLAIN, from_="128.0.0.0/1")),
    (("from: 224.0.0.0/4",), replace(PLAIN, from_="224.0.0.0/4")),
]  # fmt: skip


def read(*fields: str) -> tuple[Any, list[Finding]]:
    (document,) = compose(manifest(rules=[rule_text(*fields)]))
    findings = check(document)
    draft = read_sections(document, findings)
    return (draft.items(rule.SECTION) or [None])[0], [*findings, *check_sections(draft)]


@pytest.mark.parametrize(
    ("fields", "expected"), SPELLINGS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_each_spelling_is_the_same_rule(fields: tuple[str, ...], expected: Rule) -> None:
    assert read(*fields) == (expected, [])


@pytest.mark.parametrize(
    ("fields", "expected"), ACCEPTED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_limits_are_included(fields: tuple[str, ...], expected: Rule) -> None:
    assert read(*fields) == (expected, [])


def test_rules_of_one_priority_may_select_more_and_less() -> None:
    listed = [
        rule_text(),
        rule_text("from: 10.1.0.0/16"),
        rule_text("family: ipv6"),
        rule_text("invert: true", "tos: 4"),
    ]
    (document,) = compose(manifest(rules=listed))
    assert list(check_sections(read_sections(document, check(document)))) == []


WRITTEN: list[tuple[Rule, dict[str, Any]]] = [
    (PLAIN, {"priority": 100, "table": 100}),
    (PLAIN6, {"priority": 100, "family": "ipv6", "table": 100}),
    (replace(PLAIN, from_="10.1.0.7/32"), {"priority": 100, "from": "10.1.0.7/32", "table": 100}),
    (replace(PLAIN6, to="fd00::/8"), {"priority": 100, "to": "fd00::/8", "table": 100}),
    (replace(PLAIN, fwmark=16, fwmask=ALL_BITS), {"priority": 100, "fwmark": 16, "table": 100}),
    (replace(PLAIN, fwmask=ALL_BITS), {"priority": 100, "fwmark": 0, "table": 100}),
    (replace(PLAIN, fwmark=16, fwmask=255), {"priority": 100, "fwmark": "0x10/0xff", "table": 100}),
    (replace(PLAIN, fwmask=1), {"priority": 100, "fwmark": "0x0/0x1", "table": 100}),
    (replace(PLAIN, ipproto=17), {"priority": 100, "ipproto": "udp", "table": 100}),
    (replace(PLAIN, ipproto=89), {"priority": 100, "ipproto": 89, "table": 100}),
    (replace(PLAIN, sport=(5, 5), dport=(6, 7)), {"priority": 100, "sport": 5, "dport": "6-7", "table": 100}),
    (replace(PLAIN, uidrange=(0, 0)), {"priority": 100, "uidrange": 0, "table": 100}),
    (replace(PLAIN, suppress_prefixlength=0), {"priority": 100, "table": 100, "suppressPrefixlength": 0}),
    (replace(PLAIN, table=0, l3mdev=True), {"priority": 100, "l3mdev": True}),
    (replace(PLAIN, table=0, action="goto", goto=200), {"priority": 100, "goto": 200}),
    (replace(PLAIN, table=0, action="blackhole"), {"priority": 100, "action": "blackhole"}),
    (
        replace(PLAIN, iif="lo", oif="eth0", tos=8, invert=True),
        {"priority": 100, "iif": "lo", "oif": "eth0", "tos": 8, "invert": True, "table": 100},
    ),
]


@pytest.mark.parametrize(("each", "data"), WRITTEN)
def test_defaults_are_not_written(each: Rule, data: dict[str, Any]) -> None:
    assert rule.write(each) == data


@given(rules())
def test_what_is_written_is_read_again(wish: Rule) -> None:
    driver = {"netns": {"pid": 1}}
    document = {"apiVersion": "reconciler/v1", "sandbox": "a", "driver": driver, "rules": [rule.write(wish)]}
    findings = check(document)
    assert (read_sections(document, findings).items(rule.SECTION), findings) == ([wish], [])

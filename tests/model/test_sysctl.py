"""The list of sysctls is the same in the model, the schema and the agent."""

from __future__ import annotations

import json

import pytest

from reconciler.guest import agent
from reconciler.manifest.schema import schema_text
from reconciler.model.sysctl import FAMILIES, IPV4, IPV6, OF_NIC, OF_SANDBOX, Effect, effects, full_name, order

SCHEMA = json.loads(schema_text())
PARTS = {
    "sandbox": (SCHEMA["properties"]["sysctls"]["properties"], OF_SANDBOX),
    "nic": (SCHEMA["$defs"]["interface"]["properties"]["sysctls"]["properties"], OF_NIC),
}


@pytest.mark.parametrize("part", PARTS)
def test_the_schema_has_those_of_the_model(part: str) -> None:
    properties, names = PARTS[part]
    assert {name for name, each in properties.items() if "not" not in each} == {*names}
    # What is refused with a hint: the names that both families have, and the second name of ip_forward.
    refused = {name for name, each in properties.items() if "not" in each}
    assert refused == ({*IPV4} & {*IPV6} if part == "nic" else {"net.ipv4.conf.all.forwarding"})


def test_the_agent_allows_those_of_the_model() -> None:
    assert {family: {*names} for family, names in agent.CONF_SYSCTLS.items()} == {
        family: {*names} for family, names in FAMILIES.items()
    }
    assert {name for name in OF_SANDBOX if ".conf." not in name} == agent.NETWORK_SYSCTLS


@pytest.mark.parametrize(
    ("nic", "name", "full"),
    [
        ("eth0", "rp_filter", "net.ipv4.conf.eth0.rp_filter"),
        ("eth0", "ipv4.forwarding", "net.ipv4.conf.eth0.forwarding"),
        ("eth0", "ipv6.forwarding", "net.ipv6.conf.eth0.forwarding"),
        ("eth0.100", "accept_ra", "net/ipv6/conf/eth0.100/accept_ra"),
    ],
)
def test_the_name_for_sysctl(nic: str, name: str, full: str) -> None:
    assert full_name(nic, name) == full


def test_what_one_changes_along() -> None:
    links = ["lo", "a.b"]
    assert [*effects("net.ipv4.ip_forward", 1, links)] == [
        Effect("net.ipv4.conf.all.accept_redirects", 0),
        Effect("net.ipv4.conf.default.forwarding", 1),
        Effect("net.ipv4.conf.lo.forwarding", 1),
        Effect("net/ipv4/conf/a.b/forwarding", 1),
    ]
    assert [*effects("net.ipv6.conf.all.disable_ipv6", 1, links)] == [
        Effect("net.ipv6.conf.default.disable_ipv6", 1),
        Effect("net.ipv6.conf.lo.disable_ipv6", 1),
        Effect("net/ipv6/conf/a.b/disable_ipv6", 1),
    ]
    assert [*effects("net.ipv4.conf.default.rp_filter", 2, links)] == [
        Effect("net.ipv4.conf.lo.rp_filter", 2, sure=False),
        Effect("net/ipv4/conf/a.b/rp_filter", 2, sure=False),
    ]
    for alone in ("net.ipv6.conf.default.accept_ra", "net.ipv4.conf.all.rp_filter", "net.ipv6.bindv6only"):
        assert [*effects(alone, 1, links)] == []


def test_what_changes_others_is_first() -> None:
    names = ["net.ipv4.conf.all.accept_redirects", "net.ipv4.conf.default.forwarding", "net.ipv4.ip_forward"]
    assert sorted(names, key=order) == [names[2], names[1], names[0]]

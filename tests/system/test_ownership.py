"""What is not ours stays as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.manifest.load import load
from tests.system.box import Box, SandboxPlace, errors, is_refused, nic

OURS, THEIRS = "02:42:20:6f:a3:f1", "02:42:20:6f:a3:f9"
DEFAULT = {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}


@pytest.fixture
def eth0(place: SandboxPlace) -> dict[str, Any]:
    return nic(place.device())


@pytest.fixture
def crowded(place: SandboxPlace, eth0: dict[str, Any]) -> SandboxPlace:
    """Give a sandbox in which others have a link, addresses, neighbours, routes and rules of every kind."""
    place.apply(interfaces=[eth0], routes=[DEFAULT])
    place.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    place.ip("link", "set", "dev", "other0", "up", "alias", "not yours")
    place.ip("address", "add", "192.0.2.1/24", "dev", "other0")
    place.ip("address", "add", "2001:db8::1/64", "dev", "other0", "nodad")
    for protocol in ("static", "boot", "dhcp", "bird", "42", "kernel"):
        third = {"static": 1, "boot": 2, "dhcp": 3, "bird": 4, "42": 5, "kernel": 6}[protocol]
        place.ip("route", "add", f"203.0.{third}.0/24", "via", "10.0.0.7", "proto", protocol)
        place.ip("-6", "route", "add", f"2001:db8:{third}::/48", "via", "2001:db8::7", "proto", protocol)
    place.ip("route", "add", "default", "via", "10.0.0.8", "metric", "50", "proto", "dhcp")
    place.ip("route", "add", "blackhole", "203.0.113.0/24", "table", "77")
    for family in ("-4", "-6"):
        place.ip(family, "rule", "add", "priority", "500", "table", "77", "protocol", "static")
        place.ip(family, "rule", "add", "priority", "500", "ipproto", "6", "table", "77")
    for address in ("192.0.2.7", "2001:db8::7"):
        place.ip("neigh", "add", address, "lladdr", THEIRS, "dev", "other0", "nud", "permanent")
        place.ip("neigh", "add", address, "lladdr", THEIRS, "dev", "other1", "nud", "permanent", "protocol", "static")
        place.ip("neigh", "add", "proxy", address, "dev", "other0")
    return place


def others(place: SandboxPlace) -> Any:
    state = place.state()
    state["links"].pop("eth0", None)
    for section in ("neighbours", "routes", "rules"):
        state[section] = [each for each in state[section] if each.get("protocol") != "200"]
    return state


def test_others_are_untouched(crowded: SandboxPlace) -> None:
    before = others(crowded)
    crowded.apply("--allow-delete", "all", neighbours=[], routes=[], rules=[])
    assert others(crowded) == before
    crowded.apply(interfaces=[nic(crowded.device(), "eth1", 1)])
    crowded.apply(interfaces=[], routes=[])
    after = others(crowded)
    # Only what led through our own NIC went with it.
    gone = [route for route in before["routes"] if route not in after["routes"]]
    assert [route["dev"] for route in gone] == ["eth0"] * len(gone)
    for section in ("links", "neighbours", "rules"):
        assert after[section] == before[section]
    assert [route for route in after["routes"] if route not in before["routes"]] == []


def test_a_foreign_route_in_the_way_is_refused_and_named(
    crowded: SandboxPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = crowded.state()
    wanted = {"dest": "203.0.1.0/24", "gateway": "10.0.0.9", "device": "eth0", "onLink": True}
    if is_refused(crowded, routes=[DEFAULT, wanted]):
        del wanted["onLink"]
    code = main(["apply", crowded.write(routes=[DEFAULT, wanted])])
    if not crowded.differences.sees_all:
        assert code == 2
        assert "refused: there is a route to 203.0.1.0/24 already, and it is not ours" in capsys.readouterr().err
        assert crowded.state() == before
        return
    assert code == 3
    assert errors(capsys) == (
        "box: refused: route 203.0.1.0/24 via 10.0.0.9 dev eth0 onlink: "
        "the route 203.0.1.0/24 via 10.0.0.7 dev eth0 is in its place and is not ours; "
        "delete it in the sandbox, or choose another metric\n"
    )
    assert crowded.state() == before


def test_the_same_route_of_somebody_else_is_enough(crowded: SandboxPlace) -> None:
    wanted = {"dest": "203.0.1.0/24", "gateway": "10.0.0.7", "device": "eth0"}
    if crowded.differences.sees_all:
        assert crowded.diff(routes=[DEFAULT, wanted]) == []
        crowded.ip("route", "del", "203.0.1.0/24")
    before, after = ({"interfaces": [], "routes": routes} for routes in ([DEFAULT], [DEFAULT, wanted]))
    expected = crowded.expected(before, after, ["ip route add 203.0.1.0/24 via 10.0.0.7 dev eth0 proto 200"])
    assert crowded.diff(routes=[DEFAULT, wanted]) == expected


def test_the_same_rule_and_neighbour_of_somebody_else_are_enough(crowded: SandboxPlace) -> None:
    rules = [{"priority": 500, "table": 77}, {"priority": 32766, "table": 254}]
    neighbours = [{"address": "192.0.2.7", "device": "other0", "hwAddr": THEIRS}]
    if is_refused(crowded, neighbours=neighbours, rules=rules):
        return
    before = crowded.state()
    assert crowded.diff(neighbours=neighbours, rules=rules) == []
    crowded.apply(neighbours=neighbours, rules=rules)
    assert crowded.state() == before
    crowded.ip("rule", "del", "priority", "500", "protocol", "static")
    crowded.ip("neigh", "del", "192.0.2.7", "dev", "other0")
    assert crowded.diff(neighbours=neighbours, rules=rules) == [
        f"ip neigh replace 192.0.2.7 lladdr {THEIRS} dev other0 nud permanent protocol 200",
        "ip rule add priority 500 from all lookup 77 protocol 200",
    ]


@pytest.mark.parametrize("device", ["other0", "other1"])
def test_a_foreign_neighbour_in_the_way_is_refused_and_named(
    crowded: SandboxPlace, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [{"address": "192.0.2.7", "device": device, "hwAddr": OURS}]
    before = crowded.state()
    if is_refused(crowded, neighbours=wanted):
        return
    assert main(["apply", crowded.write(neighbours=wanted)]) == 3
    assert errors(capsys) == (
        f"box: refused: 192.0.2.7 lladdr {OURS} dev {device} nud permanent: "
        f"192.0.2.7 lladdr {THEIRS} dev {device} nud permanent is in its place and is not ours; delete it there\n"
    )
    assert crowded.state() == before


def test_rules_of_one_priority_are_told_apart_by_their_protocol(crowded: SandboxPlace) -> None:
    before = others(crowded)
    rules = [
        {"priority": 500, "ipproto": "tcp", "table": 77, "family": "ipv6"},
        {"priority": 500, "table": 78},
        {"priority": 500, "from": "10.1.0.0/16", "table": 77},
    ]
    if is_refused(crowded, rules=rules):
        return
    crowded.apply(rules=rules)
    assert others(crowded) == before
    crowded.apply(rules=[])
    assert others(crowded) == before


def learned(place: SandboxPlace) -> str:
    """Return what the kernel has learned of neighbours on eth0, in order, without its state."""
    shown = json.loads(place.ip("-j", "neigh", "show", "dev", "eth0"))
    return " ".join(sorted(f"{each['dst']}={each['lladdr']}" for each in shown if "PERMANENT" not in each["state"]))


def test_a_learned_neighbour_is_no_drift_and_is_left(place: SandboxPlace) -> None:
    interfaces = [nic(place.device(carrier=True))]
    wanted = [{"address": "10.0.0.1", "device": "eth0", "hwAddr": OURS}]
    if is_refused(place, neighbours=wanted):
        return
    place.apply(interfaces=interfaces, neighbours=[])
    for address in ("10.0.0.1", "10.0.0.5"):
        place.ip("neigh", "add", address, "lladdr", THEIRS, "dev", "eth0", "nud", "stale")
    expected = f"10.0.0.1={THEIRS} 10.0.0.5={THEIRS}"
    assert learned(place) == expected
    assert place.diff(interfaces=interfaces, neighbours=[]) == []
    place.apply(interfaces=interfaces, neighbours=[])
    assert learned(place) == expected
    # What is wanted takes its place.
    assert place.diff(neighbours=wanted) == [
        f"ip neigh replace 10.0.0.1 lladdr {OURS} dev eth0 nud permanent protocol 200"
    ]
    place.apply(neighbours=wanted)
    assert (learned(place), [each["lladdr"] for each in place.neighbours()]) == (f"10.0.0.5={THEIRS}", [OURS])
    place.apply(neighbours=[])
    assert (learned(place), place.neighbours()) == (f"10.0.0.5={THEIRS}", [])


NEAR = f"10.0.0.1 lladdr {OURS} dev eth0"
RULE = "priority 100 from 10.1.0.0/16 table 100 protocol 200"
# What somebody does, and by how many operations it is repaired.
# A rule that selects more goes only after one that selects less.
DRIFT = {
    "a rule is deleted": (f"rule del {RULE}", 1),
    "a rule is added": ("rule add priority 100 from 10.1.0.0/16 ipproto 6 table 100 protocol 200", 1),
    "a broad rule is added": ("rule add priority 101 table 100 protocol 200", 1),
    "a rule of the other family is added": ("-6 rule add priority 100 table 100 protocol 200", 3),
    "all rules are flushed": ("rule flush protocol 200", 2),
    "a neighbour is deleted": ("neigh del 10.0.0.1 dev eth0", 1),
    "a neighbour is changed": (f"neigh replace 10.0.0.1 lladdr {THEIRS} dev eth0 nud permanent", 1),
    "a neighbour is made to expire": ("neigh change 10.0.0.1 dev eth0 nud reachable", 1),
    "a neighbour is added": (f"neigh add 10.0.0.2 lladdr {THEIRS} dev eth0 nud permanent protocol 200", 1),
    "a proxy is deleted": ("neigh del proxy 10.0.0.77 dev eth0", 1),
    "a proxy is added": ("neigh add proxy 10.0.0.78 dev eth0 protocol 200", 1),
    "all neighbours are flushed": ("neigh flush dev eth0 nud permanent", 2),
    "the last IPv4 address is flushed": ("-4 address flush dev eth0", 3),
    "the link goes down": ("link set dev eth0 down", 4),
}


@pytest.fixture
def sections(place: SandboxPlace) -> dict[str, Any]:
    return {
        "interfaces": [nic(place.device())],
        "neighbours": [
            {"address": "10.0.0.1", "device": "eth0", "hwAddr": OURS},
            {"address": "fe80::1", "device": "eth0", "hwAddr": OURS, "router": True},
            {"address": "10.0.0.77", "device": "eth0", "proxy": True},
        ],
        "rules": [
            {"priority": 100, "from": "10.1.0.0/16", "table": 100},
            {"priority": 100, "iif": "eth0", "fwmark": "0x10/0xff", "action": "prohibit"},
            {"priority": 100, "family": "ipv6", "table": 100, "suppressPrefixlength": 0},
        ],
    }


def test_drift_is_repaired_by_one_apply(
    place: SandboxPlace, sections: dict[str, Any], repeats: Callable[[int], int]
) -> None:
    if is_refused(place, **sections):
        return
    place.apply(**sections)
    before = place.state()
    # Each takes most of a second of a processor in a guest: `make soak` tries all of them there, too.
    step = 1 if isinstance(place, Box) else max(1, len(DRIFT) // repeats(28))
    for name, (change, count) in list(DRIFT.items())[::step]:
        place.ip(*change.split())
        assert len(place.diff(**sections)) == count, name
        place.apply(**sections)
        assert place.state() == before, name


def test_what_show_prints_is_what_is_there(
    place: SandboxPlace, sections: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if is_refused(place, **sections):
        return
    place.apply(**sections)
    before = place.state()
    capsys.readouterr()
    assert main(["show", str(place.file)]) == 0
    place.file.write_text(capsys.readouterr().out)
    (shown,) = load([str(place.file)])
    (wished,) = load([place.write(**sections)])
    for one, other in (
        (shown.sandbox.rules, wished.sandbox.rules),
        (shown.sandbox.neighbours, wished.sandbox.neighbours),
    ):
        assert one is not None
        assert other is not None
        assert set(one) == set(other)
    place.file.write_text(shown.text)
    assert main(["apply", str(place.file)]) == 0
    assert place.state() == before
    capsys.readouterr()
    assert main(["show", "-o", "text", str(place.file)]) == 0
    text = capsys.readouterr().out
    assert f"{NEAR} nud permanent" in text
    assert "priority 100 from all fwmark 0x10/0xff iif eth0 prohibit" in text


def test_absent_neighbours_and_rules_are_left_alone(place: SandboxPlace, sections: dict[str, Any]) -> None:
    if is_refused(place, **sections):
        return
    place.apply(**sections)
    before = place.state()
    place.apply()
    place.apply(interfaces=sections["interfaces"])
    place.apply(neighbours=sections["neighbours"])
    place.apply(rules=sections["rules"])
    assert place.state() == before


def test_a_connected_route_may_be_written_down(place: SandboxPlace) -> None:
    interfaces = [nic(place.device())]
    connected = [{"dest": "10.0.0.0/16", "device": "eth0"}]
    place.apply(interfaces=interfaces)
    if not is_refused(place, interfaces=interfaces, routes=connected):
        assert place.diff(interfaces=interfaces, routes=connected) == []


def test_a_foreign_name_is_not_taken(
    crowded: SandboxPlace, eth0: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = crowded.state()
    code = main(["apply", crowded.write(interfaces=[eth0, nic(crowded.device(), "other0", 1)])])
    if not crowded.differences.sees_all:
        assert code == 2
        assert "the name other0 is taken in the sandbox by an interface that is not ours" in capsys.readouterr().err
        assert crowded.state() == before
        return
    assert code == 3
    assert crowded.state() == before
    error = errors(capsys)
    assert error.startswith(f"box: refused: {crowded.file}:")
    assert error.endswith(
        ": interfaces[1].name: the name other0 is taken in the sandbox by an interface that is not ours; "
        "rename or remove it there, or choose another name\n"
    )


def test_link_local_and_leased_addresses_are_left(place: SandboxPlace) -> None:
    interfaces = [nic(place.device(carrier=True))]
    place.apply(interfaces=interfaces)
    place.ip("address", "add", "10.0.77.1/16", "dev", "eth0", "valid_lft", "1000", "preferred_lft", "1000")
    # The kernel gives it when it has taken notice of the carrier.
    deadline = time.monotonic() + 60
    while "fe80::" not in place.ip("-6", "address", "show", "dev", "eth0"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert place.diff(interfaces=interfaces) == []


def test_absent_sections_are_left_alone(place: SandboxPlace) -> None:
    place.apply(interfaces=[nic(place.device())], routes=[DEFAULT])
    before = place.state()
    place.apply()
    place.apply(routes=[DEFAULT])
    assert place.state() == before


def test_routes_follow_a_rename_although_their_section_is_absent(place: SandboxPlace) -> None:
    device = place.device()
    before = {"interfaces": [nic(device)], "routes": [DEFAULT]}
    after = {"interfaces": [nic(device, "net0")], "routes": [DEFAULT | {"device": "net0"}]}
    place.apply(**before)
    rename = ["ip link set dev eth0 name net0"]
    if not place.differences.live_rename:
        up = ["ip link set dev net0 up", "ip route add default via 10.0.0.1 dev net0 proto 200"]
        rename = ["ip link set dev eth0 down", *rename, *up]
    assert place.diff(interfaces=after["interfaces"]) == place.expected(before, after, rename)
    place.apply(interfaces=after["interfaces"])
    assert [route["dev"] for route in place.routes_and_rules()[0] if route["protocol"] == "200"] == ["net0"]

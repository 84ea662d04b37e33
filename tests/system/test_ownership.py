"""What is not ours stays as it is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.system.box import SandboxPlace, is_refused, nic

DEFAULT = {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}


@pytest.fixture
def eth0(place: SandboxPlace) -> dict[str, Any]:
    return nic(place.device())


@pytest.fixture
def crowded(place: SandboxPlace, eth0: dict[str, Any]) -> SandboxPlace:
    """Give a sandbox in which others have a link, addresses and routes of every kind."""
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
    return place


def others(place: SandboxPlace) -> Any:
    state = place.state()
    state["links"].pop("eth0", None)
    state["routes"] = [route for route in state["routes"] if route.get("protocol") != "200"]
    return state


def test_others_are_untouched(crowded: SandboxPlace) -> None:
    before = others(crowded)
    crowded.apply("--allow-delete", "all", routes=[])
    assert others(crowded) == before
    crowded.apply(interfaces=[nic(crowded.device(), "eth1", 1)])
    crowded.apply(interfaces=[], routes=[])
    after = others(crowded)
    # Only what led through our own NIC went with it.
    gone = [route for route in before["routes"] if route not in after["routes"]]
    assert [route["dev"] for route in gone] == ["eth0"] * len(gone)
    assert after["links"] == before["links"]
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
    assert capsys.readouterr().err == (
        "box: refused: route 203.0.1.0/24 via 10.0.0.9 dev eth0 onlink: the route 203.0.1.0/24 via 10.0.0.7 dev eth0 is in "
        "its place and is not ours; delete it in the sandbox, or choose another metric\n"
    )
    assert crowded.state() == before


def test_the_same_route_of_somebody_else_is_enough(crowded: SandboxPlace) -> None:
    wanted = {"dest": "203.0.1.0/24", "gateway": "10.0.0.7", "device": "eth0"}
    if crowded.differences.sees_all:
        assert crowded.diff(routes=[DEFAULT, wanted]) == []
        crowded.ip("route", "del", "203.0.1.0/24")
    before, after = {"interfaces": [], "routes": [DEFAULT]}, {"interfaces": [], "routes": [DEFAULT, wanted]}
    command = "ip route add 203.0.1.0/24 via 10.0.0.7 dev eth0 proto 200"
    assert crowded.diff(routes=[DEFAULT, wanted]) == crowded.expected(before, after, [command])


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
    assert capsys.readouterr().err == (
        "box: refused: the name other0 is taken in the sandbox by an interface that is not ours; "
        "rename or remove it there, or choose another name\n"
    )


def test_link_local_and_leased_addresses_are_left(place: SandboxPlace) -> None:
    interfaces = [nic(place.device(carrier=True))]
    place.apply(interfaces=interfaces)
    place.ip("address", "add", "10.0.77.1/16", "dev", "eth0", "valid_lft", "1000", "preferred_lft", "1000")
    # The kernel gives it when it has taken notice of the carrier.
    deadline = time.monotonic() + 10
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
    assert [route["dev"] for route in place.routes("-4", "proto", "200")] == ["net0"]

"""Which sysctls are set, and when."""

from __future__ import annotations

from typing import Any

from reconciler.model.interface import Interface
from reconciler.model.sandbox import Observed
from reconciler.model.sysctl import Sysctls
from reconciler.plan import plan
from reconciler.values import replace
from tests.plan.sandboxes import commands, found, hop, nic, planned_commands, route, wanted

FORWARD = "net.ipv4.ip_forward"
OFF = "net.ipv6.conf.all.disable_ipv6"


def tuned(name: str = "eth0", *addresses: str, **sysctls: int) -> Interface:
    return nic(name, *addresses, sysctls=tuple(sysctls.items()))


def seen(*nics: Interface, sysctls: Sysctls = (), along: Sysctls = (), **around: Any) -> Observed:
    observed = found(nics, sysctls=along, **around)
    return replace(observed, sandbox=replace(observed.sandbox, sysctls=sysctls))


def test_nothing_differs() -> None:
    eth0 = tuned(rp_filter=2, accept_ra=0)
    sandbox = replace(wanted([eth0]), sysctls=((FORWARD, 1),))
    assert planned_commands(sandbox, seen(eth0, sysctls=((FORWARD, 1),))) == []


def test_what_the_manifest_does_not_name_is_left_alone() -> None:
    assert planned_commands(wanted([nic()]), seen(tuned(rp_filter=2), sysctls=((FORWARD, 1),))) == []


def test_those_of_a_new_nic_are_set_before_it_goes_up() -> None:
    sandbox = replace(wanted([tuned("eth0", "fd00::2/64", accept_ra=0)]), sysctls=((FORWARD, 1),))
    assert [words.partition(" alias ")[0] for words in planned_commands(sandbox, seen(sysctls=((FORWARD, 0),)))] == [
        "sysctl -w net.ipv4.ip_forward=1",
        "ip link set dev tap-eth0 netns box name eth0",
        "ip link set dev eth0 address 02:00:00:00:00:01 mtu 1500",
        "sysctl -w net.ipv6.conf.eth0.accept_ra=0",
        "ip link set dev eth0 up",
        "ip address add fd00::2/64 dev eth0",
    ]


def test_of_a_nic_that_is_renamed_and_raised() -> None:
    before = replace(tuned("eth0", rp_filter=1), up=False, mtu=1400)
    after = replace(tuned("eth1", rp_filter=2), device="tap-eth0")
    operations = plan(wanted([after]), seen(before)).operations
    assert [f"{each.command} # {each.comment}" for each in operations] == [
        "ip link set dev eth0 name eth1 # ",
        "ip link set dev eth1 mtu 1500 # was mtu 1400, down",
        "sysctl -w net.ipv4.conf.eth1.rp_filter=2 # was 1",
        "ip link set dev eth1 up # ",
    ]


def test_what_another_one_changes_is_set_again() -> None:
    eth0, eth1 = (
        tuned("eth0", **{"ipv4.forwarding": 0}),
        replace(tuned("eth1", **{"ipv4.forwarding": 1}), hw_addr="02:00:00:00:00:02"),
    )
    sandbox = replace(wanted([eth0, eth1]), sysctls=((FORWARD, 1), ("net.ipv4.conf.all.accept_redirects", 1)))
    observed = seen(eth0, eth1, sysctls=((FORWARD, 0), ("net.ipv4.conf.all.accept_redirects", 1)))
    operations = plan(sandbox, observed).operations
    assert [f"{each.command} # {each.comment}" for each in operations] == [
        "sysctl -w net.ipv4.ip_forward=1 # was 0",
        "sysctl -w net.ipv4.conf.all.accept_redirects=1 # another one changes it",
        "sysctl -w net.ipv4.conf.eth0.forwarding=0 # another one changes it",
    ]


def test_what_a_default_may_change_is_set_again() -> None:
    name = "net.ipv4.conf.default.rp_filter"
    eth0, eth1 = tuned("eth0", rp_filter=0), replace(tuned("eth1", rp_filter=2), hw_addr="02:00:00:00:00:02")
    sandbox = replace(wanted([eth0, eth1]), sysctls=((name, 2),))
    assert planned_commands(sandbox, seen(eth0, eth1, sysctls=((name, 0),))) == [
        f"sysctl -w {name}=2",
        "sysctl -w net.ipv4.conf.eth0.rp_filter=0",
    ]


def test_ipv6_that_is_turned_off_takes_addresses_and_routes_along() -> None:
    before = tuned("eth0", "10.0.0.2/16", "fd00::2/64", disable_ipv6=0)
    after = tuned("eth0", "10.0.0.2/16", disable_ipv6=1)
    routes = [route("fd08::/64", hop("eth0", "fd00::1")), route("10.8.0.0/16", hop("eth0", "10.0.0.1"))]
    # Neither is deleted once more, and the IPv4 route stays.
    planned = plan(wanted([after], routes[1:]), seen(before, ours=routes))
    assert commands(planned) == ["sysctl -w net.ipv6.conf.eth0.disable_ipv6=1"]
    # They count as deleted all the same.
    assert [(each.kind, each.count, each.total) for each in planned.deletions] == [("address", 1, 2), ("route", 1, 2)]


def test_ipv6_that_is_off_for_a_moment() -> None:
    eth0 = tuned("eth0", "fd00::2/64", disable_ipv6=0)
    routes = [route("fd08::/64", hop("eth0", "fd00::1"))]
    sandbox = replace(wanted([eth0], routes), sysctls=((OFF, 1),))
    assert planned_commands(sandbox, seen(eth0, sysctls=((OFF, 0),), ours=routes)) == [
        f"sysctl -w {OFF}=1",
        "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0",
        "ip address add fd00::2/64 dev eth0",
        "ip -6 route add fd08::/64 via fd00::1 dev eth0 metric 1024 proto 200",
    ]


def test_ipv6_that_is_turned_off_without_a_section_of_interfaces() -> None:
    eth0 = nic("eth0", "10.0.0.2/16", "fd00::2/64")
    sandbox = replace(wanted(), sysctls=((OFF, 1),))
    routes = [route("fd08::/64", hop("eth0", "fd00::1"))]
    assert planned_commands(sandbox, seen(eth0, sysctls=((OFF, 0),), ours=routes)) == [f"sysctl -w {OFF}=1"]


def test_an_undo_sets_single_links_after_their_devices_are_back() -> None:
    sandbox = replace(wanted([nic()]), sysctls=((FORWARD, 0), ("net.ipv4.conf.eth0.rp_filter", 1)))
    assert [words.partition(" alias ")[0] for words in planned_commands(sandbox, seen(sysctls=((FORWARD, 1),)))] == [
        "sysctl -w net.ipv4.ip_forward=0",
        "ip link set dev tap-eth0 netns box name eth0",
        "ip link set dev eth0 address 02:00:00:00:00:01 mtu 1500 up",
        "sysctl -w net.ipv4.conf.eth0.rp_filter=1",
    ]


def test_an_observed_state_with_what_changes_along_is_one_to_return_to() -> None:
    observed = seen(sysctls=((FORWARD, 0),), along=(("net.ipv4.conf.lo.forwarding", 1),))
    assert observed.as_desired().sysctls == ((FORWARD, 0), ("net.ipv4.conf.lo.forwarding", 1))
    assert seen().as_desired() == seen().sandbox

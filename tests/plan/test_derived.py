"""What the kernel derived and lost is planned back, and only that."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from reconciler.errors import RefusedError
from reconciler.model.derived import derived_routes, local_route
from reconciler.model.interface import Address, Interface, LinkState
from reconciler.model.route import Route
from reconciler.model.sandbox import Observed
from reconciler.plan import plan
from reconciler.remaining import remaining
from reconciler.values import replace
from tests.plan.sandboxes import found, hop, nic, planned_commands, route, wanted

ETH0 = nic("eth0", "192.0.2.2/24", "192.0.2.3/24", "198.51.100.2/32", "2001:db8::2/64")
LINK_LOCAL = "fe80::ff:fe00:1/64"
READY = LinkState(ipv6=True)
CONNECTED = "192.0.2.0/24"
DOWN = replace(ETH0, up=False)
ADDED = "ip address add 2001:db8::2/64 dev eth0"
IPV6_ENTRY = local_route("eth0", "2001:db8::2")


def derived(interface: Interface = ETH0, managed: Iterable[str] = (LINK_LOCAL,)) -> list[Route]:
    """All that the kernel derives of a NIC."""
    ipv6 = [each for each in (*(a.address for a in interface.addresses), *managed) if ":" in each]
    entries = [local_route(interface.name, each.partition("/")[0]) for each in ipv6]
    return [*derived_routes(interface, READY, managed), *entries]


def observed(
    routes: Iterable[Route],
    interface: Interface = ETH0,
    managed: Iterable[str] = (LINK_LOCAL,),
    state: LinkState = READY,
    ours: Iterable[Route] = (),
) -> Observed:
    """A sandbox with a NIC and these foreign routes of the tables `main` and `local`."""
    routes = list(routes)
    return found(
        [interface],
        ours,
        foreign=[each for each in routes if each.table != 255],
        local_table=tuple(each for each in routes if each.table == 255),
        addresses=frozenset((interface.name, each) for each in managed),
        states={interface.device: state},
    )


def test_what_the_kernel_derives() -> None:
    """As `ip route show table all` prints it on Linux 6.1 and 6.18."""
    assert sorted(f"{each.type} {each.dest} {each.table} {each.metric} {each.source or ''}" for each in derived()) == [
        "broadcast 192.0.2.255/32 255 0 192.0.2.2",
        "local 192.0.2.2/32 255 0 192.0.2.2",
        "local 192.0.2.3/32 255 0 192.0.2.2",
        "local 198.51.100.2/32 255 0 198.51.100.2",
        "local 2001:db8::2/128 255 0 ",
        "local fe80::ff:fe00:1/128 255 0 ",
        "multicast ff00::/8 255 256 ",
        "unicast 192.0.2.0/24 254 0 192.0.2.2",
        "unicast 2001:db8::/64 254 256 ",
        "unicast fe80::/64 254 256 ",
    ]


def test_what_the_kernel_derives_of_peers() -> None:
    """As `ip route show table all` prints it on Linux 6.18."""
    own = ("192.0.2.2 peer 198.51.100.9/24", "192.0.2.2 peer 192.0.2.9/32", "2001:db8::2 peer 2001:db8:1::9/64")
    of_both = nic("eth0", *own, "2001:db8:2::2 peer 2001:db8:2::9/64")
    addresses = (*of_both.addresses[:3], replace(of_both.addresses[3], noprefixroute=True))
    state = replace_state(unsettled=frozenset({"2001:db8::2/64"}))
    late = [
        "broadcast 198.51.100.255/32 192.0.2.2",
        "local 192.0.2.2/32 192.0.2.2",
        "multicast ff00::/8 ",
        "unicast 192.0.2.9/32 192.0.2.2",
        "unicast 198.51.100.0/24 192.0.2.2",
        "unicast 2001:db8:2::9/128 ",
        "unicast 2001:db8::/64 ",
    ]
    for at, more in ((READY, ["unicast 2001:db8:1::9/128 "]), (state, [])):
        routes = derived_routes(replace(of_both, addresses=addresses), at, ())
        assert sorted(f"{each.type} {each.dest} {each.source or ''}" for each in routes) == sorted(late + more)


def test_nothing_lacks() -> None:
    assert planned_commands(wanted([ETH0]), observed(derived())) == []
    assert remaining(wanted([ETH0]), observed(derived())) == []


RESTORED = {
    "local 192.0.2.2/32": "ip route add local 192.0.2.2/32 dev eth0 table local src 192.0.2.2 proto kernel",
    "broadcast 192.0.2.255/32": "ip route add broadcast 192.0.2.255/32 dev eth0 table local src 192.0.2.2 proto kernel",
    "unicast 192.0.2.0/24": "ip route add 192.0.2.0/24 dev eth0 src 192.0.2.2 proto kernel",
    "unicast 2001:db8::/64": "ip -6 route add 2001:db8::/64 dev eth0 metric 256 proto kernel",
    "unicast fe80::/64": "ip -6 route add fe80::/64 dev eth0 metric 256 proto kernel",
    "multicast ff00::/8": "ip -6 route add multicast ff00::/8 dev eth0 table local metric 256 proto kernel",
}


@pytest.mark.parametrize(("lost", "command"), RESTORED.items(), ids=RESTORED)
def test_what_is_lost_is_added_as_the_kernel_had_it(lost: str, command: str) -> None:
    left = observed([each for each in derived() if f"{each.type} {each.dest}" != lost])
    assert planned_commands(wanted([ETH0]), left) == [command]
    assert len(remaining(wanted([ETH0]), left)) == 1
    # A manifest without interfaces leaves them alone.
    assert planned_commands(wanted(None, []), left) == []
    assert remaining(wanted(None, []), left) == []


@pytest.mark.parametrize("host", ["2001:db8::2", "fe80::ff:fe00:1"])
def test_an_ipv6_address_without_its_entry_comes_anew(host: str) -> None:
    left = observed([each for each in derived() if each.dest != f"{host}/128"])
    assert planned_commands(wanted([ETH0]), left) == [
        f"ip address del {host}/64 dev eth0",
        f"ip address add {host}/64 dev eth0",
    ]
    assert [each.words for each in remaining(wanted([ETH0]), left)] == [
        f"interfaces: address {host}/64 of eth0 has lost its route in table local"
    ]


def test_the_link_local_address_is_made_of_the_mac_address() -> None:
    left = observed(derived(managed=()), managed=())
    assert planned_commands(wanted([ETH0]), left) == [f"ip address add {LINK_LOCAL} dev eth0"]
    for state in (replace_state(ipv6=False), replace_state(generation="none"), replace_state(generation="other")):
        routes = [each for each in derived(managed=()) if each.type != "multicast" or state.ipv6]
        assert planned_commands(wanted([ETH0]), observed(routes, managed=(), state=state)) == []


def replace_state(**fields: object) -> LinkState:
    return READY._replace(**fields)  # type: ignore[arg-type]


def test_an_address_that_is_still_tentative_has_no_entry_yet() -> None:
    state = replace_state(unsettled=frozenset({"2001:db8::2/64", LINK_LOCAL}))
    routes = [each for each in derived() if each.type != "local" or "." in each.dest]
    assert planned_commands(wanted([ETH0]), observed(routes, state=state)) == []


def test_a_network_with_a_leased_or_advertised_address_has_routes_of_its_own() -> None:
    managed = (LINK_LOCAL, "192.0.2.50/24", "2001:db8::ff:fe00:1/64")
    routes = [
        *(each for each in derived() if each.dest not in {CONNECTED, "2001:db8::/64"}),
        local_route("eth0", "2001:db8::ff:fe00:1"),
        route(CONNECTED, hop("eth0"), source="192.0.2.50", protocol=2),
        route("2001:db8::/64", hop("eth0"), metric=256, protocol=2, opaque=("expires",)),
    ]
    assert planned_commands(wanted([ETH0]), observed(routes, managed=managed)) == []


def test_what_the_plan_touches_is_left_to_the_kernel() -> None:
    assert planned_commands(wanted([ETH0]), observed([IPV6_ENTRY], DOWN)) == ["ip link set dev eth0 up"]
    added = replace(ETH0, addresses=(*ETH0.addresses, Address(address="203.0.113.2/24")))
    assert planned_commands(wanted([added]), observed(derived())) == ["ip address add 203.0.113.2/24 dev eth0"]


def test_a_nic_that_is_down_has_the_entries_of_its_addresses() -> None:
    """As on Linux 6.18, which restores the entry of an IPv4 address when the link comes up, and no other one."""
    entries = [each for each in derived() if each.type == "local" and ":" not in each.dest]
    command, anew = RESTORED["local 192.0.2.2/32"], ["ip address del 2001:db8::2/64 dev eth0", ADDED]
    for routes, commands in (
        ([*entries, IPV6_ENTRY], []),
        ([*entries[1:], IPV6_ENTRY], [command]),
        (entries, anew),
    ):
        seen = observed(routes, DOWN, (), replace_state(ipv6=False))
        assert planned_commands(wanted([DOWN]), seen) == commands
        assert len(remaining(wanted([DOWN]), seen)) == bool(commands)
    assert planned_commands(wanted([ETH0]), observed(entries, DOWN)) == ["ip link set dev eth0 up", *anew]
    lost = [each for each in derived() if each != entries[0]]
    assert planned_commands(wanted([DOWN]), observed(lost)) == ["ip link set dev eth0 down", ADDED, command]


def test_a_changed_one_is_replaced_and_one_of_somebody_else_is_refused() -> None:
    others = [each for each in derived() if each.dest != CONNECTED]
    changed = route(CONNECTED, hop("eth0"), source="192.0.2.3", protocol=2)
    assert planned_commands(wanted([ETH0]), observed([*others, changed])) == [
        "ip route replace 192.0.2.0/24 dev eth0 src 192.0.2.2 proto kernel"
    ]
    with pytest.raises(RefusedError) as caught:
        plan(wanted([ETH0]), observed([*others, route(CONNECTED, hop("eth0", "192.0.2.9"), protocol=4)]))
    assert str(caught.value) == (
        "the route 192.0.2.0/24 via 192.0.2.9 dev eth0 is not ours, and is in the place of "
        "192.0.2.0/24 dev eth0 src 192.0.2.2, which the kernel makes of an address; delete it in the sandbox"
    )
    # One that leads to the same NIC is enough.
    assert planned_commands(wanted([ETH0]), observed([*others, route(CONNECTED, hop("eth0"), protocol=4)])) == []


def test_a_route_of_the_manifest_may_be_in_its_place() -> None:
    ours = route(CONNECTED, hop("eth0", "192.0.2.9", on_link=True))
    others = [each for each in derived() if each.dest != CONNECTED]
    assert planned_commands(wanted([ETH0], [ours]), observed(others, ours=[ours])) == []


def test_a_second_nic_of_the_network_has_its_own() -> None:
    eth1 = nic("eth1", "192.0.2.4/24", number=2)
    both = [*derived(), *derived(eth1, ())]
    lost = route(CONNECTED, hop("eth1"), source="192.0.2.4")
    state = found(
        [ETH0, eth1],
        foreign=[each for each in both if each.table != 255 and each != lost],
        local_table=tuple(each for each in both if each.table == 255),
        addresses=frozenset({("eth0", LINK_LOCAL)}),
        states={ETH0.device: READY, eth1.device: READY._replace(ipv6=False)},
    )
    assert planned_commands(wanted([ETH0, eth1]), state) == [
        "ip route add 192.0.2.0/24 dev eth1 src 192.0.2.4 proto kernel"
    ]


def test_a_route_of_a_nic_that_ipv6_has_not_configured_stays() -> None:
    """The kernel makes one to multicast also for a NIC that has no carrier."""
    eth1 = nic("eth1", number=2)
    multicast = next(each for each in derived() if each.dest == "ff00::/8")
    of_eth1 = replace(multicast, nexthops=(hop("eth1"),))
    observed_both = found(
        [ETH0, eth1],
        foreign=[each for each in derived() if each.table != 255],
        local_table=(*(each for each in derived() if each.table == 255 and each != multicast), of_eth1),
        addresses=frozenset({("eth0", LINK_LOCAL)}),
        states={ETH0.device: READY, eth1.device: READY._replace(ipv6=False)},
    )
    assert planned_commands(wanted([ETH0, eth1]), observed_both) == [
        "ip -6 route add multicast ff00::/8 dev eth0 table local metric 256 proto kernel"
    ]


def test_a_port_of_a_vrf_is_refused() -> None:
    state = replace_state(master="vrf0", vrf=True)
    with pytest.raises(RefusedError, match=r"^eth0 is a port of the VRF vrf0, in whose table its routes are now; "):
        plan(wanted([ETH0]), observed(derived(), state=state))

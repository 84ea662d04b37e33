from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from reconciler.drivers.netns import NetnsDriver
from reconciler.errors import RefusedError
from reconciler.model.interface import Interface
from reconciler.model.made import made, made_key
from reconciler.model.route import Route
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox
from reconciler.operations import Operation
from reconciler.operations.address import ReplaceAddress
from reconciler.operations.interface import RenameInterface
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.plan import Deletion, plan
from reconciler.values import dataclass, field, replace
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.plan.sandboxes import found, hop, mac, nic, planned_commands, route, wanted
from tests.segments import segments

ADDRESSES0 = ("10.0.0.2/24", "fd00::2/64 nodad")
ADDRESSES1 = ("10.1.0.2/24", "fd01::2/64 nodad")
ETH0, ETH1 = nic("eth0", *ADDRESSES0), nic("eth1", *ADDRESSES1, number=2)
VIA0, VIA1 = hop("eth0", "10.0.0.1"), hop("eth1", "10.1.0.1")
VIA0_6, VIA1_6 = hop("eth0", "fd00::1"), hop("eth1", "fd01::1")

# Routes through one NIC, and those that the other one or none carries.
THROUGH0 = (
    route("10.8.0.0/16", hop("eth0")),
    route("10.9.0.0/16", VIA0),
    route("10.10.0.0/16", VIA0, hop("eth0", "10.0.0.9")),
    route("fd08::/64", hop("eth0")),
    route("fd09::/64", VIA0_6),
    route("fd0a::/64", VIA0_6, hop("eth0", "fd00::9")),
)
BESIDE = (
    route("10.20.0.0/16", VIA1),
    route("10.21.0.0/16", VIA1, source="10.0.0.2"),
    route("10.22.0.0/16", type="blackhole"),
    route("fd20::/64", VIA1_6),
    route("fd21::/64", VIA1_6, source="fd00::2"),
    route("fd22::/64", type="unreachable"),
)
ACROSS = (route("10.30.0.0/16", VIA0, VIA1), route("fd30::/64", VIA0_6, VIA1_6))
EVERYTHING = (*THROUGH0, *BESIDE, *ACROSS)

# Without any IPv4 address, the first can be put back and the others not.
REACHED = (
    route("10.7.0.0/16", hop("eth0", "10.7.7.7", on_link=True)),
    route("10.8.0.0/16", hop("eth0")),
    route("203.0.113.7/32", hop("eth0")),
    route("10.6.0.0/16", hop("eth0", "203.0.113.7")),
)
UNREACHED = (route("10.9.0.0/16", VIA0), route("10.10.0.0/16", VIA0, hop("eth0", "10.0.0.9")))


def without(interface: Interface, *texts: str) -> Interface:
    return replace(interface, addresses=tuple(each for each in interface.addresses if each.address not in texts))


def bare(interface: Interface) -> Interface:
    return replace(interface, addresses=())


def routes_planned(desired: Sandbox, observed: Observed) -> list[Operation]:
    operations = plan(desired, observed).operations
    return [each for each in operations if isinstance(each, AddRoute | ReplaceRoute | DeleteRoute)]


def added(routes: Iterable[Route]) -> list[AddRoute]:
    """Routes as they come: those without a gateway first."""
    return [AddRoute(route=each) for each in sorted(routes, key=lambda each: each.needs_gateway)]


@pytest.mark.parametrize("section", [EVERYTHING, None], ids=["declared", "absent"])
def test_a_link_that_goes_down_gets_back_the_routes_that_only_it_carried(section: tuple[Route, ...] | None) -> None:
    desired = wanted([replace(ETH0, hw_addr=mac(9)), ETH1], section)
    observed = found([ETH0, ETH1], EVERYTHING, kinds={})
    assert routes_planned(desired, observed) == added(THROUGH0)
    assert plan(desired, observed).deletions == ()


def test_what_a_link_that_goes_down_loses_for_good_is_not_deleted_but_counted() -> None:
    desired = wanted([replace(ETH0, hw_addr=mac(9)), ETH1], (*BESIDE, *ACROSS))
    observed = found([ETH0, ETH1], EVERYTHING, kinds={})
    assert routes_planned(desired, observed) == []
    assert plan(desired, observed).deletions == (Deletion(kind="route", count=len(THROUGH0), total=len(EVERYTHING)),)


def test_a_link_that_stays_up_keeps_its_routes() -> None:
    for after in (replace(ETH0, hw_addr=mac(9)), replace(ETH0, mtu=1400)):
        assert routes_planned(wanted([after, ETH1], EVERYTHING), found([ETH0, ETH1], EVERYTHING)) == []


def renamed(routes: tuple[Route, ...], names: Mapping[str, str]) -> tuple[Route, ...]:
    return tuple(
        route(
            each.dest,
            *(replace(hop, device=names.get(hop.device, hop.device)) for hop in each.nexthops),
            type=each.type,
            metric=each.metric,
            source=each.source,
        )
        for each in routes
    )


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "absent"])
def test_routes_follow_a_new_name(declared: bool) -> None:
    # Sorted by name, the next hops of a route change their places.
    wishes = renamed(EVERYTHING, {"eth0": "eth9"})
    desired = wanted([replace(ETH0, name="eth9"), ETH1], wishes if declared else None)
    assert plan(desired, found([ETH0, ETH1], EVERYTHING)).operations == (RenameInterface(name="eth0", new_name="eth9"),)


def test_an_old_kernel_takes_a_link_down_for_a_new_name_and_its_routes_come_back() -> None:
    names = {"eth0": "eth9"}
    desired = wanted([replace(ETH0, name="eth9"), ETH1], renamed(EVERYTHING, names))
    observed = found([ETH0, ETH1], EVERYTHING, release="6.1")
    assert routes_planned(desired, observed) == added(renamed(THROUGH0, names))


def test_routes_of_a_nic_that_goes_are_not_deleted_one_by_one() -> None:
    planned = plan(wanted([ETH1], BESIDE), found([ETH0, ETH1], (*THROUGH0, *BESIDE)))
    assert [operation.command for operation in planned.operations] == [
        "ip link set dev eth0 netns $$ name tap-eth0 address 02:00:00:00:ff:ff mtu 1400 alias ''"
    ]
    assert planned.deletions == (
        Deletion(kind="interface", count=1, total=2),
        Deletion(kind="route", count=len(THROUGH0), total=len(THROUGH0) + len(BESIDE)),
    )


def test_a_route_leaves_a_nic_before_it_goes() -> None:
    before, after = route("10.9.0.0/16", VIA0), route("10.9.0.0/16", VIA1)
    assert planned_commands(wanted([ETH1], [after]), found([ETH0, ETH1], [before])) == [
        "ip route replace 10.9.0.0/16 via 10.1.0.1 dev eth1 proto 200",
        "ip link set dev eth0 netns $$ name tap-eth0 address 02:00:00:00:ff:ff mtu 1400 alias ''",
    ]


def test_a_nic_that_gives_its_name_away_takes_its_routes_along_at_once() -> None:
    after = replace(ETH0, device="tap-new")
    desired = wanted([after, ETH1], (*THROUGH0, *ACROSS))
    # Of next hops of IPv4 the kernel keeps none where one device goes; of IPv6 it keeps the others.
    lost4, changed6 = ACROSS
    assert routes_planned(desired, found([ETH0, ETH1], (*THROUGH0, *ACROSS))) == [
        *added(THROUGH0),
        AddRoute(route=lost4),
        ReplaceRoute(route=changed6, before=route("fd30::/64", VIA1_6)),
    ]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "absent"])
def test_a_nic_that_takes_the_name_of_one_that_goes_keeps_its_routes(declared: bool) -> None:
    had = (route("10.9.0.0/16", VIA0), route("10.20.0.0/16", VIA1), route("fd20::/64", VIA1_6))
    kept = renamed(had[1:], {"eth1": "eth0"})
    planned = plan(wanted([replace(ETH1, name="eth0")], kept if declared else None), found([ETH0, ETH1], had))
    assert [operation.command for operation in planned.operations] == [
        "ip link set dev eth0 netns $$ name tap-eth0 address 02:00:00:00:ff:ff mtu 1400 alias ''",
        "ip link set dev eth1 name eth0",
    ]
    assert planned.deletions == (
        Deletion(kind="interface", count=1, total=2),
        Deletion(kind="route", count=1, total=3),
    )


def test_without_the_first_address_of_a_subnet_routes_with_those_it_takes_along_are_written_again() -> None:
    had = nic("eth0", "10.0.0.2/24", "10.0.0.3/24", "10.5.0.2/24")
    routes = (route("10.9.0.0/16", VIA0, source="10.0.0.3"), route("10.10.0.0/16", VIA0, source="10.5.0.2"))
    operations = plan(wanted([nic("eth0", "10.0.0.3/24", "10.5.0.2/24")], routes), found([had], routes)).operations
    assert operations[1] == ReplaceAddress(device="eth0", address=had.addresses[1])
    # With promote_secondaries it was never gone: it is written whether it is there or not.
    assert [(type(each), getattr(each, "route", None)) for each in operations[2:]] == [(ReplaceRoute, routes[0])]


@pytest.mark.parametrize(
    ("before", "after", "old", "new"),
    [
        # Larger than the link allows now: cut to it.
        (1500, 1400, 1500, 1400),
        (1500, 1400, 1450, 1400),
        (1500, 1400, 1400, 1400),
        # As large as the link allowed: grows with it.
        (1400, 1500, 1400, 1500),
        # Smaller by choice: stays, and so does one that is not said.
        (1500, 1400, 1300, 1300),
        (1400, 1500, 1300, 1300),
        (1500, 1400, 0, 0),
    ],
)
def test_an_mtu_of_an_ipv6_route_follows_that_of_its_link(before: int, after: int, old: int, new: int) -> None:
    had = route("fd09::/64", VIA0_6, mtu=old)
    planned = routes_planned(wanted([replace(ETH0, mtu=after)], [had]), found([replace(ETH0, mtu=before)], [had]))
    followed = replace(had, mtu=new)
    assert planned == ([] if followed == had else [ReplaceRoute(route=had, before=followed)])
    assert (
        routes_planned(wanted([replace(ETH0, mtu=after)], [followed]), found([replace(ETH0, mtu=before)], [had])) == []
    )


def test_a_route_is_replaced_where_the_mtu_of_its_link_may_follow_another() -> None:
    vlan = replace(
        nic("v", "fd07::2/64 nodad"), device=made_key("vlan", "v"), mtu=0, made=made("vlan", {"id": 7}, "eth0")
    )
    via = hop("v", "fd07::1")
    had = route("fd09::/64", via, mtu=1450)
    others = (
        route("fd0a::/64", via),
        route("fd0b::/64", via, mtu=1450, mtu_lock=True),
        route("fd0c::/64", VIA1_6, mtu=1450),
    )
    before, routes = found([ETH0, ETH1, vlan], [had, *others]), [had, *others]
    smaller = wanted([replace(ETH0, mtu=1400), ETH1, vlan], routes)
    assert routes_planned(smaller, before) == [ReplaceRoute(route=had, before=had)]
    assert routes_planned(wanted([ETH0, replace(ETH1, mtu=1460), vlan], routes), before) == []


def test_routes_that_an_mtu_costs_are_counted() -> None:
    desired = wanted([replace(without(ETH0, "fd00::2/64"), mtu=1279)], None)
    planned = plan(desired, found([ETH0], THROUGH0))
    assert planned.deletions == (
        Deletion(kind="address", count=1, total=2),
        Deletion(kind="route", count=3, total=6),
    )


def test_routes_that_lose_their_source_are_counted() -> None:
    had = nic("eth0", "10.0.0.2/24", "10.5.0.2/24")
    routes = [route("10.9.0.0/16", VIA0, source="10.5.0.2"), route("10.10.0.0/16", VIA0)]
    planned = plan(wanted([nic("eth0", "10.0.0.2/24")], None), found([had], routes))
    assert planned.deletions == (
        Deletion(kind="address", count=1, total=2),
        Deletion(kind="route", count=1, total=2),
    )


def test_a_foreign_route_of_a_nic_that_gives_its_name_away_is_in_nobodys_way() -> None:
    theirs, ours = route("10.9.0.0/16", hop("eth0", "10.0.0.9")), route("10.9.0.0/16", VIA0)
    desired = wanted([replace(ETH0, device="tap-new")], [ours])
    assert routes_planned(desired, found([ETH0], foreign=[theirs])) == [AddRoute(route=ours)]
    # Not even if it is the same: it will be gone.
    assert routes_planned(desired, found([ETH0], foreign=[ours])) == [AddRoute(route=ours)]


def test_without_ipv4_addresses_the_routes_that_can_do_without_are_put_back_and_the_others_counted() -> None:
    desired = wanted([without(ETH0, "10.0.0.2/24")], None)
    observed = found([ETH0], [*REACHED, *UNREACHED, *THROUGH0[3:]])
    assert routes_planned(desired, observed) == added(REACHED)
    assert plan(desired, observed).deletions == (
        Deletion(kind="address", count=1, total=2),
        Deletion(kind="route", count=2, total=9),
    )


def test_next_hops_of_nics_that_change_all_their_ipv4_addresses_are_written_again() -> None:
    wishes = (route("10.8.0.0/16", hop("eth0")), *ACROSS)
    desired = wanted([nic("eth0", "10.0.0.7/24"), nic("eth1", "10.1.0.7/24", number=2)], wishes)
    observed = found([nic("eth0", "10.0.0.2/24"), nic("eth1", "10.1.0.2/24", number=2)], wishes)
    # Whether it is lost is a matter of which NIC is without an address when: it is written in either case.
    assert routes_planned(desired, observed) == [
        AddRoute(route=wishes[0]),
        ReplaceRoute(route=ACROSS[0], before=ACROSS[0]),
    ]


def test_a_host_address_has_no_connected_route() -> None:
    wish = route("10.0.0.2/32", hop("eth0"))
    assert routes_planned(wanted([nic("eth0", "10.0.0.2/32")], [wish]), found([nic("eth0")])) == [AddRoute(route=wish)]


def test_the_connected_route_of_a_subnet_is_that_of_its_first_address() -> None:
    had, addressed = nic("eth0"), nic("eth0", "10.0.0.2/24", "10.0.0.3/24")
    first = route("10.0.0.0/24", hop("eth0"), source="10.0.0.2")
    assert routes_planned(wanted([addressed], [first]), found([had])) == []
    with pytest.raises(RefusedError) as caught:
        plan(wanted([addressed], [replace(first, source="10.0.0.3")]), found([had]))
    assert str(caught.value) == (
        "route 10.0.0.0/24 dev eth0 src 10.0.0.3: the route 10.0.0.0/24 dev eth0 src 10.0.0.2 "
        "is in its place and is not ours; delete it in the sandbox, or choose another metric"
    )


@pytest.mark.parametrize(("before", "after", "lost"), [(1500, 1280, 0), (1280, 1279, 3), (1500, 1000, 3)])
def test_an_mtu_costs_ipv6_only_where_it_is_below_the_minimum(before: int, after: int, lost: int) -> None:
    had, wish = replace(ETH0, mtu=before), replace(ETH0, mtu=after)
    wish = without(wish, "fd00::2/64") if lost else wish
    planned = plan(wanted([wish], None), found([had], THROUGH0))
    assert [each for each in planned.deletions if each.kind == "route"] == (
        [Deletion(kind="route", count=lost, total=6)] if lost else []
    )


TO_NETWORK = route("fd00::/64", hop("eth0"), metric=5)


def test_an_ipv6_address_goes_before_a_route_that_would_go_with_it_comes() -> None:
    after = [without(ETH0, "fd00::2/64"), ETH1]
    away, add = "ip address del fd00::2/64 dev eth0", "ip -6 route add fd00::/64 dev {} metric {} proto 200"
    for wish in (TO_NETWORK, replace(TO_NETWORK, metric=255)):
        assert planned_commands(wanted(after, [wish]), found([ETH0, ETH1])) == [away, add.format("eth0", wish.metric)]
    # The kernel looks on the same NIC, in the main table, for a route to all of the network, without a gateway.
    for wish in (
        replace(TO_NETWORK, nexthops=(hop("eth1"),)),
        replace(TO_NETWORK, metric=257),
        replace(TO_NETWORK, table=100),
        replace(TO_NETWORK, dest="fd00::/65"),
        replace(TO_NETWORK, nexthops=(hop("eth0", "fe80::1"),)),
    ):
        assert planned_commands(wanted(after, [wish]), found([ETH0, ETH1]))[1:] == [away]


def test_a_route_is_written_again_where_the_last_ipv6_address_of_its_network_goes() -> None:
    observed = found([ETH0], [TO_NETWORK])
    desired = wanted([without(ETH0, "fd00::2/64")], [TO_NETWORK])
    assert routes_planned(desired, observed) == [ReplaceRoute(route=TO_NETWORK, before=TO_NETWORK)]
    # With another address of the network beside it, the route stays.
    desired = wanted([nic("eth0", "10.0.0.2/24", "fd00::7/64")], [TO_NETWORK])
    assert routes_planned(desired, observed) == []


def test_an_ipv6_address_goes_before_its_route_is_put_back_where_nothing_is_said_of_routes() -> None:
    desired = wanted([without(ETH0, "fd00::2/64")], None)
    assert planned_commands(desired, found([ETH0], [TO_NETWORK])) == [
        "ip address del fd00::2/64 dev eth0",
        "ip -6 route replace fd00::/64 dev eth0 metric 5 proto 200",
    ]


def test_next_hops_beside_one_of_a_link_that_goes_down_are_lost_or_not_by_what_comes_first() -> None:
    desired = wanted([replace(ETH0, hw_addr=mac(9)), replace(without(ETH1, "fd01::2/64"), mtu=1279)], [])
    left = replace(ACROSS[1], nexthops=(VIA0_6,))
    assert routes_planned(desired, found([ETH0, ETH1], ACROSS[1:], kinds={})) == [
        DeleteRoute(route=left, doubtful=True)
    ]


def test_a_leased_address_keeps_the_routes_of_its_nic() -> None:
    had, routes = ETH0, [route("10.8.0.0/16", hop("eth0")), route("10.9.0.0/16", hop("eth0", "10.7.7.7", on_link=True))]
    observed = found([had], routes, addresses=frozenset({("eth0", "10.5.0.9/24")}))
    assert routes_planned(wanted([without(ETH0, "10.0.0.2/24")], routes), observed) == []
    # An IPv6 address, or one of another NIC, does not.
    other = found([had], routes, addresses=frozenset({("eth0", "fe80::1/64"), ("eth1", "10.5.0.9/24")}))
    assert routes_planned(wanted([without(ETH0, "10.0.0.2/24")], routes), other) == added(routes)


def test_an_mtu_of_an_ipv4_route_is_its_own() -> None:
    had = route("10.9.0.0/16", VIA0, mtu=1500)
    assert routes_planned(wanted([replace(ETH0, mtu=1400)], [had]), found([replace(ETH0, mtu=1500)], [had])) == []


@dataclass
class Lab:
    """A real namespace, and devices with a carrier on the host that stand for `tap-eth0` and the like."""

    kernel: Kernel
    namespace: str
    devices: dict[str, str] = field(default_factory=dict)

    def device(self, name: str) -> str:
        if name not in self.devices:
            self.devices[name], peer = self.kernel.veth()
            ip("link", "set", peer, "up")
        return self.devices[name]

    def desired(self, sandbox: Sandbox) -> Sandbox:
        interfaces = tuple(replace(each, device=self.device(each.device)) for each in sandbox.interfaces or ())
        return replace(sandbox, driver=NetnsAddress(name=self.namespace), interfaces=interfaces)

    def converge(self, sandbox: Sandbox, **around: Any) -> list[str]:
        """Plan, with some surroundings said to be others, and execute.

        Return what is left to do according to the kernel.
        """
        desired = self.desired(sandbox)
        driver = NetnsDriver(NetnsAddress(name=self.namespace), POLICY)
        try:
            observed = driver.observe(desired)
            operations = plan(desired, replace(observed, around=replace(observed.around, **around))).operations
            outcomes = [outcome for batch in driver.execute(segments(operations)) for outcome in batch]
            assert outcomes == [Outcome(operation, Status.DONE) for operation in operations]
            return planned_commands(desired, driver.observe(desired))
        finally:
            driver.close()

    def set(self, setting: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.namespace, "sysctl", "-qw", setting], check=True)


@pytest.fixture
def lab(kernel: Kernel) -> Lab:
    namespace = kernel.namespace()
    ip("link", "set", "lo", "up", namespace=namespace)
    return Lab(kernel, namespace)


TWO0 = nic("eth0", "10.0.0.2/24", "10.0.0.3/24", "fd00::2/64 nodad")
SOURCED = route("10.9.0.0/16", VIA0, source="10.0.0.3")
ONLINK = route("10.9.0.0/16", hop("eth0", "10.7.7.7", on_link=True))

SAME_NETWORK = ("fd00::2/64 nodad", "fd00::3/64 nodad")
NETWORK_ROUTES = (route("fd00::/64", hop("eth0"), metric=5), route("fd00::/64", hop("eth0"), metric=6))

# What is there, what is wanted, and what a plan is told of the surroundings that is not so.
TRANSITIONS: dict[str, tuple[Sandbox, Sandbox, dict[str, Any]]] = {
    "a MAC that needs the link down": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted([replace(ETH0, hw_addr=mac(9)), ETH1], EVERYTHING),
        {"kinds": {}},
    ),
    "a MAC that needs the link down, and fewer addresses": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted([replace(bare(ETH0), hw_addr=mac(9)), ETH1], BESIDE[:1]),
        {"kinds": {}},
    ),
    "a name that needs the link down": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted([replace(ETH0, name="eth9"), ETH1], renamed(EVERYTHING, {"eth0": "eth9"})),
        {"release": "6.1"},
    ),
    "a name": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted([replace(ETH0, name="eth9"), ETH1], renamed(EVERYTHING, {"eth0": "eth9"})),
        {},
    ),
    "a name, and no routes": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted([replace(ETH0, name="eth9"), ETH1], []),
        {},
    ),
    "a swap of names": (
        wanted([ETH0, ETH1], EVERYTHING),
        wanted(
            [replace(ETH0, name="eth1"), replace(ETH1, name="eth0")],
            renamed(EVERYTHING, {"eth0": "eth1", "eth1": "eth0"}),
        ),
        {},
    ),
    "a swap of names beside one that a plan would make up": (
        wanted([ETH0, ETH1, nic("rename0", number=3)]),
        wanted([replace(ETH0, name="eth1"), replace(ETH1, name="eth0"), nic("rename0", number=3)]),
        {},
    ),
    "a swap of addresses": (
        wanted([ETH0, ETH1], [route("10.9.0.0/16", VIA0), route("fd09::/64", VIA0_6)]),
        wanted(
            [replace(ETH0, addresses=ETH1.addresses), replace(ETH1, addresses=ETH0.addresses)],
            [route("10.9.0.0/16", hop("eth1", "10.0.0.1")), route("fd09::/64", hop("eth1", "fd00::1"))],
        ),
        {},
    ),
    "another device under the same name": (
        wanted([ETH0, ETH1], (*THROUGH0, *ACROSS)),
        wanted([replace(ETH0, device="tap-new"), ETH1], (*THROUGH0, *ACROSS)),
        {},
    ),
    "another device under the same name, and an address of it that routes of another NIC name": (
        wanted([ETH0, ETH1], BESIDE),
        wanted([replace(ETH0, device="tap-new"), ETH1], BESIDE),
        {},
    ),
    "a NIC takes the name of one that goes": (
        wanted([ETH0, ETH1], (*THROUGH0, *BESIDE[:1])),
        wanted([replace(ETH1, name="eth0")], renamed(BESIDE[:1], {"eth1": "eth0"})),
        {},
    ),
    "a NIC takes the name, addresses and routes of one that goes": (
        wanted([ETH0, ETH1], THROUGH0),
        wanted([replace(ETH0, device=ETH1.device)], THROUGH0),
        {},
    ),
    "a NIC goes with its routes": (wanted([ETH0, ETH1], EVERYTHING), wanted([ETH1], (BESIDE[0], *BESIDE[2:4])), {}),
    "a NIC goes, and nothing is said of routes": (wanted([ETH0, ETH1], EVERYTHING), wanted([ETH1], None), {}),
    "a NIC goes, and another carries its routes": (
        wanted([ETH0, ETH1], (*THROUGH0[1:2], *ACROSS)),
        wanted([ETH1], [route("10.9.0.0/16", VIA1), route("10.30.0.0/16", VIA1), route("fd30::/64", VIA1_6)]),
        {},
    ),
    "the first address of a subnet": (
        wanted([TWO0], [SOURCED]),
        wanted([without(TWO0, "10.0.0.2/24")], [SOURCED]),
        {},
    ),
    "another order of the addresses of a subnet": (
        wanted([nic("eth0", "10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24")], THROUGH0[:3]),
        wanted([nic("eth0", "10.0.0.4/24", "10.0.0.2/24", "10.0.0.3/24")], THROUGH0[:3]),
        {},
    ),
    "the first address of a subnet, and its route": (
        wanted([TWO0], [SOURCED]),
        wanted([without(TWO0, "10.0.0.2/24")], []),
        {},
    ),
    "the first address of a subnet, and routes without a source": (
        wanted([TWO0], THROUGH0),
        wanted([without(TWO0, "10.0.0.2/24")], THROUGH0),
        {},
    ),
    "the first address of a subnet, and fewer routes": (
        wanted([TWO0], THROUGH0),
        wanted([without(TWO0, "10.0.0.2/24")], THROUGH0[:1]),
        {},
    ),
    "the last IPv4 address, and a route that can do without": (
        wanted([ETH0], [ONLINK, *THROUGH0[:1]]),
        wanted([without(ETH0, "10.0.0.2/24")], [ONLINK, *THROUGH0[:1]]),
        {},
    ),
    "another first address": (
        wanted([ETH0, ETH1], THROUGH0),
        wanted([nic("eth0", "10.0.0.7/24", "fd00::2/64 nodad"), ETH1], THROUGH0),
        {},
    ),
    "a smaller MTU": (
        wanted([ETH0], [route("fd09::/64", VIA0_6, mtu=1450), route("10.9.0.0/16", VIA0, mtu=1450)]),
        wanted([replace(ETH0, mtu=1400)], [route("fd09::/64", VIA0_6, mtu=1400), route("10.9.0.0/16", VIA0, mtu=1300)]),
        {},
    ),
    "a larger MTU": (
        wanted([replace(ETH0, mtu=1400)], [route("fd09::/64", VIA0_6, mtu=1400), route("fd08::/64", VIA0_6, mtu=1300)]),
        wanted([ETH0], [route("fd09::/64", VIA0_6, mtu=1400), route("fd08::/64", VIA0_6, mtu=1300)]),
        {},
    ),
    "an MTU that IPv6 cannot have": (
        wanted([ETH0, ETH1], [*THROUGH0, *ACROSS]),
        wanted([replace(without(ETH0, "fd00::2/64"), mtu=1279), ETH1], [*THROUGH0[:3], route("fd30::/64", VIA1_6)]),
        {},
    ),
    "an MTU that IPv6 can have again": (
        wanted([replace(without(ETH0, "fd00::2/64"), mtu=1279)], THROUGH0[:3]),
        wanted([ETH0], THROUGH0),
        {},
    ),
    "a connected route written down": (
        wanted([], []),
        wanted([ETH0], [route("10.0.0.0/24", hop("eth0")), route("fd00::/64", hop("eth0"))]),
        {},
    ),
    "a connected route written down with its source": (
        wanted([], []),
        wanted([ETH0], [route("10.0.0.0/24", hop("eth0"), source="10.0.0.2")]),
        {},
    ),
    "a route in the place of a connected one": (
        wanted([nic("eth0", "10.0.0.2/24", "10.5.0.2/24")], []),
        wanted([nic("eth0", "10.5.0.2/24")], [route("10.0.0.0/24", hop("eth0"))]),
        {},
    ),
    "a NIC goes, and its network is reached in another way": (
        wanted([ETH0, ETH1], []),
        wanted([ETH0], [route("10.1.0.0/24", VIA0), route("fd01::/64", VIA0_6, metric=256)]),
        {},
    ),
    "the source of a route goes, and nothing is said of routes": (
        wanted([TWO0], [route("10.9.0.0/16", VIA0, source="10.0.0.2")]),
        wanted([without(TWO0, "10.0.0.2/24")], None),
        {},
    ),
    "the source of a route goes in the end, and nothing is said of routes": (
        wanted([nic("eth0", "10.0.0.2/24", "10.5.0.2/24")], [route("10.9.0.0/16", VIA0, source="10.5.0.2")]),
        wanted([nic("eth0", "10.0.0.2/24")], None),
        {},
    ),
    "the last IPv4 address, and nothing is said of routes": (
        wanted([ETH0], [*REACHED, *UNREACHED]),
        wanted([without(ETH0, "10.0.0.2/24")], None),
        {},
    ),
    "other IPv4 addresses of two NICs": (
        wanted([ETH0, ETH1], EVERYTHING[:1] + ACROSS),
        wanted(
            [nic("eth0", "10.0.0.7/24", ADDRESSES0[1]), nic("eth1", "10.1.0.7/24", ADDRESSES1[1], number=2)],
            EVERYTHING[:1] + ACROSS,
        ),
        {},
    ),
    "a host address, and a route to it": (
        wanted([], []),
        wanted([nic("eth0", "10.0.0.2/32")], [route("10.0.0.2/32", hop("eth0"))]),
        {},
    ),
    "an MTU that IPv6 cannot have beside a link that goes down": (
        wanted([ETH0, ETH1], ACROSS),
        wanted([replace(ETH0, hw_addr=mac(9)), replace(without(ETH1, "fd01::2/64"), mtu=1279)], []),
        {"kinds": {}},
    ),
    "an IPv6 address makes room for a route to its network": (
        wanted([ETH0], []),
        wanted([without(ETH0, "fd00::2/64")], [route("fd00::/64", hop("eth0"), metric=5)]),
        {},
    ),
    "an IPv6 address goes beside a route to its network": (
        wanted([ETH0], [route("fd00::/64", hop("eth0"), metric=5)]),
        wanted([without(ETH0, "fd00::2/64")], [route("fd00::/64", hop("eth0"), metric=5)]),
        {},
    ),
    "the IPv6 addresses of a network go beside routes to it, under another name": (
        wanted([nic("eth0", "10.0.0.2/24", *SAME_NETWORK)], NETWORK_ROUTES),
        wanted([nic("eth9", "10.0.0.2/24", device="tap-eth0")], renamed(NETWORK_ROUTES, {"eth0": "eth9"})),
        {},
    ),
    "another IPv6 address of the network of a route": (
        wanted([ETH0], NETWORK_ROUTES),
        wanted([nic("eth0", "10.0.0.2/24", "fd00::7/64 nodad")], NETWORK_ROUTES),
        {},
    ),
    "an address that another NIC has as well": (
        wanted(
            [ETH0, nic("eth1", "10.0.0.2/24", *ADDRESSES1, number=2)], [route("10.20.0.0/16", VIA1, source="10.0.0.2")]
        ),
        wanted(
            [nic("eth0", "10.0.0.7/24"), nic("eth1", "10.0.0.2/24", *ADDRESSES1, number=2)],
            [route("10.20.0.0/16", VIA1, source="10.0.0.2")],
        ),
        {},
    ),
    "an MTU that IPv6 cannot have, with the link down, and nothing is said of routes": (
        wanted([ETH0], THROUGH0),
        wanted([replace(without(ETH0, "fd00::2/64"), mtu=1279, hw_addr=mac(9))], None),
        {"kinds": {}},
    ),
    # What an undo asks for.
    "a link that goes down again": (wanted([ETH0], THROUGH0), wanted([replace(ETH0, up=False)], []), {}),
    "everything comes": (wanted([], []), wanted([ETH0, ETH1], EVERYTHING), {}),
    "everything goes": (wanted([ETH0, ETH1], EVERYTHING), wanted([], []), {}),
    "all routes go": (wanted([ETH0, ETH1], EVERYTHING), wanted([ETH0, ETH1], []), {}),
}


@pytest.mark.parametrize(("before", "after", "around"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_after_a_plan_nothing_is_left_to_do(lab: Lab, before: Sandbox, after: Sandbox, around: dict[str, Any]) -> None:
    assert lab.converge(before) == []
    assert lab.converge(after, **around) == []


PROMOTED = [name for name in TRANSITIONS if "of a subnet" in name]


@pytest.mark.parametrize("name", PROMOTED)
def test_after_a_plan_nothing_is_left_to_do_where_addresses_are_promoted(lab: Lab, name: str) -> None:
    lab.set("net.ipv4.conf.all.promote_secondaries=1")
    before, after, _ = TRANSITIONS[name]
    assert lab.converge(before) == []
    assert lab.converge(after) == []


def test_a_link_that_is_down_comes_up_with_all_that_it_lost(lab: Lab) -> None:
    desired = wanted([ETH0, ETH1], EVERYTHING)
    assert lab.converge(desired) == []
    ip("link", "set", "eth0", "down", namespace=lab.namespace)
    assert lab.converge(desired) == []


def test_a_route_of_ours_that_is_the_connected_one_is_put_back_when_its_address_goes(lab: Lab) -> None:
    routes, bare_of_ipv6 = [replace(TO_NETWORK, metric=256)], without(ETH0, "fd00::2/64")
    for interface in (bare_of_ipv6, ETH0, bare_of_ipv6):
        assert lab.converge(wanted([interface], routes)) == []


def test_a_nic_goes_before_a_route_to_its_network_is_put_back_where_nothing_is_said_of_routes(lab: Lab) -> None:
    assert lab.converge(wanted([ETH0], [route("10.1.0.0/24", VIA0)])) == []
    assert lab.converge(wanted([ETH0, ETH1], None)) == []
    assert lab.converge(wanted([replace(ETH0, hw_addr=mac(9))], None), kinds={}) == []


def test_routes_stay_with_an_address_of_somebody_else(lab: Lab) -> None:
    routes = [ONLINK, THROUGH0[0]]
    assert lab.converge(wanted([ETH0], routes)) == []
    lease = ("valid_lft", "1000", "preferred_lft", "500")
    ip("address", "add", "10.5.0.9/24", "dev", "eth0", *lease, namespace=lab.namespace)
    assert lab.converge(wanted([without(ETH0, "10.0.0.2/24")], routes)) == []

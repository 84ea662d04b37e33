from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import HostError, RefusedError
from reconciler.model.address import is_ipv6, network
from reconciler.model.interface import Interface, Origin
from reconciler.model.made import made, made_key
from reconciler.model.sandbox import AttachableDevice, NetnsAddress
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import AttachInterface, DetachInterface, RenameInterface, SetLink
from reconciler.plan import Deletion, plan
from reconciler.plan.interface import order_renames
from reconciler.plan.namespace import check_queues
from reconciler.values import dataclass, replace
from tests.examples import examples
from tests.plan.sandboxes import found, mac, nic, planned_commands, wanted

# Names that a plan may make up are among those that are there already.
NAMES = st.sampled_from(("a", "b", "c", "d", "eth0", "rename0", "rename1", "rename2"))


@dataclass
class Links:
    """The links of a namespace by name: a new name must be free, an old one there."""

    devices: dict[str, str]

    def run(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            match operation:
                case RenameInterface():
                    assert operation.new_name not in self.devices
                    self.devices[operation.new_name] = self.devices.pop(operation.name)
                case AttachInterface():
                    assert operation.name not in self.devices
                    self.devices[operation.name] = operation.host_name
                case DetachInterface():
                    assert self.devices.pop(operation.name) == operation.origin.device
                case SetLink():
                    assert operation.name in self.devices
                case _:
                    pytest.fail(f"{operation} is no operation on a link")


@st.composite
def rosters(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str], frozenset[str]]:
    """Device → name before and after, and the names of others, none of which is wanted."""
    devices = [f"tap{number}" for number in range(6)]
    before = draw(st.lists(NAMES, unique=True, max_size=5))
    after = draw(st.lists(NAMES, unique=True, max_size=5))
    taken = draw(st.frozensets(NAMES)) - set(before) - set(after)
    return (
        dict(zip(draw(st.permutations(devices)), before, strict=False)),
        dict(zip(draw(st.permutations(devices)), after, strict=False)),
        frozenset({"lo", *taken}),
    )


@settings(deadline=None, max_examples=examples(300))
@given(rosters(), st.sampled_from(("6.1", "6.2")))
def test_no_name_is_used_twice_and_those_of_others_are_left(
    roster: tuple[dict[str, str], dict[str, str], frozenset[str]], release: str
) -> None:
    before, after, foreign = roster
    had = [nic(name, device=device) for device, name in before.items()]
    wish = [nic(name, device=device) for device, name in after.items()]
    links = Links({name: device for device, name in before.items()} | dict.fromkeys(foreign, "foreign"))
    links.run(plan(wanted(wish), found(had, links=foreign, release=release)).operations)
    assert links.devices == {name: device for device, name in after.items()} | dict.fromkeys(foreign, "foreign")


def count_cycles(renames: dict[str, str]) -> int:
    cycles = 0
    left = dict(renames)
    while left:
        start, name = left.popitem()
        while name in left:
            name = left.pop(name)
        cycles += name == start
    return cycles


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(NAMES, unique=True), st.randoms(use_true_random=False))
def test_only_a_cycle_costs_a_rename_more(names: list[str], random: Random) -> None:
    targets = list(names)
    random.shuffle(targets)
    renames = {old: new for old, new in zip(names, targets, strict=True) if old != new}
    operations = order_renames(renames, {"lo", *names})
    assert len(operations) == len(renames) + count_cycles(renames)


def test_a_chain_of_names_moves_from_its_end() -> None:
    had = [nic("a", device="tap1"), nic("b", device="tap2")]
    wish = [nic("b", device="tap1"), nic("c", device="tap2")]
    assert planned_commands(wanted(wish), found(had)) == ["ip link set dev b name c", "ip link set dev a name b"]


def test_a_swap_goes_through_a_name_that_nobody_has() -> None:
    had = [nic("a", device="tap1"), nic("b", device="tap2"), nic("rename1", device="tap3")]
    wish = [nic("b", device="tap1"), nic("a", device="tap2"), nic("rename1", device="tap3")]
    assert planned_commands(wanted(wish), found(had, links=frozenset({"lo", "rename0"}))) == [
        "ip link set dev a name rename2",
        "ip link set dev b name a",
        "ip link set dev rename2 name b",
    ]


@pytest.mark.parametrize("how", ["added", "renamed"])
def test_a_name_of_somebody_else_is_refused(how: str) -> None:
    had = [nic("eth0", device="tap1")] if how == "renamed" else []
    with pytest.raises(RefusedError) as caught:
        plan(wanted([nic("eth1", device="tap1")]), found(had, links=frozenset({"lo", "eth1"})))
    assert str(caught.value) == (
        "the name eth1 is taken in the sandbox by an interface that is not ours; "
        "rename or remove it there, or choose another name"
    )


def test_a_nic_that_goes_gives_its_name_first_and_else_leaves_last() -> None:
    had = [
        nic("eth0", "10.0.0.2/24", device="tap1"),
        nic("eth1", "10.1.0.2/24", device="tap2"),
        nic("eth2", device="tap3"),
    ]
    wish = [nic("eth0", "10.0.0.2/24", device="tap4"), nic("eth2", "10.2.0.2/24", device="tap3")]
    back = "address 02:00:00:00:ff:ff mtu 1400 alias ''"
    assert planned_commands(wanted(wish), found(had)) == [
        f"ip link set dev eth0 netns $$ name tap1 {back}",
        "ip link set dev tap4 netns box name eth0 alias 'reconciler: device=tap4 hwaddr=02:00:00:00:ff:ff mtu=1400'",
        "ip link set dev eth0 address 02:00:00:00:00:01 mtu 1500 up",
        "ip address add 10.0.0.2/24 dev eth0",
        "ip address add 10.2.0.2/24 dev eth2",
        f"ip link set dev eth1 netns $$ name tap2 {back}",
    ]


# What a saved state does not tell.
SAVED: dict[str, Any] = {"devices": None, "origins": {}, "kinds": {}, "release": ""}


def test_a_saved_state_knows_no_way_back_but_as_it_is() -> None:
    had = nic("eth0", device="tap1", number=7, mtu=1300)
    assert plan(wanted([]), found([had], **SAVED)).operations == (
        DetachInterface(name="eth0", origin=Origin(device="tap1", hw_addr=mac(7), mtu=1300)),
    )


def test_a_saved_state_knows_no_device_of_the_host_but_as_it_is_wanted() -> None:
    wish = nic("eth0", device="nowhere", number=7, mtu=1300, queues=200)
    assert plan(wanted([wish]), found(**SAVED)).operations[:1] == (
        AttachInterface(
            host_name="nowhere",
            namespace="box",
            name="eth0",
            origin=Origin(device="nowhere", hw_addr=mac(7), mtu=1300),
        ),
    )


def test_a_saved_state_takes_links_for_such_as_need_not_go_down() -> None:
    had, wish = nic("a", device="tap1", number=1), nic("b", device="tap1", number=2)
    assert planned_commands(wanted([wish]), found([had], **SAVED)) == [
        "ip link set dev a name b",
        "ip link set dev b address 02:00:00:00:00:02",
    ]


DOWN = "ip link set dev eth0 down"


@pytest.mark.parametrize(
    ("release", "up", "expected"),
    [
        ("6.2", True, ["ip link set dev eth0 name eth9"]),
        ("7.0", True, ["ip link set dev eth0 name eth9"]),
        ("", True, ["ip link set dev eth0 name eth9"]),
        ("6.1", True, [DOWN, "ip link set dev eth0 name eth9", "ip link set dev eth9 up"]),
        ("5.10.0-9-amd64", True, [DOWN, "ip link set dev eth0 name eth9", "ip link set dev eth9 up"]),
        ("6.1", False, ["ip link set dev eth0 name eth9", "ip link set dev eth9 up"]),
    ],
    ids=["6.2", "7.0", "unknown", "6.1", "5.10", "6.1, down already"],
)
def test_a_rename_takes_a_link_down_only_on_an_old_kernel(release: str, up: bool, expected: list[str]) -> None:
    had = [nic("eth0", device="tap1", up=up), nic("eth1", device="tap2")]
    wish = [nic("eth9", device="tap1"), nic("eth1", device="tap2")]
    assert planned_commands(wanted(wish), found(had, release=release)) == expected


@pytest.mark.parametrize(
    ("kind", "goes_down"),
    [
        ("tun", False),
        ("veth", False),
        ("dummy", False),
        ("macvlan", False),
        ("", True),
        ("ipvlan", True),
        (None, True),
    ],
)
def test_a_new_mac_takes_a_link_down_unless_its_kind_is_live(kind: str | None, goes_down: bool) -> None:
    had, wish = nic("eth0", device="tap1", number=1), nic("eth0", device="tap1", number=2)
    kinds = {} if kind is None else {"tap1": kind}
    expected = (
        [DOWN, "ip link set dev eth0 address 02:00:00:00:00:02 up"]
        if goes_down
        else ["ip link set dev eth0 address 02:00:00:00:00:02"]
    )
    assert planned_commands(wanted([wish]), found([had], kinds=kinds)) == expected


def test_a_link_that_should_be_down_goes_down_and_stays_so() -> None:
    had = nic("eth0", "10.0.0.2/24", "fd00::2/64")
    on_it = nic("lan", device="vlan:lan", made=made("vlan", {"id": 7}, "eth0"), up=False)
    down = [replace(had, up=False), on_it]
    assert planned_commands(wanted(down), found([had, on_it])) == [DOWN, "ip address add fd00::2/64 dev eth0"]
    # The kernel sets a VLAN up with its link.
    again = ["ip link set dev eth0 up", "ip link set dev lan down"]
    assert planned_commands(wanted([had, on_it]), found(down)) == again


def test_what_changes_of_a_link_is_one_operation_that_tells_what_was() -> None:
    had = nic("eth0", device="tap1", number=1, mtu=1500, up=False)
    wish = nic("eth0", device="tap1", number=2, mtu=9000)
    assert plan(wanted([wish]), found([had])).operations == (
        SetLink(name="eth0", hw_addr=mac(2), mtu=9000, up=True, was="02:00:00:00:00:01, mtu 1500, down"),
    )


def test_an_mtu_needs_no_link_down() -> None:
    had, wish = nic("eth0", "10.0.0.2/24", mtu=1500), nic("eth0", "10.0.0.2/24", mtu=1400)
    assert plan(wanted([wish]), found([had], kinds={}, release="5.10")).operations == (
        SetLink(name="eth0", mtu=1400, was="mtu 1500"),
    )


def test_a_nic_comes_with_its_addresses() -> None:
    devices = {
        "tap1": AttachableDevice(
            name="tap1", queues=4, origin=Origin(device="tap1", hw_addr=mac(9), mtu=1400, alias="it's his")
        )
    }
    wish = nic("eth0", "10.0.0.2/24", "fd00::2/64 nodad", device="tap1", queues=4)
    planned = plan(wanted([wish]), found(devices=devices))
    alias = """'reconciler: device=tap1 hwaddr=02:00:00:00:00:09 mtu=1400 alias=it'"'"'s his'"""
    assert [operation.command for operation in planned.operations] == [
        f"ip link set dev tap1 netns box name eth0 alias {alias}",
        "ip link set dev eth0 address 02:00:00:00:00:01 mtu 1500 up",
        "ip address add 10.0.0.2/24 dev eth0",
        "ip address add fd00::2/64 dev eth0 nodad",
    ]
    assert [operation.sign for operation in planned.operations] == ["+", "+", "+", "+"]
    assert planned.deletions == ()


def test_a_device_that_came_home_under_another_name_is_taken_by_that_name() -> None:
    came_home = AttachableDevice(name="dev17", queues=1, origin=Origin(device="tap1", hw_addr=mac(9), mtu=1400))
    planned = plan(wanted([nic("eth0", device="tap1")]), found(devices={"tap1": came_home}))
    assert planned.operations[0] == AttachInterface(
        host_name="dev17", namespace="box", name="eth0", origin=came_home.origin
    )


@pytest.mark.parametrize(
    ("driver", "word"),
    [
        (NetnsAddress(name="web-1"), "web-1"),
        (NetnsAddress(path="/var/run/netns/web-1"), "/var/run/netns/web-1"),
        (NetnsAddress(pid=17), "/proc/17/ns/net"),
    ],
)
def test_a_device_goes_to_the_namespace_of_the_driver(driver: NetnsAddress, word: str) -> None:
    desired = replace(wanted([nic("eth0", device="tap1")]), driver=driver)
    operation = plan(desired, found()).operations[0]
    assert isinstance(operation, AttachInterface)
    assert operation.namespace == word


@pytest.mark.parametrize(("wished", "there"), [(mac(1), ""), ("", mac(9))])
def test_an_interface_has_a_mac_address_if_its_device_has_one(wished: str, there: str) -> None:
    """Before it is given, and as long as it is there."""
    wish = replace(nic("eth0", device="tap1"), hw_addr=wished)
    host = AttachableDevice(name="tap1", queues=1, origin=Origin(device="tap1", hw_addr=there, mtu=1500))
    for around in (found(devices={"tap1": host}), found([replace(wish, hw_addr=there)])):
        with pytest.raises(HostError) as caught:
            plan(wanted([wish]), around)
        assert caught.value.path == ("interfaces", 0, "hwAddr")
        assert str(caught.value) == (
            f"tap1 has the MAC address {there}; interface eth0 has to name it, or another one, as its hwAddr"
            if there
            else "tap1 has no MAC address; remove hwAddr from interface eth0"
        )


def test_a_device_that_the_host_lacks_is_the_hosts_error() -> None:
    with pytest.raises(HostError) as caught:
        plan(wanted([nic("eth0", device="tap1")]), found(devices={}))
    assert str(caught.value) == ("tap1: no such device on this host, which interface eth0 needs; create it first")


@pytest.mark.parametrize(
    ("asked", "available", "has"),
    [(2, 1, "single-queue"), (2, 0, "single-queue"), (5, 4, "limited to 4 queues")],
)
def test_queues_that_a_device_lacks_are_the_hosts_error(asked: int, available: int, has: str) -> None:
    expected = f"tap1 is {has}; interface eth0 asks for {asked} queues"
    wish = nic("eth0", device="tap1", queues=asked)
    host = AttachableDevice(name="tap1", queues=available, origin=Origin(device="tap1", hw_addr=mac(1), mtu=1500))
    with pytest.raises(HostError) as caught:
        plan(wanted([wish]), found(devices={"tap1": host}))
    assert str(caught.value) == expected
    with pytest.raises(HostError) as caught:
        check_queues(wish, available)
    assert str(caught.value) == expected


@pytest.mark.parametrize(("asked", "available"), [(0, 0), (0, 1), (1, 0), (1, 1), (4, 4), (4, 256)])
def test_queues_that_a_device_has_are_no_error(asked: int, available: int) -> None:
    wish = nic("eth0", device="tap1", queues=asked)
    host = AttachableDevice(name="tap1", queues=available, origin=Origin(device="tap1", hw_addr=mac(1), mtu=1500))
    assert len(plan(wanted([wish]), found(devices={"tap1": host})).operations) == 2


def test_a_section_that_is_absent_is_left_alone() -> None:
    had = [nic("eth0", "10.0.0.2/24", up=False), nic("eth1", number=2)]
    assert plan(wanted(None), found(had)).operations == ()


def test_an_empty_section_means_none_of_ours() -> None:
    had = [nic("eth0", "10.0.0.2/24", "10.0.0.3/24"), nic("eth1", "10.1.0.2/24")]
    planned = plan(wanted([]), found(had, links=frozenset({"lo", "eth7"})))
    assert [(type(operation), getattr(operation, "name", "")) for operation in planned.operations] == [
        (DetachInterface, "eth0"),
        (DetachInterface, "eth1"),
    ]
    # The addresses go along with their NICs, and are not deleted one by one.
    assert planned.deletions == (Deletion(kind="interface", count=2, total=2),)


def test_addresses_that_are_the_same_in_another_order_are_left() -> None:
    had, wish = nic("eth0", "10.0.0.2/24", "fd00::2/64"), nic("eth0", "fd00::2/64", "10.0.0.2/24")
    assert plan(wanted([wish]), found([had])).operations == ()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["10.0.0.2/24"], ["10.0.0.2/24", "10.1.0.2/24"], ["add 10.1.0.2/24 dev eth0"]),
        # Another subnet: the old one goes when the new one is there.
        (["10.0.0.2/24"], ["10.1.0.2/24"], ["add 10.1.0.2/24 dev eth0", "del 10.0.0.2/24 dev eth0"]),
        # The same subnet: as its first address, the old one would take the new one along.
        (["10.0.0.2/24"], ["10.0.0.3/24"], ["del 10.0.0.2/24 dev eth0", "add 10.0.0.3/24 dev eth0"]),
        # And those that stay may be lost with it.
        (
            ["10.0.0.2/24", "10.0.0.3/24", "10.1.0.2/24"],
            ["10.0.0.3/24", "10.1.0.2/24"],
            ["del 10.0.0.2/24 dev eth0", "replace 10.0.0.3/24 dev eth0"],
        ),
        # One that is not the first takes nobody along.
        (["10.0.0.2/24", "10.0.0.3/24"], ["10.0.0.2/24"], ["del 10.0.0.3/24 dev eth0"]),
        # Subnets are told apart by their length as well.
        (
            ["10.0.0.2/16", "10.0.0.3/24"],
            ["10.0.0.3/24"],
            ["del 10.0.0.2/16 dev eth0"],
        ),
        (["10.0.0.2/24"], [], ["del 10.0.0.2/24 dev eth0"]),
        # The first address of a subnet is the source of its connected route.
        (
            ["10.0.0.2/24", "10.0.0.3/24"],
            ["10.0.0.3/24", "10.0.0.2/24"],
            [
                "del 10.0.0.3/24 dev eth0",
                "del 10.0.0.2/24 dev eth0",
                "add 10.0.0.3/24 dev eth0",
                "add 10.0.0.2/24 dev eth0",
            ],
        ),
        (["10.0.0.2/24", "10.1.0.2/24"], ["10.1.0.2/24", "10.0.0.2/24"], []),
        (["fd00::2/64"], ["fd00::3/64"], ["add fd00::3/64 dev eth0", "del fd00::2/64 dev eth0"]),
        (["fd00::2/64", "fd00::3/64"], ["fd00::3/64"], ["del fd00::2/64 dev eth0"]),
        (["fd00::2/64"], ["fd00::2/64 nodad"], ["replace fd00::2/64 dev eth0 nodad"]),
        (["fd00::2/64 nodad"], ["fd00::2/64"], ["replace fd00::2/64 dev eth0"]),
        # The network of an IPv4 address is that of its peer.
        (
            ["10.0.0.2 peer 10.9.0.1/24", "10.0.0.2/24"],
            ["10.0.0.2/24", "10.8.0.1 peer 10.9.0.3/24", "10.0.0.2 peer 10.9.0.1/32"],
            [
                "del 10.0.0.2 peer 10.9.0.1/24 dev eth0",
                "add 10.8.0.1 peer 10.9.0.3/24 dev eth0",
                "add 10.0.0.2 peer 10.9.0.1/32 dev eth0",
            ],
        ),
        # An IPv6 address has one peer. With it goes the route to that peer, whichever address has that, too.
        (
            ["fd00::2/64"],
            ["fd00::2 peer fd01::1/64"],
            ["del fd00::2/64 dev eth0", "add fd00::2 peer fd01::1/64 dev eth0"],
        ),
        (
            ["fd00::2 peer fd01::1/64"],
            ["fd00::3 peer fd01::1/64"],
            ["del fd00::2 peer fd01::1/64 dev eth0", "add fd00::3 peer fd01::1/64 dev eth0"],
        ),
        (
            ["fd00::2 peer fd01::1/64", "fd00::3 peer fd01::1/64"],
            ["fd00::2 peer fd01::1/64"],
            [
                "del fd00::3 peer fd01::1/64 dev eth0",
                "del fd00::2 peer fd01::1/64 dev eth0",
                "add fd00::2 peer fd01::1/64 dev eth0",
            ],
        ),
    ],
)
def test_addresses_come_before_others_go_where_the_kernel_lets_them(
    before: list[str], after: list[str], expected: list[str]
) -> None:
    planned = planned_commands(wanted([nic("eth0", *after)]), found([nic("eth0", *before)]))
    assert planned == [f"ip address {words}" for words in expected]


SUBNETS = ("10.0.0", "10.0.1")
TEXTS = [f"{subnet}.{host}/{length}" for subnet in SUBNETS for host in (1, 2, 3) for length in (24, 32)]
ADDRESSES = st.lists(st.sampled_from([*TEXTS, "fd00::1/64", "fd00::2/64", "fd00::3/64"]), unique=True, max_size=7)


def run_addresses(operations: Iterable[Operation], had: list[str], *, promote: bool) -> list[str]:
    """Do as the kernel does: the first IPv4 address of a subnet takes the others along, unless they are promoted."""
    present = list(had)
    for operation in operations:
        match operation:
            case AddAddress() | ReplaceAddress():
                if operation.address.address not in present:
                    present.append(operation.address.address)
            case DeleteAddress():
                text = operation.address.address
                if text not in present:
                    continue
                subnet = [] if is_ipv6(text) else [each for each in present if network(each) == network(text)]
                takes_along = not promote and subnet[:1] == [text]
                present = [each for each in present if each != text and not (takes_along and each in subnet)]
            case _:
                pytest.fail(f"{operation} is no operation on an address")
    return present


def primaries(texts: list[str]) -> dict[str, str]:
    """The first IPv4 address of each subnet, which gives its connected route its source."""
    firsts: dict[str, str] = {}
    for text in texts:
        if not is_ipv6(text):
            firsts.setdefault(network(text), text)
    return firsts


@settings(deadline=None, max_examples=examples(300))
@given(ADDRESSES, ADDRESSES, st.booleans())
def test_the_wanted_addresses_are_there_in_the_end(before: list[str], after: list[str], promote: bool) -> None:
    planned = plan(wanted([nic("eth0", *after)]), found([nic("eth0", *before)]))
    present = run_addresses(planned.operations, before, promote=promote)
    assert set(present) == set(after)
    assert primaries(present) == primaries(after)
    gone = len(set(before) - set(after))
    expected = (Deletion(kind="address", count=gone, total=len(before)),) if gone else ()
    assert planned.deletions == expected


@settings(deadline=None, max_examples=examples(300))
@given(ADDRESSES, ADDRESSES)
def test_no_address_is_touched_without_need(before: list[str], after: list[str]) -> None:
    operations = plan(wanted([nic("eth0", *after)]), found([nic("eth0", *before)])).operations
    added = {op.address.address for op in operations if isinstance(op, AddAddress)}
    deleted = {op.address.address for op in operations if isinstance(op, DeleteAddress)}
    again = {op.address.address for op in operations if isinstance(op, ReplaceAddress)}
    assert len(operations) == len(added) + len(deleted) + len(again)
    stay = [text for text in before if text in after]
    # Those of a subnet whose first address would be another one go and come.
    firsts = primaries(after)
    moved = {text for text in stay if not is_ipv6(text) and primaries(stay)[network(text)] != firsts[network(text)]}
    assert added == set(after) - set(before) | moved
    assert deleted == set(before) - set(after) | moved
    # And those that lose the first address of their subnet have to be put back.
    assert again == {
        text for text in set(stay) - moved if not is_ipv6(text) and primaries(before)[network(text)] in deleted
    }


def test_an_address_that_the_kernel_gave_is_not_added_and_not_deleted() -> None:
    had = nic("eth0", "fd00::2/64")
    observed = found([had], addresses=frozenset({("eth0", "fe80::1/64"), ("eth0", "10.0.0.9/24")}))
    wish = nic("eth0", "fd00::2/64", "fe80::1/64", "10.0.0.9/24")
    assert plan(wanted([wish]), observed).operations == ()
    assert plan(wanted([had]), observed).operations == ()
    other = replace(observed, around=replace(observed.around, addresses=frozenset({("eth1", "fe80::1/64")})))
    assert planned_commands(wanted([nic("eth0", "fd00::2/64", "fe80::1/64")]), other) == [
        "ip address add fe80::1/64 dev eth0"
    ]


def test_addresses_follow_a_new_name() -> None:
    had = nic("a", "10.0.0.2/24", "10.0.0.3/24", device="tap1")
    wish = nic("b", "10.0.0.3/24", "fd00::2/64", device="tap1")
    assert planned_commands(wanted([wish]), found([had])) == [
        "ip link set dev a name b",
        "ip address del 10.0.0.2/24 dev b",
        "ip address replace 10.0.0.3/24 dev b",
        "ip address add fd00::2/64 dev b",
    ]


def test_a_link_that_goes_down_gets_its_ipv6_addresses_back() -> None:
    had = nic("eth0", "10.0.0.2/24", "fd00::2/64", "fd00::3/64 nodad", number=1)
    wish = nic("eth0", "10.0.0.2/24", "fd00::2/64", "fd00::3/64 nodad", number=2)
    assert planned_commands(wanted([wish]), found([had], kinds={})) == [
        DOWN,
        "ip link set dev eth0 address 02:00:00:00:00:02 up",
        "ip address add fd00::2/64 dev eth0",
        "ip address add fd00::3/64 dev eth0 nodad",
    ]


def test_ipv6_addresses_that_a_link_loses_for_good_are_counted() -> None:
    had = nic("eth0", "10.0.0.2/24", *(f"fd00::{number}/64" for number in range(1, 21)), number=1)
    wish = nic("eth0", "10.0.0.2/24", "fd00::1/64", number=2)
    planned = plan(wanted([wish]), found([had], kinds={}))
    assert planned.deletions == (Deletion(kind="address", count=19, total=21),)


def test_ipv6_addresses_that_an_mtu_costs_are_counted() -> None:
    had = nic("eth0", "10.0.0.2/24", "fd00::2/64", "fd00::3/64", mtu=1500)
    wish = nic("eth0", "10.0.0.2/24", mtu=1279)
    assert plan(wanted([wish]), found([had])).deletions == (Deletion(kind="address", count=2, total=3),)


def test_the_total_of_addresses_is_that_of_all_nics() -> None:
    had = [nic("eth0", "10.0.0.2/24", "10.0.1.2/24"), nic("eth1", "10.1.0.2/24", number=2)]
    wish: list[Interface] = [nic("eth0", "10.0.0.2/24"), nic("eth1", "10.1.0.2/24", number=2)]
    assert plan(wanted(wish), found(had)).deletions == (Deletion(kind="address", count=1, total=3),)


def test_what_takes_the_packets_of_a_port_leaves_before_it_joins_under_a_new_name() -> None:
    def link(kind: str, name: str, below: str = "") -> Interface:
        return Interface(name=name, device=made_key(kind, name), hw_addr="", mtu=0, made=made(kind, {}, below))

    bridge, port = link("bridge", "br0"), nic("a")
    before = [port, bridge, link("macvlan", "m", "a")]
    after = [replace(port, name="b", master="br0"), bridge]
    done = planned_commands(wanted(after), found(before))
    assert done.index("ip link del dev m") < done.index("ip link set dev b master br0")

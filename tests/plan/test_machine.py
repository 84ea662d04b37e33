"""Plans for NICs of a virtual machine, and a QEMU in few lines that they have to work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import HostError, RefusedError
from reconciler.model.interface import Interface
from reconciler.model.machine import Machine, Macvtap, Managers, Plugged, Slot, Tap
from reconciler.model.route import Route
from reconciler.model.sandbox import DriverAddress, LibvirtAddress, Observed, Sandbox, VmAddress
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.machine import AddDevice, AddNetdev, DeleteDevice, DeleteNetdev, NameInterface, SetUnmanaged
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.plan import Deletion, plan
from reconciler.values import dataclass, field, replace
from tests.examples import examples
from tests.plan import sandboxes
from tests.plan.sandboxes import commands, found, hop, mac, nic, route

DRIVER = VmAddress(name="box")
SOCKET = "/run/vhost.sock"
TAP = Tap(is_tap=True, multi_queue=False, mtu=1500, up=True, busy=False)
MACVTAP = TAP._replace(macvtap=Macvtap(7, mac(1)))
MULTI_QUEUE = TAP._replace(multi_queue=True)
NO_CARRIER = TAP._replace(busy=False)


def wanted(interfaces: Iterable[Interface] | None = None, routes: Iterable[Route] | None = None) -> Sandbox:
    return replace(sandboxes.wanted(interfaces, routes), driver=DRIVER)


def slot(number: int) -> Slot:
    return Slot(f"port{number}", "0")


def slots(*numbers: int) -> tuple[Slot, ...]:
    return tuple(map(slot, numbers))


def plugged(interface: Interface, number: int = 0, **fields: Any) -> Plugged:
    """What QEMU has of an interface, in the slot of a number."""
    return Plugged(
        hw_addr=interface.hw_addr,
        queues=max(interface.queues, 1),
        socket=interface.vhost_user_socket,
        slot=slot(number),
    )._replace(**fields)


def machine(had: Sequence[Interface] = (), **fields: Any) -> Machine:
    """A machine with these NICs in its first slots and four slots in all, on a host with all TAPs asked for."""
    taps = {f"tap{number}": TAP for number in range(10)}
    taps |= {interface.device: TAP._replace(busy=True, multi_queue=interface.queues > 1) for interface in had}
    return replace(
        Machine(
            plugged={interface.device: plugged(interface, number) for number, interface in enumerate(had)},
            slots=slots(*range(len(had), 4)),
            capacity=4,
            taps=taps | fields.pop("taps", {}),
            shared_memory=True,
        ),
        **fields,
    )


def seen(
    had: Sequence[Interface] = (), ours: Iterable[Route] = (), *, state: Machine | None = None, **around: Any
) -> Observed:
    """What the driver makes of it: the host's devices are not looked at, and virtio has no kind."""
    fields: dict[str, Any] = {
        "devices": {},
        "origins": {},
        "kinds": {each.device: "" for each in had},
        "machine": state or machine(had),
    }
    observed = found(had, ours, **(fields | around))
    return replace(observed, sandbox=replace(observed.sandbox, driver=DRIVER))


def planned(desired: Sandbox, observed: Observed) -> list[str]:
    return commands(plan(desired, observed))


def plug(interface: Interface, number: int, mtu: int = 1500) -> list[str]:
    """What plugs a NIC of a TAP into the slot of a number."""
    plug_id = f"reconciler-{interface.device}"
    several = interface.queues > 1
    return [
        f"netdev_add tap,id={plug_id},ifname={interface.device},script=no,downscript=no"
        + (f",queues={interface.queues}" if several else ""),
        f"device_add virtio-net-pci,id={plug_id},netdev={plug_id},mac={interface.hw_addr},bus=port{number},addr=0"
        + (",mq=on" if several else "")
        + f",host_mtu={mtu}",
        f"ip link set dev {interface.hw_addr} name {interface.name}",
        f"ip link set dev {interface.name} mtu {interface.mtu} up",
    ]


def unplug(device: str) -> list[str]:
    return [f"device_del reconciler-{device}", f"netdev_del reconciler-{device}"]


def refusal(desired: Sandbox, observed: Observed) -> str:
    with pytest.raises(HostError) as caught:
        plan(desired, observed)
    return str(caught.value)


A, B, C = nic("a", device="tap1", number=1), nic("b", device="tap2", number=2), nic("c", device="tap3", number=3)


def test_a_nic_is_plugged_named_raised_and_given_its_addresses() -> None:
    wish = nic("eth0", "10.0.0.2/24", "fd00::2/64 nodad", device="tap1", number=1, mtu=1400)
    result = plan(wanted([wish], [route("10.8.0.0/16", hop("eth0", "10.0.0.1"))]), seen())
    assert result.operations == (
        AddNetdev(device="tap1", queues=1),
        AddDevice(device="tap1", hw_addr=mac(1), queues=1, bus="port0", addr="0", host_mtu=1500),
        NameInterface(device="tap1", hw_addr=mac(1), name="eth0"),
        SetLink(name="eth0", mtu=1400, up=True, sign="+"),
        AddAddress(device="eth0", address=wish.addresses[0]),
        AddAddress(device="eth0", address=wish.addresses[1]),
        AddRoute(route=route("10.8.0.0/16", hop("eth0", "10.0.0.1"))),
    )
    assert result.deletions == ()


@pytest.mark.parametrize(("asked", "given_"), [(0, 1), (1, 1), (2, 2), (5, 5), (256, 256)])
def test_queues_are_those_of_the_manifest(asked: int, given_: int) -> None:
    state = machine(taps={"tap1": MULTI_QUEUE if given_ > 1 else TAP})
    netdev, device, *_ = plan(wanted([replace(A, queues=asked)]), seen(state=state)).operations
    assert netdev == AddNetdev(device="tap1", queues=given_)
    assert device == AddDevice(device="tap1", hw_addr=mac(1), queues=given_, bus="port0", addr="0", host_mtu=1500)


@pytest.mark.parametrize(("kvm", "vectors"), [(False, 0), (True, None)])
def test_a_vhost_user_socket_is_plugged_without_vectors_under_tcg(kvm: bool, vectors: int | None) -> None:
    wish = replace(A, vhost_user_socket=SOCKET, queues=2, mtu=9000)
    state = machine(sockets={SOCKET: ""}, taps={"tap1": TAP}, kvm=kvm)
    assert plan(wanted([wish]), seen(state=state)).operations == (
        AddNetdev(device="tap1", queues=2, vhost_user_socket=SOCKET),
        AddDevice(device="tap1", hw_addr=mac(1), queues=2, bus="port0", addr="0", vectors=vectors),
        NameInterface(device="tap1", hw_addr=mac(1), name="a"),
        SetLink(name="a", mtu=9000, up=True, sign="+"),
    )


def test_what_is_as_it_should_be_needs_nothing() -> None:
    had = [A, replace(B, queues=4), replace(C, vhost_user_socket=SOCKET)]
    assert plan(wanted(had), seen(had)).operations == ()
    # Slots, and the host's devices beside it, are nothing to anybody then.
    state = replace(machine(had), slots=(), capacity=0, shared_memory=False, sockets={SOCKET: "Connection refused"})
    assert plan(wanted(had), seen(had, state=state, hw_addrs=frozenset({mac(1)}))).operations == ()


def test_only_what_changes_is_touched() -> None:
    had = [replace(A, queues=2), B, C]
    state = machine(had, taps={"tap1": MULTI_QUEUE._replace(busy=True)})
    assert planned(wanted([replace(A, queues=3), B, C]), seen(had, state=state)) == [
        *unplug("tap1"),
        *plug(replace(A, queues=3), 3),
    ]


def test_a_nic_leaves_last_and_counts_as_deleted() -> None:
    had = [nic("a", "10.0.0.2/24", device="tap1", number=1), B]
    result = plan(wanted([replace(B, mtu=1400)]), seen(had))
    assert commands(result) == ["ip link set dev b mtu 1400", *unplug("tap1")]
    assert result.deletions == (Deletion(kind="interface", count=1, total=2),)


def test_a_vhost_user_nic_leaves_with_its_chardev() -> None:
    had = replace(A, vhost_user_socket=SOCKET)
    assert planned(wanted([]), seen([had])) == [
        "device_del reconciler-tap1",
        "netdev_del reconciler-tap1; chardev-remove reconciler-tap1",
    ]


def test_a_new_name_is_a_rename_and_nothing_is_plugged() -> None:
    assert planned(wanted([replace(A, name="x")]), seen([A])) == ["ip link set dev a name x"]
    assert planned(wanted([replace(A, name="b"), replace(B, name="a")]), seen([A, B])) == [
        "ip link set dev a name rename0",
        "ip link set dev b name a",
        "ip link set dev rename0 name b",
    ]


def test_a_new_mac_of_a_nic_that_stays_is_set_in_the_guest() -> None:
    assert planned(wanted([replace(A, hw_addr=mac(9))]), seen([A])) == [
        "ip link set dev a down",
        f"ip link set dev a address {mac(9)} up",
    ]


REPLUGS: dict[str, tuple[Interface, Interface, dict[str, Any], list[str]]] = {
    "more queues": (
        replace(A, queues=2),
        replace(A, queues=4),
        {},
        plug(replace(A, queues=4), 1),
    ),
    "several queues after one": (
        A,
        replace(A, queues=2),
        {"taps": {"tap1": MULTI_QUEUE}},
        plug(replace(A, queues=2), 1),
    ),
    "one queue after several": (replace(A, queues=2), A, {"taps": {"tap1": TAP}}, plug(A, 1)),
    "another name as well": (
        replace(A, queues=2),
        replace(A, name="x", queues=4),
        {},
        plug(replace(A, name="x", queues=4), 1),
    ),
}


@pytest.mark.parametrize(("had", "wish", "state", "expected"), REPLUGS.values(), ids=REPLUGS)
def test_what_cannot_change_in_place_is_plugged_anew(
    had: Interface, wish: Interface, state: dict[str, Any], expected: list[str]
) -> None:
    result = plan(wanted([wish]), seen([had], state=machine([had], **state)))
    assert commands(result) == [*unplug("tap1"), *expected]
    # It comes back, so nothing is deleted.
    assert result.deletions == ()


DEAD = machine([A, B], plugged={"tap1": plugged(A, alive=False), "tap2": plugged(B, 1)}, taps={"tap1": TAP})


@pytest.mark.parametrize("wish", [A, replace(A, mtu=1400)], ids=["as it is", "another MTU"])
def test_a_dead_tap_is_plugged_anew(wish: Interface) -> None:
    result = plan(wanted([wish, B]), seen([A, B], state=DEAD))
    assert commands(result) == [*unplug("tap1"), *plug(wish, 2)]
    assert result.deletions == ()


@pytest.mark.parametrize(
    ("before", "after"), [(None, SOCKET), (SOCKET, None), (SOCKET, "/run/other.sock")], ids=["to", "from", "another"]
)
def test_another_socket_is_plugged_anew(before: str | None, after: str | None) -> None:
    had, wish = replace(A, vhost_user_socket=before), replace(A, vhost_user_socket=after)
    state = machine([had], taps={"tap1": TAP}, sockets={after: ""} if after else {})
    assert plan(wanted([wish]), seen([had], state=state)).operations[:3] == (
        DeleteDevice(device="tap1"),
        DeleteNetdev(device="tap1", vhost_user=before is not None),
        AddNetdev(device="tap1", queues=1, vhost_user_socket=after),
    )


def test_zero_queues_and_one_are_the_same() -> None:
    for before, after in ((0, 1), (1, 0)):
        assert plan(wanted([replace(A, queues=after)]), seen([replace(A, queues=before)])).operations == ()


ADDRESSES = ("10.0.0.2/24", "fd00::2/64 nodad", "10.1.0.2/24")
REPLUGGED = nic("a", *ADDRESSES, device="tap1", number=1, queues=2)
ROUTES = [
    route("0.0.0.0/0", hop("a", "10.0.0.1")),
    route("10.8.0.0/16", hop("a", "10.1.0.1"), source="10.0.0.2"),
    route("fd08::/48", hop("a", "fd00::1")),
    route("10.9.0.0/16", hop("b", "10.7.0.1")),
]
STAYS = nic("b", "10.7.0.2/24", device="tap2", number=2)
PUT_BACK = [
    "ip address add 10.0.0.2/24 dev {0}",
    "ip address add fd00::2/64 dev {0} nodad",
    "ip address add 10.1.0.2/24 dev {0}",
    "ip route add default via 10.0.0.1 dev {0} proto 200",
    "ip route add 10.8.0.0/16 via 10.1.0.1 dev {0} src 10.0.0.2 proto 200",
    "ip -6 route add fd08::/48 via fd00::1 dev {0} metric 1024 proto 200",
]


@pytest.mark.parametrize("name", ["a", "x"])
@pytest.mark.parametrize("told", [True, False], ids=["routes in the manifest", "no routes in the manifest"])
def test_addresses_and_routes_of_a_nic_that_is_plugged_anew_are_put_back(name: str, told: bool) -> None:
    had = [REPLUGGED, STAYS]
    wish = [replace(REPLUGGED, name=name, queues=3), STAYS]
    told_routes = [
        replace(each, nexthops=tuple(replace(h, device=name if h.device == "a" else h.device) for h in each.nexthops))
        for each in ROUTES
    ]
    result = plan(wanted(wish, told_routes if told else None), seen(had, ROUTES))
    assert commands(result) == [
        *unplug("tap1"),
        *plug(wish[0], 2),
        *(line.format(name) for line in PUT_BACK),
    ]
    assert (result.deletions, result.lost_defaults) == ((), ())


def test_a_route_through_two_nics_is_put_back_when_one_is_plugged_anew() -> None:
    both = route("10.8.0.0/16", hop("a", "10.0.0.1"), hop("b", "10.7.0.1"))
    wish = replace(REPLUGGED, queues=3)
    for told in ([both], None):
        lines = planned(wanted([wish, STAYS], told), seen([REPLUGGED, STAYS], [both]))
        assert [line for line in lines if "10.8.0.0/16" in line] == [
            "ip route add 10.8.0.0/16 proto 200 nexthop via 10.0.0.1 dev a weight 1 nexthop via 10.7.0.1 dev b weight 1"
        ]


def test_addresses_that_the_guests_kernel_gave_are_not_ours_to_put_back() -> None:
    given_ = frozenset({("a", "fe80::1/64"), ("a", "10.0.0.77/24")})
    had = nic("a", "10.0.0.2/24", device="tap1", number=1, queues=2)
    lines = planned(wanted([replace(had, queues=3)]), seen([had], addresses=given_))
    assert [line for line in lines if "address" in line] == ["ip address add 10.0.0.2/24 dev a"]


# What a killed run left: the state, what is wanted, and what is to be done.
HALVES: dict[str, tuple[Machine, list[Interface], list[str]]] = {
    "a TAP without a NIC, wanted": (
        machine(leftovers={"tap1": False}, taps={"tap1": TAP._replace(busy=True)}),
        [A],
        ["netdev_del reconciler-tap1", *plug(A, 0)],
    ),
    "a TAP without a NIC, not wanted": (machine(leftovers={"tap1": False}), [], ["netdev_del reconciler-tap1"]),
    "a chardev, wanted as a TAP": (
        machine(leftovers={"tap1": True}),
        [A],
        ["netdev_del reconciler-tap1; chardev-remove reconciler-tap1", *plug(A, 0)],
    ),
    "a chardev, not wanted": (
        machine(leftovers={"tap1": True}),
        [],
        ["netdev_del reconciler-tap1; chardev-remove reconciler-tap1"],
    ),
    "a NIC that the guest has not seen, wanted": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False)}),
        [A],
        ["ip link set dev 02:00:00:00:00:01 name a", "ip link set dev a mtu 1500 up"],
    ),
    "a NIC that the guest has not seen, not wanted": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False)}),
        [],
        unplug("tap1"),
    ),
    "a NIC that the guest has not seen, with another MAC": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False, hw_addr=mac(9))}),
        [A],
        [*unplug("tap1"), *plug(A, 1)],
    ),
    "a NIC that the guest has not seen, with other queues": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False, queues=2)}),
        [A],
        [*unplug("tap1"), *plug(A, 1)],
    ),
    "a NIC that the guest has not seen, of a dead TAP": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False, alive=False)}, taps={"tap1": TAP}),
        [A],
        [*unplug("tap1"), *plug(A, 1)],
    ),
    "a NIC that the guest has not seen, of a socket": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False, socket=SOCKET)}),
        [A],
        ["device_del reconciler-tap1", "netdev_del reconciler-tap1; chardev-remove reconciler-tap1", *plug(A, 1)],
    ),
    "the MAC of one that comes": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False)}),
        [replace(B, hw_addr=mac(1))],
        [*unplug("tap1"), *plug(replace(B, hw_addr=mac(1)), 1)],
    ),
    "the only slot": (
        machine([A], plugged={"tap1": plugged(A, in_guest=False)}, slots=(), capacity=1),
        [B],
        [*unplug("tap1"), *plug(B, 0)],
    ),
}


@pytest.mark.parametrize(("state", "wish", "expected"), HALVES.values(), ids=HALVES)
def test_what_was_left_half_done_is_finished_or_taken_back(
    state: Machine, wish: list[Interface], expected: list[str]
) -> None:
    result = plan(wanted(wish), seen(state=state))
    assert commands(result) == expected
    assert result.deletions == ()


def test_a_nic_that_was_never_named_is_renamed_and_raised() -> None:
    had = nic("eth0", device="tap1", number=1, up=False)
    wish = nic("web0", "10.0.0.2/24", device="tap1", number=1)
    assert planned(wanted([wish]), seen([had])) == [
        "ip link set dev eth0 name web0",
        "ip link set dev web0 up",
        "ip address add 10.0.0.2/24 dev web0",
    ]


def test_what_is_left_half_done_is_cleared_away_before_anything_else() -> None:
    had = [A, B]
    state = replace(machine(had), leftovers={"tap3": False})
    wish = [replace(A, name="c"), replace(C, name="a")]
    assert planned(wanted(wish), seen(had, state=state)) == [
        "netdev_del reconciler-tap3",
        "ip link set dev a name c",
        *plug(wish[1], 2),
        *unplug("tap2"),
    ]


def test_the_first_free_slots_are_taken_in_the_manifests_order() -> None:
    state = machine(slots=(Slot("bridge0", "0x3"), Slot("port7", "0"), Slot("pci.0", "0x5")), capacity=9)
    devices = [each for each in plan(wanted([C, A, B]), seen(state=state)).operations if isinstance(each, AddDevice)]
    assert [(each.device, each.bus, each.addr) for each in devices] == [
        ("tap3", "bridge0", "0x3"),
        ("tap1", "port7", "0"),
        ("tap2", "pci.0", "0x5"),
    ]


def test_while_a_slot_is_free_the_new_nic_comes_before_the_old_one_leaves() -> None:
    state = replace(machine([A]), slots=slots(3))
    assert planned(wanted([B]), seen([A], state=state)) == [*plug(B, 3), *unplug("tap1")]


def test_a_slot_that_is_freed_is_taken_once_no_other_is_free() -> None:
    had = [A, B]
    state = replace(machine(had), slots=slots(3), capacity=3)
    new, newer = nic("d", device="tap4", number=4), nic("e", device="tap5", number=5)
    assert planned(wanted([new, newer]), seen(had, state=state)) == [
        *unplug("tap1"),
        *unplug("tap2"),
        *plug(new, 3),
        *plug(newer, 0),
    ]


def test_a_full_machine_can_be_plugged_anew() -> None:
    had = [replace(A, queues=2), replace(B, queues=2)]
    state = replace(machine(had), slots=(), capacity=2)
    wish = [replace(A, queues=4), replace(B, queues=4)]
    assert planned(wanted(wish), seen(had, state=state)) == [
        *unplug("tap1"),
        *unplug("tap2"),
        *plug(wish[0], 0),
        *plug(wish[1], 1),
    ]


@pytest.mark.parametrize("capacity", [0, 1, 16])
def test_without_a_slot_the_plan_is_refused_with_the_count(capacity: int) -> None:
    state = machine(slots=(), capacity=capacity)
    assert refusal(wanted([A]), seen(state=state)) == (
        f"a: no PCI slot is free; this machine has {capacity} slots for NICs"
    )


def test_one_slot_too_few_is_refused_for_the_nic_that_has_none() -> None:
    state = replace(machine([A]), slots=slots(1), capacity=2)
    assert refusal(wanted([A, B, C]), seen([A], state=state)) == (
        "c: no PCI slot is free; this machine has 2 slots for NICs"
    )


@pytest.mark.parametrize("how", ["its own", "the one it was plugged with"])
def test_a_mac_is_taken_over_from_a_nic_that_goes(how: str) -> None:
    had = A if how == "its own" else replace(A, hw_addr=mac(8))
    state = machine([had], plugged={"tap1": plugged(A)})
    wish = replace(B, hw_addr=mac(1))
    assert planned(wanted([wish]), seen([had], state=state)) == [*unplug("tap1"), *plug(wish, 1)]


def test_a_name_is_taken_over_from_a_nic_that_goes() -> None:
    wish = replace(B, name="a")
    assert planned(wanted([wish]), seen([A])) == [*unplug("tap1"), *plug(wish, 1)]


REFUSALS: dict[str, tuple[Interface, dict[str, Any], str]] = {
    "no such device": (
        nic("a", device="gone"),
        {},
        (
            "gone: no such device on this host, which interface a needs; "
            "create it first (QEMU would create one that is connected to nothing)"
        ),
    ),
    "no TAP": (
        A,
        {"taps": {"tap1": TAP._replace(is_tap=False)}},
        "tap1 is no TAP; only TAPs can be plugged into a virtual machine",
    ),
    "busy": (A, {"taps": {"tap1": TAP._replace(busy=True)}}, "tap1 is in use by another process"),
    "single-queue": (replace(A, queues=5), {}, "tap1 is single-queue; interface a asks for 5 queues"),
    "multi-queue": (A, {"taps": {"tap1": MULTI_QUEUE}}, "tap1 is multi-queue; interface a asks for a single queue"),
    "multi-queue for one": (
        replace(A, queues=1),
        {"taps": {"tap1": MULTI_QUEUE}},
        "tap1 is multi-queue; interface a asks for a single queue",
    ),
    "macvtap": (replace(A, queues=2), {"taps": {"tap1": MACVTAP}}, "tap1 is a macvtap, which has a single queue"),
    "MAC address of a macvtap": (
        replace(A, hw_addr=mac(7)),
        {"taps": {"tap1": MACVTAP}},
        (
            f"a: tap1 is a macvtap, which gets only frames to its own MAC address on the host, {mac(1)}; give both "
            f"the same: ip link set dev tap1 address {mac(7)}"
        ),
    ),
    "MTU": (replace(A, mtu=1501), {}, "a: its MTU of 1501 is above the MTU of tap1 on the host, 1500"),
    "memory": (
        replace(A, vhost_user_socket=SOCKET),
        {"shared_memory": False, "sockets": {SOCKET: ""}},
        (
            "a: a vhost-user backend cannot reach the memory of this machine, which is not shared; "
            "start QEMU with memory-backend-memfd,share=on"
        ),
    ),
    "no backend": (
        replace(A, vhost_user_socket=SOCKET),
        {"sockets": {SOCKET: "Connection refused"}},
        "a: /run/vhost.sock: Connection refused; is its backend running?",
    ),
}


@pytest.mark.parametrize(("wish", "state", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_work_is_refused_before_anything_is_plugged(
    wish: Interface, state: dict[str, Any], expected: str
) -> None:
    assert refusal(wanted([B, wish]), seen(state=machine(**state))) == expected


def test_only_a_monitor_takes_the_open_file_of_a_macvtap() -> None:
    found = seen(state=machine(taps={"tap1": MACVTAP}))
    (netdev, *_) = plan(wanted([A]), found).operations
    assert netdev == AddNetdev(device="tap1", queues=1, macvtap=MACVTAP.macvtap)
    assert refusal(replace(wanted([A]), driver=LibvirtAddress(domain="box")), found) == (
        "tap1 is a macvtap, which only the driver vm can plug; give the domain a TAP"
    )


def test_a_mac_of_another_nic_in_the_guest_is_refused() -> None:
    assert refusal(wanted([A]), seen(hw_addrs=frozenset({mac(1)}))) == (
        f"a: another NIC in the guest has the MAC address {mac(1)}"
    )


def test_a_name_of_another_nic_in_the_guest_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        plan(wanted([A]), seen(links=frozenset({"lo", "a"})))
    assert str(caught.value) == (
        "the name a is taken in the sandbox by an interface that is not ours; "
        "rename or remove it there, or choose another name"
    )


@pytest.mark.parametrize("name", [pytest.param("a"), "x"], ids=["as it is", "another name"])
def test_an_mtu_that_the_tap_does_not_carry_any_more_is_refused_of_a_nic_that_stays(name: str) -> None:
    state = machine([A], taps={"tap1": TAP._replace(mtu=1400, busy=True)})
    assert refusal(wanted([replace(A, name=name)]), seen([A], state=state)) == (
        f"{name}: its MTU of 1500 is above the MTU of tap1 on the host, 1400"
    )


def test_an_mtu_that_the_tap_does_not_carry_any_more_is_refused_of_a_nic_that_was_never_named() -> None:
    taps = {"tap1": TAP._replace(mtu=1400, busy=True)}
    state = machine([A], plugged={"tap1": plugged(A, in_guest=False)}, taps=taps)
    assert refusal(wanted([A]), seen(state=state)) == "a: its MTU of 1500 is above the MTU of tap1 on the host, 1400"


@pytest.mark.parametrize("name", [pytest.param("a"), "x"], ids=["as it is", "another name"])
def test_a_dead_tap_that_does_not_exist_any_more_is_refused(name: str) -> None:
    state = replace(DEAD, taps={})
    assert refusal(wanted([replace(A, name=name), B]), seen([A, B], state=state)) == (
        f"tap1: no such device on this host, which interface {name} needs; "
        "create it first (QEMU would create one that is connected to nothing)"
    )


def test_a_dead_tap_can_be_taken_away_all_the_same() -> None:
    state = replace(machine([A], plugged={"tap1": plugged(A, alive=False)}), taps={})
    assert planned(wanted([]), seen([A], state=state)) == unplug("tap1")


def test_a_section_that_is_absent_is_left_alone() -> None:
    had = [nic("a", "10.0.0.2/24", device="tap1", up=False), B]
    assert plan(wanted(None), seen(had)).operations == ()


UNSEEN = machine([A, B], plugged={"tap1": plugged(A), "tap2": plugged(B, 1, in_guest=False)})


@pytest.mark.parametrize(
    "state",
    [
        DEAD,
        replace(DEAD, taps={}),
        machine([A], taps={"tap1": TAP._replace(mtu=1400, busy=True)}),
        pytest.param(machine([A], leftovers={"tap2": False})),
        pytest.param(UNSEEN),
    ],
    ids=["a dead TAP", "a dead TAP that is gone", "a TAP of a smaller MTU", "a leftover", "an unseen NIC"],
)
def test_a_section_that_is_absent_is_left_alone_whatever_became_of_its_nics(state: Machine) -> None:
    had = [A, B] if "tap2" in state.plugged and state is not UNSEEN else [A]
    assert plan(wanted(None), seen(had, state=state)).operations == ()


# What a saved state does not tell.
SAVED: dict[str, Any] = {"devices": None, "machine": None, "release": ""}


def test_a_saved_state_knows_neither_taps_nor_slots() -> None:
    had, wish = nic("a", device="tap1", number=1, queues=2), nic("a", device="nowhere", number=2, queues=4)
    observed = seen([had])
    observed = replace(observed, around=replace(observed.around, **SAVED))
    assert planned(wanted([wish]), observed) == [
        *unplug("tap1"),
        "netdev_add tap,id=reconciler-nowhere,ifname=nowhere,script=no,downscript=no,queues=4",
        (
            "device_add virtio-net-pci,id=reconciler-nowhere,netdev=reconciler-nowhere,mac=02:00:00:00:00:02,"
            "bus=BUS,addr=0,mq=on"
        ),
        "ip link set dev 02:00:00:00:00:02 name a",
        "ip link set dev a mtu 1500 up",
    ]


def test_a_saved_state_takes_a_vhost_user_nic_away_with_its_chardev() -> None:
    observed = seen([replace(A, vhost_user_socket=SOCKET)])
    observed = replace(observed, around=replace(observed.around, **SAVED))
    assert planned(wanted([]), observed) == [
        "device_del reconciler-tap1",
        "netdev_del reconciler-tap1; chardev-remove reconciler-tap1",
    ]


@dataclass
class Card:
    """A NIC as the guest has it: its MAC address for good, and of the moment."""

    permanent: str
    hw_addr: str
    mtu: int = 1500
    up: bool = False
    addresses: set[str] = field(default_factory=set)


@dataclass
class Qemu:
    """A QEMU with a guest, which is as strict as the real ones are: see what is asserted."""

    slots: set[Slot]
    netdevs: dict[str, int] = field(default_factory=dict)
    nics: dict[str, tuple[str, Slot, int]] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)

    def run(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._run(operation)

    def _run(self, operation: Operation) -> None:
        match operation:
            case AddNetdev(device=device, queues=queues):
                assert device not in self.netdevs
                self.netdevs[device] = queues
            case AddDevice(device=device, hw_addr=hw_addr, queues=queues):
                place = Slot(operation.bus, operation.addr)
                assert self.netdevs[device] == queues
                assert device not in self.nics
                assert place in self.slots - {taken for _, taken, _ in self.nics.values()}
                self.nics[device] = hw_addr, place, queues
                self.appear(hw_addr)
            case NameInterface(hw_addr=hw_addr, name=name):
                if hw_addr not in self._permanent():
                    # The guest finds it only now.
                    self.appear(hw_addr)
                self._rename(self._permanent()[hw_addr], name)
            case DeleteDevice(device=device):
                hw_addr, _, _ = self.nics.pop(device)
                self.cards.pop(self._permanent().get(hw_addr, ""), None)
            case DeleteNetdev(device=device):
                assert device not in self.nics
                del self.netdevs[device]
            case RenameInterface():
                self._rename(operation.name, operation.new_name)
            case SetLink():
                card = self.cards[operation.name]
                card.hw_addr, card.mtu = operation.hw_addr or card.hw_addr, operation.mtu or card.mtu
                card.up = card.up if operation.up is None else operation.up
            case AddAddress(device=name, address=address):
                assert address.key not in self.cards[name].addresses
                self.cards[name].addresses.add(address.key)
            case ReplaceAddress(device=name, address=address):
                self.cards[name].addresses.add(address.key)
            case DeleteAddress(device=name, address=address):
                self.cards[name].addresses.remove(address.key)
            case AddRoute() | ReplaceRoute() | DeleteRoute():
                assert operation.route.devices <= self.cards.keys()
            case _:
                pytest.fail(f"{operation} is no operation in a machine")

    def appear(self, hw_addr: str) -> None:
        name = next(name for number in range(99) if (name := f"eth{number}") not in self.cards)
        self.cards[name] = Card(hw_addr, hw_addr)

    def _permanent(self) -> dict[str, str]:
        """Give the name of the first NIC that came with an address."""
        return {card.permanent: name for name, card in reversed(self.cards.items())}

    def _rename(self, old: str, new: str) -> None:
        assert old == new or new not in self.cards
        self.cards = {new if name == old else name: card for name, card in self.cards.items()}


NAMES = st.sampled_from(("a", "b", "eth0", "eth1", "eth2"))
PREFIXES = st.lists(st.sampled_from(("10.0.0.2/24", "10.1.0.2/24", "10.2.0.2/24")), unique=True, max_size=2)


@st.composite
def rosters(draw: st.DrawFn) -> list[Interface]:
    """NICs with names, devices and MAC addresses of their own."""
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    devices = draw(st.permutations([f"tap{number}" for number in range(1, 6)]))
    return [
        # A device keeps its MAC address.
        nic(name, *draw(PREFIXES), device=device, number=int(device[-1]), queues=draw(st.sampled_from((0, 2, 3))))
        for name, device in zip(names, devices, strict=False)
    ]


@settings(deadline=None, max_examples=examples(400))
@given(rosters(), rosters(), st.data())
def test_any_plan_works_and_leads_to_what_is_wanted(
    had: list[Interface], wish: list[Interface], data: st.DataObject
) -> None:
    unseen = data.draw(st.sets(st.sampled_from([each.device for each in had]))) if had else set()
    dead = data.draw(st.sets(st.sampled_from([each.device for each in had]))) if had else set()
    leftovers = data.draw(st.sets(st.sampled_from([f"tap{n}" for n in range(1, 6)]))) - {each.device for each in had}
    spare = data.draw(st.integers(max(len(wish) - len(had), 0), 5))
    inside = [each for each in had if each.device not in unseen]
    queues = {each.device: each.queues for each in [*had, *wish]}
    state = Machine(
        plugged={
            each.device: plugged(each, number, in_guest=each.device not in unseen, alive=each.device not in dead)
            for number, each in enumerate(had)
        },
        leftovers=dict.fromkeys(leftovers, False),
        slots=slots(*range(len(had), len(had) + spare)),
        capacity=len(had) + spare,
        taps={device: TAP._replace(multi_queue=count > 1) for device, count in queues.items()},
        shared_memory=True,
    )
    qemu = Qemu(
        slots={*state.slots, *(each.slot for each in state.plugged.values())},
        netdevs={**{each.device: max(each.queues, 1) for each in had}, **dict.fromkeys(leftovers, 1)},
        nics={device: (each.hw_addr, each.slot, each.queues) for device, each in state.plugged.items()},
        cards={
            each.name: Card(each.hw_addr, each.hw_addr, up=True, addresses={a.key for a in each.addresses})
            for each in inside
        },
    )
    qemu.run(plan(wanted(wish), seen(inside, state=state)).operations)
    assert qemu.netdevs == {each.device: max(each.queues, 1) for each in wish}
    assert {device: (hw_addr, count) for device, (hw_addr, _, count) in qemu.nics.items()} == {
        each.device: (each.hw_addr, max(each.queues, 1)) for each in wish
    }
    assert qemu.cards == {
        each.name: Card(each.hw_addr, each.hw_addr, up=True, addresses={a.key for a in each.addresses}) for each in wish
    }


def test_a_mac_that_a_nic_which_stays_was_plugged_with_can_be_given_to_another() -> None:
    had, wish = replace(A, hw_addr=mac(9)), [replace(A, hw_addr=mac(9)), replace(B, hw_addr=mac(1))]
    state = machine([had], plugged={"tap1": plugged(A)})
    qemu = Qemu(
        slots=set(slots(0, 1, 2, 3)),
        netdevs={"tap1": 1},
        nics={"tap1": (mac(1), slot(0), 1)},
        cards={"a": Card(mac(1), mac(9), up=True)},
    )
    qemu.run(plan(wanted(wish), seen([had], state=state)).operations)
    assert {name: card.hw_addr for name, card in qemu.cards.items()} == {"a": mac(9), "b": mac(1)}


NETWORKD = Managers(told=("systemd-network",))


def telling(desired: Sandbox, observed: Observed) -> list[tuple[int, tuple[str, ...]]]:
    """Give where in a plan network managers are told, and of which addresses."""
    operations = plan(desired, observed).operations
    return [(at, each.hw_addrs) for at, each in enumerate(operations) if isinstance(each, SetUnmanaged)]


def test_network_managers_are_told_before_a_nic_is_plugged() -> None:
    desired = wanted([nic("eth0", device="tap0", number=0), nic("eth1", device="tap1", number=1)])
    assert telling(desired, seen(state=machine(managers=NETWORKD))) == [(0, (mac(0), mac(1)))]
    # There is none, or none that can be told.
    assert telling(desired, seen(state=machine())) == []
    assert telling(desired, seen(state=machine(managers=Managers(rivals=("connmand",))))) == []


@pytest.mark.parametrize(
    ("told", "expected"), [((0,), []), ((0, 5), []), ((), [(0, (mac(0),))]), ((5,), [(0, (mac(0),))])]
)
def test_what_they_were_told_is_kept_so(told: tuple[int, ...], expected: list[Any]) -> None:
    had = [nic("eth0", device="tap0", number=0)]
    managers = NETWORKD._replace(unmanaged=frozenset(map(mac, told)))
    assert telling(wanted(had), seen(had, state=machine(had, managers=managers))) == expected


def test_they_are_told_of_the_address_that_a_nic_was_plugged_with() -> None:
    had = [nic("eth0", device="tap0", number=0)]
    state = machine(had, managers=NETWORKD)
    state = replace(state, plugged={had[0].device: plugged(had[0], hw_addr=mac(7))})
    assert telling(wanted(had), seen(had, state=state)) == [(0, (mac(0), mac(7)))]


@pytest.mark.parametrize("driver", [DRIVER, LibvirtAddress(domain="box")])
def test_they_are_told_of_a_temporary_address(driver: DriverAddress) -> None:
    had = nic("eth0", device="tap0", number=9)
    desired = replace(wanted([had, nic("eth1", device="tap1", number=1)]), driver=driver)
    state = machine([had], managers=NETWORKD, plugged={"tap0": plugged(had, hw_addr=mac(1))})
    assert telling(desired, seen([had], state=state)) == [(0, (mac(0), mac(1), mac(9)))]


def test_the_last_nic_goes_before_its_managers_are_told() -> None:
    had = [nic("eth0", device="tap0", number=0)]
    managers = NETWORKD._replace(unmanaged=frozenset([mac(0)]))
    operations = plan(wanted([]), seen(had, state=machine(had, managers=managers))).operations
    assert operations[-1] == SetUnmanaged(hw_addrs=(), managers=NETWORKD.told)
    assert telling(wanted([]), seen(state=machine(managers=NETWORKD))) == []
    # Without a section, what is there is left alone.
    assert telling(wanted(), seen(had, state=machine(had, managers=NETWORKD))) == []

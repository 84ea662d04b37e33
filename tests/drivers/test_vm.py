"""How what QEMU says and what the guest's kernel says come together, and how a NIC that was plugged gets its name."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.drivers.inside import Inside
from reconciler.drivers.vm import driver as vm
from reconciler.drivers.vm import execute as vm_execute
from reconciler.drivers.vm.monitor import QemuPlugboard
from reconciler.drivers.vm.nics import find
from reconciler.errors import ChannelError
from reconciler.guest.client import AgentClient
from reconciler.guest.qmp import QmpError
from reconciler.model.machine import Machine, Plugged, Slot, Tap
from reconciler.netlink.budget import Budget
from reconciler.netlink.interface import Link
from reconciler.operations import Operation
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.machine import AddDevice, AddNetdev, DeleteDevice, DeleteNetdev, NameInterface
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.segment import Network, Table
from reconciler.values import dataclass, field
from tests.drivers.fake import Scripted
from tests.segments import segments

MACS = [f"02:00:00:00:00:0{number}" for number in range(10)]
PLUGGED = Plugged(hw_addr=MACS[1], queues=1, socket=None, slot=Slot("port0", "0"))
TAP = Tap(is_tap=True, multi_queue=False, mtu=1500, up=True, busy=True)


def link(index: int, name: str, hw_addr: str, permanent: str = "", kind: str = "") -> Link:
    return Link(index, name, hw_addr, 1500, up=True, carrier=True, alias="", kind=kind, queues=1, permanent=permanent)


def name_of(links: list[Link], hw_addr: str) -> str | None:
    found = find(links, hw_addr)
    return found.name if found else None


def test_a_nic_is_found_by_the_address_that_it_came_with() -> None:
    links = [link(1, "lo", "00:00:00:00:00:00"), link(2, "a", MACS[2], MACS[1]), link(3, "b", MACS[1], MACS[2])]
    assert [name_of(links, each) for each in MACS[1:4]] == ["a", "b", None]


def test_a_nic_without_a_permanent_address_is_found_by_the_one_it_has() -> None:
    assert name_of([link(2, "a", MACS[1])], MACS[1]) == "a"


@pytest.mark.parametrize("kind", ["bond", "bridge", "vlan", "macvlan", "dummy", "veth"])
def test_a_link_above_a_nic_is_not_taken_for_it(kind: str) -> None:
    above = link(2, "above", MACS[1], kind=kind)
    assert name_of([above, link(3, "a", MACS[1], MACS[1])], MACS[1]) == "a"
    assert name_of([above], MACS[1]) is None


@pytest.mark.parametrize(
    ("tap", "socket", "alive"),
    [
        (TAP, None, True),
        (TAP._replace(busy=False), None, False),
        # Without being up it has no carrier in any case.
        (TAP._replace(busy=False, up=False), None, True),
        (None, None, False),
        (None, "/run/x", True),
        (TAP._replace(busy=False), "/run/x", True),
    ],
)
def test_a_tap_without_a_carrier_is_dead_if_it_is_up(tap: Tap | None, socket: str | None, alive: bool) -> None:
    state = Machine(plugged={"x0": PLUGGED._replace(socket=socket)}, taps={"x0": tap} if tap else {})
    for seen in ({}, {"x0": link(2, "a", MACS[1])}):
        found = vm._with_guest(state, seen).plugged["x0"]
        assert (found.alive, found.in_guest) == (alive, bool(seen))


@pytest.mark.parametrize(
    ("plugged", "wished", "said"), [(1, 0, 0), (1, 1, 1), (1, 2, 1), (2, 0, 2), (2, 1, 2), (2, 2, 2), (3, 2, 3)]
)
def test_one_queue_is_said_in_the_way_of_who_asks(plugged: int, wished: int, said: int) -> None:
    assert vm._queues(plugged, wished) == said


@dataclass
class Guest:
    """The guest's side: gives each look at its links the next list, and keeps what is executed."""

    looks: list[list[Link] | Exception]
    executed: list[Operation] = field(default_factory=list)

    @property
    def engine(self) -> Any:
        return SimpleNamespace(links=self._links)

    def _links(self) -> list[Link]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return look

    def execute(self, segment: Network | Table) -> Iterable[list[Outcome]]:
        self.executed += segment.operations
        yield [Outcome(operation, Status.DONE) for operation in segment.operations]


def run(guest: Guest, monitor: Scripted, *operations: Operation) -> list[Outcome]:
    inside: Inside = guest  # type: ignore[assignment]
    client: AgentClient = guest  # type: ignore[assignment]
    batches = vm_execute.execute(inside, client, QemuPlugboard(monitor), Budget(), segments(operations))
    return [outcome for batch in batches for outcome in batch]


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Operation, dict[str, int]]]:
    """Keep what is asked of the guest's kernel, which does it."""
    asked: list[tuple[Operation, dict[str, int]]] = []

    def execute(_: Any, operations: list[Operation], indexes: dict[str, int]) -> list[list[Outcome]]:
        asked.extend((operation, indexes) for operation in operations)
        return [[Outcome(operation, Status.DONE) for operation in operations]]

    monkeypatch.setattr("reconciler.drivers.vm.execute.netlink.execute", execute)
    return asked


LO = link(1, "lo", "00:00:00:00:00:00")
NAMING = NameInterface(device="x0", hw_addr=MACS[1], name="web0")
PLUGS = (
    AddNetdev(device="x0", queues=1),
    AddDevice(device="x0", hw_addr=MACS[1], queues=1, bus="port0", addr="0"),
    NAMING,
)


def test_a_nic_is_named_once_the_guest_has_found_it(renamed: list[tuple[Operation, dict[str, int]]]) -> None:
    guest = Guest([[LO], [LO], [LO, link(2, "eth0", MACS[1], MACS[1])]])
    raising = SetLink(name="web0", up=True)
    outcomes = run(guest, Scripted(), *PLUGS, raising)
    assert outcomes == [Outcome(operation, Status.DONE) for operation in (*PLUGS, raising)]
    assert renamed == [(RenameInterface(name="eth0", new_name="web0"), {"eth0": 2})]
    assert guest.executed == [raising]


def test_a_nic_that_has_its_name_is_not_renamed(renamed: list[tuple[Operation, dict[str, int]]]) -> None:
    assert run(Guest([[link(2, "web0", MACS[1])]]), Scripted(), NAMING) == [Outcome(NAMING, Status.DONE)]
    assert renamed == []


def test_a_nic_that_the_guest_does_not_find_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_execute, "PLUG_TIMEOUT", 0.2)
    assert run(Guest([[LO]]), Scripted(), NAMING, SetLink(name="web0", up=True)) == [
        Outcome(
            NAMING,
            Status.FAILED,
            "QEMU has plugged x0, but the guest did not detect it within 0 s; "
            "its kernel needs PCI hot-plug and virtio_net",
        )
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [(QmpError("device_add", "GenericError", "no"), Status.FAILED), (ChannelError("late"), Status.UNKNOWN)],
)
def test_it_stops_at_what_fails_and_says_whether_that_is_known(error: Exception, status: Status) -> None:
    guest, monitor = Guest([[LO]]), Scripted({"device_add": [error]})
    outcomes = run(guest, monitor, *PLUGS, SetLink(name="web0", up=True))
    assert outcomes == [Outcome(PLUGS[0], Status.DONE), Outcome(PLUGS[1], status, str(error))]
    assert [command for command, _ in monitor.asked] == ["netdev_add", "device_add"]
    assert guest.executed == []


def test_a_guest_that_does_not_answer_leaves_it_unknown() -> None:
    outcomes = run(Guest([ChannelError("late")]), Scripted(), NAMING)
    assert outcomes == [Outcome(NAMING, Status.UNKNOWN, "late")]


def test_operations_keep_their_order_across_qemu_and_guest() -> None:
    guest, monitor = Guest([[link(2, "web0", MACS[1])]]), Scripted({"device_del": [QmpError("", "DeviceNotFound", "")]})
    plan: list[Operation] = [DeleteDevice(device="x9"), DeleteNetdev(device="x9"), SetLink(name="a", up=True), *PLUGS]
    plan += [SetLink(name="b", up=True), DeleteNetdev(device="x8")]
    assert [outcome.operation for outcome in run(guest, monitor, *plan)] == plan
    assert [(command, arguments["id"]) for command, arguments in monitor.asked] == [
        ("device_del", "reconciler-x9"),
        ("netdev_del", "reconciler-x9"),
        ("netdev_add", "reconciler-x0"),
        ("device_add", "reconciler-x0"),
        ("netdev_del", "reconciler-x8"),
    ]

"""What QEMU is asked and told, over a monitor that answers from a script, and what a real one says of its slots."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers.vm import monitor as machine
from reconciler.errors import BusyError, ChannelError, HostError, SandboxGoneError
from reconciler.guest.qmp import QmpError
from reconciler.model.interface import Interface
from reconciler.model.machine import Plugged, Slot, Tap
from reconciler.operations.machine import AddDevice, AddNetdev, DeleteDevice, DeleteNetdev
from tests.conftest import Kernel, ip
from tests.drivers.fake import Fake, Scripted, bridge, pci, qemu

MAC = "02:00:00:00:00:01"
LEGACY = [pci(0), pci(1), pci(1, function=1), pci(1, function=3)]
Q35 = [pci(0), pci(1, "serial"), pci(31), pci(31, function=2), pci(31, function=3)]
PORTS = {"port0": "pcie-root-port", "port1": "pcie-root-port", "port2": "pcie-root-port", "serial": "virtio-serial-pci"}


def nic(device: str, path: str | None = None) -> Interface:
    return Interface(name="eth0", device=device, hw_addr=MAC, mtu=1500, vhost_user_socket=path)


def slots(bus: str, *numbers: int) -> tuple[Slot, ...]:
    return tuple(Slot(bus, f"{number:#x}") for number in numbers)


def test_root_ports_hold_one_each() -> None:
    fake = Fake(
        pci=[
            *Q35,
            bridge(16, "port0", pci(0, "reconciler-x0")),
            bridge(16, "port1", function=1),
            bridge(16, "port2", pci(0, "reconciler-x2"), function=2),
        ],
        peripherals=PORTS,
        nics={"reconciler-x0": MAC, "reconciler-x2": "02:00:00:00:00:0A"},
    )
    found = machine.observe(fake, [])
    assert (found.slots, found.capacity) == ((Slot("port1", "0"),), 3)
    assert found.plugged == {
        "x0": Plugged(hw_addr=MAC, queues=1, socket=None, slot=Slot("port0", "0x0"), pci_addr="10.0/00"),
        "x2": Plugged(
            hw_addr="02:00:00:00:00:0a", queues=1, socket=None, slot=Slot("port2", "0x0"), pci_addr="10.2/00"
        ),
    }


@pytest.mark.parametrize("kind", ["pcie-pci-bridge", "pci-bridge"])
def test_a_bridge_holds_thirty_one_as_its_first_slot_is_its_own(kind: str) -> None:
    taken = [pci(1, "reconciler-x0"), pci(5, "others")]
    fake = Fake(pci=[*Q35, bridge(2, "bridge0", *taken)], peripherals={"bridge0": kind}, nics={"reconciler-x0": MAC})
    found = machine.observe(fake, [])
    assert found.capacity == 31
    assert found.slots == slots("bridge0", 2, 3, 4, *range(6, 32))
    assert (found.plugged["x0"].slot, found.plugged["x0"].pci_addr) == (Slot("bridge0", "0x1"), "02.0/01")


def test_on_i440fx_the_root_bus_itself_takes_nics() -> None:
    devices = [*LEGACY, pci(2, "serial"), pci(4, "reconciler-x0"), bridge(3, "bridge0", pci(1, "reconciler-x1"))]
    fake = Fake(
        pci=devices,
        peripherals={"serial": "virtio-serial-pci", "bridge0": "pci-bridge"},
        nics={"reconciler-x0": MAC, "reconciler-x1": MAC},
        machine="pc-i440fx-7.2-machine",
    )
    found = machine.observe(fake, [])
    assert found.capacity == 62
    assert found.slots == slots("pci.0", *range(5, 32)) + slots("bridge0", *range(2, 32))
    assert found.plugged["x0"].slot == Slot("pci.0", "0x4")
    assert found.plugged["x1"].slot == Slot("bridge0", "0x1")


def test_a_q35_without_ports_and_bridges_takes_none() -> None:
    found = machine.observe(Fake(pci=Q35, peripherals={"serial": "virtio-serial-pci"}), [])
    assert (found.slots, found.capacity) == ((), 0)


def test_a_bridge_without_an_id_cannot_be_named() -> None:
    found = machine.observe(Fake(pci=[*Q35, bridge(2, "")]), [])
    assert (found.slots, found.capacity) == ((), 0)


NETWORK = """\
reconciler-x0: index=0,type=nic,model=virtio-net-pci,macaddr=02:00:00:00:00:01
 \\ reconciler-x0: index=0,type=tap,ifname=x0,script=no,downscript=no
reconciler-x1: index=0,type=nic,model=virtio-net-pci,macaddr=02:00:00:00:00:03
 \\ reconciler-x1: index=0,type=tap,ifname=x1,script=no,downscript=no
reconciler-x1: index=1,type=nic,
 \\ reconciler-x1: index=1,type=tap,ifname=x1,script=no,downscript=no
reconciler-x1: index=2,type=nic,
 \\ reconciler-x1: index=2,type=tap,ifname=x1,script=no,downscript=no
net0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56
 \\ reconciler: index=0,type=user,net=10.0.2.0,restrict=off
"""


def test_queues_are_counted() -> None:
    fake = Fake(network=NETWORK, nics={"reconciler-x0": MAC, "reconciler-x1": MAC, "net0": MAC})
    found = machine.observe(fake, [])
    assert {device: each.queues for device, each in found.plugged.items()} == {"x0": 1, "x1": 3}
    assert found.leftovers == {}


def test_nics_of_others_are_not_ours() -> None:
    fake = Fake(nics={"net0": MAC, "xreconciler-x0": MAC}, peripherals={"reconciler-x1": "e1000"})
    assert machine.observe(fake, []).plugged == {}


def test_what_stands_without_a_nic_is_left_over() -> None:
    network = """\
reconciler-x0: index=0,type=tap,ifname=x0,script=no,downscript=no
reconciler-x1: index=0,type=vhost-user,vhost-user0 to reconciler-x1
reconciler-x1: index=1,type=vhost-user,vhost-user1 to reconciler-x1
others: index=0,type=tap,ifname=x9,script=no,downscript=no
"""
    chardevs = {"reconciler-x1": ("/run/x1", True), "reconciler-x2": ("/run/x2", False), "console": ("/run/c", True)}
    found = machine.observe(Fake(network=network, chardevs=chardevs), [])
    assert found.plugged == {}
    assert found.leftovers == {"x0": False, "x1": True, "x2": True}


@pytest.mark.parametrize("connected", [True, False])
def test_the_socket_of_a_nic_is_told_whether_its_backend_is_there_or_not(connected: bool) -> None:
    network = """\
reconciler-x1: index=0,type=nic,model=virtio-net-pci,macaddr=02:00:00:00:00:01
 \\ reconciler-x1: index=0,type=vhost-user,vhost-user0 to reconciler-x1
reconciler-x1: index=1,type=nic,
 \\ reconciler-x1: index=1,type=vhost-user,vhost-user1 to reconciler-x1
"""
    chardevs = {"reconciler-x1": ("/run/x1.sock", connected), "compat_monitor0": ("/run/qmp.sock", True)}
    found = machine.observe(Fake(network=network, chardevs=chardevs, nics={"reconciler-x1": MAC}), [])
    assert (found.plugged["x1"].queues, found.plugged["x1"].socket) == (2, "/run/x1.sock")
    assert found.leftovers == {}


@pytest.mark.parametrize(
    ("memory", "shared"), [([], False), ([True], True), ([False], False), ([True, True], True), ([True, False], False)]
)
@pytest.mark.parametrize("kvm", [True, False])
def test_memory_is_shared_only_if_all_of_it_is(memory: list[bool], shared: bool, kvm: bool) -> None:
    found = machine.observe(Fake(memory=memory, kvm=kvm), [])
    assert (found.shared_memory, found.kvm) == (shared, kvm)


def test_a_nic_that_goes_while_it_is_looked_at_is_no_error() -> None:
    class Going(Fake):
        def execute(self, command: str, **arguments: Any) -> Any:
            if command == "qom-get":
                # The guest lets it go, and QEMU forgets it.
                self.nics.clear()
                self.network = "reconciler-x0: index=0,type=tap\n"
            return super().execute(command, **arguments)

    network = "reconciler-x0: index=0,type=nic,macaddr=x\n \\ reconciler-x0: index=0,type=tap\n"
    found = machine.observe(Going(nics={"reconciler-x0": MAC}, network=network), [])
    assert (found.plugged, found.leftovers) == ({}, {"x0": False})


def test_a_nic_that_goes_after_it_was_looked_at_is_looked_at_again() -> None:
    class Going(Fake):
        def execute(self, command: str, **arguments: Any) -> Any:
            if command == "query-memdev":
                self.nics.pop("reconciler-x0", None)
            return super().execute(command, **arguments)

    found = machine.observe(Going(nics={"reconciler-x0": MAC, "reconciler-x1": MAC}), [])
    assert set(found.plugged) == {"x1"}


def test_nics_that_come_and_go_without_end_are_busy() -> None:
    class Restless(Fake):
        def execute(self, command: str, **arguments: Any) -> Any:
            if command == "qom-list":
                self.nics = {f"reconciler-x{len(self.asked)}": MAC}
            return super().execute(command, **arguments)

    with pytest.raises(BusyError, match="NICs appear and vanish"):
        machine.observe(Restless(), [])


def test_taps_of_the_host_are_looked_at(kernel: Kernel) -> None:
    one, several, (veth, _) = kernel.tap(), kernel.tap("multi_queue"), kernel.veth()
    ip("link", "set", "dev", one, "mtu", "9000", "up")
    ip("tuntap", "add", "dev", f"{kernel.prefix}u", "mode", "tun")
    kernel.adopt(f"{kernel.prefix}u")
    wishes = [nic(device) for device in (one, several, veth, f"{kernel.prefix}u", "nowhere")]
    found = machine.observe(Fake(), [*wishes, nic("vhost", "/run/x")]).taps
    idle = Tap(is_tap=True, multi_queue=False, mtu=1500, up=False, busy=False)
    assert found == {
        one: idle._replace(mtu=9000, up=True),
        several: idle._replace(multi_queue=True),
        veth: idle._replace(is_tap=False),
        f"{kernel.prefix}u": idle._replace(is_tap=False),
    }


def test_a_tap_that_qemu_holds_is_busy(kernel: Kernel, tmp_path: Path) -> None:
    device = kernel.tap()
    ip("link", "set", "dev", device, "up")
    with qemu(tmp_path) as monitor:
        assert not machine.observe(monitor, [nic(device)]).taps[device].busy
        machine.execute(monitor, AddNetdev(device=device, queues=1))
        found = machine.observe(monitor, [nic(device)])
        assert found.taps[device].busy
        assert found.leftovers == {device: False}
        machine.execute(monitor, DeleteNetdev(device=device))
        assert machine.observe(monitor, []).leftovers == {}


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "vhost.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(0.5)
        yield path, server


def test_sockets_that_are_to_come_are_probed(listener: tuple[str, socket.socket], tmp_path: Path) -> None:
    path, server = listener
    missing, file = str(tmp_path / "missing"), tmp_path / "file"
    file.write_text("")
    found = machine.observe(Fake(), [nic("x0", path), nic("x1", missing), nic("x2", str(file)), nic("x3")])
    assert found.sockets == {path: "", missing: "No such file or directory", str(file): "Connection refused"}
    with server.accept()[0] as client:
        assert client.recv(1) == b""


def test_a_backend_that_is_connected_is_not_probed_and_one_that_is_not_is(listener: tuple[str, socket.socket]) -> None:
    path, server = listener
    fake = Fake(chardevs={"reconciler-x0": (path, True)}, nics={"reconciler-x0": MAC})
    assert machine.observe(fake, [nic("x0", path)]).sockets == {}
    with pytest.raises(TimeoutError):
        server.accept()
    server.close()
    fake.chardevs["reconciler-x0"] = path, False
    assert machine.observe(fake, [nic("x0", path)]).sockets == {path: "Connection refused"}


def test_a_backlog_that_is_full_does_not_hold_it_up(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        started = time.monotonic()
        assert machine.observe(Fake(), [nic("x0", path)]).sockets[path]
        assert time.monotonic() - started < 60


TOPOLOGIES: dict[str, tuple[list[str], int, int, Slot]] = {
    "q35": (["-machine", "q35", "-device", "pcie-root-port,id=p,chassis=1,addr=10.0"], 1, 1, Slot("p", "0")),
    "q35 with a bridge": (["-machine", "q35", "-device", "pcie-pci-bridge,id=b"], 31, 31, Slot("b", "0x1")),
    # The host bridge and the PIIX3 have slots 0 and 1.
    "i440fx": (["-machine", "pc"], 31, 30, Slot("pci.0", "0x2")),
    "i440fx with a bridge": (
        ["-machine", "pc", "-device", "pci-bridge,id=b,chassis_nr=1"],
        62,
        60,
        Slot("pci.0", "0x3"),
    ),
}


@pytest.mark.parametrize(("words", "capacity", "free", "first"), TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_a_real_one_takes_a_nic_in_the_first_slot_and_says_where_it_is(
    kernel: Kernel, tmp_path: Path, words: list[str], capacity: int, free: int, first: Slot
) -> None:
    device = kernel.tap("multi_queue")
    with qemu(tmp_path, *words) as monitor:
        before = machine.observe(monitor, [])
        assert (before.capacity, len(before.slots), before.slots[0]) == (capacity, free, first)
        machine.execute(monitor, AddNetdev(device=device, queues=3))
        machine.execute(
            monitor, AddDevice(device=device, hw_addr=MAC, queues=3, bus=first.bus, addr=first.addr, host_mtu=1400)
        )
        after = machine.observe(monitor, [])
        assert (after.capacity, after.slots) == (capacity, before.slots[1:])
        found = after.plugged[device]
        assert (found.hw_addr, found.queues, found.socket) == (MAC, 3, None)
        assert (found.slot.bus, int(found.slot.addr, 16)) == (first.bus, int(first.addr, 16))
        # The same slot is not to be had a second time, and says so.
        machine.execute(monitor, DeleteNetdev(device="nothing", vhost_user=True))
        with pytest.raises(QmpError, match=r"slot|not available|in use"):
            monitor.execute("device_add", driver="virtio-net-pci", id="x", bus=first.bus, addr=first.addr)


PLUG = "reconciler-x0"


def told(*operations: AddNetdev | AddDevice | DeleteNetdev) -> list[tuple[str, dict[str, Any]]]:
    monitor = Scripted()
    for operation in operations:
        machine.execute(monitor, operation)
    return monitor.asked


@pytest.mark.parametrize(("queues", "said"), [(1, {}), (2, {"queues": 2}), (256, {"queues": 256})])
def test_a_tap_is_given_to_qemu_without_its_scripts(queues: int, said: dict[str, int]) -> None:
    tap = {"type": "tap", "id": PLUG, "ifname": "x0", "script": "no", "downscript": "no"}
    assert told(AddNetdev(device="x0", queues=queues)) == [("netdev_add", tap | said)]


@pytest.mark.parametrize(("queues", "said"), [(1, {}), (2, {"queues": 2})])
def test_a_vhost_user_socket_is_given_to_qemu_so_that_it_reconnects(queues: int, said: dict[str, int]) -> None:
    address = {"type": "unix", "data": {"path": "/run/x0.sock"}}
    backend = {"type": "socket", "data": {"addr": address, "server": False, "reconnect": 1}}
    assert told(AddNetdev(device="x0", queues=queues, vhost_user_socket="/run/x0.sock")) == [
        ("chardev-add", {"id": PLUG, "backend": backend}),
        ("netdev_add", {"type": "vhost-user", "id": PLUG, "chardev": PLUG} | said),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, {}),
        ({"queues": 2}, {"mq": True}),
        ({"host_mtu": 1400}, {"host_mtu": 1400}),
        ({"vectors": 0}, {"vectors": 0}),
        (
            {"queues": 4, "host_mtu": 9000, "vectors": 10},
            {"mq": True, "host_mtu": 9000, "vectors": 10},
        ),
    ],
)
def test_a_nic_is_plugged_into_its_slot(fields: dict[str, int], said: dict[str, Any]) -> None:
    operation = AddDevice(device="x0", hw_addr=MAC, bus="port3", addr="0", **({"queues": 1} | fields))
    device = {"driver": "virtio-net-pci", "id": PLUG, "netdev": PLUG, "mac": MAC, "bus": "port3", "addr": "0"}
    assert told(operation) == [("device_add", device | said)]


def test_what_was_given_is_taken_back() -> None:
    assert told(DeleteNetdev(device="x0")) == [("netdev_del", {"id": PLUG})]
    assert told(DeleteNetdev(device="x0", vhost_user=True)) == [
        ("netdev_del", {"id": PLUG}),
        ("chardev-remove", {"id": PLUG}),
    ]


def not_found(command: str) -> QmpError:
    return QmpError(command, "DeviceNotFound", f"Device '{PLUG}' not found")


def test_what_is_not_there_any_more_is_taken_back_already() -> None:
    gone = QmpError("chardev-remove", "GenericError", f"Chardev '{PLUG}' not found")
    monitor = Scripted({"netdev_del": [not_found("netdev_del")], "chardev-remove": [gone]})
    machine.execute(monitor, DeleteNetdev(device="x0", vhost_user=True))
    assert [command for command, _ in monitor.asked] == ["netdev_del", "chardev-remove"]


BUSY = QmpError("chardev-remove", "GenericError", f"Chardev '{PLUG}' is busy")
IN_USE = QmpError("netdev_del", "GenericError", f"Device '{PLUG}' is not a netdev")


def test_what_qemu_refuses_is_raised_as_it_says_it() -> None:
    refusals: list[tuple[Any, str, QmpError]] = [
        (DeleteNetdev(device="x0", vhost_user=True), "chardev-remove", BUSY),
        (DeleteNetdev(device="x0"), "netdev_del", IN_USE),
        (AddNetdev(device="x0", queues=1), "netdev_add", QmpError("netdev_add", "GenericError", "Duplicate ID")),
        (
            DeleteDevice(device="x0"),
            "device_del",
            QmpError("device_del", "GenericError", "Bus 'b' does not support it"),
        ),
    ]
    for operation, command, error in refusals:
        with pytest.raises(QmpError) as caught:
            machine.execute(Scripted({command: [error]}), operation)
        assert caught.value is error


def test_a_netdev_that_is_refused_leaves_its_chardev_to_who_looks_next() -> None:
    monitor = Scripted({"netdev_add": [QmpError("netdev_add", "GenericError", "more queues than supported: 1")]})
    with pytest.raises(QmpError, match="more queues than supported: 1"):
        machine.execute(monitor, AddNetdev(device="x0", queues=2, vhost_user_socket="/run/x0.sock"))
    assert [command for command, _ in monitor.asked] == ["chardev-add", "netdev_add"]


UNPLUG = DeleteDevice(device="x0")
PENDING = "Device reconciler-x0 is already in the process of unplug"
DELETED = ("DEVICE_DELETED", {"device": PLUG, "path": f"/machine/peripheral/{PLUG}"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "UNPLUG_TIMEOUT", 0.5)
    monkeypatch.setattr(machine, "_ASK_AGAIN", 0.1)


def test_a_nic_is_gone_once_its_own_event_has_come() -> None:
    others = [
        ("DEVICE_DELETED", {"path": f"/machine/peripheral/{PLUG}/virtio-backend"}),
        ("DEVICE_DELETED", {"device": "reconciler-x1", "path": "/machine/peripheral/reconciler-x1"}),
        ("NIC_RX_FILTER_CHANGED", {"name": PLUG}),
    ]
    monitor = Scripted(events=[*others, DELETED])
    machine.execute(monitor, UNPLUG)
    assert monitor.asked == [("device_del", {"id": PLUG})]


def test_a_nic_that_is_not_there_is_gone() -> None:
    monitor = Scripted({"device_del": [not_found("device_del")]})
    machine.execute(monitor, UNPLUG)
    assert (len(monitor.asked), monitor.waited) == (1, [])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("meanwhile", [{}, QmpError("device_del", "GenericError", PENDING)], ids=["nothing", "pending"])
def test_an_event_that_was_missed_is_made_up_for_by_asking_again(meanwhile: object) -> None:
    monitor = Scripted({"device_del": [{}, meanwhile, not_found("device_del")]})
    machine.execute(monitor, UNPLUG)
    assert monitor.asked == [("device_del", {"id": PLUG})] * 3
    assert monitor.waited == [0.1] * 2


@pytest.mark.usefixtures("impatient")
def test_one_that_is_being_unplugged_already_is_waited_for() -> None:
    monitor = Scripted({"device_del": [QmpError("device_del", "GenericError", PENDING)]}, events=[DELETED])
    machine.execute(monitor, UNPLUG)
    assert len(monitor.asked) == 1


@pytest.mark.usefixtures("impatient")
def test_a_guest_that_is_busy_is_asked_again() -> None:
    busy = "Hot-unplug failed: guest is busy (power indicator blinking)"
    monitor = Scripted({"device_del": [QmpError("device_del", "GenericError", busy), not_found("device_del")]})
    machine.execute(monitor, UNPLUG)
    assert len(monitor.asked) == 2


@pytest.mark.usefixtures("impatient")
def test_a_guest_that_does_not_let_go_is_an_error_within_the_bound() -> None:
    monitor = Scripted({"device_del": [{}, *[QmpError("device_del", "GenericError", PENDING)] * 99]})
    started = time.monotonic()
    with pytest.raises(HostError) as caught:
        machine.execute(monitor, UNPLUG)
    assert 0.5 <= time.monotonic() - started < 60
    assert not isinstance(caught.value, QmpError)
    assert str(caught.value) == (
        "the guest did not release reconciler-x0 within 0 s; its kernel needs PCI hot-plug (ACPI or PCIe)"
    )
    assert len(monitor.asked) <= 6


UNSUPPORTED = [
    "Hot-unplug failed: unsupported by the port device 'port0'",
    "Bus 'pcie.0' does not support hotplugging",
    "device_del not allowed while migrating",
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("device", ["x0", "unplugged0"])
@pytest.mark.parametrize("words", UNSUPPORTED)
def test_a_nic_that_can_never_be_unplugged_is_refused_at_once(words: str, device: str) -> None:
    # QEMU names the device in some of its refusals.
    error = QmpError("device_del", "GenericError", f"{words} (reconciler-{device})")
    monitor = Scripted({"device_del": [error] * 99})
    with pytest.raises(QmpError) as caught:
        machine.execute(monitor, DeleteDevice(device=device))
    assert caught.value is error


@pytest.mark.parametrize("error", [ChannelError("QEMU did not answer in time"), SandboxGoneError("QEMU is gone")])
@pytest.mark.parametrize("operation", [UNPLUG, DeleteNetdev(device="x0"), AddNetdev(device="x0", queues=1)])
def test_an_answer_that_does_not_come_is_not_taken_for_one(operation: Any, error: Exception) -> None:
    answers: dict[str, list[object]] = {command: [error] for command in ("device_del", "netdev_del", "netdev_add")}
    with pytest.raises(type(error)):
        machine.execute(Scripted(answers), operation)

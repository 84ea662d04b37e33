"""Read what is plugged into a machine, plug and unplug, over QEMU's monitor."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, assert_never

from reconciler.drivers.vm.outside import OtherNic, open_macvtap, probe, taps
from reconciler.errors import BusyError, HostError
from reconciler.guest.answer import Answer
from reconciler.guest.qmp import Monitor, QmpError
from reconciler.model.interface import Interface, given
from reconciler.model.machine import Machine, Other, Plugged, Slot
from reconciler.operations.domain import AdoptNics, AttachNic, DetachNic
from reconciler.operations.machine import (
    AddDevice,
    AddNetdev,
    AdoptDevices,
    DeleteDevice,
    DeleteNetdev,
    MonitorOperation,
    PlugOperation,
    adopted_nic,
    adoption_mark,
    is_id,
    plug_id,
    plugged_device,
)
from reconciler.values import NamedTuple

# Seconds for a guest to release a NIC. It takes 0.2 to 0.6, with native PCIe hot-plug 6.5 (the attention button).
UNPLUG_TIMEOUT = 20.0
_ASK_AGAIN = 2.0
# QEMU's errors for a NIC that is already being unplugged.
_PENDING = re.compile("already in the process of unplug|guest is busy")
# Events after which another agent may be in the guest, or none.
_RESTARTS = {"RESET", "VSERPORT_CHANGE"}
# Attempts to read what is plugged without a change meanwhile.
_LOOKS = 10
_PERIPHERALS, _CHARDEVS = "/machine/peripheral", "/chardevs"
# On bridges with their own slots, the bridge itself has slot 0.
_BRIDGE_SLOTS = range(1, 32)
_MOST_BUS, _MOST_SLOT, _MOST_FUNCTION, _MOST_MTU = 255, 31, 7, 65535
# `info network`: a netdev is listed below its NIC, or alone if it has none.
_NETDEV = re.compile(r"^( \\ )?(\S+): index=(\d+),type=([a-z-]+)", re.MULTILINE)
# A TAP that QEMU opened by its name.
_TAP = re.compile(r"^(?: \\ )?(\S+): index=\d+,type=tap,ifname=([^,\s]+)", re.MULTILINE)
_NONE: Mapping[str, Other] = MappingProxyType({})


class _GoneError(Exception):
    """An object vanished while it was read: the guest released a NIC that a killed run had unplugged."""


def observe(monitor: Monitor, wishes: Iterable[Interface], taken: Mapping[str, Other] = _NONE) -> Machine:
    """Read what is plugged, and the devices of the wishes. QEMU does not know whether the guest has detected a NIC.

    `taken`: the NICs of other programs that count as ours beside those that are marked, by the host's device.
    """
    wishes = list(wishes)
    for _ in range(_LOOKS):
        nics = _nics(monitor)
        with suppress(_GoneError):
            state = _look(monitor, nics, wishes, taken)
            if _nics(monitor) == nics:
                return state
    raise BusyError("NICs appear and vanish while QEMU lists them; try again")


def _look(monitor: Monitor, nics: list[str], wishes: list[Interface], taken: Mapping[str, Other]) -> Machine:
    queues, alone = _netdevs(monitor)
    labels = [each["label"].text() for each in _ask(monitor, "query-chardev")]
    marked = dict(filter(None, map(adopted_nic, labels))) | dict(taken)
    adopted = {device: each for device, each in marked.items() if _has(monitor, nics, each)}
    chardevs = {label: _chardev(monitor, label) for label in labels if plugged_device(label) is not None}
    slots, capacity, places = _slots(monitor)
    own = {device: Other(plug, plug) for plug in nics if (device := plugged_device(plug)) is not None}
    plugged = {
        device: Plugged(
            hw_addr=_property(monitor, f"{_PERIPHERALS}/{each.nic}", "mac").mac(),
            queues=queues.get(each.netdev, 1),
            socket=chardevs[each.nic].path if each.nic in chardevs else None,
            slot=places.get(each.nic, (Slot("", ""), ""))[0],
            pci_addr=places.get(each.nic, (Slot("", ""), ""))[1],
            host_mtu=_property(monitor, f"{_PERIPHERALS}/{each.nic}", "host_mtu").number(_MOST_MTU),
            other=None if device in own else each,
        )
        for device, each in (adopted | own).items()
    }
    left = {*alone, *(plug for plug in chardevs if plug not in nics)}
    # A connected backend is not probed: the probe would be a second client.
    connected = {each.path for each in chardevs.values() if each.connected}
    shared = [each["share"].flag() for each in _ask(monitor, "query-memdev")]
    return Machine(
        plugged=plugged,
        leftovers={device: plug in chardevs for plug in left if (device := plugged_device(plug)) is not None},
        # A netdev that has another NIC by now is not ours to delete.
        orphans={
            device: each if each.netdev in alone else each._replace(netdev="")
            for device, each in marked.items()
            if device not in adopted
        },
        slots=tuple(slots),
        capacity=capacity,
        taps=taps({*plugged, *(wish.device for wish in given(wishes) if wish.vhost_user_socket is None)}),
        sockets={path: probe(path) for wish in wishes if (path := wish.vhost_user_socket) and path not in connected},
        kvm=_ask(monitor, "query-kvm")["enabled"].flag(),
        shared_memory=bool(shared) and all(shared),
    )


def _has(monitor: Monitor, nics: Sequence[str], other: Other) -> bool:
    """Return whether a NIC that was adopted is still there: another one may have its ID since."""
    return other.nic in nics and _property(monitor, f"{_PERIPHERALS}/{other.nic}", "netdev").text() == other.netdev


def others(monitor: Monitor) -> list[OtherNic]:
    """Return the NICs with an ID of another program: QEMU can unplug only what has an ID."""
    known = dict(_TAP.findall(monitor.human("info network").replace("\r", "")))
    found = []
    for nic in _nics(monitor):
        if plugged_device(nic) is None:
            path = f"{_PERIPHERALS}/{nic}"
            ids = Other(nic, _property(monitor, path, "netdev").text())
            if all(map(is_id, ids)):
                found.append(OtherNic(_property(monitor, path, "mac").mac(), known.get(ids.netdev, ""), ids))
    return found


def run_state(monitor: Monitor) -> str:
    """Return whether the machine runs, as QEMU says."""
    return _ask(monitor, "query-status")["status"].text()


def _ask(monitor: Monitor, command: str, **arguments: Any) -> Answer:
    """Return QEMU's answer to a command, whose shape is checked as it is read."""
    return Answer(monitor.execute(command, **arguments), command)


def _peripherals(monitor: Monitor) -> dict[str, str]:
    """Return the devices that QEMU was told to have: id → type."""
    listed = _ask(monitor, "qom-list", path=_PERIPHERALS)
    return {each["name"].text(): each["type"].text() for each in listed}


def _nics(monitor: Monitor) -> list[str]:
    return [name for name, kind in _peripherals(monitor).items() if kind == "child<virtio-net-pci>"]


def _property(monitor: Monitor, path: str, name: str) -> Answer:
    try:
        return Answer(monitor.execute("qom-get", path=path, property=name), f"qom-get {name}")
    except QmpError as error:
        if error.kind == "DeviceNotFound":
            raise _GoneError from error
        raise


def _netdevs(monitor: Monitor) -> tuple[dict[str, int], set[str]]:
    """Return the number of queues of each netdev, and the netdevs without a NIC."""
    queues: dict[str, int] = {}
    alone = set()
    for below, name, _, kind in _NETDEV.findall(monitor.human("info network").replace("\r", "")):
        if kind == "nic":
            continue
        queues[name] = queues.get(name, 0) + 1
        if not below:
            alone.add(name)
    return queues, alone


class _Chardev(NamedTuple):
    path: str
    connected: bool


def _chardev(monitor: Monitor, label: str) -> _Chardev:
    # For a connected client, query-chardev reports `unix:` without the path.
    path = f"{_CHARDEVS}/{label}"
    address = _property(monitor, path, "addr").get("path")
    return _Chardev(path=address.text() if address else "", connected=_property(monitor, path, "connected").flag())


class _Pci(NamedTuple):
    """A device of `query-pci`: its id, its place on its bus, and what is behind it if it is a bridge."""

    id: str
    slot: int
    function: int
    inner: tuple[_Pci, ...]


def _read_pci(devices: Answer) -> tuple[_Pci, ...]:
    return tuple(_pci(each, _inner(each)) for each in devices)


def _inner(device: Answer) -> tuple[_Pci, ...]:
    bridge = device.get("pci_bridge")
    devices = bridge.get("devices") if bridge else None
    return tuple(_pci(each, ()) for each in devices) if devices else ()


def _pci(device: Answer, inner: tuple[_Pci, ...]) -> _Pci:
    place = device["slot"].number(_MOST_SLOT), device["function"].number(_MOST_FUNCTION)
    return _Pci(device["qdev_id"].text(), *place, inner)


def _slots(monitor: Monitor) -> tuple[list[Slot], int, dict[str, tuple[Slot, str]]]:
    """Return the free slots, the number of all slots, and each device's slot and PCI address such as `10.0/00`."""
    kinds = _peripherals(monitor)
    free: list[Slot] = []
    capacity = 0
    places: dict[str, tuple[Slot, str]] = {}
    for root in _ask(monitor, "query-pci"):
        devices = _read_pci(root["devices"])
        legacy = not any("pcie-root-port" in kinds.get(each.id, "") for each in devices)
        if root["bus"].number(_MOST_BUS) == 0 and legacy and _is_i440fx(monitor):
            used = {each.slot for each in devices}
            capacity += len(_BRIDGE_SLOTS)
            free += [Slot("pci.0", f"{slot:#x}") for slot in _BRIDGE_SLOTS if slot not in used]
        for each in devices:
            bridge = f"{each.slot:02x}.{each.function:x}"
            places[each.id] = Slot("pci.0", f"{each.slot:#x}"), f"00.0/{each.slot:02x}"
            for inner in each.inner:
                places[inner.id] = Slot(each.id, f"{inner.slot:#x}"), f"{bridge}/{inner.slot:02x}"
            match kinds.get(each.id):
                case "child<pcie-root-port>":
                    capacity += 1
                    free += [] if each.inner else [Slot(each.id, "0")]
                case "child<pcie-pci-bridge>" | "child<pci-bridge>":
                    used = {inner.slot for inner in each.inner}
                    capacity += len(_BRIDGE_SLOTS)
                    free += [Slot(each.id, f"{slot:#x}") for slot in _BRIDGE_SLOTS if slot not in used]
                case _:
                    pass
    return free, capacity, places


def _is_i440fx(monitor: Monitor) -> bool:
    return "i440fx" in _ask(monitor, "qom-get", path="/machine", property="type").text()


class QemuPlugboard:
    """A machine by its monitor: see `drivers.vm.plugboard`."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def observe(self, wishes: Iterable[Interface], taken: Mapping[str, Other] = _NONE) -> Machine:
        """Read what is plugged."""
        return observe(self._monitor, wishes, taken)

    def others(self) -> list[OtherNic]:
        """Return the NICs of other programs."""
        return others(self._monitor)

    def execute(self, operation: PlugOperation) -> None:
        """Execute an operation."""
        if isinstance(operation, (AdoptNics, AttachNic, DetachNic)):
            raise TypeError("this machine is not one of libvirt")
        execute(self._monitor, operation)

    def leave(self) -> None:
        """Leave everything: `reconciler agent remove` takes a channel of ours out."""

    def run_state(self) -> str:
        """Return whether the machine runs."""
        return run_state(self._monitor)

    def fileno(self) -> int:
        """Return the descriptor of the monitor."""
        return self._monitor.fileno()

    def has_restarted(self) -> bool:
        """Return whether the guest was reset, or a program in it opened or closed a port."""
        return bool(_RESTARTS & self._monitor.noticed())


def execute(monitor: Monitor, operation: MonitorOperation) -> None:
    """Execute one operation. HostError if QEMU refuses it, or if the guest does not release a NIC."""
    match operation:
        case AddNetdev():
            _add_netdev(monitor, plug_id(operation.device), operation)
        case AddDevice():
            monitor.execute("device_add", **_device(plug_id(operation.device), operation))
        case DeleteDevice():
            _delete_device(monitor, operation.other.nic if operation.other else plug_id(operation.device))
        case DeleteNetdev():
            _delete_netdev(monitor, operation)
        case AdoptDevices():
            _adopt(monitor, operation) if operation.marked else _disown(monitor, operation.marks)
        case _:
            assert_never(operation)


def _add_netdev(monitor: Monitor, plug: str, operation: AddNetdev) -> None:
    if operation.macvtap:
        _add_macvtap(monitor, plug, operation.device)
        return
    queues = {"queues": operation.queues} if operation.queues > 1 else {}
    if operation.vhost_user_socket is None:
        tap = {"ifname": operation.device, "script": "no", "downscript": "no"}
        monitor.execute("netdev_add", type="tap", id=plug, **tap, **queues)
        return
    address = {"type": "unix", "data": {"path": operation.vhost_user_socket}}
    backend = {"type": "socket", "data": {"addr": address, "server": False, "reconnect": 1}}
    monitor.add_chardev(plug, backend)
    monitor.execute("netdev_add", type="vhost-user", id=plug, chardev=plug, **queues)


def _add_macvtap(monitor: Monitor, plug: str, device: str) -> None:
    opened = open_macvtap(device)
    try:
        monitor.pass_descriptor(opened, plug)
    finally:
        os.close(opened)
    try:
        monitor.execute("netdev_add", type="tap", id=plug, fd=plug)
    except HostError:
        # Its own end would take packets as long as QEMU has it.
        with suppress(QmpError):
            monitor.execute("closefd", fdname=plug)
        raise


def _device(plug: str, operation: AddDevice) -> Mapping[str, Any]:
    extra: dict[str, Any] = {"mq": True} if operation.queues > 1 else {}
    if operation.host_mtu:
        extra["host_mtu"] = operation.host_mtu
    if operation.vectors is not None:
        extra["vectors"] = operation.vectors
    place = {"bus": operation.bus, "addr": operation.addr}
    return {"driver": "virtio-net-pci", "id": plug, "netdev": plug, "mac": operation.hw_addr, **place, **extra}


def _delete_device(monitor: Monitor, plug: str) -> None:
    """Unplug a NIC, and wait until the guest has released it. Ask again regularly, in case an event was missed."""
    deadline = time.monotonic() + UNPLUG_TIMEOUT
    while time.monotonic() < deadline:
        try:
            monitor.execute("device_del", id=plug)
        except QmpError as error:
            if error.kind == "DeviceNotFound":
                return
            if not _PENDING.search(str(error)):
                raise
        if monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == plug, _ASK_AGAIN):
            return
    raise HostError(
        f"the guest did not release {plug} within {UNPLUG_TIMEOUT:.0f} s; its kernel needs PCI hot-plug (ACPI or PCIe)"
    )


def _delete_netdev(monitor: Monitor, operation: DeleteNetdev) -> None:
    plug, other = plug_id(operation.device), operation.other
    if other is None:
        _delete(monitor, "netdev_del", plug)
        if operation.vhost_user:
            _delete(monitor, "chardev-remove", plug)
        return
    if other.netdev:
        _delete(monitor, "netdev_del", other.netdev)
    # The mark goes last: without it, nothing would say that the rest is ours.
    _delete(monitor, "chardev-remove", adoption_mark(operation.device, other))


def _adopt(monitor: Monitor, operation: AdoptDevices) -> None:
    done: list[str] = []
    try:
        for mark in operation.marks:
            monitor.add_chardev(mark, {"type": "null", "data": {}})
            done.append(mark)
    except HostError:
        _disown(monitor, done)
        raise


def _disown(monitor: Monitor, marks: Iterable[str]) -> None:
    for mark in marks:
        _delete(monitor, "chardev-remove", mark)


def _delete(monitor: Monitor, command: str, plug: str) -> None:
    try:
        monitor.execute(command, id=plug)
    except QmpError as error:
        if error.kind != "DeviceNotFound" and "not found" not in str(error):
            raise

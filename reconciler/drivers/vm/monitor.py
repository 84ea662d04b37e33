"""Read what is plugged into a machine, plug and unplug, over QEMU's monitor."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, assert_never

from reconciler.errors import BusyError, HostError
from reconciler.guest.qmp import Monitor, QmpError
from reconciler.model.interface import Interface
from reconciler.model.machine import Machine, Plugged, Slot, Tap
from reconciler.netlink.engine import local_engine
from reconciler.operations.machine import (
    AddDevice,
    AddNetdev,
    DeleteDevice,
    DeleteNetdev,
    PlugOperation,
    plug_id,
    plugged_device,
)

# Seconds for a guest to release a NIC. It takes 0.2 to 0.6, with native PCIe hot-plug 6.5 (the attention button).
UNPLUG_TIMEOUT = 20.0
_ASK_AGAIN = 2.0
# QEMU's errors for a NIC that is already being unplugged.
_PENDING = re.compile("already in the process of unplug|guest is busy")
# Attempts to read what is plugged without a change meanwhile.
_LOOKS = 10
_PROBE_TIMEOUT = 1.0
_PERIPHERALS, _CHARDEVS = "/machine/peripheral", "/chardevs"
# On bridges with their own slots, the bridge itself has slot 0.
_BRIDGE_SLOTS = range(1, 32)
# include/uapi/linux/if_tun.h.
_IFF_TAP, _IFF_MULTI_QUEUE = 0x0002, 0x0100
# `info network`: a netdev is listed below its NIC, or alone if it has none.
_NETDEV = re.compile(r"^( \\ )?(\S+): index=(\d+),type=([a-z-]+)", re.MULTILINE)


class _GoneError(Exception):
    """An object vanished while it was read: the guest released a NIC that a killed run had unplugged."""


def observe(monitor: Monitor, wishes: Iterable[Interface]) -> Machine:
    """Read what is plugged, and the devices of the wishes. QEMU does not know whether the guest has detected a NIC."""
    wishes = list(wishes)
    for _ in range(_LOOKS):
        nics = _nics(monitor)
        with suppress(_GoneError):
            state = _look(monitor, nics, wishes)
            if _nics(monitor) == nics:
                return state
    raise BusyError("NICs appear and vanish while QEMU lists them; try again")


def _look(monitor: Monitor, nics: list[str], wishes: list[Interface]) -> Machine:
    queues, alone = _netdevs(monitor)
    labels = (each["label"] for each in monitor.execute("query-chardev"))
    chardevs = {label: _chardev(monitor, label) for label in labels if plugged_device(label) is not None}
    slots, capacity, places = _slots(monitor)
    plugged = {
        device: Plugged(
            hw_addr=str(_property(monitor, f"{_PERIPHERALS}/{plug}", "mac")).lower(),
            queues=queues.get(plug, 1),
            socket=chardevs[plug].path if plug in chardevs else None,
            slot=places.get(plug, (Slot("", ""), ""))[0],
            pci_addr=places.get(plug, (Slot("", ""), ""))[1],
            host_mtu=int(_property(monitor, f"{_PERIPHERALS}/{plug}", "host_mtu")),
        )
        for plug in nics
        if (device := plugged_device(plug)) is not None
    }
    left = {*alone, *(plug for plug in chardevs if plug not in nics)}
    # A connected backend is not probed: the probe would be a second client.
    connected = {each.path for each in chardevs.values() if each.connected}
    return Machine(
        plugged=plugged,
        leftovers={device: plug in chardevs for plug in left if (device := plugged_device(plug)) is not None},
        slots=tuple(slots),
        capacity=capacity,
        taps=_taps({*plugged, *(wish.device for wish in wishes if wish.vhost_user_socket is None)}),
        sockets={path: _probe(path) for wish in wishes if (path := wish.vhost_user_socket) and path not in connected},
        kvm=bool(monitor.execute("query-kvm")["enabled"]),
        shared_memory=all(each["share"] for each in monitor.execute("query-memdev") or [{"share": False}]),
    )


def _nics(monitor: Monitor) -> list[str]:
    return [
        each["name"]
        for each in monitor.execute("qom-list", path=_PERIPHERALS)
        if each["type"] == "child<virtio-net-pci>"
    ]


def _property(monitor: Monitor, path: str, name: str) -> Any:
    try:
        return monitor.execute("qom-get", path=path, property=name)
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
    address = _property(monitor, path, "addr")
    return _Chardev(path=str(address.get("path")), connected=bool(_property(monitor, path, "connected")))


def _slots(monitor: Monitor) -> tuple[list[Slot], int, dict[str, tuple[Slot, str]]]:
    """Return the free slots, the number of all slots, and each device's slot and PCI address such as `10.0/00`."""
    kinds = {each["name"]: each["type"] for each in monitor.execute("qom-list", path=_PERIPHERALS)}
    free: list[Slot] = []
    capacity = 0
    places: dict[str, tuple[Slot, str]] = {}
    for root in monitor.execute("query-pci"):
        legacy = not any(
            each["qdev_id"] in kinds and "pcie-root-port" in kinds[each["qdev_id"]] for each in root["devices"]
        )
        if root["bus"] == 0 and legacy and _is_i440fx(monitor):
            used = {each["slot"] for each in root["devices"]}
            capacity += len(_BRIDGE_SLOTS)
            free += [Slot("pci.0", f"{slot:#x}") for slot in _BRIDGE_SLOTS if slot not in used]
        for each in root["devices"]:
            bridge = f"{each['slot']:02x}.{each['function']:x}"
            places[each["qdev_id"]] = Slot("pci.0", f"{each['slot']:#x}"), f"00.0/{each['slot']:02x}"
            taken = each.get("pci_bridge", {}).get("devices", [])
            for inner in taken:
                places[inner["qdev_id"]] = Slot(each["qdev_id"], f"{inner['slot']:#x}"), f"{bridge}/{inner['slot']:02x}"
            match kinds.get(each["qdev_id"]):
                case "child<pcie-root-port>":
                    capacity += 1
                    free += [] if taken else [Slot(each["qdev_id"], "0")]
                case "child<pcie-pci-bridge>" | "child<pci-bridge>":
                    used = {inner["slot"] for inner in taken}
                    capacity += len(_BRIDGE_SLOTS)
                    free += [Slot(each["qdev_id"], f"{slot:#x}") for slot in _BRIDGE_SLOTS if slot not in used]
                case _:
                    pass
    return free, capacity, places


def _is_i440fx(monitor: Monitor) -> bool:
    return "i440fx" in str(monitor.execute("qom-get", path="/machine", property="type"))


def _taps(devices: set[str]) -> dict[str, Tap]:
    """Read devices of the host. The result lacks those that do not exist."""
    found = {}
    with local_engine() as host:
        for device in devices:
            link = host.link(device)
            if link is None:
                continue
            flags = 0
            with suppress(OSError, ValueError), open(f"/sys/class/net/{device}/tun_flags", encoding="ascii") as file:
                flags = int(file.read(), 16)
            found[device] = Tap(
                is_tap=bool(flags & _IFF_TAP),
                multi_queue=bool(flags & _IFF_MULTI_QUEUE),
                mtu=link.mtu,
                up=link.up,
                # A TAP that is up has a carrier while a process uses it. A TAP that is down shows none.
                busy=link.carrier,
            )
    return found


def _probe(path: str) -> str:
    """Return what is wrong with a vhost-user socket, or "". QEMU would stop the guest until the backend answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def execute(monitor: Monitor, operation: PlugOperation) -> None:
    """Execute one operation. HostError if QEMU refuses it, or if the guest does not release a NIC."""
    plug = plug_id(operation.device)
    match operation:
        case AddNetdev():
            _add_netdev(monitor, plug, operation)
        case AddDevice():
            monitor.execute("device_add", **_device(plug, operation))
        case DeleteDevice():
            _delete_device(monitor, plug)
        case DeleteNetdev():
            _delete(monitor, "netdev_del", plug)
            if operation.vhost_user:
                _delete(monitor, "chardev-remove", plug)
        case _:
            assert_never(operation)


def _add_netdev(monitor: Monitor, plug: str, operation: AddNetdev) -> None:
    queues = {"queues": operation.queues} if operation.queues > 1 else {}
    if operation.vhost_user_socket is None:
        tap = {"ifname": operation.device, "script": "no", "downscript": "no"}
        monitor.execute("netdev_add", type="tap", id=plug, **tap, **queues)
        return
    address = {"type": "unix", "data": {"path": operation.vhost_user_socket}}
    backend = {"type": "socket", "data": {"addr": address, "server": False, "reconnect": 1}}
    monitor.execute("chardev-add", id=plug, backend=backend)
    monitor.execute("netdev_add", type="vhost-user", id=plug, chardev=plug, **queues)


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


def _delete(monitor: Monitor, command: str, plug: str) -> None:
    try:
        monitor.execute(command, id=plug)
    except QmpError as error:
        if error.kind != "DeviceNotFound" and "not found" not in str(error):
            raise

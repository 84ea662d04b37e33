"""The XML of a running domain of libvirt → what a look needs of it. libvirtd writes it, nobody in the guest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from reconciler.errors import ProtocolError
from reconciler.model.machine import Slot
from reconciler.operations.domain import MARK_URI
from reconciler.values import NamedTuple

# On bridges with their own slots, the bridge itself has slot 0.
_BRIDGE_SLOTS = range(1, 32)
_BRIDGES = {"pci-root", "pci-bridge", "pcie-to-pci-bridge"}
_MARKS = f"metadata/{{{MARK_URI}}}adopted/{{{MARK_URI}}}nic"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class DomainNic(NamedTuple):
    """A NIC: its alias, MAC address, queues, largest MTU (0: no limit), and its place; the TAP or socket, "" if none.

    `place`: its bus and slot, None if it is on no PCI bus.
    """

    alias: str
    hw_addr: str
    tap: str
    socket: str
    queues: int
    mtu: int
    place: tuple[int, int] | None


class Channel(NamedTuple):
    """A channel of virtio-serial: its name and alias, the unix socket that QEMU serves for it, "" if it serves none.

    `open`: whether a program in the guest has it open.
    """

    name: str
    alias: str
    path: str
    open: bool


class Domain(NamedTuple):
    """A domain. `slots`: the free ones of `capacity`; `bridges`: bus → its place as `10.0`. `aliases`: of all devices.

    `adopted`: alias → device of the NICs of other programs that count as ours.
    `msi`: whether its kernel may use MSI, as far as that is known.
    `has_serial`: whether channels can be plugged in.
    """

    nics: tuple[DomainNic, ...]
    channels: tuple[Channel, ...]
    slots: tuple[Slot, ...]
    capacity: int
    bridges: dict[int, str]
    aliases: frozenset[str]
    kvm: bool
    msi: bool
    shared_memory: bool
    has_serial: bool
    adopted: dict[str, str]


def read(text: str) -> Domain:
    """Return what the XML of a running domain says. ProtocolError if it is no such XML."""
    try:
        root = ET.fromstring(text)  # noqa: S314 (libvirtd runs as root, and expands no entity for its clients)
        devices = root.find("devices")
        if devices is None:
            raise ProtocolError("libvirt described a domain without devices")
        slots, capacity, bridges = _slots(devices)
        return Domain(
            nics=tuple(map(_nic, devices.iterfind("interface"))),
            channels=tuple(_channels(devices)),
            slots=slots,
            capacity=capacity,
            bridges=bridges,
            aliases=frozenset(each.get("name", "") for each in devices.iterfind("*/alias")),
            kvm=root.get("type") != "qemu",
            # A domain with a boot loader does not tell.
            msi="pci=nomsi" not in (root.findtext("os/cmdline") or "").split(),
            shared_memory=_is_shared(root),
            adopted={each.get("alias", ""): each.get("device", "") for each in root.iterfind(_MARKS)},
            has_serial=devices.find("controller[@type='virtio-serial']") is not None,
        )
    except (ET.ParseError, ValueError) as error:
        raise ProtocolError(f"libvirt described a domain in a way that is not understood: {error}") from None


def _get(parent: ET.Element, path: str, name: str) -> str:
    found = parent.find(path)
    return "" if found is None else found.get(name, "")


def _nic(element: ET.Element) -> DomainNic:
    hw_addr = _get(element, "mac", "address").lower()
    if not _MAC.fullmatch(hw_addr):
        raise ValueError(f"a NIC has the MAC address {hw_addr!r}")
    is_socket = element.get("type") == "vhostuser"
    return DomainNic(
        alias=_get(element, "alias", "name"),
        hw_addr=hw_addr,
        tap="" if is_socket else _get(element, "target", "dev"),
        socket=_get(element, "source", "path") if is_socket else "",
        queues=int(_get(element, "driver", "queues") or 1),
        mtu=int(_get(element, "mtu", "size") or 0),
        place=_place(element)[:2] if _is_pci(element) else None,
    )


def _channels(devices: ET.Element) -> Iterator[Channel]:
    for element in devices.iterfind("channel"):
        target = element.find("target[@type='virtio']")
        if target is not None:
            is_served = element.get("type") == "unix" and _get(element, "source", "mode") == "bind"
            yield Channel(
                name=target.get("name", ""),
                alias=_get(element, "alias", "name"),
                path=_get(element, "source", "path") if is_served else "",
                open=target.get("state") == "connected",
            )


def _is_pci(element: ET.Element) -> bool:
    return element.find("address[@type='pci']") is not None


def _place(element: ET.Element) -> tuple[int, int, int]:
    """Return bus, slot and function."""
    return (
        int(_get(element, "address", "bus"), 16),
        int(_get(element, "address", "slot"), 16),
        int(_get(element, "address", "function"), 16),
    )


def _slots(devices: ET.Element) -> tuple[tuple[Slot, ...], int, dict[int, str]]:
    """Return the free slots, the number of all slots, and the place of each bridge by the number of its bus."""
    used = {_place(each)[:2] for each in devices if _is_pci(each)}
    free: list[Slot] = []
    capacity = 0
    bridges = {}
    for element in devices.iterfind("controller[@type='pci']"):
        bus, model = int(element.get("index", "")), element.get("model")
        _, slot, function = _place(element) if _is_pci(element) else (0, 0, 0)
        bridges[bus] = f"{slot:02x}.{function:x}"
        if model == "pcie-root-port" and _get(element, "target", "hotplug") != "off":
            capacity += 1
            free += [] if (bus, 0) in used else [Slot(f"pci.{bus}", "0")]
        elif model in _BRIDGES:
            capacity += len(_BRIDGE_SLOTS)
            free += [Slot(f"pci.{bus}", f"{each:#x}") for each in _BRIDGE_SLOTS if (bus, each) not in used]
    return tuple(free), capacity, bridges


def _is_shared(root: ET.Element) -> bool:
    cells = root.findall("cpu/numa/cell[@memAccess]")
    if cells:
        return all(each.get("memAccess") == "shared" for each in cells)
    return root.find("memoryBacking/access[@mode='shared']") is not None

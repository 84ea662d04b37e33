"""What a virtual machine has of the host: plugged NICs, what was left half done, and room for more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

# Bytes of the longest path that a unix socket can have: sun_path of linux/un.h has 108, one of them for the final NUL.
SOCKET_PATH_MAX = 107


class Slot(NamedTuple):
    """Where a NIC can be plugged in, as `device_add` names it."""

    bus: str
    addr: str


class Plugged(NamedTuple):
    """A NIC that is plugged: its MAC address as QEMU has it, its queues, its vhost-user socket if it is not a TAP.

    `in_guest`: whether the guest's kernel has it; `alive`: whether the host's end still leads there; `pci_addr`: where it
    is, bridge and slot (`10.0/00`); `host_mtu`: the most that the guest may set, 0 for no limit.
    """

    hw_addr: str
    queues: int
    socket: str | None
    slot: Slot
    pci_addr: str = ""
    in_guest: bool = True
    alive: bool = True
    host_mtu: int = 0


class Tap(NamedTuple):
    """A device of the host that may be plugged: whether it is a TAP at all, for how many queues, its MTU, and who has it."""

    is_tap: bool
    multi_queue: bool
    mtu: int
    up: bool
    busy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The monitor's side of a machine.

    `plugged`: by the host's device; `leftovers`: devices that QEMU holds without a NIC, and whether by a vhost-user socket;
    `slots`: the free ones, of `capacity` that there are; `taps`: the devices that are to come; `shared_memory`: whether a
    vhost-user backend can reach the guest's memory; `kvm`: whether it runs under KVM, else TCG; `sockets`: those that are to come, and what is wrong with each.
    """

    plugged: Mapping[str, Plugged] = field(default_factory=lambda: MappingProxyType({}))
    leftovers: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    slots: tuple[Slot, ...] = ()
    capacity: int = 0
    taps: Mapping[str, Tap] = field(default_factory=lambda: MappingProxyType({}))
    sockets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shared_memory: bool = False
    kvm: bool = False

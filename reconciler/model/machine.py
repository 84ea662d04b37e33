"""What QEMU has of the host: plugged NICs, half-done work of an earlier run, and free slots."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reconciler.values import NamedTuple, dataclass, field

# Bytes of the longest path that a unix socket can have: sun_path of linux/un.h has 108, one of them for the final NUL.
SOCKET_PATH_MAX = 107


class Slot(NamedTuple):
    """A slot that a NIC can be plugged into, in the terms of `device_add`."""

    bus: str
    addr: str


class Other(NamedTuple):
    """The IDs that another program gave a NIC in QEMU, and the netdev behind it; "" if that is gone."""

    nic: str
    netdev: str


class Plugged(NamedTuple):
    """A NIC that is plugged: its MAC address as QEMU has it, its queues, its vhost-user socket if it is not a TAP.

    `in_guest`: whether the guest's kernel has it; `alive`: whether its TAP on the host is still connected to QEMU;
    `pci_addr`: its bridge and slot (`10.0/00`); `host_mtu`: the largest MTU that the guest may set, 0 for no limit.
    `other`: its IDs, if another program plugged it and it is adopted.
    """

    hw_addr: str
    queues: int
    socket: str | None
    slot: Slot
    pci_addr: str = ""
    in_guest: bool = True
    alive: bool = True
    host_mtu: int = 0
    other: Other | None = None


class Macvtap(NamedTuple):
    """A TAP that lies on another device of the host, as a macvlan does, and gets the frames to its own MAC address.

    QEMU gets it as an open file, /dev/tap with the `number` of the link behind it.
    """

    number: int
    hw_addr: str


class Tap(NamedTuple):
    """A device of the host that may be plugged.

    Whether it is a TAP, has several queues, its MTU, and whether it is in use. `macvtap`: None for any other TAP.
    """

    is_tap: bool
    multi_queue: bool
    mtu: int
    up: bool
    busy: bool
    macvtap: Macvtap | None = None


class Managers(NamedTuple):
    """Programs in a guest that configure NICs by themselves: those that can be told which to leave alone, by process.

    `unmanaged`: the MAC addresses that all of these were told. `rivals`: others that run, or that could not be told,
    with the reason in parentheses.
    """

    told: tuple[str, ...] = ()
    unmanaged: frozenset[str] = frozenset()
    rivals: tuple[str, ...] = ()


NO_MANAGERS = Managers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What QEMU's monitor reports of a machine.

    `plugged`: by the host's device. `leftovers`: devices that QEMU has opened without a NIC, and whether as a
    vhost-user socket. `orphans`: devices whose adopted NIC is gone.
    `slots`: the free ones of `capacity` in all. `taps`: the devices that the manifest wants.
    `sockets`: those that the manifest wants, with what is wrong with each, or "". `shared_memory`: whether a vhost-user
    backend can reach the guest's memory. `kvm`: whether the machine runs under KVM; otherwise under TCG. `msi`: whether
    its kernel may use MSI, as far as that is known. `managers`: what the guest has of them, if its NICs were observed.
    """

    plugged: Mapping[str, Plugged] = field(default_factory=lambda: MappingProxyType({}))
    leftovers: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    orphans: Mapping[str, Other] = field(default_factory=lambda: MappingProxyType({}))
    slots: tuple[Slot, ...] = ()
    capacity: int = 0
    taps: Mapping[str, Tap] = field(default_factory=lambda: MappingProxyType({}))
    sockets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shared_memory: bool = False
    kvm: bool = False
    msi: bool = True
    managers: Managers = NO_MANAGERS

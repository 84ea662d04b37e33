"""How devices of the host are attached to a virtual machine: QEMU opens the TAP or socket, then a NIC is plugged in.

Half-done work of an earlier run is visible in QEMU itself by our ids: a TAP without a NIC is removed, and a NIC that
has another name in the guest is renamed. Everything that cannot work is refused before anything is plugged.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.errors import HostError
from reconciler.model.interface import Interface, given
from reconciler.model.machine import Machine, Other, Plugged, Slot
from reconciler.model.sandbox import Surroundings
from reconciler.operations.domain import AttachNic
from reconciler.operations.interface import SetLink
from reconciler.operations.machine import (
    AddDevice,
    AddNetdev,
    DeleteDevice,
    DeleteNetdev,
    NameInterface,
    PlugOperation,
    SetUnmanaged,
)
from reconciler.operations.segment import Plugs, Segment, flat
from reconciler.plan import altnames
from reconciler.plan.device import check_elsewhere, missing
from reconciler.plan.sysctl import new_sysctls, set_up
from reconciler.values import replace
from reconciler.wording import quote

# Bytes. What virtio_net accepts (linux/if_ether.h: ETH_MIN_MTU).
_VIRTIO_MIN_MTU = 68
# A saved state does not have the free slots.
_ANY_SLOT = Slot("BUS", "0")


class MachineHost:
    """See `plan.interface.Host`. A machine whose monitor is ours; `DomainHost` is one of libvirt."""

    # How a machine gets memory that a vhost-user backend can reach.
    _sharing = "start QEMU with memory-backend-memfd,share=on"

    def __init__(self, around: Surroundings, *, has_monitor: bool) -> None:
        self._around = around
        self._has_monitor = has_monitor
        self._machine = around.machine or Machine()
        self._saved = around.machine is None
        self._free = list(self._machine.slots)
        # Devices that this plan detaches: it does not matter that they are busy now.
        self._detached: set[str] = set()
        # The MAC addresses that NICs were plugged with. They identify NICs in the guest, whatever was set since.
        self._hw_addrs = [plugged.hw_addr for plugged in self._machine.plugged.values()]

    def attach(self, interface: Interface) -> list[Segment]:
        """Plug a NIC in and name it.

        Only name it if it is already plugged and was just not yet detected by the guest. HostError without a monitor.
        """
        if not self._has_monitor:
            raise HostError(f"{interface.name}: the machine has no monitor, so no NIC can be plugged into it")
        self.check(interface)
        plugged = self._machine.plugged.get(interface.device)
        up = SetLink(
            name=interface.name,
            mtu=interface.mtu,
            master=interface.master or None,
            attributes=interface.attributes,
            up=interface.up,
            sign="+",
        )
        named = altnames.coming(interface.name, (), interface.altnames)
        naming = NameInterface(device=interface.device, hw_addr=interface.hw_addr, name=interface.name)
        if plugged and interface.device not in self._detached:
            # `clear` unplugs every NIC that differs from the desired one, so this one is as desired.
            return [Plugs((naming,)), *set_up((up,), new_sysctls(interface)), *named]
        self._check_new(interface)
        queues = max(interface.queues, 1)
        slot = self._next_slot(interface)
        hw_addr = self._free_hw_addr(interface.hw_addr)
        if hw_addr != interface.hw_addr:
            naming, up = replace(naming, hw_addr=hw_addr), replace(up, hw_addr=interface.hw_addr)
        vhost_user = interface.vhost_user_socket is not None
        tap = self._machine.taps.get(interface.device)
        host_mtu = tap.mtu if tap and not vhost_user else 0
        plugs = self._coming(replace(interface, hw_addr=hw_addr, queues=queues), slot, host_mtu)
        return [Plugs((*plugs, naming)), *set_up((up,), new_sysctls(interface)), *named]

    def _coming(self, nic: Interface, slot: Slot, host_mtu: int) -> tuple[PlugOperation, ...]:
        """Return what plugs a NIC into a slot."""
        socket = nic.vhost_user_socket
        tap = self._machine.taps.get(nic.device) if socket is None else None
        macvtap = tap.macvtap if tap else None
        netdev = AddNetdev(device=nic.device, queues=nic.queues, vhost_user_socket=socket, macvtap=macvtap)
        device = AddDevice(
            device=nic.device,
            hw_addr=nic.hw_addr,
            queues=nic.queues,
            bus=slot.bus,
            addr=slot.addr,
            host_mtu=host_mtu,
            vectors=0 if socket is not None and not self._machine.kvm else None,
        )
        return netdev, device

    def detach(self, interface: Interface) -> list[Segment]:
        """Unplug the NIC, then remove the TAP or socket from QEMU; the other order is unsafe."""
        return self._unplug(interface.device, interface.vhost_user_socket)

    def _unplug(self, device: str, socket: str | None) -> list[Segment]:
        self._detached.add(device)
        plugged = self._machine.plugged.get(device)
        other = plugged.other if plugged else None
        if plugged:
            self._free.append(plugged.slot)
            self._hw_addrs.remove(plugged.hw_addr)
        return [Plugs(self._going(device, socket, other))]

    def _going(self, device: str, socket: str | None, other: Other | None) -> tuple[PlugOperation, ...]:
        """Return what unplugs a NIC."""
        netdev = DeleteNetdev(device=device, vhost_user=socket is not None, other=other)
        return DeleteDevice(device=device, other=other), netdev

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return whether QEMU needs another TAP or socket, or lost the present one, or limits the MTU too much."""
        plugged = self._machine.plugged.get(before.device)
        dead = plugged is not None and not plugged.alive
        # When it was plugged, the TAP had a smaller MTU.
        limited = plugged is not None and 0 < plugged.host_mtu < after.mtu
        changed = max(before.queues, 1) != max(after.queues, 1) or before.vhost_user_socket != after.vhost_user_socket
        return dead or limited or changed

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return whether a NIC occupies the MAC address, the device or the slot that an added one needs."""
        plugged = self._machine.plugged.get(removed.device)
        macs = {removed.hw_addr, *([plugged.hw_addr] if plugged else ())}
        coming = list(given(added))
        taken = any(each.device == removed.device or each.hw_addr in macs for each in coming)
        return taken or len(coming) > len(self._machine.slots)

    def clear(self, wanted: Sequence[Interface]) -> list[Segment]:
        """Remove netdevs without a NIC from QEMU.

        Unplug NICs that the guest has not detected and that are not as desired.
        """
        leftovers = self._machine.leftovers.items()
        netdevs = [DeleteNetdev(device=device, vhost_user=vhost_user) for device, vhost_user in leftovers]
        netdevs += [DeleteNetdev(device=device, other=other) for device, other in self._machine.orphans.items()]
        segments: list[Segment] = [Plugs(tuple(netdevs))]
        self._detached |= self._machine.leftovers.keys() | self._machine.orphans.keys()
        wishes = {wish.device: wish for wish in wanted}
        for device, plugged in self._machine.plugged.items():
            if not plugged.in_guest and not _is_as(plugged, wishes.get(device)):
                segments += self._unplug(device, plugged.socket)
        return segments

    def check(self, interface: Interface) -> None:
        """Raise HostError if the MTU of the interface is too small for a NIC, or exceeds that of its TAP."""
        if interface.mtu < _VIRTIO_MIN_MTU:
            raise HostError(
                f"interface {interface.name}: its MTU is {interface.mtu}, and a NIC of a virtual machine accepts "
                f"one of at least {_VIRTIO_MIN_MTU} bytes"
            )
        tap = self._machine.taps.get(interface.device)
        if tap and interface.vhost_user_socket is None and interface.mtu > tap.mtu:
            raise HostError(
                f"{interface.name}: its MTU of {interface.mtu} is above the MTU of {interface.device} on the host, "
                f"{tap.mtu}",
                path=("mtu",),
            )
        if tap and interface.vhost_user_socket is None and tap.macvtap and tap.macvtap.hw_addr != interface.hw_addr:
            raise HostError(
                f"{interface.name}: {interface.device} is a macvtap, which gets only frames to its own MAC address on "
                f"the host, {tap.macvtap.hw_addr}; give both the same: "
                f"ip link set dev {quote(interface.device)} address {interface.hw_addr}",
                path=("hwAddr",),
            )

    def _check_new(self, interface: Interface) -> None:
        if self._saved:
            return
        if interface.hw_addr in self._around.hw_addrs:
            raise HostError(
                f"{interface.name}: another NIC in the guest has the MAC address {interface.hw_addr}", path=("hwAddr",)
            )
        if interface.vhost_user_socket is not None:
            self._check_socket(interface, interface.vhost_user_socket)
        else:
            self._check_tap(interface)

    def _check_tap(self, interface: Interface) -> None:
        device = interface.device
        tap = self._machine.taps.get(device)
        check_elsewhere(interface, self._around)
        if tap is None:
            raise missing(interface, " (QEMU would create one that is connected to nothing)")
        if not tap.is_tap:
            raise HostError(f"{device} is no TAP; only TAPs can be plugged into a virtual machine", path=("device",))
        if tap.busy and device not in self._detached:
            raise HostError(f"{device} is in use by another process", path=("device",))
        if tap.macvtap and interface.queues > 1:
            raise HostError(f"{device} is a macvtap, which has a single queue", path=("queues",))
        if tap.multi_queue != (interface.queues > 1):
            has = "multi-queue" if tap.multi_queue else "single-queue"
            asks = f"{interface.queues} queues" if interface.queues > 1 else "a single queue"
            raise HostError(f"{device} is {has}; interface {interface.name} asks for {asks}", path=("queues",))

    def _check_socket(self, interface: Interface, path: str) -> None:
        if not self._machine.shared_memory:
            raise HostError(
                f"{interface.name}: a vhost-user backend cannot reach the memory of this machine, which is not shared; "
                f"{self._sharing}",
                path=("vhostUserSocket",),
            )
        self._check_vectors(interface)
        problem = self._machine.sockets.get(path)
        if problem:
            raise HostError(f"{interface.name}: {path}: {problem}; is its backend running?", path=("vhostUserSocket",))

    def _check_vectors(self, interface: Interface) -> None:
        """Raise HostError if a vhost-user NIC would end the machine."""

    def _free_hw_addr(self, wished: str) -> str:
        """Return the desired address, or a temporary one.

        A temporary one if another NIC was plugged with the desired one and has changed since.
        """
        free = wished
        for number in range(len(self._hw_addrs)):
            if free not in self._hw_addrs:
                break
            free = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
        self._hw_addrs.append(free)
        return free

    def _next_slot(self, interface: Interface) -> Slot:
        if self._saved:
            return _ANY_SLOT
        if not self._free:
            raise HostError(
                f"{interface.name}: no PCI slot is free; this machine has {self._machine.capacity} slots for NICs",
                path=("device",),
            )
        return self._free.pop(0)


def telling(wanted: Sequence[Interface], machine: Machine, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return what tells the guest's network managers which NICs are ours; nothing if they know.

    A NIC is known by the MAC address that it was plugged with, or that `segments` plug it with. An address that no NIC
    has any more does no harm, as long as there are others.
    """
    plugged = {machine.plugged[wish.device].hw_addr for wish in wanted if wish.device in machine.plugged}
    added = {each.hw_addr for each in flat(segments) if isinstance(each, (AddDevice, AttachNic))}
    ours = {*(wish.hw_addr for wish in given(wanted)), *plugged, *added}
    told = machine.managers.unmanaged
    if ours <= told and (ours or not told):
        return ()
    return (Plugs((SetUnmanaged(hw_addrs=tuple(sorted(ours)), managers=machine.managers.told),)),)


def _is_as(plugged: Plugged, wish: Interface | None) -> bool:
    return (
        wish is not None
        and plugged.alive
        and (plugged.hw_addr, plugged.queues, plugged.socket)
        == (wish.hw_addr, max(wish.queues, 1), wish.vhost_user_socket)
    )

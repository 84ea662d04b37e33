"""How devices of the host are attached to a domain of libvirt, which opens TAP or socket and plugs the NIC in one."""

from __future__ import annotations

from reconciler.errors import HostError
from reconciler.model.interface import Interface
from reconciler.model.machine import Other, Slot
from reconciler.model.sandbox import LibvirtAddress, Surroundings
from reconciler.operations.domain import AttachNic, DetachNic
from reconciler.operations.machine import PlugOperation
from reconciler.plan.machine import MachineHost


class DomainHost(MachineHost):
    """See `plan.interface.Host`."""

    _sharing = "give the domain <memoryBacking> with <source type='memfd'/> and <access mode='shared'/>"

    def __init__(self, domain: LibvirtAddress, around: Surroundings) -> None:
        super().__init__(around, has_monitor=True)
        self._domain = domain

    def _coming(self, nic: Interface, slot: Slot, host_mtu: int) -> tuple[PlugOperation, ...]:
        """Return what plugs a NIC. libvirt chooses the slot; that there is one has been checked."""
        del slot
        operation = AttachNic(
            domain=self._domain,
            device=nic.device,
            hw_addr=nic.hw_addr,
            queues=nic.queues,
            host_mtu=host_mtu,
            vhost_user_socket=nic.vhost_user_socket,
        )
        return (operation,)

    def _check_tap(self, interface: Interface) -> None:
        """Raise HostError as for any machine, and for a macvtap: only the monitor can be given its open file."""
        super()._check_tap(interface)
        tap = self._machine.taps[interface.device]
        if tap.macvtap:
            raise HostError(
                f"{interface.device} is a macvtap, which only the driver vm can plug; give the domain a TAP",
                path=("device",),
            )

    def _check_vectors(self, interface: Interface) -> None:
        """Raise HostError if a vhost-user NIC would end the machine: libvirt cannot plug one without vectors."""
        if not self._machine.kvm and self._machine.msi:
            raise HostError(
                f"{interface.name}: without KVM, QEMU crashes with a vhost-user NIC that libvirt has plugged in; start "
                "the domain with KVM (<domain type='kvm'>), or its kernel with pci=nomsi",
                path=("vhostUserSocket",),
            )

    def _going(self, device: str, socket: str | None, other: Other | None) -> tuple[PlugOperation, ...]:
        """Return what unplugs a NIC."""
        del socket
        return (DetachNic(domain=self._domain, device=device, other=other),)

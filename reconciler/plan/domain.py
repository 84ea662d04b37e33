"""How devices of the host are attached to a domain of libvirt, which opens TAP or socket and plugs the NIC in one."""

from __future__ import annotations

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
        super().__init__(around)
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

    def _going(self, device: str, socket: str | None, other: Other | None) -> tuple[PlugOperation, ...]:
        """Return what unplugs a NIC."""
        del socket, other
        return (DetachNic(domain=self._domain, device=device),)

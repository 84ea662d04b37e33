"""How devices of the host are attached to a namespace: they move in, and back as they were."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.errors import HostError
from reconciler.model.interface import Interface, Origin
from reconciler.model.sandbox import AttachableDevice, NetnsAddress, Surroundings
from reconciler.operations.interface import AttachInterface, DetachInterface, SetLink
from reconciler.operations.segment import Moves, Segment
from reconciler.plan.sysctl import new_sysctls, set_up


class NamespaceHost:
    """See `plan.interface.Host`."""

    def __init__(self, address: NetnsAddress, around: Surroundings) -> None:
        self._address = address
        self._around = around

    def attach(self, interface: Interface) -> list[Segment]:
        """Move the device in."""
        device = self._device(interface)
        check_queues(interface, device.queues)
        attach = AttachInterface(
            host_name=device.name, namespace=self._address.shell_word, name=interface.name, origin=device.origin
        )
        up = SetLink(name=interface.name, hw_addr=interface.hw_addr, mtu=interface.mtu, up=True, sign="+")
        return [Moves((attach,)), *set_up((up,), new_sysctls(interface))]

    def _device(self, interface: Interface) -> AttachableDevice:
        devices = self._around.devices
        if devices is None:
            origin = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
            return AttachableDevice(name=interface.device, queues=interface.queues, origin=origin)
        if interface.device not in devices:
            raise HostError(
                f"{interface.device}: no such device on this host, which interface {interface.name} needs; "
                "create it first"
            )
        return devices[interface.device]

    def detach(self, interface: Interface) -> list[Segment]:
        """Move the device out, as it was on the host. A saved state does not have that: it then moves as it is."""
        unknown = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
        origin = self._around.origins.get(interface.device, unknown)
        return [Moves((DetachInterface(name=interface.name, origin=origin),))]

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return False: every change of a device is possible in place."""
        del before, after
        return False

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return False: only names and addresses can be in the way, and the caller checks these."""
        del removed, added
        return False

    def clear(self, wanted: Sequence[Interface]) -> list[Segment]:
        """Return nothing: one message moves, names and marks a device, so nothing is ever half done."""
        del wanted
        return []

    def check(self, interface: Interface) -> None:
        """Accept it: the driver has already checked an attached device when it observed it."""


def check_queues(interface: Interface, available: int) -> None:
    """Raise HostError if a device has fewer queues than its interface asks for."""
    if interface.queues > max(available, 1):
        has = "single-queue" if available <= 1 else f"limited to {available} queues"
        raise HostError(f"{interface.device} is {has}; interface {interface.name} asks for {interface.queues} queues")

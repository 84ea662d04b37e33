"""How devices of the host are attached to a namespace: they move in, and back as they were."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.errors import HostError, RefusedError
from reconciler.formats.iproute2 import detach_command
from reconciler.model.attribute import changed
from reconciler.model.interface import Interface, Origin
from reconciler.model.sandbox import AttachableDevice, NetnsAddress, Surroundings
from reconciler.operations.interface import AttachInterface, DetachInterface, SetLink
from reconciler.operations.segment import Moves, Segment
from reconciler.plan import altnames
from reconciler.plan.device import check_elsewhere, check_hw_addr, missing
from reconciler.plan.sysctl import new_sysctls, set_up
from reconciler.values import replace
from reconciler.wording import quote

# Kinds of links whose MAC address is that of another link.
_FIXED_ADDRESS_KINDS = frozenset({"ipvlan", "ipvtap"})


class NamespaceHost:
    """See `plan.interface.Host`."""

    def __init__(self, address: NetnsAddress, around: Surroundings) -> None:
        self._address = address
        self._around = around

    def attach(self, interface: Interface) -> list[Segment]:
        """Move the device in."""
        device = self._device(interface)
        _check_device(interface, device)
        attach = AttachInterface(
            host_name=device.name, namespace=self._address.shell_word, name=interface.name, origin=device.origin
        )
        hw_addr = None if device.kind in _FIXED_ADDRESS_KINDS else interface.hw_addr or None
        master = interface.master or None
        up = SetLink(
            name=interface.name,
            hw_addr=hw_addr,
            mtu=interface.mtu,
            master=master,
            attributes=interface.attributes,
            up=interface.up,
            sign="+",
        )
        had = device.origin.altnames
        return [
            Moves((attach,)),
            *altnames.going(interface.name, had, interface.altnames),
            *set_up((up,), new_sysctls(interface)),
            *altnames.coming(interface.name, had, interface.altnames),
        ]

    def _device(self, interface: Interface) -> AttachableDevice:
        devices = self._around.devices
        if devices is None:
            origin = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
            return AttachableDevice(name=interface.device, queues=interface.queues, origin=origin)
        check_elsewhere(interface, self._around)
        if interface.device not in devices:
            raise missing(interface)
        return devices[interface.device]

    def detach(self, interface: Interface) -> list[Segment]:
        """Move the device out, as it was on the host. A saved state does not have that: it then moves as it is."""
        unknown = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
        origin = self._around.origins.get(interface.device, unknown)
        origin = replace(origin, attributes=changed(interface.attributes, origin.attributes))
        names = interface.altnames or ()
        return [
            *altnames.going(interface.name, names, origin.altnames),
            *altnames.coming(interface.name, names, origin.altnames),
            Moves((DetachInterface(name=interface.name, origin=origin),)),
        ]

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return False: every change of a device is possible in place."""
        del before, after
        return False

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return False: only names and addresses can be in the way, and the caller checks these."""
        del removed, added
        return False

    def clear(self, wanted: Sequence[Interface]) -> list[Segment]:
        """Return nothing: one message moves, names and marks a device, so nothing is ever half done.

        Raises RefusedError if a NIC looks like one that was given, and no record proves that it was.
        """
        del wanted
        if self._around.unproven:
            first, second = _unproven_words(self._address, *min(self._around.unproven.items()))
            raise RefusedError(first, more=[second])
        return []

    def check(self, interface: Interface) -> None:
        """Raise HostError if an attached device does not accept its MTU. The driver has checked its queues."""
        check_mtu(interface, self._around.mtus.get(interface.device, (0, 0)))


def _unproven_words(address: NetnsAddress, name: str, origin: Origin) -> tuple[str, str]:
    within = f"nsenter --net={quote(address.file)}"
    advice = (
        f"the alias of {name} says that reconciler moved {origin.device} of this host here, but no record proves that: "
        f"it was lost, or another program wrote the alias. If it is that device, return it by hand and apply again: "
        f"{within} {detach_command(name, origin)}"
    )
    return advice, f"If it is not, clear its alias: {within} ip link set dev {quote(name)} alias ''"


def _check_device(interface: Interface, device: AttachableDevice) -> None:
    """Raise HostError if a device of the host cannot become what its interface asks for."""
    check_queues(interface, device.queues)
    check_mtu(interface, device.mtus)
    kind = f" (it is of kind {device.kind})" if device.kind else ""
    check_hw_addr(interface, device.origin.hw_addr, kind)
    if device.kind in _FIXED_ADDRESS_KINDS and device.origin.hw_addr != interface.hw_addr:
        raise HostError(
            f"{interface.device} cannot change its MAC address{kind}; "
            f"interface {interface.name} asks for {interface.hw_addr}, and it has {device.origin.hw_addr}",
            path=("hwAddr",),
        )


def check_mtu(interface: Interface, accepted: tuple[int, int]) -> None:
    """Raise HostError if a device does not accept the MTU of its interface."""
    least, most = accepted
    if interface.mtu < least or 0 < most < interface.mtu:
        accepts = f"from {least} to {most} bytes" if most else f"of at least {least} bytes"
        raise HostError(
            f"interface {interface.name}: its MTU is {interface.mtu}, and {interface.device} accepts one {accepts}",
            path=("mtu",),
        )


def check_queues(interface: Interface, available: int) -> None:
    """Raise HostError if a device has fewer queues than its interface asks for."""
    if interface.queues > max(available, 1):
        has = "single-queue" if available <= 1 else f"limited to {available} queues"
        asks = f"interface {interface.name} asks for {interface.queues} queues"
        raise HostError(f"{interface.device} is {has}; {asks}", path=("queues",))

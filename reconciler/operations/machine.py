"""The operations on NICs that are plugged into a virtual machine. Imported only if a plan has any.

Commands are for QEMU's human monitor, except the one in the guest. The ids in QEMU mark an object as ours and name the
device of the host, so that a later run recognises half-done work. Netdev, chardev and NIC of a device have the same id,
each in its own list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reconciler.model.identity import HostDevice, Nic, Subject
from reconciler.model.interface import is_link_name
from reconciler.operations.base import Base, Sign

_ID_PREFIX = "reconciler-"


def plug_id(device: str) -> str:
    """Return the id in QEMU for a device of the host."""
    return f"{_ID_PREFIX}{device}"


def plugged_device(plug: str) -> str | None:
    """Return the device of the host that an id is for; None if it is not ours, or if no device can have such a name."""
    device = plug.removeprefix(_ID_PREFIX)
    return device if plug.startswith(_ID_PREFIX) and is_link_name(device) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnDevice(Base):
    device: str

    @property
    def subject(self) -> Subject:
        """Return the NIC by the host's device."""
        return HostDevice(self.device)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC."""
        return frozenset((HostDevice(self.device),))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNetdev(_OnDevice):
    """Make QEMU open a device of the host: a TAP with `queues` queues (1 and more), or a vhost-user socket."""

    sign: ClassVar[Sign] = "+"
    queues: int
    vhost_user_socket: str | None = None

    @property
    def command(self) -> str:
        """Return the commands."""
        plug, queues = plug_id(self.device), f",queues={self.queues}" if self.queues > 1 else ""
        if self.vhost_user_socket is None:
            return f"netdev_add tap,id={plug},ifname={self.device},script=no,downscript=no{queues}"
        chardev = f"chardev-add socket,id={plug},path={self.vhost_user_socket},reconnect=1"
        return f"{chardev}; netdev_add vhost-user,id={plug},chardev={plug}{queues}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDevice(_OnDevice):
    """Plug a NIC into a slot of a bus. `host_mtu`: the largest MTU that the guest may set; 0: no limit.

    `vectors` 0 avoids a crash of QEMU's TCG with vhost-user; None: QEMU chooses.
    """

    sign: ClassVar[Sign] = "+"
    hw_addr: str
    queues: int
    bus: str
    addr: str
    host_mtu: int = 0
    vectors: int | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        plug = plug_id(self.device)
        words = f"device_add virtio-net-pci,id={plug},netdev={plug},mac={self.hw_addr},bus={self.bus},addr={self.addr}"
        words += ",mq=on" if self.queues > 1 else ""
        words += f",host_mtu={self.host_mtu}" if self.host_mtu else ""
        return words + (f",vectors={self.vectors}" if self.vectors is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameInterface(_OnDevice):
    """Wait until the guest has detected a plugged NIC, and rename it. Its MAC address identifies it."""

    sign: ClassVar[Sign] = "+"
    hw_addr: str
    name: str

    @property
    def command(self) -> str:
        """Return the command, with the MAC address in place of the NIC's first name, which is not known before."""
        return f"ip link set dev {self.hw_addr} name {self.name}"

    @property
    def comment(self) -> str:
        """Return when it can be executed."""
        return "once the guest has found the NIC with this address"

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC by the host's device and by its name."""
        return frozenset((HostDevice(self.device), Nic(self.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDevice(_OnDevice):
    """Unplug a NIC, and wait until the guest has released it."""

    sign: ClassVar[Sign] = "-"

    @property
    def command(self) -> str:
        """Return the command."""
        return f"device_del {plug_id(self.device)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteNetdev(_OnDevice):
    """Make QEMU close a device of the host. Its NIC must be gone: otherwise QEMU reports wrong data and may crash."""

    sign: ClassVar[Sign] = "-"
    vhost_user: bool = False

    @property
    def command(self) -> str:
        """Return the commands; the second one if it is a vhost-user socket."""
        plug = plug_id(self.device)
        return f"netdev_del {plug}" + (f"; chardev-remove {plug}" if self.vhost_user else "")


# Operations that are commands of QEMU's monitor.
PlugOperation = AddNetdev | AddDevice | DeleteDevice | DeleteNetdev
MachineOperation = PlugOperation | NameInterface

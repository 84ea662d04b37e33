"""The operations of NICs that are plugged into a virtual machine. Loaded only where there are any.

Commands are for QEMU's human monitor, except the one in the guest. The ids say whose they are and which device of the
host is meant, so that what was left half done is recognised (netdev and chardev share the device's id, each in a list of
its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reconciler.operations import Base, Sign

_ID_PREFIX = "reconciler-"


def plug_id(device: str) -> str:
    """Give the id in QEMU of what is plugged for a device of the host."""
    return f"{_ID_PREFIX}{device}"


def plugged_device(plug: str) -> str | None:
    """Give the device of the host that an id of ours is for; None if it is not ours."""
    return plug.removeprefix(_ID_PREFIX) if plug.startswith(_ID_PREFIX) else None


class _Machine(Base):
    __slots__ = ()

    machine: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNetdev(_Machine):
    """Give QEMU a device of the host: a TAP with `queues` queues (1 and more), or a vhost-user socket."""

    sign: ClassVar[Sign] = "+"
    device: str
    queues: int
    vhost_user_socket: str | None = None

    @property
    def command(self) -> str:
        """The commands."""
        plug, queues = plug_id(self.device), f",queues={self.queues}" if self.queues > 1 else ""
        if self.vhost_user_socket is None:
            return f"netdev_add tap,id={plug},ifname={self.device},script=no,downscript=no{queues}"
        chardev = f"chardev-add socket,id={plug},path={self.vhost_user_socket},reconnect=1"
        return f"{chardev}; netdev_add vhost-user,id={plug},chardev={plug}{queues}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDevice(_Machine):
    """Plug a NIC into a slot of a bus. `host_mtu`: the most that the guest may set, 0 for no limit.

    `vectors` 0 spares QEMU's TCG a crash with vhost-user; None leaves them to QEMU.
    """

    sign: ClassVar[Sign] = "+"
    device: str
    hw_addr: str
    queues: int
    bus: str
    addr: str
    host_mtu: int = 0
    vectors: int | None = None

    @property
    def command(self) -> str:
        """The command."""
        plug = plug_id(self.device)
        words = f"device_add virtio-net-pci,id={plug},netdev={plug},mac={self.hw_addr},bus={self.bus},addr={self.addr}"
        words += ",mq=on" if self.queues > 1 else ""
        words += f",host_mtu={self.host_mtu}" if self.host_mtu else ""
        return words + (f",vectors={self.vectors}" if self.vectors is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameInterface(_Machine):
    """Wait until a plugged NIC is in the guest, and give it its name: it is found by its MAC address."""

    sign: ClassVar[Sign] = "+"
    device: str
    hw_addr: str
    name: str

    @property
    def command(self) -> str:
        """The command, with the MAC address in place of a name that nobody knows before."""
        return f"ip link set dev {self.hw_addr} name {self.name}"

    @property
    def comment(self) -> str:
        """Say when."""
        return "once the guest has found the NIC with this address"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDevice(_Machine):
    """Unplug a NIC, and wait until the guest has let it go."""

    sign: ClassVar[Sign] = "-"
    device: str

    @property
    def command(self) -> str:
        """The command."""
        return f"device_del {plug_id(self.device)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteNetdev(_Machine):
    """Take a device of the host back from QEMU. Only after its NIC is gone: QEMU lies and may crash otherwise."""

    sign: ClassVar[Sign] = "-"
    device: str
    vhost_user: bool = False

    @property
    def command(self) -> str:
        """The commands; whichever is there."""
        plug = plug_id(self.device)
        return f"netdev_del {plug}" + (f"; chardev-remove {plug}" if self.vhost_user else "")


MachineOperation = AddNetdev | AddDevice | NameInterface | DeleteDevice | DeleteNetdev

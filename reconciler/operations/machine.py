"""The operations on NICs that are plugged into a virtual machine. Imported only if a plan has any.

Commands are for QEMU's human monitor, except the one in the guest. The ids in QEMU mark an object as ours and name the
device of the host, so that a later run recognises half-done work. Netdev, chardev and NIC of a device have the same id,
each in its own list.
"""

from __future__ import annotations

import re
from typing import ClassVar

from reconciler.model.identity import HostDevice, Nic, Subject, Unmanaged
from reconciler.model.interface import is_link_name
from reconciler.model.machine import Macvtap, Other
from reconciler.operations.base import Base, Sign, ownership
from reconciler.operations.domain import AdoptNics, AttachNic, DetachNic
from reconciler.values import dataclass
from reconciler.wording import quote

_ID_PREFIX = "reconciler-"
# The label of an idle character device that marks a NIC of another program as ours: QEMU never changes the ID of a NIC.
# The lengths of the first two tell the three names apart.
_MARK = "reconciler.adopted.{}.{}.{}{}{}"
_MARKED = re.compile(r"reconciler\.adopted\.([0-9]{1,2})\.([0-9]{1,3})\.([A-Za-z0-9._-]+)")
# util/id.c of QEMU: id_wellformed.
_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


def plug_id(device: str) -> str:
    """Return the id in QEMU for a device of the host."""
    return f"{_ID_PREFIX}{device}"


def plugged_device(plug: str) -> str | None:
    """Return the device of the host that an id is for; None if it is not ours, or if no device can have such a name."""
    device = plug.removeprefix(_ID_PREFIX)
    return device if plug.startswith(_ID_PREFIX) and is_link_name(device) else None


def adoption_mark(device: str, other: Other) -> str:
    """Return the label that marks a NIC of another program as that of a device of the host."""
    return _MARK.format(len(device), len(other.nic), device, other.nic, other.netdev)


def adopted_nic(label: str) -> tuple[str, Other] | None:
    """Return which device and NIC a label marks; None if it is not ours, or if no device can have such a name."""
    match = _MARKED.fullmatch(label)
    if match is None:
        return None
    ends, names = (int(match[1]), int(match[1]) + int(match[2])), match[3]
    device, other = names[: ends[0]], Other(names[ends[0] : ends[1]], names[ends[1] :])
    return (device, other) if is_link_name(device) and all(map(is_id, other)) else None


def is_id(text: str) -> bool:
    """Return whether QEMU allows an ID."""
    return _ID.fullmatch(text) is not None


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
    """Make QEMU open a device of the host: a TAP with `queues` queues (1 and more), or a vhost-user socket.

    `macvtap`: QEMU gets the open file of one.
    """

    sign: ClassVar[Sign] = "+"
    queues: int
    vhost_user_socket: str | None = None
    macvtap: Macvtap | None = None

    @property
    def command(self) -> str:
        """Return the commands."""
        plug, queues = plug_id(self.device), f",queues={self.queues}" if self.queues > 1 else ""
        if self.macvtap:
            return f"getfd {plug} </dev/tap{self.macvtap.number}; netdev_add tap,id={plug},fd={plug}"
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
    def is_contested(self) -> bool:
        """Return that udev in the guest may just be about to give the NIC a name."""
        return True

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC by the host's device and by its name."""
        return frozenset((HostDevice(self.device), Nic(self.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDevice(_OnDevice):
    """Unplug a NIC, and wait until the guest has released it."""

    sign: ClassVar[Sign] = "-"
    other: Other | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        return f"device_del {self.other.nic if self.other else plug_id(self.device)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteNetdev(_OnDevice):
    """Make QEMU close a device of the host. Its NIC must be gone: otherwise QEMU reports wrong data and may crash."""

    sign: ClassVar[Sign] = "-"
    vhost_user: bool = False
    other: Other | None = None

    @property
    def command(self) -> str:
        """Return the commands; the second one if it is a vhost-user socket, or was adopted."""
        if self.other:
            netdev = [f"netdev_del {self.other.netdev}"] if self.other.netdev else []
            return "; ".join([*netdev, f"chardev-remove {adoption_mark(self.device, self.other)}"])
        plug = plug_id(self.device)
        return f"netdev_del {plug}" + (f"; chardev-remove {plug}" if self.vhost_user else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptDevices(Base):
    """Mark NICs that another program plugged as ours, all of them or none. `nics`: device of the host, name, IDs.

    `marked`: False to take that back, in an undo.
    """

    sign: ClassVar[Sign] = "~"
    nics: tuple[tuple[str, str, Other], ...]
    marked: bool = True

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the label of each."""
        return tuple(adoption_mark(device, other) for device, _, other in self.nics)

    @property
    def command(self) -> str:
        """Return the commands."""
        command = "chardev-add null,id=" if self.marked else "chardev-remove "
        return "; ".join(f"{command}{mark}" for mark in self.marks)

    @property
    def comment(self) -> str:
        """Return what that means."""
        return f"{ownership(marked=self.marked)}: {', '.join(quote(name) for _, name, _ in self.nics)}"

    @property
    def subject(self) -> Subject:
        """Return the first NIC by the host's device."""
        return HostDevice(self.nics[0][0])

    @property
    def provides(self) -> frozenset[Subject]:
        """Return all of them by both names."""
        return frozenset(each for device, name, _ in self.nics for each in (HostDevice(device), Nic(name)))


# How a network manager is told what to leave alone, by its process: as the agent writes it.
_TELLING = {
    "systemd-network": (
        "/run/systemd/network/00-reconciler.network",
        ("[Match]", "PermanentMACAddress={}", "[Link]", "Unmanaged=yes"),
        ("", " "),
        "networkctl reload",
    ),
    "NetworkManager": (
        "/run/NetworkManager/conf.d/00-reconciler.conf",
        ("[device-reconciler]", "match-device={}", "managed=0"),
        ("mac:", ","),
        "nmcli general reload conf",
    ),
    "systemd-udevd": (
        "/run/systemd/network/00-reconciler.link",
        ("[Match]", "PermanentMACAddress={}", "[Link]", "NamePolicy="),
        ("", " "),
        "udevadm control --reload",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUnmanaged(Base):
    """Tell the guest's network managers to leave our NICs alone, by their MAC addresses. `managers`: which there are.

    It comes before NICs are plugged: otherwise a manager takes their addresses away, or adds its own.
    """

    sign: ClassVar[Sign] = "~"
    hw_addrs: tuple[str, ...]
    managers: tuple[str, ...]

    @property
    def command(self) -> str:
        """Return the commands in the guest."""
        return "; ".join(self._command(each) for each in self.managers if each in _TELLING)

    def _command(self, manager: str) -> str:
        file, lines, (prefix, separator), reload = _TELLING[manager]
        if not self.hw_addrs:
            return f"rm -f {file}; {reload}"
        words = separator.join(prefix + each for each in self.hw_addrs)
        return f"printf '%s\\n' {' '.join(quote(line.format(words)) for line in lines)} >{file}; {reload}"

    @property
    def comment(self) -> str:
        """Return what that is for."""
        return "in the guest: its network manager leaves our NICs alone" if self.hw_addrs else "none of ours is left"

    @property
    def subject(self) -> Subject:
        """Return what the managers were told."""
        return Unmanaged()


# Operations that are commands of QEMU's monitor, and those that are commands for libvirt.
MonitorOperation = AddNetdev | AddDevice | DeleteDevice | DeleteNetdev | AdoptDevices
DomainOperation = AttachNic | DetachNic | AdoptNics
PlugOperation = MonitorOperation | DomainOperation
MachineOperation = PlugOperation | NameInterface | SetUnmanaged

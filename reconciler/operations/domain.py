"""The operations on NICs of a domain of libvirt. Imported only if a plan has any.

The alias of a NIC marks it as ours and names the device of the host. Only live domains are changed, never what libvirt
keeps for their next start: after that start, `apply` plugs again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from reconciler.model.identity import HostDevice, Nic, Subject
from reconciler.model.interface import is_link_name
from reconciler.model.machine import Other
from reconciler.model.sandbox import LIBVIRT_SYSTEM, LibvirtAddress
from reconciler.operations.base import Base, Sign, ownership
from reconciler.values import dataclass
from reconciler.wording import quote

# libvirt keeps an alias of a user only if it begins with `ua-`.
_ALIAS_PREFIX = "ua-reconciler-"
# It replaces an alias with any other character, such as the `.` of a VLAN, silently.
_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
_ENCODED = re.compile(r"_([0-9a-f]{2})")
_ALIAS = re.compile(r"ua-reconciler-(?:[A-Za-z0-9-]|_[0-9a-f]{2})+")
# The element of a domain's metadata that says which NICs of other programs were adopted.
MARK_URI, MARK_KEY = "https://reconciler.example/libvirt", "reconciler"
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})


def nic_alias(device: str) -> str:
    """Return the alias of the NIC for a device of the host."""
    return _ALIAS_PREFIX + _UNSAFE.sub(lambda found: "".join(f"_{each:02x}" for each in found[0].encode()), device)


def aliased_device(alias: str) -> str | None:
    """Return the device of the host that an alias is for; None if it is not ours, or if no device has such a name."""
    if not _ALIAS.fullmatch(alias):
        return None
    text = alias.removeprefix(_ALIAS_PREFIX)
    data = _ENCODED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1")
    device = data.decode(errors="replace")
    return device if is_link_name(device) and nic_alias(device) == alias else None


def virsh(address: LibvirtAddress, command: str, *words: str) -> str:
    """Return a command line for a domain, as an engineer types it as root."""
    uri = [] if address.uri == LIBVIRT_SYSTEM else ["-c", address.uri]
    return " ".join(map(quote, ["virsh", *uri, command, address.domain, *words]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnDomain(Base):
    domain: LibvirtAddress
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
class AttachNic(_OnDomain):
    """Plug a NIC of a TAP with `queues` queues (1 and more), or of a vhost-user socket.

    `host_mtu`: the largest MTU that the guest may set; 0: no limit.
    """

    sign: ClassVar[Sign] = "+"
    hw_addr: str
    queues: int
    host_mtu: int = 0
    vhost_user_socket: str | None = None

    @property
    def xml(self) -> str:
        """Return the NIC for libvirt."""
        parts = [f"<mac address={_attribute(self.hw_addr)}/>"]
        if self.vhost_user_socket is None:
            kind = "ethernet"
            # libvirt would create a TAP that is missing, and delete it with the NIC.
            parts.append(f"<target dev={_attribute(self.device)} managed='no'/>")
        else:
            kind = "vhostuser"
            parts.append(f"<source type='unix' path={_attribute(self.vhost_user_socket)} mode='client'/>")
        parts.append("<model type='virtio'/>")
        if self.queues > 1:
            parts.append(f"<driver queues='{self.queues}'/>")
        if self.host_mtu:
            parts.append(f"<mtu size='{self.host_mtu}'/>")
        parts.append(f"<alias name={_attribute(nic_alias(self.device))}/>")
        return f"<interface type='{kind}'>{''.join(parts)}</interface>".replace("'", '"')

    @property
    def command(self) -> str:
        """Return the command, for bash."""
        return f"{virsh(self.domain, 'attach-device')} /dev/stdin --live <<<{quote(self.xml)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachNic(_OnDomain):
    """Unplug a NIC, and wait until the guest has released it. `other`: that of another program, which was adopted."""

    sign: ClassVar[Sign] = "-"
    other: Other | None = None

    @property
    def alias(self) -> str:
        """Return the alias of the NIC."""
        return self.other.nic if self.other else nic_alias(self.device)

    @property
    def command(self) -> str:
        """Return the command."""
        return virsh(self.domain, "detach-device-alias", self.alias, "--live")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptNics(Base):
    """Mark NICs that another program plugged as ours, all of them or none. `nics`: device of the host, name, alias.

    libvirt never changes the alias of a NIC. So the metadata of the running domain say which are ours, and which device
    each has. `kept`: those that are ours already. `marked`: False to take that back, in an undo.
    """

    sign: ClassVar[Sign] = "~"
    domain: LibvirtAddress
    nics: tuple[tuple[str, str, Other], ...]
    kept: tuple[tuple[str, Other], ...] = ()
    marked: bool = True

    @property
    def marks(self) -> Mapping[str, str]:
        """Return alias → device of all adopted NICs."""
        new = ((device, other) for device, _, other in self.nics) if self.marked else ()
        return {other.nic: device for device, other in (*self.kept, *new)}

    @property
    def command(self) -> str:
        """Return the command."""
        change = ("--set", marks_xml(self.marks)) if self.marks else ("--remove",)
        return virsh(self.domain, "metadata", "--live", "--uri", MARK_URI, "--key", MARK_KEY, *change)

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


def marks_xml(marks: Mapping[str, str]) -> str:
    """Return the metadata that mark adopted NICs: alias → device."""
    nics = (f"<nic alias={_attribute(alias)} device={_attribute(device)}/>" for alias, device in marks.items())
    return f"<adopted>{''.join(nics)}</adopted>".replace("'", '"')


def _attribute(text: str) -> str:
    return f"'{text.translate(_ESCAPES)}'"

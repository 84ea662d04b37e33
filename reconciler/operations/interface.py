"""Operations on NICs: they move in and out of a namespace, are adopted, are renamed, and their links are set."""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.model.attribute import Attributes
from reconciler.model.identity import HostDevice, Nic, Subject
from reconciler.model.interface import Origin
from reconciler.operations.base import Base, Sign, ownership
from reconciler.values import dataclass
from reconciler.wording import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNic(Base):
    """An operation on a NIC, by its name in the sandbox."""

    name: str

    @property
    def subject(self) -> Subject:
        """Return the NIC."""
        return Nic(self.name)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC: once it has left, its name is free."""
        return frozenset((Nic(self.name),))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachInterface(OnNic):
    """Move a device of the host into the sandbox, rename it and mark it, in one message."""

    sign: ClassVar[Sign] = "+"
    host_name: str
    namespace: str
    origin: Origin

    @property
    def command(self) -> str:
        """Return the command, typed on the host."""
        return iproute2.attach_command(self.host_name, self.namespace, self.name, self.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachInterface(OnNic):
    """Move a device back to the host and restore its name, MAC address, MTU, alias, attributes and state."""

    sign: ClassVar[Sign] = "-"
    origin: Origin

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.detach_command(self.name, self.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameInterface(Base):
    """Rename a NIC in the sandbox."""

    sign: ClassVar[Sign] = "~"
    name: str
    new_name: str

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.rename_command(self.name, self.new_name)

    @property
    def subject(self) -> Subject:
        """Return the NIC by its new name."""
        return Nic(self.new_name)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC by both names: the old one is free afterwards."""
        return frozenset((Nic(self.name), Nic(self.new_name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink(OnNic):
    """Change some settings of a NIC in one message; None leaves a setting as it is. `master`: "" makes it no port.

    `was`: the old values, for people.
    """

    hw_addr: str | None = None
    mtu: int | None = None
    up: bool | None = None
    master: str | None = None
    attributes: Attributes = ()
    was: str = ""
    sign: Sign = "~"

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.set_link_command(
            self.name,
            hw_addr=self.hw_addr,
            mtu=self.mtu,
            up=self.up,
            master=self.master,
            attributes=self.attributes,
        )

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        return f"was {self.was}" if self.was else ""

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NIC, and the one that it becomes a port of."""
        return self.provides | ({Nic(self.master)} if self.master else set())


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptInterfaces(Base):
    """Record NICs that another program moved into the sandbox as given devices: all of them, or none.

    `nics`: the name of each in the sandbox, and what it will be on the host when it leaves. `marked`: False to take
    that back, in an undo.
    """

    sign: ClassVar[Sign] = "~"
    nics: tuple[tuple[str, Origin], ...]
    marked: bool = True

    @property
    def command(self) -> str:
        """Return a comment of the shell: nothing is changed but our record."""
        listed = ", ".join(f"{quote(name)} (on the host: {origin.device})" for name, origin in self.nics)
        return f"# {ownership(marked=self.marked)}: {listed}"

    @property
    def subject(self) -> Subject:
        """Return the first NIC by the host's device."""
        return HostDevice(self.nics[0][1].device)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return all of them by both names."""
        return frozenset(each for name, origin in self.nics for each in (Nic(name), HostDevice(origin.device)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAltnames(OnNic):
    """Give a NIC more alternative names."""

    sign: ClassVar[Sign] = "+"
    altnames: tuple[str, ...]

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.altnames_command("add", self.name, self.altnames)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteAltnames(OnNic):
    """Take alternative names from a NIC."""

    sign: ClassVar[Sign] = "-"
    altnames: tuple[str, ...]

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.altnames_command("del", self.name, self.altnames)


MoveOperation = AttachInterface | DetachInterface | AdoptInterfaces
LinkOperation = RenameInterface | SetLink | AddAltnames | DeleteAltnames

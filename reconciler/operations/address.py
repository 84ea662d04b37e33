"""Operations on the addresses of NICs."""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.model.identity import Nic, NicAddress, Subject
from reconciler.model.interface import Address
from reconciler.operations.base import Base, Sign
from reconciler.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnNic(Base):
    """An operation on an address of a NIC."""

    device: str
    address: Address

    @property
    def subject(self) -> Subject:
        """Return the address."""
        return NicAddress(self.device, self.address.key)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the NIC: routes through it may need any of its addresses."""
        return frozenset((Nic(self.device),))


class AddAddress(_OnNic):
    """Add an address to a NIC."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.address_command("add", self.device, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceAddress(_OnNic):
    """Change an address in place, or restore one that the kernel may have deleted.

    `before`: what was observed; None if the address is as desired and may be deleted on the way.
    """

    sign: ClassVar[Sign] = "~"
    before: Address | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.address_command("replace", self.device, self.address)

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        return f"was {iproute2.address_words(self.before)}" if self.before else ""


class DeleteAddress(_OnNic):
    """Delete an address from a NIC."""

    __slots__ = ()

    sign: ClassVar[Sign] = "-"

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.address_command("del", self.device, self.address)


class AwaitAddress(_OnNic):
    """Wait until duplicate address detection of an IPv6 address ends: before, no route can have it as its source."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def command(self) -> str:
        """Return a shell loop that waits."""
        return iproute2.await_command(self.device, self.address)


AddressOperation = AddAddress | ReplaceAddress | DeleteAddress | AwaitAddress

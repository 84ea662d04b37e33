"""Operations on objects that are added, replaced and deleted as a whole, and on which nothing else depends.

A new kind of object of this sort needs only one more name in `Item`.
"""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.formats.iproute2 import Item
from reconciler.model.identity import Listed, Nic, Subject
from reconciler.operations.base import Base, Sign
from reconciler.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnItem(Base):
    """An operation on a rule or a neighbour. `verb`: what iproute2 calls it."""

    item: Item
    verb: ClassVar[str]

    @property
    def kind(self) -> str:
        """Return the name of its kind: `AddRule`."""
        return type(self).__name__.removesuffix("Item") + type(self.item).__name__

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.item_command(self.verb, self.item)

    @property
    def subject(self) -> Subject:
        """Return the object."""
        return Listed(self.item.section, self.item.key)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NIC without which it cannot exist."""
        return frozenset((Nic(self.item.nic),) if self.item.nic else ())


class AddItem(_OnItem):
    """Add an object."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"
    verb: ClassVar[str] = "add"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceItem(_OnItem):
    """Replace an object by another with the same key."""

    sign: ClassVar[Sign] = "~"
    verb: ClassVar[str] = "replace"
    before: Item

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        if self.before == self.item and self.before.protocol != self.item.protocol:
            return f"was {iproute2.protocol_words(self.before.protocol)}"
        return f"was {iproute2.item_words(self.before)}"


class DeleteItem(_OnItem):
    """Delete an object."""

    __slots__ = ()

    sign: ClassVar[Sign] = "-"
    verb: ClassVar[str] = "del"


ItemOperation = AddItem | ReplaceItem | DeleteItem

"""Operations on links that are made in the sandbox."""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.model.identity import Nic, Subject
from reconciler.model.made import Made, Value
from reconciler.operations.base import Sign, ownership
from reconciler.operations.interface import OnNic
from reconciler.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AddLink(OnNic):
    """Make a link and mark it as ours."""

    sign: ClassVar[Sign] = "+"
    made: Made

    @property
    def command(self) -> str:
        """Return the commands."""
        return iproute2.add_link_command(self.name, self.made)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the link itself, and the one that it lies on."""
        return self.provides | ({Nic(self.made.link)} if self.made.link else set())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLink(OnNic):
    """Change options of a link in place. `was`: the old values, for people."""

    sign: ClassVar[Sign] = "~"
    made: Made
    changes: tuple[tuple[str, Value], ...]
    was: str = ""

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.change_link_command(self.name, self.made.kind, self.changes)

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        return f"was {self.was}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkLink(OnNic):
    """Mark a link that another program made in the sandbox as ours; or take the mark away again."""

    sign: ClassVar[Sign] = "~"
    marked: bool = True

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.mark_link_command(self.name, marked=self.marked)

    @property
    def comment(self) -> str:
        """Return what that means."""
        return ownership(marked=self.marked)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLink(OnNic):
    """Delete a link that we made. `why`: if it is made again, what the kernel cannot change of it."""

    sign: ClassVar[Sign] = "-"
    why: str = ""

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.delete_link_command(self.name)

    @property
    def comment(self) -> str:
        """Return why it is made again, and what goes with it."""
        return self.why


MadeOperation = AddLink | ChangeLink | MarkLink | DeleteLink

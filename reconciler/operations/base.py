"""The base class of all operations."""

from __future__ import annotations

from typing import Literal

from reconciler.model.identity import NOTHING, Subject

# What an operation does to its object: add, change, delete.
Sign = Literal["+", "~", "-"]


def ownership(*, marked: bool) -> str:
    """Return what it means to set our mark, or to take it away."""
    return "from now on ours" if marked else "not ours any more"


class Base:
    """An operation is a value. Its `sign` and `command` are for people: nothing is executed or compared by them."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        """Return the name of its kind in `diff -o json` and logs."""
        return type(self).__name__

    @property
    def comment(self) -> str:
        """Return what it replaces, or what is uncertain; empty if the command is clear by itself."""
        return ""

    @property
    def is_contested(self) -> bool:
        """Return whether a program in the sandbox may undo it a moment later, once: udev names a NIC that it finds."""
        return False

    @property
    def subject(self) -> Subject:
        """Return the identity of the object that it changes."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the objects without which it cannot succeed, including the one that it changes."""
        return self.provides

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the objects that later operations may need after it; none if nothing ever depends on it."""
        return NOTHING

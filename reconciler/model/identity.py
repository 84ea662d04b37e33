"""What identifies an object: its key among objects of its kind, and its identity in a sandbox.

Identities are compared and hashed, never displayed. Every operation has one. Fights are counted by identity, and the
object of a manifest is found by it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from reconciler.values import dataclass


class Keyed(Protocol):
    """An object with an identity apart from its other fields."""

    @property
    def key(self) -> Hashable:
        """Return what stays the same when the object changes."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC by its name in the sandbox."""

    name: str


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A NIC by the device of the host that it is, or is plugged to."""

    name: str


@dataclass(frozen=True, slots=True)
class NicAddress:
    """An address of a NIC, which is named as in the sandbox, by its key: `address/length`, or with its peer."""

    nic: str
    address: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a section that is a list, by the section's name and the object's key."""

    section: str
    key: Hashable


@dataclass(frozen=True, slots=True)
class VirtualService:
    """An IPVS service, by its key."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class RealServer:
    """An IPVS server, by the keys of its service and of itself."""

    service: Hashable
    key: Hashable


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A sysctl by its name for sysctl(8). `nic`: the NIC, named as in the sandbox, that it belongs to."""

    name: str
    nic: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the IPVS table, by its name in the manifest."""

    name: str


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """What the network managers of a machine were told of our NICs."""


Subject = Unmanaged | Nic | HostDevice | NicAddress | Listed | VirtualService | RealServer | Sysctl | Setting

NOTHING: frozenset[Subject] = frozenset()

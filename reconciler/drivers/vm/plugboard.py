"""What the driver of virtual machines needs of a machine, whoever started it: a protocol.

`monitor` implements it by QEMU's monitor, `libvirt` by libvirt. Of a machine without either, only its agent is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from reconciler.errors import HostError
from reconciler.model.interface import Interface
from reconciler.model.machine import Machine, Other

if TYPE_CHECKING:
    from reconciler.drivers.vm.outside import OtherNic
    from reconciler.operations.machine import PlugOperation


class Plugboard(Protocol):
    """The outside of a machine: what is plugged into it."""

    def observe(self, wishes: Iterable[Interface], taken: Mapping[str, Other]) -> Machine:
        """Read what is plugged, and the devices of the wishes. Whether the guest has detected a NIC is not known here.

        `taken`: the NICs of other programs that count as ours beside those that are marked, by the host's device.
        """

    def others(self) -> list[OtherNic]:
        """Return the NICs of other programs that can be unplugged."""

    def execute(self, operation: PlugOperation) -> None:
        """Execute an operation. HostError if it is refused, or if the guest does not release a NIC."""

    def leave(self) -> None:
        """Take out what was plugged in to reach the guest, unless a NIC of ours is plugged."""

    def run_state(self) -> str:
        """Return whether the machine runs: `running`, `paused`, `io-error`, …: RunState of QEMU's schema."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when `has_restarted` should be asked; None if there is none."""

    def has_restarted(self) -> bool:
        """Return whether another agent may be in the guest since the last call, or none, as far as that shows here."""


class NoPlugboard:
    """A machine whose monitor is not ours: nothing is known of it, and nothing can be plugged into it."""

    def observe(self, wishes: Iterable[Interface], taken: Mapping[str, Other]) -> Machine:
        """Return a machine into which nothing is plugged."""
        del wishes, taken
        return Machine()

    def others(self) -> list[OtherNic]:
        """Return nothing."""
        return []

    def execute(self, operation: PlugOperation) -> None:
        """Raise HostError. The plan refuses such operations before."""
        del operation
        raise HostError("the machine has no monitor, so no NIC can be plugged into it")

    def leave(self) -> None:
        """Leave everything: nothing was plugged in."""

    def run_state(self) -> str:
        """Return that the machine runs, as its agent answers."""
        return "running"

    def fileno(self) -> None:
        """Return None: only the agent tells."""

    def has_restarted(self) -> bool:
        """Return False: only the agent tells."""
        return False

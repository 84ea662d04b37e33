"""A virtual machine: its kernel is reached through the agent in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.drivers.inside import Inside, release
from reconciler.guest.relay import GuestKernel, Relay
from reconciler.model.sandbox import Observed, Sandbox, VmAddress
from reconciler.operations import Operation

if TYPE_CHECKING:
    from reconciler.netlink.execute import Outcome


class VmDriver:
    """One machine, from `__init__` to `close`: its agent has one client at a time."""

    def __init__(self, address: VmAddress) -> None:
        """Connect. SandboxGoneError if it does not run, BusyError if another run is at it."""
        self._relay = Relay(address.file)
        try:
            self._inside = Inside(GuestKernel(self._relay))
        except BaseException:
            self._relay.close()
            raise

    def close(self) -> None:
        """Leave the machine to others."""
        self._inside.close()
        self._relay.close()

    def lock(self) -> AbstractContextManager[None]:
        """Nothing is left to lock: who is connected is alone."""
        return nullcontext()

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read what is in the guest's kernel."""
        observed = self._inside.observe(desired, self._inside.engine.links(), {}, quick=quick)
        around = replace(observed.around, devices={}, kernel=release(self._relay.hello().kernel))
        return Observed(sandbox=observed.sandbox, around=around)

    def execute(self, operations: Sequence[Operation]) -> Iterator[list[Outcome]]:
        """Execute operations in the guest's kernel."""
        # Only an apply pays for the import.
        from reconciler.netlink.execute import until_failure

        yield from until_failure(self._inside.execute(operations))

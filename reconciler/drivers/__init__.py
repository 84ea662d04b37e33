"""The only code that touches a sandbox: the protocol of a driver, and a line a driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, assert_never

from reconciler.model.sandbox import DriverAddress, KataAddress, NetnsAddress, Observed, Sandbox, VmAddress
from reconciler.operations.segment import Segment

if TYPE_CHECKING:
    from reconciler.drivers.vm.driver import VmDriver
    from reconciler.operations.outcome import Outcome


class Driver(Protocol):
    """Reads and changes one sandbox. SandboxGoneError if it does not exist."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other runs from changing this sandbox; BusyError if one is at it. Dies with the process.

        Reentrant, but the first release frees the lock.
        """

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read what is ours in it and what surrounds it.

        `desired` says which host devices matter, and lets a driver hand out the desired object where it finds its equal.
        A quick look is for what was written or read a moment ago; of IPVS it does not see all (`IpvsEngine.observe`).
        """

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments in order; yield the outcomes batch by batch, and stop after a batch in which one failed.

        Operations of IPVS do not depend on each other: one that fails, and is known to have, stops nothing.
        """

    def ipvs_listing(self) -> str:
        """Give the kernel's own listing of its IPVS table, /proc/net/ip_vs; its module is loaded if need be."""

    def close(self) -> None:
        """Let the sandbox go: nothing may keep it alive."""


@contextmanager
def connect(address: DriverAddress) -> Iterator[Driver]:
    """Open the sandbox that a manifest names, and close it afterwards. Each driver is imported when it is used.

    A machine that a watcher has is borrowed from it for so long.
    """
    driver = _open(address)
    try:
        yield driver
    finally:
        driver.close()


def _open(address: DriverAddress) -> Driver:
    match address:
        case NetnsAddress():
            from reconciler.drivers.netns import NetnsDriver

            return NetnsDriver(address)
        case KataAddress():
            from reconciler.drivers.kata import KataDriver

            return KataDriver(address)
        case VmAddress():
            return _open_machine(address, borrow=True)
        case _:
            assert_never(address)


@contextmanager
def attend(address: VmAddress) -> Iterator[VmDriver]:
    """Open a machine for a watcher, which stays connected and lends it to others. BusyError if another run has it."""
    driver = _open_machine(address, borrow=False)
    try:
        yield driver
    finally:
        driver.close()


def _open_machine(address: VmAddress, *, borrow: bool) -> VmDriver:
    from reconciler.drivers.vm.driver import VmDriver

    return VmDriver(address, borrow=borrow)

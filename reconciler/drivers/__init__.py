"""The only code that touches a sandbox: the protocol of a driver, and a line a driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from reconciler.model.sandbox import DriverAddress, KataAddress, NetnsAddress, Observed, Sandbox, VmAddress
from reconciler.operations import Operation

if TYPE_CHECKING:
    from reconciler.netlink.execute import Outcome


class Driver(Protocol):
    """Reads and changes one sandbox. SandboxGoneError if it does not exist."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other runs from changing this sandbox; BusyError if one is at it. Dies with the process.

        May be taken again within; the end of any of them is the end of all.
        """

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read what is ours in it and what surrounds it.

        `desired` says which host devices matter, and lets a driver hand out the desired object where it finds its equal.
        A quick look is for what was written or read a moment ago; of IPVS it does not see all (`IpvsEngine.observe`).
        """

    def execute(self, operations: Sequence[Operation]) -> Iterator[list[Outcome]]:
        """Execute operations in order; give the outcomes batch by batch, and stop after a batch in which one failed."""

    def ipvs_listing(self) -> str:
        """Give the kernel's own listing of its IPVS table, /proc/net/ip_vs; its module is loaded if need be."""

    def close(self) -> None:
        """Let the sandbox go: nothing may keep it alive."""


@contextmanager
def connect(address: DriverAddress, *, borrow: bool = True) -> Iterator[Driver]:
    """Open the sandbox that a manifest names, and let it go afterwards. Each driver is imported when it is used.

    `borrow`: a machine that a watcher has is taken from it for so long.
    """
    driver = _open(address, borrow=borrow)
    try:
        yield driver
    finally:
        driver.close()


def _open(address: DriverAddress, *, borrow: bool) -> Driver:
    match address:
        case NetnsAddress():
            from reconciler.drivers.netns import NetnsDriver

            return NetnsDriver(address)
        case KataAddress():
            from reconciler.drivers.kata import KataDriver

            return KataDriver(address)
        case VmAddress():
            from reconciler.drivers.vm import VmDriver

            return VmDriver(address, borrow=borrow)

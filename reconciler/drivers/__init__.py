"""Drivers are the only code that touches a sandbox.

Here are their protocol and the choice of the one for an address.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Protocol, assert_never

from reconciler.drivers.reach import about
from reconciler.errors import HostError
from reconciler.manifest.allow import check
from reconciler.model.policy import Policy
from reconciler.model.sandbox import (
    DriverAddress,
    KataAddress,
    LibvirtAddress,
    MachineAddress,
    NetnsAddress,
    Observed,
    Sandbox,
    VmAddress,
)
from reconciler.operations.segment import Segment

if TYPE_CHECKING:
    from reconciler.drivers.survey import Inventory
    from reconciler.drivers.vm.driver import VmDriver
    from reconciler.guest.agent import Probe
    from reconciler.model.cost import Traffic
    from reconciler.netlink.facts import Snapshot
    from reconciler.operations.outcome import Outcome


class Driver(Protocol):
    """Reads and changes one sandbox. SandboxGoneError if it does not exist."""

    @property
    def place(self) -> Hashable:
        """Return what all addresses of this sandbox have in common: see `manifest.whereabouts.place_of`."""

    def lock(self) -> AbstractContextManager[None]:
        """Lock this sandbox against other runs. BusyError if another run has it. The lock ends with the process.

        Reentrant, but the first release frees the lock.
        """

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read our objects in the sandbox, and what surrounds them.

        `desired` names the host devices that matter. A driver may return an object of `desired` itself if the observed
        one equals it. A quick look is fast but misses some changes of IPVS servers: see `IpvsEngine.observe`.
        """

    def adopt(self, desired: Sandbox) -> Observed:
        """Read the same, with NICs of other owners that equal desired ones among our own: see `around.unrecorded`.

        RefusedError, which names the field, if one with the name of a desired one differs, or cannot be adopted.
        """

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments in order; yield the outcomes batch by batch, and stop after a batch in which one failed.

        Operations of IPVS do not depend on each other: one that fails stops nothing, unless its outcome is unknown.
        """

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Read all links, addresses, neighbours, routes and rules of the sandbox, and these devices of the host.

        It does not depend on marks and records, so that an undo can be proven by it. Empty behind kata-runtime, which
        lists only what `observe` reads.
        """

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read sysctls of the sandbox by their names, without those that its kernel does not have.

        None of them behind kata-runtime, which reads none.
        """

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        """Return whether the sandbox's kernel has modules, loaded or not; without those of which nobody knows."""

    def traffic(self) -> Traffic:
        """Read the connections of the sandbox, and the routes that they take. It takes no lock and loads no module.

        What cannot be read is a reason in `Traffic.unknown`.
        """

    def attempt(self, probes: Sequence[Probe], seconds: float) -> list[str]:
        """Try to reach something from the sandbox, within at most two seconds; see `guest.agent.attempt`.

        HostError behind kata-runtime, where nothing can be tried.
        """

    def device_to(self, address: str) -> str:
        """Return the link of the sandbox by which packets to an address leave; HostError if they do not."""

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of its IPVS table, /proc/net/ip_vs. Loads the module if needed."""

    def close(self) -> None:
        """Close everything that would keep the sandbox alive."""


# Told in words of what was changed in a sandbox merely to reach it.
Report = Callable[[str], None]


def ignore(words: str) -> None:
    """Tell nobody."""


@contextmanager
def connect(sandbox: Sandbox, policy: Policy, *, report: Report = ignore) -> Iterator[Driver]:
    """Open the sandbox that a manifest names, and close it afterwards. Each driver is imported when it is used.

    RefusedError if the policy does not allow all that it names. If a watcher is connected to a machine, it lends the
    machine meanwhile.
    """
    check(sandbox, policy)
    with about("driver"):
        driver = _open(sandbox.driver, policy, report)
    try:
        yield driver
    finally:
        driver.close()


def _open(address: DriverAddress, policy: Policy, report: Report) -> Driver:
    match address:
        case NetnsAddress():
            from reconciler.drivers.netns import NetnsDriver

            return NetnsDriver(address, policy)
        case KataAddress():
            from reconciler.drivers.kata import KataDriver

            return KataDriver(address, policy)
        case VmAddress() | LibvirtAddress():
            return _open_machine(address, policy, report, borrow=True)
        case _:
            assert_never(address)


def inventory(sandbox: Sandbox, policy: Policy) -> Inventory:
    """Read all that is in a sandbox, whoever made it; `sandbox` has all sections. Raises what `connect` raises."""
    check(sandbox, policy)
    address = sandbox.driver
    match address:
        case NetnsAddress():
            from reconciler.drivers.netns import NetnsDriver

            with closing(NetnsDriver(address, policy)) as namespace:
                return namespace.inventory(sandbox)
        case VmAddress() | LibvirtAddress():
            with closing(_open_machine(address, policy, ignore, borrow=True)) as machine:
                return machine.inventory(sandbox)
        case KataAddress():
            raise HostError(f"{address}: all that its commands list is ours; `reconciler show` prints it")
        case _:
            assert_never(address)


@contextmanager
def attend(sandbox: Sandbox, policy: Policy, *, report: Report = ignore) -> Iterator[VmDriver]:
    """Open the machine of a sandbox for a watcher, which stays connected and lends it to others.

    RefusedError as from `connect`, BusyError if another run has it.
    """
    if not isinstance(sandbox.driver, MachineAddress):
        raise TypeError(f"{sandbox.driver} is no machine")
    check(sandbox, policy)
    with about("driver"):
        driver = _open_machine(sandbox.driver, policy, report, borrow=False)
    try:
        yield driver
    finally:
        driver.close()


def _open_machine(address: MachineAddress, policy: Policy, report: Report, *, borrow: bool) -> VmDriver:
    from reconciler.drivers.vm.driver import VmDriver

    return VmDriver(address, policy, borrow=borrow, report=report)

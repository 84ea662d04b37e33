"""A virtual machine: its monitor (QMP) plugs NICs in, and the agent in the guest reaches the guest's kernel.

There is no state file: QEMU reports what is plugged under our ids, and the guest's kernel reports which of it it has.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.drivers import elsewhere
from reconciler.drivers.inside import Inside, OwnedLink, release
from reconciler.drivers.lock import refuse_waiting
from reconciler.drivers.reach import about, check_socket, open_socket, refuse_physical_devices
from reconciler.drivers.vm import monitor as qemu
from reconciler.drivers.vm.nics import came_with, find
from reconciler.errors import SandboxGoneError
from reconciler.guest.client import GUARD_PERIOD, AgentClient, Notices
from reconciler.guest.kernel import GuestKernel
from reconciler.guest.qmp import Monitor
from reconciler.manifest.whereabouts import place_of
from reconciler.model.machine import Machine, Other, Plugged
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Observed, Sandbox, VmAddress
from reconciler.netlink.budget import Budget
from reconciler.netlink.interface import Link
from reconciler.netlink.neighbour import is_news
from reconciler.netlink.sections import GROUPS
from reconciler.operations.segment import Segment

if TYPE_CHECKING:
    from reconciler.drivers.survey import Inventory
    from reconciler.guest.agent import Probe
    from reconciler.model.ipvs import Service
    from reconciler.netlink.facts import Snapshot
    from reconciler.operations.outcome import Outcome

# Seconds to wait for a NIC that an earlier run plugged or unplugged; one takes 0.05 to 0.7.
_SETTLE_TIMEOUT = 2.0
_POLL = 0.05
_NONE: Mapping[str, Other] = MappingProxyType({})


class VmDriver:
    """One machine, from `__init__` to `close`: its agent and its monitor have one client at a time."""

    def __init__(self, address: VmAddress, policy: Policy, *, borrow: bool) -> None:
        """Connect. `borrow`: ask a watcher to lend it.

        SandboxGoneError if it does not run, BusyError if another run has it, RefusedError if the policy does not allow
        its sockets.
        """
        self._policy = policy
        with ExitStack() as stack:
            # Agent and monitor are of one machine, and a hostile guest may have taken QEMU over: one budget for both.
            self._budget = Budget()
            with open_socket(address.file, policy) as target:
                self._agent = stack.enter_context(
                    AgentClient(address.file, target=target, borrow=borrow, budget=self._budget)
                )
            with open_socket(address.monitor, policy) as target:
                self._monitor = stack.enter_context(Monitor(address.monitor, target=target, budget=self._budget))
            self._inside = Inside(GuestKernel(self._agent))
            stack.callback(self._inside.close)
            self._stack = stack.pop_all()
        self.place: Hashable = place_of(address)

    def close(self) -> None:
        """Disconnect from the agent and the monitor, so that other runs can connect."""
        self._stack.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock nothing: the machine has one client at a time anyway. A change that waits to be confirmed counts."""
        refuse_waiting(self.place)
        yield

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Ask QEMU what is plugged, and read the guest's kernel."""
        self._check_backends(desired)
        refuse_physical_devices(desired, self._policy)
        with self._budget.step():
            return self._observe(desired, quick=quick)

    def _observe(self, desired: Sandbox, *, quick: bool, taken: Mapping[str, Other] = _NONE) -> Observed:
        """Read the machine. `taken`: the NICs of other programs that count as ours, by the host's device."""
        state, links = self._look(desired, taken)
        seen = _seen(state, links)
        wishes = {wish.device: wish.queues for wish in desired.interfaces or ()}
        owned = {
            device: OwnedLink(
                link, _queues(state.plugged[device].queues, wishes.get(device, 0)), state.plugged[device].socket
            )
            for device, link in seen.items()
        }
        observed = self._inside.observe(desired, links, owned, quick=quick)
        around = replace(
            observed.around,
            devices={},
            elsewhere=_elsewhere(state, desired),
            unrecorded=frozenset(taken),
            machine=_with_guest(state, seen),
            hw_addrs=frozenset(
                address
                for link in links
                if not link.kind and link not in seen.values()
                for address in (link.hw_addr, came_with(link))
            ),
            # The guest reports no kind for these links, but QEMU does.
            kinds=dict.fromkeys(seen, "virtio_net"),
            kernel=release(self._agent.kernel_release()),
        )
        return Observed(sandbox=observed.sandbox, around=around)

    def _check_backends(self, desired: Sandbox) -> None:
        """Raise RefusedError if the policy does not allow what a socket really is. One may be missing."""
        for index, wish in enumerate(desired.interfaces or ()):
            if wish.vhost_user_socket:
                with suppress(SandboxGoneError), about("interfaces", index, "vhostUserSocket"):
                    check_socket(wish.vhost_user_socket, self._policy)

    def _look(self, desired: Sandbox, taken: Mapping[str, Other] = _NONE) -> tuple[Machine, list[Link]]:
        """Read QEMU and the guest until they agree.

        A killed run may have left a NIC that is just appearing or vanishing.
        """
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while True:
            state = qemu.observe(self._monitor, desired.interfaces or (), taken)
            links = self._inside.engine.links()
            if _seen(state, links).keys() == state.plugged.keys() or time.monotonic() > deadline:
                return state, links
            time.sleep(_POLL)

    def adopt(self, desired: Sandbox) -> Observed:
        """Read the machine, with NICs of other programs that are to be adopted among our own, as the protocol says."""
        # Few commands adopt.
        from reconciler.drivers import adopting
        from reconciler.drivers.vm import adoption

        with self._budget.step():
            state, links = self._look(desired)
            ours = {link.name for link in _seen(state, links).values()}
            taken = adoption.choose(desired, links, ours, qemu.others(self._monitor))
            observed = self._observe(desired, quick=False, taken=taken)
        adopting.check_alike(desired, observed)
        return observed

    def inventory(self, sandbox: Sandbox) -> Inventory:
        """Read all that is in the machine, whoever made it; `sandbox` has all sections."""
        from reconciler.drivers.survey import Inventory
        from reconciler.drivers.vm import adoption

        with self._budget.step():
            state, links = self._look(sandbox)
            ours = {link.name for link in _seen(state, links).values()}
            taken, left = adoption.sort(links, ours, qemu.others(self._monitor))
            return Inventory(self._observe(sandbox, quick=False, taken=taken), left)

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Read everything of the sandbox, and these devices of the host, as the protocol says."""
        with self._budget.step():
            return self._inside.snapshot(devices)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read sysctls, as the protocol says."""
        with self._budget.step():
            return self._inside.read_sysctls(names)

    def attempt(self, probes: Sequence[Probe], seconds: float) -> list[str]:
        """Let the agent try to reach something, as the protocol says."""
        return self._agent.attempt(probes, seconds)

    def device_to(self, address: str) -> str:
        """Look a route up, as the protocol says."""
        with self._budget.step():
            return self._inside.engine.device_to(address)

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of its IPVS table."""
        return self._inside.ipvs_listing()

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments; NICs are plugged one at a time."""
        # Only an apply pays for the import.
        from reconciler.drivers.vm import execute

        yield from execute.execute(self._inside, self._monitor, self._budget, segments)

    def state(self) -> str:
        """Return whether the machine runs, as QEMU says: `running`, `paused`, `io-error`, …: RunState of its schema."""
        with self._budget.step():
            return qemu.run_state(self._monitor)

    def listen(self) -> None:
        """Subscribe to notifications of changes in the guest."""
        self._agent.subscribe(GROUPS)

    def guard(self, services: Sequence[Service]) -> None:
        """Start a guard in the guest, which restores the first of these services of each address family; () ends it.

        The guard ends by itself at an error. End it before a change that deletes one of its services.
        """
        if services:
            self._agent.guard(GUARD_PERIOD, *self._inside.ipvs.guards(services))
        else:
            self._agent.unguard()

    def heard(self, timeout: float, wake: int) -> Notices:
        """Return the guest's notifications: wait for one, until `wake` is readable or `timeout` seconds are over."""
        found = self._agent.notices(timeout, wake)
        return found._replace(messages=[each for each in found.messages if is_news(each.type, each.payload)])


def _elsewhere(state: Machine, desired: Sandbox) -> dict[str, str]:
    """Return in which other sandboxes TAPs of the manifest are."""
    ours = state.plugged.keys() | state.leftovers.keys() | state.orphans.keys()
    taps = {each.device for each in desired.interfaces or () if each.vhost_user_socket is None} - ours
    busy = {device for device in taps if device in state.taps and state.taps[device].busy}
    return elsewhere.find_moved(taps - state.taps.keys()) | elsewhere.find_plugged(busy)


def _seen(state: Machine, links: list[Link]) -> dict[str, Link]:
    return {device: link for device, each in state.plugged.items() if (link := find(links, each.hw_addr))}


def _queues(plugged: int, wished: int) -> int:
    """Return the queues of a NIC as the manifest writes them: 0 and 1 both mean one queue."""
    return wished if plugged == max(wished, 1) else plugged


def _with_guest(state: Machine, seen: dict[str, Link]) -> Machine:
    """Add to each plugged NIC whether the guest has it, and whether its TAP on the host is still connected to it."""

    def look(device: str, each: Plugged) -> Plugged:
        tap = state.taps.get(device)
        # A TAP that QEMU uses has a carrier. It has none if it was deleted, or deleted and created again, meanwhile.
        # A TAP that is down never has a carrier.
        dead = each.socket is None and (tap is None or (tap.up and not tap.busy))
        return each._replace(in_guest=device in seen, alive=not dead)

    return replace(state, plugged={device: look(device, each) for device, each in state.plugged.items()})

"""A virtual machine: NICs are plugged in by its monitor (QMP), its kernel is reached through the agent in it.

Nothing is remembered: what is plugged is what QEMU says, under ids of ours, and what the guest's kernel has of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.drivers.inside import Given, Inside, release
from reconciler.drivers.vm import monitor as qemu
from reconciler.drivers.vm.nics import came_with, find
from reconciler.guest.client import GUARD_PERIOD, AgentClient, Notices
from reconciler.guest.kernel import GuestKernel
from reconciler.guest.qmp import Monitor
from reconciler.model.machine import Machine, Plugged
from reconciler.model.sandbox import Observed, Sandbox, VmAddress
from reconciler.netlink.interface import Link
from reconciler.netlink.neighbour import is_news
from reconciler.netlink.sections import GROUPS
from reconciler.operations.segment import Segment

if TYPE_CHECKING:
    from reconciler.model.ipvs import Service
    from reconciler.operations.outcome import Outcome

# Seconds for a NIC to come or go without our doing; one does in 0.05 to 0.7.
_SETTLE_TIMEOUT = 2.0
_POLL = 0.05


class VmDriver:
    """One machine, from `__init__` to `close`: its agent and its monitor have one client at a time."""

    def __init__(self, address: VmAddress, *, borrow: bool) -> None:
        """Connect; `borrow`: ask a watcher for it. SandboxGoneError if it does not run, BusyError if another run is at it."""
        with ExitStack() as stack:
            self._agent = stack.enter_context(AgentClient(address.file, borrow=borrow))
            self._monitor = stack.enter_context(Monitor(address.monitor))
            self._inside = Inside(GuestKernel(self._agent))
            stack.callback(self._inside.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Leave the machine to others."""
        self._stack.close()

    def lock(self) -> AbstractContextManager[None]:
        """Nothing is left to lock: who is connected is alone."""
        return nullcontext()

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Ask QEMU what is plugged, and read what is in the guest's kernel."""
        state, links = self._look(desired)
        seen = _seen(state, links)
        wishes = {wish.device: wish.queues for wish in desired.interfaces or ()}
        given = {
            device: Given(
                link, _queues(state.plugged[device].queues, wishes.get(device, 0)), state.plugged[device].socket
            )
            for device, link in seen.items()
        }
        observed = self._inside.observe(desired, links, given, quick=quick)
        around = replace(
            observed.around,
            devices={},
            machine=_with_guest(state, seen),
            hw_addrs=frozenset(
                address
                for link in links
                if not link.kind and link not in seen.values()
                for address in (link.hw_addr, came_with(link))
            ),
            # The guest says no kind of these; but QEMU has said that they are.
            kinds=dict.fromkeys(seen, "virtio_net"),
            kernel=release(self._agent.kernel_release()),
        )
        return Observed(sandbox=observed.sandbox, around=around)

    def _look(self, desired: Sandbox) -> tuple[Machine, list[Link]]:
        """Look at QEMU and the guest until they agree: a run that was killed may have left a NIC on its way."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while True:
            state = qemu.observe(self._monitor, desired.interfaces or ())
            links = self._inside.engine.links()
            if _seen(state, links).keys() == state.plugged.keys() or time.monotonic() > deadline:
                return state, links
            time.sleep(_POLL)

    def ipvs_listing(self) -> str:
        """Give the kernel's own listing of its IPVS table."""
        return self._inside.ipvs_listing()

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments; NICs are plugged one at a time."""
        # Only an apply pays for the import.
        from reconciler.drivers.vm import execute

        yield from execute.execute(self._inside, self._monitor, segments)

    def listen(self) -> None:
        """Let the guest tell of changes from now on."""
        self._agent.subscribe(GROUPS)

    def guard(self, services: Sequence[Service]) -> None:
        """Let the guest itself put back at once the first of these services of each address family; () ends it.

        Until an error; and it must be ended before a change that deletes one of them.
        """
        if services:
            self._agent.guard(GUARD_PERIOD, *self._inside.ipvs.guards(services))
        else:
            self._agent.unguard()

    def heard(self, timeout: float, wake: int) -> Notices:
        """Wait until the guest tells of something, `wake` can be read or `timeout` seconds are over."""
        found = self._agent.notices(timeout, wake)
        return found._replace(messages=[each for each in found.messages if is_news(each.type, each.payload)])


def _seen(state: Machine, links: list[Link]) -> dict[str, Link]:
    return {device: link for device, each in state.plugged.items() if (link := find(links, each.hw_addr))}


def _queues(plugged: int, wished: int) -> int:
    """Say how many queues a NIC has, in the way of who asks: 0 and 1 are the same."""
    return wished if plugged == max(wished, 1) else plugged


def _with_guest(state: Machine, seen: dict[str, Link]) -> Machine:
    """Add to what QEMU says whether the guest has it, and whether the host's end still leads there."""

    def look(device: str, each: Plugged) -> Plugged:
        tap = state.taps.get(device)
        # A TAP that was deleted, or made anew, under QEMU is without the carrier that a TAP in use has. One that is down
        # shows no carrier in any case.
        dead = each.socket is None and (tap is None or (tap.up and not tap.busy))
        return each._replace(in_guest=device in seen, alive=not dead)

    return replace(state, plugged={device: look(device, each) for device, each in state.plugged.items()})

"""A virtual machine: its monitor (QMP) or libvirt plugs NICs in, and the agent in the guest reaches the guest's kernel.

There is no state file: QEMU or libvirt reports what is plugged under our ids, and the
guest's kernel reports which of it it has.
"""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.drivers import elsewhere
from reconciler.drivers.inside import Inside, OwnedLink
from reconciler.drivers.lock import refuse_waiting
from reconciler.drivers.reach import about, check_socket, open_agent, open_socket, refuse_physical_devices
from reconciler.drivers.vm.monitor import QemuPlugboard
from reconciler.drivers.vm.nics import came_with, find
from reconciler.drivers.vm.plugboard import NoPlugboard, Plugboard
from reconciler.errors import ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest.client import GUARD_PERIOD, AgentClient, Notices
from reconciler.guest.kernel import GuestKernel
from reconciler.guest.qmp import Monitor
from reconciler.manifest.whereabouts import place_of
from reconciler.model.interface import given
from reconciler.model.machine import NO_MANAGERS, Machine, Other, Plugged
from reconciler.model.policy import Policy
from reconciler.model.sandbox import LibvirtAddress, MachineAddress, Observed, Sandbox, VmAddress
from reconciler.netlink.budget import Budget
from reconciler.netlink.interface import Link
from reconciler.netlink.neighbour import is_news
from reconciler.netlink.sections import GROUPS
from reconciler.operations.segment import Segment
from reconciler.values import replace

if TYPE_CHECKING:
    from reconciler.drivers import Report
    from reconciler.drivers.survey import Inventory
    from reconciler.drivers.vm.libvirt import LibvirtPlugboard
    from reconciler.guest.agent import Probe
    from reconciler.model.cost import Traffic
    from reconciler.model.ipvs import Service
    from reconciler.netlink.facts import Snapshot
    from reconciler.operations.outcome import Outcome

# Seconds to wait for a NIC that an earlier run plugged or unplugged; one takes 0.05 to 0.7.
_SETTLE_TIMEOUT = 2.0
_POLL = 0.05
_NONE: Mapping[str, Other] = MappingProxyType({})


class VmDriver:
    """One machine, from `__init__` to `close`: its agent and its monitor have one client at a time."""

    def __init__(self, address: MachineAddress, policy: Policy, *, borrow: bool, report: Report) -> None:
        """Connect. `borrow`: ask a watcher to lend it. `report` is told of an agent that is pushed into the machine.

        SandboxGoneError if it does not run, BusyError if another run has it, RefusedError if the policy does not allow
        its sockets.
        """
        self._policy, self._report = policy, report
        # Whether nothing of ours is desired in the machine.
        self._leaves = False
        self._shielded = False
        with ExitStack() as stack:
            # Agent and monitor are of one machine, and a hostile guest may have taken QEMU over: one budget for both.
            self._budget = Budget()
            if isinstance(address, LibvirtAddress):
                self._open_domain(address, stack, report, borrow=borrow)
            else:
                self._open_sockets(address, stack, report, borrow=borrow)
            self._inside = Inside(GuestKernel(self._agent))
            stack.callback(self._inside.close)
            self._stack = stack.pop_all()

    def _open_sockets(self, address: VmAddress, stack: ExitStack, report: Report, *, borrow: bool) -> None:
        self._connect(address, stack, borrow=borrow)
        self._board: Plugboard = NoPlugboard()
        if address.monitor:
            with open_socket(address.monitor, self._policy) as target:
                monitor = stack.enter_context(Monitor(address.monitor, target=target, budget=self._budget))
            self._board = QemuPlugboard(monitor)
            if address.guest_agent is not None:
                # Most machines have the agent.
                from reconciler.drivers.vm import pushing

                pushing.ensure(self._agent, pushing.Sockets(address, self._policy, monitor), self._policy, report)
        self.place: Hashable = place_of(address)

    def _connect(self, address: VmAddress, stack: ExitStack, *, borrow: bool) -> None:
        """Connect to the agent. If its channel is one of ours, plug that in first."""
        if address.channel is None:
            with open_agent(address, self._policy) as target:
                self._open_agent(address.file, target, stack, borrow=borrow)
            return
        with suppress(SandboxGoneError):
            self._open_agent(address.channel, "", stack, borrow=borrow)
            return
        from reconciler.drivers.vm import pushing

        pushing.Sockets(address, self._policy).plug_channel()
        self._open_agent(address.channel, "", stack, borrow=borrow)

    def _open_domain(self, address: LibvirtAddress, stack: ExitStack, report: Report, *, borrow: bool) -> None:
        # Most machines are not those of libvirt.
        from reconciler.drivers.vm.libvirt import LibvirtPlugboard

        domain = LibvirtPlugboard(address, self._policy, report)
        stack.callback(domain.close)
        path = domain.open_channel()
        try:
            self._reach_domain(address, domain, path, stack, report, borrow=borrow)
        except (ChannelError, HostError):
            domain.give_up()
            raise
        self._board = domain
        self.place = domain.place

    def _reach_domain(
        self,
        address: LibvirtAddress,
        domain: LibvirtPlugboard,
        path: str,
        stack: ExitStack,
        report: Report,
        *,
        borrow: bool,
    ) -> None:
        """Connect to the agent in a domain, by its channel. Push it first, if the manifest asks for that."""
        from reconciler.drivers.vm.libvirt import SOCKETS

        if not address.guest_agent:
            domain.await_agent()
        # libvirt chooses the path: no manifest names it.
        policy = replace(self._policy, sockets=(*self._policy.sockets, *SOCKETS))
        with open_socket(path, policy) as target:
            self._open_agent(path, target, stack, borrow=borrow)
        if address.guest_agent:
            from reconciler.drivers.vm import pushing

            pushing.ensure(self._agent, domain, self._policy, report)

    def _open_agent(self, port: str, target: str, stack: ExitStack, *, borrow: bool) -> None:
        """Connect to the agent. `port`: its address, by which it is lent as well. `target`: as for Connection."""
        self._agent = stack.enter_context(AgentClient(port, target=target, borrow=borrow, budget=self._budget))
        self.port = port

    def close(self) -> None:
        """Disconnect from the agent and the machine, so that other runs can connect."""
        with self._stack:
            if self._leaves:
                # The channel that was plugged in to look is not needed any more. If that fails, the next run does it.
                try:
                    self._board.leave()
                except ReconcilerError as error:
                    self._report(f"the channel of the agent was not taken out, which the next run does: {error}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock nothing: the machine has one client at a time anyway. A change that waits to be confirmed counts."""
        refuse_waiting(self.place)
        yield

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Ask QEMU what is plugged, and read the guest's kernel."""
        self._leaves = not any(
            (desired.sysctls, desired.interfaces, desired.neighbours, desired.routes, desired.rules)
        ) and not (desired.ipvs and desired.ipvs.services)
        self._check_backends(desired)
        refuse_physical_devices(desired, self._policy)
        with self._budget.step():
            return self._observe(desired, quick=quick)

    def _observe(
        self,
        desired: Sandbox,
        *,
        quick: bool,
        taken: Mapping[str, Other] = _NONE,
        made: Mapping[str, Link] = MappingProxyType({}),
    ) -> Observed:
        """Read the machine. `taken`: the NICs of other programs that count as ours, by the host's device.

        `made`: the links that other programs made in the guest and that count as ours, by their keys.
        """
        state, links = self._look(desired, taken)
        seen = _seen(state, links)
        wishes = {wish.device: wish.queues for wish in desired.interfaces or ()}
        owned = {
            device: OwnedLink(
                link, _queues(state.plugged[device].queues, wishes.get(device, 0)), state.plugged[device].socket
            )
            for device, link in seen.items()
        }
        owned |= {key: OwnedLink(link) for key, link in made.items()}
        observed = self._inside.observe(desired, links, owned, quick=quick)
        around = replace(
            observed.around,
            devices={},
            elsewhere=_elsewhere(state, desired),
            unrecorded=frozenset(taken),
            machine=self._machine(desired, state, seen),
            hw_addrs=frozenset(
                address
                for link in links
                if not link.kind and link not in seen.values()
                for address in (link.hw_addr, came_with(link))
            ),
            # The guest reports no kind for these links, but QEMU does.
            kinds={**observed.around.kinds, **dict.fromkeys(seen, "virtio_net")},
            release=self._agent.kernel_release(),
        )
        return Observed(sandbox=observed.sandbox, around=around)

    def _check_backends(self, desired: Sandbox) -> None:
        """Raise RefusedError if the policy does not allow what a socket really is. One may be missing."""
        for index, wish in enumerate(desired.interfaces or ()):
            if wish.vhost_user_socket:
                with suppress(SandboxGoneError), about("interfaces", index, "vhostUserSocket"):
                    check_socket(wish.vhost_user_socket, self._policy)

    def _machine(self, desired: Sandbox, state: Machine, seen: dict[str, Link]) -> Machine | None:
        """Return what was observed of a machine; None if nothing can be plugged into it."""
        if isinstance(self._board, NoPlugboard):
            return None
        managers = NO_MANAGERS if desired.interfaces is None else self._agent.unmanaged()
        return replace(_with_guest(state, seen), managers=managers)

    def _look(self, desired: Sandbox, taken: Mapping[str, Other] = _NONE) -> tuple[Machine, list[Link]]:
        """Read QEMU and the guest until they agree.

        A killed run may have left a NIC that is just appearing or vanishing.
        """
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while True:
            state = self._board.observe(desired.interfaces or (), taken)
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
            others = adopting.others(links, _seen(state, links).values())
            made = adopting.choose_made(desired, others)
            taken = adoption.choose(desired, others, self._board.others())
            observed = self._observe(desired, quick=False, taken=taken, made=made)
        adopting.check_alike(desired, observed)
        return observed

    def inventory(self, sandbox: Sandbox) -> Inventory:
        """Read all that is in the machine, whoever made it; `sandbox` has all sections."""
        from reconciler.drivers import adopting, survey
        from reconciler.drivers.vm import adoption

        with self._budget.step():
            state, links = self._look(sandbox)
            made, rest = survey.sort_made(adopting.others(links, _seen(state, links).values()))
            taken, left = adoption.sort(rest.values(), self._board.others())
            return survey.Inventory(self._observe(sandbox, quick=False, taken=taken, made=made), left)

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Read everything of the sandbox, and these devices of the host, as the protocol says."""
        with self._budget.step():
            return self._inside.snapshot(devices)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read sysctls, as the protocol says."""
        with self._budget.step():
            return self._inside.read_sysctls(names)

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        """Ask the agent for modules, as the protocol says."""
        with self._budget.step():
            return self._agent.find_modules(names)

    def traffic(self) -> Traffic:
        """Read the connections, as the protocol says."""
        with self._budget.step():
            return self._inside.traffic()

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

        yield from execute.execute(self._inside, self._agent, self._board, self._budget, segments)

    def state(self) -> str:
        """Return whether the machine runs, as QEMU says: `running`, `paused`, `io-error`, …: RunState of its schema.

        Without a monitor, it runs if its agent answers.
        """
        with self._budget.step():
            return self._board.run_state()

    def listen(self) -> None:
        """Subscribe to notifications of changes in the guest."""
        self._agent.subscribe(GROUPS)

    def shield(self, services: Sequence[Service]) -> int:
        """Protect services from the machine's own TCP while they are gone; () ends it.

        Return how many are protected.
        It ends with the guard and with the connection to the agent. HostError if the guest's kernel has no nf_tables,
        or its agent is older than that.
        """
        with self._budget.step():
            try:
                self._shielded = True
                return self._inside.shield(services)
            except ProtocolError as error:
                raise HostError(f"nftables: {error}") from error

    def guard(self, services: Sequence[Service]) -> None:
        """Start a guard in the guest, which restores the first of these services of each address family; () ends it.

        The guard ends by itself at an error. End it before a change that deletes one of its services.
        """
        if services:
            self._agent.guard(GUARD_PERIOD, *self._inside.ipvs.guards(services))
        else:
            self._agent.unguard()
            if self._shielded:
                self._shielded = False
                with suppress(HostError, ProtocolError):
                    self._inside.shield(())

    def heard(self, timeout: float, wake: int) -> Notices:
        """Return the guest's notifications: wait for one, until `wake` is readable or `timeout` seconds are over.

        They are `lost` if the guest was reset, or if a program in it opened or closed a port: the agent may be another.
        """
        outside = self._board.fileno()
        with select.epoll() as either:
            either.register(wake, select.EPOLLIN)
            if outside is not None:
                either.register(outside, select.EPOLLIN)
            found = self._agent.notices(timeout, either.fileno())
        if self._board.has_restarted():
            found = found._replace(lost=True)
        return found._replace(messages=[each for each in found.messages if is_news(each.type, each.payload)])


def _elsewhere(state: Machine, desired: Sandbox) -> dict[str, str]:
    """Return in which other sandboxes TAPs of the manifest are."""
    ours = state.plugged.keys() | state.leftovers.keys() | state.orphans.keys()
    taps = {each.device for each in given(desired.interfaces) if each.vhost_user_socket is None} - ours
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

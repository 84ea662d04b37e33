"""Makes sure that our agent answers in a machine: where it does not, it is pushed through QEMU's guest agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Protocol

from reconciler.drivers import Report, ignore
from reconciler.drivers.reach import about, open_socket
from reconciler.drivers.vm import channel
from reconciler.errors import ChannelError, HostError
from reconciler.guest import push
from reconciler.guest.client import AgentClient
from reconciler.guest.connection import OtherVersionError
from reconciler.guest.guest_agent import GuestAgent, GuestCommands
from reconciler.guest.qmp import Monitor
from reconciler.model.policy import Policy
from reconciler.model.sandbox import MachineAddress, VmAddress

# Seconds without an answer, after which no agent is there. One answers in milliseconds, and a slow one is not replaced.
SILENCE = 2.0
# Seconds for an agent that was just started. It takes 0.6 to 1.6.
START_TIMEOUT = 15.0
# Seconds between two looks whether an agent that runs has opened its port, for which it looks as often.
_POLL = 0.05


class Way(Protocol):
    """How our agent gets into a machine. `port`: where it is expected, and `way`: by what it is pushed, both in words.

    `drivers.vm.libvirt` has another one.
    """

    @property
    def port(self) -> str: ...  # noqa: D102
    @property
    def way(self) -> str: ...  # noqa: D102

    def is_closed(self) -> bool:
        """Return whether no program in the guest has opened the agent's port. False if nobody knows."""

    def guest_agent(self) -> AbstractContextManager[GuestCommands]:
        """Be the only run that uses the guest agent. BusyError if another one does, or if none answers."""

    def plug_channel(self) -> None:
        """Plug the channel of the agent in, unless it is there or the machine has one by itself."""

    def unplug_channel(self) -> None:
        """Take out the channel that we have plugged in, if there is one."""


class Sockets:
    """The way into a machine that is named by its sockets. `monitor`: its monitor, if this run is connected to it."""

    def __init__(self, address: VmAddress, policy: Policy, monitor: Monitor | None = None) -> None:
        self._address, self._policy, self._monitor = address, policy, monitor
        self.port, self.way = address.file, address.guest_agent or ""

    def is_closed(self) -> bool:
        """Return whether no program in the guest has opened the agent's port, as QEMU says."""
        with self._connected() as monitor:
            if self._address.channel is not None and self._policy.may_push:
                channel.complete(monitor)
            return channel.is_closed(monitor, self._address.file)

    @contextmanager
    def guest_agent(self) -> Iterator[GuestCommands]:
        """Connect to QEMU's guest agent."""
        with (
            about("driver", "vm", "guestAgent"),
            open_socket(self.way, self._policy) as target,
            GuestAgent(self.way, target=target) as guest,
        ):
            yield guest

    def plug_channel(self) -> None:
        """Plug the channel in. SandboxGoneError if the machine does not run, HostError if this run plugs none in."""
        path = self._address.channel
        if path is None or channel.is_served(path):
            return
        with self._connected() as monitor:
            if not self._policy.may_push:
                raise HostError(
                    "the machine has no channel for an agent of reconciler, and this command plugs none in; "
                    "`reconciler agent push`, or `reconciler apply` without --no-push, does"
                )
            channel.plug(monitor, path)

    def unplug_channel(self) -> None:
        """Take out the channel, if it is ours."""
        if self._address.channel is not None:
            with self._connected() as monitor:
                channel.unplug(monitor, self._address.channel)

    @contextmanager
    def _connected(self) -> Iterator[Monitor]:
        """Connect to the monitor, which has one client at a time."""
        if self._monitor is not None:
            yield self._monitor
            return
        path = self._address.monitor or ""
        with open_socket(path, self._policy) as target, Monitor(path, target=target) as monitor:
            yield monitor


@contextmanager
def way_into(address: MachineAddress, policy: Policy, report: Report = ignore) -> Iterator[Way]:
    """Yield the way into a machine. `report` is told of a channel that is plugged in.

    SandboxGoneError if the machine does not run.
    """
    if isinstance(address, VmAddress):
        yield Sockets(address, policy)
        return
    # Most machines are not those of libvirt.
    from reconciler.drivers.vm.libvirt import LibvirtPlugboard

    with about("driver"), closing(LibvirtPlugboard(address, policy, report)) as domain:
        yield domain


def ensure(client: AgentClient, machine: Way, policy: Policy, report: Report) -> None:
    """Push the agent unless one of our version answers; report that before.

    HostError, with what to do, if the guest makes it impossible, or if this run pushes none; BusyError if it has no
    guest agent (yet).
    """
    why = "no agent of reconciler answers in the machine"
    if not machine.is_closed():
        try:
            client.greet(SILENCE)
            return
        except ChannelError:
            pass
        except OtherVersionError as error:
            why = f"an agent of version {error.version} answers in the machine"
    if not policy.may_push:
        raise HostError(
            f"{why} ({machine.port}), and this command pushes none; `reconciler agent push`, or `reconciler apply` "
            "without --no-push, does"
        )
    with machine.guest_agent() as guest:
        found = push.look(guest)
        # One that runs is slow, unless it does not even open the port: it may wait for one that was unplugged.
        if not found.is_current or not _opens(machine):
            report(f"{why}; pushing one into it, as root, through its guest agent ({machine.way})")
            push.push(guest)
    client.greet(START_TIMEOUT)


def _opens(machine: Way) -> bool:
    """Return whether the agent that runs has opened its port, or does so now that there is one."""
    deadline = time.monotonic() + SILENCE
    while machine.is_closed():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def push_now(machine: Way) -> bool:
    """Push the agent unless this one runs. Return whether that was done. First plug its channel in, if that is ours.

    Whoever is connected to the channel meanwhile, such as a watcher, greets the new agent.
    """
    with machine.guest_agent() as guest:
        found = push.look(guest)
        machine.plug_channel()
        if found.is_current:
            return False
        push.push(guest)
    return True


def remove(machine: Way) -> bool:
    """Stop the agent that was pushed, and unplug its channel if that is ours. Return whether there was an agent."""
    with machine.guest_agent() as guest:
        removed = push.remove(guest)
    machine.unplug_channel()
    return removed

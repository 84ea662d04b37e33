"""Makes sure that our agent answers in a machine: where it does not, it is pushed through QEMU's guest agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.drivers import Report
from reconciler.drivers.reach import about, open_socket
from reconciler.drivers.vm import channel
from reconciler.errors import ChannelError, HostError
from reconciler.guest import push
from reconciler.guest.client import AgentClient
from reconciler.guest.connection import OtherVersionError
from reconciler.guest.guest_agent import GuestAgent
from reconciler.guest.qmp import Monitor
from reconciler.model.policy import Policy
from reconciler.model.sandbox import VmAddress

# Seconds without an answer, after which no agent is there. One answers in milliseconds, and a slow one is not replaced.
SILENCE = 2.0
# Seconds for an agent that was just started. It takes 0.6 to 1.6.
START_TIMEOUT = 15.0


def ensure(client: AgentClient, monitor: Monitor, address: VmAddress, policy: Policy, report: Report) -> None:
    """Push the agent unless one of our version answers; report that before.

    HostError, with what to do, if the guest makes it impossible, or if this run pushes none; BusyError if it has no
    guest agent (yet).
    """
    if address.channel is not None and policy.may_push:
        channel.complete(monitor)
    why = "no agent of reconciler answers in the machine"
    closed = channel.is_closed(monitor, address.file)
    if not closed:
        try:
            client.greet(SILENCE)
            return
        except ChannelError:
            pass
        except OtherVersionError as error:
            why = f"an agent of version {error.version} answers in the machine"
    if not policy.may_push:
        raise HostError(
            f"{why} ({address.file}), and this command pushes none; `reconciler agent push`, or `reconciler apply` "
            "without --no-push, does"
        )
    with guest_agent(address, policy) as guest:
        found = push.look(guest)
        # One that runs is slow, unless it has not even opened the port: it may wait for one that was unplugged.
        if closed or not found.is_current:
            report(f"{why}; pushing one into it, as root, through its guest agent ({address.guest_agent})")
            push.push(guest)
    client.greet(START_TIMEOUT)


@contextmanager
def guest_agent(address: VmAddress, policy: Policy) -> Iterator[GuestAgent]:
    """Connect to QEMU's guest agent in a machine that has one by its address."""
    path = address.guest_agent or ""
    with (
        about("driver", "vm", "guestAgent"),
        open_socket(path, policy) as target,
        GuestAgent(path, target=target) as guest,
    ):
        yield guest


def push_now(address: VmAddress, policy: Policy) -> bool:
    """Push the agent unless this one runs. Return whether that was done. First plug its channel in, if that is ours.

    Whoever is connected to the channel meanwhile, such as a watcher, greets the new agent.
    """
    with guest_agent(address, policy) as guest:
        found = push.look(guest)
        plug_channel(address, policy)
        if found.is_current:
            return False
        push.push(guest)
    return True


def remove(address: VmAddress, policy: Policy) -> bool:
    """Stop the agent that was pushed, and unplug its channel if that is ours. Return whether there was an agent."""
    with guest_agent(address, policy) as guest:
        removed = push.remove(guest)
    if address.channel is not None:
        with _monitor(address, policy) as monitor:
            channel.unplug(monitor, address.channel)
    return removed


def plug_channel(address: VmAddress, policy: Policy) -> None:
    """Plug the channel of the agent in, unless it is there or the machine has one by itself.

    SandboxGoneError if the machine does not run, HostError if this run plugs none in.
    """
    if address.channel is None or channel.is_served(address.channel):
        return
    with _monitor(address, policy) as monitor:
        if not policy.may_push:
            raise HostError(
                "the machine has no channel for an agent of reconciler, and this command plugs none in; "
                "`reconciler agent push`, or `reconciler apply` without --no-push, does"
            )
        channel.plug(monitor, address.channel)


@contextmanager
def _monitor(address: VmAddress, policy: Policy) -> Iterator[Monitor]:
    """Connect to the monitor of a machine that has one."""
    path = address.monitor or ""
    with open_socket(path, policy) as target, Monitor(path, target=target) as monitor:
        yield monitor

"""Execute a plan in a virtual machine: what happens within is netlink's; NICs are plugged here, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from reconciler.drivers import machine
from reconciler.drivers.inside import Inside
from reconciler.drivers.vm import find
from reconciler.errors import ChannelError, ReconcilerError
from reconciler.guest.qmp import Monitor
from reconciler.netlink import execute as netlink
from reconciler.netlink.execute import Outcome, Status
from reconciler.netlink.interface import Link
from reconciler.operations import Operation, RenameInterface
from reconciler.operations.machine import NameInterface

# Seconds for a guest to find a NIC that was plugged in; one does in 0.05 to 0.7.
PLUG_TIMEOUT = 10.0
_POLL = 0.02


def execute(inside: Inside, monitor: Monitor, operations: Sequence[Operation]) -> Iterator[list[Outcome]]:
    """Execute operations in order; give the outcomes batch by batch, and stop after a batch in which one failed."""
    return netlink.until_failure(
        outcomes
        for plugs, group in groupby(operations, lambda operation: operation.machine)
        for run in [list(group)]
        for outcomes in (_plug(inside, monitor, run) if plugs else inside.execute(run))
    )


def _plug(inside: Inside, monitor: Monitor, operations: list[Operation]) -> Iterator[list[Outcome]]:
    for operation in operations:
        try:
            if isinstance(operation, NameInterface):
                yield _name(inside, operation)
            else:
                machine.execute(monitor, operation)  # type: ignore[arg-type]
                yield [Outcome(operation, Status.DONE)]
        except ChannelError as error:
            yield [Outcome(operation, Status.UNKNOWN, str(error))]
        except ReconcilerError as error:
            yield [Outcome(operation, Status.FAILED, str(error))]


def _name(inside: Inside, operation: NameInterface) -> list[Outcome]:
    link = _await_link(inside, operation)
    if link is None:
        reason = (
            f"QEMU has plugged {operation.device}, but the guest has not found it within {PLUG_TIMEOUT:.0f} s; "
            "its kernel needs PCI hot-plug and virtio_net"
        )
        return [Outcome(operation, Status.FAILED, reason)]
    if link.name == operation.name:
        return [Outcome(operation, Status.DONE)]
    rename = RenameInterface(name=link.name, new_name=operation.name)
    (outcomes,) = netlink.execute(inside.engine, [rename], {link.name: link.index})
    return [outcome._replace(operation=operation) for outcome in outcomes]


def _await_link(inside: Inside, operation: NameInterface) -> Link | None:
    deadline = time.monotonic() + PLUG_TIMEOUT
    while True:
        link = find(inside.engine.links(), operation.hw_addr)
        if link or time.monotonic() > deadline:
            return link
        time.sleep(_POLL)

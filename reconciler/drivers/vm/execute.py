"""Execute a plan in a virtual machine: netlink changes its inside; NICs are plugged here, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import assert_never

from reconciler.drivers.inside import Inside
from reconciler.drivers.vm.nics import find
from reconciler.drivers.vm.plugboard import Plugboard
from reconciler.errors import ChannelError, ReconcilerError
from reconciler.guest.client import AgentClient
from reconciler.netlink import execute as netlink
from reconciler.netlink.budget import Budget
from reconciler.netlink.interface import Link
from reconciler.operations.interface import RenameInterface
from reconciler.operations.machine import NameInterface, SetUnmanaged
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.segment import (
    Commands,
    Imports,
    Moves,
    Network,
    Plugs,
    RuleCommands,
    Segment,
    Settings,
    Table,
)

# Seconds for a guest to detect a plugged NIC; one takes 0.05 to 0.7.
PLUG_TIMEOUT = 10.0
_POLL = 0.02


def execute(
    inside: Inside, client: AgentClient, board: Plugboard, budget: Budget, segments: Sequence[Segment]
) -> Iterator[list[Outcome]]:
    """Execute segments in order; yield the outcomes batch by batch, and stop after a batch in which one failed."""
    return until_failure(
        outcomes
        for segment in segments
        for outcomes in _within(budget, segment, _execute(inside, client, board, segment))
    )


def _within(budget: Budget, segment: Segment, batches: Iterator[list[Outcome]]) -> Iterator[list[Outcome]]:
    """Count what a segment costs as one step."""
    more = 0.0
    if isinstance(segment, Table):
        # Most plans have nothing of IPVS.
        from reconciler.netlink.ipvs_execute import more_seconds

        more = more_seconds(segment.operations)
    with budget.step(more):
        yield from batches


def _execute(inside: Inside, client: AgentClient, board: Plugboard, segment: Segment) -> Iterator[list[Outcome]]:
    match segment:
        case Plugs():
            return _plug(inside, client, board, segment)
        case Network() | Settings() | Table():
            return inside.execute(segment)
        case Moves() | Commands() | Imports() | RuleCommands():
            raise TypeError(f"a virtual machine cannot execute {type(segment).__name__}")
        case _:
            assert_never(segment)


def _plug(inside: Inside, client: AgentClient, board: Plugboard, segment: Plugs) -> Iterator[list[Outcome]]:
    for operation in segment.operations:
        try:
            if isinstance(operation, NameInterface):
                yield _name(inside, operation)
            elif isinstance(operation, SetUnmanaged):
                client.set_unmanaged(operation.hw_addrs)
                yield [Outcome(operation, Status.DONE)]
            else:
                board.execute(operation)
                yield [Outcome(operation, Status.DONE)]
        except ChannelError as error:
            yield [Outcome(operation, Status.UNKNOWN, str(error))]
        except ReconcilerError as error:
            yield [Outcome(operation, Status.FAILED, str(error))]


def _name(inside: Inside, operation: NameInterface) -> list[Outcome]:
    link = _await_link(inside, operation)
    if link is None:
        reason = (
            f"QEMU has plugged {operation.device}, but the guest did not detect it within {PLUG_TIMEOUT:.0f} s; "
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

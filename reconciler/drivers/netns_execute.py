"""Execute a plan in a namespace: what happens within is netlink's; devices are moved here, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from reconciler.drivers.inside import Inside
from reconciler.netlink import execute as netlink
from reconciler.netlink import interface
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.execute import Outcome, Request, Status
from reconciler.operations import AttachInterface, DetachInterface, Operation


def execute(inside: Inside, namespace: int, operations: Sequence[Operation]) -> Iterator[list[Outcome]]:
    """Execute operations in order; give the outcomes batch by batch, and stop after a batch in which one failed.

    `namespace` is the open file of the namespace that `inside` reads and changes.
    """
    return netlink.until_failure(
        outcomes
        for moves, group in groupby(operations, lambda op: isinstance(op, AttachInterface | DetachInterface))
        for run in [list(group)]
        for outcomes in (_move(inside.engine, namespace, run) if moves else inside.execute(run))
    )


def _move(engine: Engine, namespace: int, operations: list[Operation]) -> Iterator[list[Outcome]]:
    for operation in operations:
        match operation:
            case AttachInterface():
                with local_engine() as host:
                    yield [_move_link(host, operation, operation.host_name, namespace)]
            case DetachInterface():
                with open("/proc/thread-self/ns/net", "rb") as home:
                    yield [_move_link(engine, operation, operation.name, home.fileno())]


def _move_link(engine: Engine, operation: AttachInterface | DetachInterface, name: str, namespace: int) -> Outcome:
    link = engine.link(name)
    if link is None:
        return Outcome(operation, Status.FAILED, f"there is no link named {name} any more")
    sequence = engine.next_sequence()
    request = interface.encode_link(operation, link.index, sequence, namespace)
    return netlink.send(engine.channel, [Request(operation, sequence, request)], netlink.is_gone)[0]

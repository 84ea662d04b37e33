"""Execute a plan in a namespace: netlink changes its inside; devices are moved here, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from reconciler.drivers.inside import Inside
from reconciler.netlink import execute as netlink
from reconciler.netlink import interface
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.sections import is_gone
from reconciler.operations.interface import AttachInterface, DetachInterface, MoveOperation
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


def execute(inside: Inside, namespace: int, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
    """Execute segments in order; yield the outcomes batch by batch, and stop after a batch in which one failed.

    `namespace` is the open file of the namespace that `inside` reads and changes.
    """
    return until_failure(outcomes for segment in segments for outcomes in _execute(inside, namespace, segment))


def _execute(inside: Inside, namespace: int, segment: Segment) -> Iterator[list[Outcome]]:
    match segment:
        case Moves():
            return _move(inside.engine, namespace, segment)
        case Network() | Settings() | Table():
            return inside.execute(segment)
        case Plugs() | Commands() | Imports() | RuleCommands():
            raise TypeError(f"a network namespace cannot execute {type(segment).__name__}")
        case _:
            assert_never(segment)


def _move(engine: Engine, namespace: int, segment: Moves) -> Iterator[list[Outcome]]:
    for operation in segment.operations:
        match operation:
            case AttachInterface():
                with local_engine() as host:
                    yield [_move_link(host, operation, operation.host_name, namespace)]
            case DetachInterface():
                with open("/proc/thread-self/ns/net", "rb") as home:
                    yield [_move_link(engine, operation, operation.name, home.fileno())]
            case _:
                assert_never(operation)


def _move_link(engine: Engine, operation: MoveOperation, name: str, namespace: int) -> Outcome:
    link = engine.link(name)
    if link is None:
        return Outcome(operation, Status.FAILED, f"the link {name} no longer exists")
    sequence = engine.next_sequence()
    request = interface.encode_link(operation, link.index, sequence, namespace)
    return netlink.send(engine.channel, [netlink.Request(operation, sequence, request)], is_gone)[0]

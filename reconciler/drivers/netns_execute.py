"""Execute a plan in a namespace: netlink changes its inside; devices are moved here, one at a time, and recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import assert_never

from reconciler.drivers.given import Given, GivenDevices
from reconciler.drivers.inside import Inside
from reconciler.netlink import execute as netlink
from reconciler.netlink import interface
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.interface import Link
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


def execute(
    inside: Inside, namespace: int, given: GivenDevices, segments: Sequence[Segment]
) -> Iterator[list[Outcome]]:
    """Execute segments in order; yield the outcomes batch by batch, and stop after a batch in which one failed.

    `namespace` is the open file of the namespace that `inside` reads and changes; `given` records its devices.
    """
    return until_failure(outcomes for segment in segments for outcomes in _execute(inside, namespace, given, segment))


def _execute(inside: Inside, namespace: int, given: GivenDevices, segment: Segment) -> Iterator[list[Outcome]]:
    match segment:
        case Moves():
            return ([_move(inside.engine, namespace, given, each)] for each in segment.operations)
        case Network() | Settings() | Table():
            return inside.execute(segment)
        case Plugs() | Commands() | Imports() | RuleCommands():
            raise TypeError(f"a network namespace cannot execute {type(segment).__name__}")
        case _:
            assert_never(segment)


def _move(inside: Engine, namespace: int, given: GivenDevices, operation: MoveOperation) -> Outcome:
    match operation:
        case AttachInterface():
            with local_engine() as host:
                return _attach(host, inside, namespace, given, operation)
        case DetachInterface():
            with open("/proc/thread-self/ns/net", "rb") as home:
                return _detach(inside, home.fileno(), given, operation)
        case _:
            assert_never(operation)


def _attach(host: Engine, inside: Engine, namespace: int, given: GivenDevices, operation: AttachInterface) -> Outcome:
    link, links = host.link(operation.host_name), inside.links()
    if link is None:
        return _no_link(operation, operation.host_name)
    taken = {each.index for each in links}
    # The index must be known before the device has it.
    index = link.index if link.index not in taken else max(taken) + 1
    given.begin(
        Given(index=index, kind=link.kind, permanent=link.permanent, origin=operation.origin, moving=True), links
    )
    outcome = _send_move(host, operation, link, namespace, index)
    if outcome.status is not Status.UNKNOWN:
        given.end(inside.links())
    return outcome


def _detach(inside: Engine, home: int, given: GivenDevices, operation: DetachInterface) -> Outcome:
    links = inside.links()
    link = next((each for each in links if each.name == operation.name), None)
    if link is None:
        return _no_link(operation, operation.name)
    known = given.find(link.index)
    if known is None:
        return Outcome(operation, Status.FAILED, f"the record of given devices does not have {operation.name} any more")
    alias = operation.origin.to_alias()
    if link.alias != alias:
        # Another program wrote the alias. While the device moves, its entry is believed only with ours.
        sequence = inside.next_sequence()
        request = netlink.Request(operation, sequence, interface.encode_alias(link.index, alias, sequence))
        outcome = netlink.send(inside.channel, [request], is_gone)[0]
        if outcome.status is not Status.DONE:
            return outcome
    given.begin(replace(known, origin=operation.origin, moving=True), inside.links())
    outcome = _send_move(inside, operation, link, home)
    if outcome.status is not Status.UNKNOWN:
        given.end(inside.links())
    return outcome


def _no_link(operation: MoveOperation, name: str) -> Outcome:
    return Outcome(operation, Status.FAILED, f"the link {name} no longer exists")


def _send_move(engine: Engine, operation: MoveOperation, link: Link, namespace: int, index: int = 0) -> Outcome:
    sequence = engine.next_sequence()
    request = interface.encode_move(operation, link, sequence, namespace, index)
    return netlink.send(engine.channel, [netlink.Request(operation, sequence, request)], is_gone)[0]

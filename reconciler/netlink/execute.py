"""Execute operations over any channel, many of them with one send. Each refusal is reported for its operation.

Only the last message of a batch asks for an answer: the kernel answers every failure anyway, and silence means success.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from reconciler.errors import ChannelError
from reconciler.netlink import message, turn
from reconciler.netlink.channel import Channel
from reconciler.netlink.engine import Engine
from reconciler.netlink.message import Failure, Message
from reconciler.netlink.pace import Pace
from reconciler.netlink.sections import encode, is_gone
from reconciler.operations import Operation
from reconciler.operations.address import AwaitAddress, DeleteAddress
from reconciler.operations.item import DeleteItem
from reconciler.operations.made import DeleteLink
from reconciler.operations.network import NetworkOperation
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.route import DeleteRoute
from reconciler.values import NamedTuple

# Most bytes of requests in one send: large enough to be cheap, small enough that a failure soon stops the run.
BATCH = 1 << 16
# Seconds for duplicate address detection: up to 1 s of random delay and 1 s of listening (RFC 4862, 5.4.2), and more
# on a host under load.
DAD_TIMEOUT = 10.0
_POLL = 0.02
_DELETIONS = (DeleteAddress, DeleteItem, DeleteLink, DeleteRoute)


class Request(NamedTuple):
    """An operation as one message."""

    operation: Operation
    sequence: int
    data: bytes


def execute(engine: Engine, operations: Sequence[NetworkOperation], indexes: dict[str, int]) -> Iterator[list[Outcome]]:
    """Execute operations in order; yield the outcomes batch by batch, and stop after a batch in which one failed.

    `indexes` maps the name of each link to its index, and is updated when an operation renames a link. The driver
    itself executes operations that move a device between namespaces.
    """
    return until_failure(
        outcomes
        for waits, group in groupby(operations, lambda operation: isinstance(operation, AwaitAddress))
        for outcomes in (_wait if waits else _send_batches)(engine, list(group), indexes)
    )


def _send_batches(
    engine: Engine, operations: list[NetworkOperation], indexes: dict[str, int]
) -> Iterator[list[Outcome]]:
    pace = Pace(BATCH)
    batch: list[Request] = []
    size = 0
    for operation in operations:
        if batch and isinstance(operation, _DELETIONS) and not isinstance(batch[-1].operation, _DELETIONS):
            # Nothing is deleted before it is known that its replacement was added.
            yield from pace.timed(send_all(engine.channel, [batch], is_gone))
            batch, size = [], 0
        sequence = engine.next_sequence()
        try:
            data = encode(operation, indexes, sequence)
        except KeyError as missing:
            yield [*send(engine.channel, batch, is_gone), _no_link(operation, missing.args[0])]
            return
        batch.append(Request(operation, sequence, data))
        size += len(data)
        if size >= pace.size:
            yield from pace.timed(send_all(engine.channel, [batch], is_gone))
            batch, size = [], 0
    if batch:
        yield from pace.timed(send_all(engine.channel, [batch], is_gone))


IsGone = Callable[["Operation", int], bool]


def send(channel: Channel, batch: Sequence[Request], is_gone: IsGone) -> list[Outcome]:
    """Send one batch; return the outcome of each request in it.

    `is_gone` returns whether an operation failed with this errno only because its object is already gone.
    """
    return next(send_all(channel, [batch], is_gone)) if batch else []


def send_all(channel: Channel, batches: Iterable[Sequence[Request]], is_gone: IsGone) -> Iterator[list[Outcome]]:
    """Send batches that are not empty; yield the outcomes of each.

    A batch is sent without waiting for the outcomes of the one before.
    """
    sent: deque[Sequence[Request]] = deque()

    def requests() -> Iterator[tuple[bytes, int]]:
        for batch in batches:
            sent.append(batch)
            data = [request.data for request in batch]
            data[-1] = message.with_ack(data[-1])
            yield b"".join(data), batch[-1].sequence

    try:
        for answers in channel.exchanges(requests()):
            yield _outcomes(sent.popleft(), answers, is_gone)
    except ChannelError as error:
        for batch in sent:
            yield [Outcome(request.operation, Status.UNKNOWN, str(error)) for request in batch]


def _outcomes(batch: Sequence[Request], answers: list[Message], is_gone: IsGone) -> list[Outcome]:
    failures: dict[int, Failure] = {}
    for answer in answers:
        # Of an operation of two messages, the first failure is the reason.
        if answer.type == message.ERROR and (failed := message.failure(answer)):
            failures.setdefault(answer.sequence, failed)
    if not failures:
        return [Outcome(request.operation, Status.DONE) for request in batch]
    return [_outcome(request.operation, failures.get(request.sequence), is_gone) for request in batch]


def _no_link(operation: Operation, name: str) -> Outcome:
    return Outcome(operation, Status.FAILED, f"the sandbox has no link named {name}")


def _outcome(operation: Operation, failed: Failure | None, is_gone: IsGone) -> Outcome:
    if failed is None or is_gone(operation, failed.errno):
        return Outcome(operation, Status.DONE)
    return Outcome(operation, Status.FAILED, f"the kernel: {failed}")


def _wait(engine: Engine, operations: list[NetworkOperation], indexes: dict[str, int]) -> Iterator[list[Outcome]]:
    for operation in operations:
        if isinstance(operation, AwaitAddress):
            index = indexes.get(operation.device)
            yield [_no_link(operation, operation.device) if index is None else _await_address(engine, operation, index)]


def _await_address(engine: Engine, operation: AwaitAddress, index: int) -> Outcome:
    wanted = operation.address.address
    deadline = time.monotonic() + DAD_TIMEOUT
    while time.monotonic() < deadline:
        found = next((a for a in engine.addresses() if a.index == index and a.address == wanted), None)
        if found is None:
            return Outcome(
                operation, Status.FAILED, f"{wanted} no longer exists: another program deleted it or its link"
            )
        if found.dad_failed:
            return Outcome(operation, Status.FAILED, f"{wanted} is in use by another host (duplicate address)")
        if not found.tentative:
            return Outcome(operation, Status.DONE)
        turn.sleep(_POLL)
    return Outcome(
        operation,
        Status.FAILED,
        f"{wanted} is still tentative after {DAD_TIMEOUT:.0f} s; does the link have a carrier?",
    )

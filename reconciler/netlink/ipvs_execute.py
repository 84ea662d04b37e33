"""Execute operations of IPVS over any channel. Rules do not depend on each other: one that fails stops no other.

The order in which servers are added is only ever a matter of speed. The kernel looks for each new server in the list of
those removed a while ago, newest first, and it removes them in the order of its own table; so many servers are added
along that order in reverse, each then found at the head of the list (net/netfilter/ipvs/ip_vs_ctl.c).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from reconciler.errors import ReconcilerError
from reconciler.model.ipvs import ServiceKey
from reconciler.netlink import conntrack, ipvs
from reconciler.netlink.execute import Outcome, Request, Status, send
from reconciler.netlink.ipvs_engine import NODEST, IpvsEngine
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    EXPIRE_SECONDS,
    EXPIRING,
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    ExpireConnections,
    IpvsOperation,
    ServerOperation,
    ServiceOperation,
    SetSysctl,
    SetTimeouts,
)

# Bytes of requests in one send: there is nothing to stop for, and each send waits for its answer.
BATCH = 1 << 18
# So many servers to add are worth a look at the kernel's order.
ORDERED = 500

Sent = ServiceOperation | ServerOperation | SetTimeouts


def execute(engine: IpvsEngine, operations: Sequence[IpvsOperation]) -> Iterator[list[Outcome]]:
    """Execute operations; give the outcomes batch by batch. Ends early only where an outcome is unknown."""
    failed: set[object] = set()
    for kind, group in groupby(operations, _kind):
        run = list(group)
        for outcomes in _send_all(engine, run, kind) if kind else ([_set(engine, each)] for each in run):
            yield [_explained(outcome, failed) for outcome in outcomes] if failed or _any_failed(outcomes) else outcomes
            if any(outcome.status is Status.UNKNOWN for outcome in outcomes):
                return


def _kind(operation: IpvsOperation) -> type | None:
    """Tell runs of servers to add from other messages, and those from what is no message (None)."""
    match operation:
        case SetSysctl() | ExpireConnections() | DeleteConntrack():
            return None
        case AddServer():
            return AddServer
        case _:
            return object


def _any_failed(outcomes: Sequence[Outcome]) -> bool:
    return any(outcome.status is Status.FAILED for outcome in outcomes)


def _explained(outcome: Outcome, failed: set[object]) -> Outcome:
    """Say of a server whose service could not be added that this is why."""
    match outcome:
        case Outcome(operation=AddService(service=service), status=Status.FAILED):
            failed.add(service.key)
        case Outcome(operation=AddServer(service=key), status=Status.FAILED) if key in failed:
            return outcome._replace(reason="its service could not be added")
        case _:
            pass
    return outcome


def _send_all(engine: IpvsEngine, operations: list[IpvsOperation], kind: type | None) -> Iterator[list[Outcome]]:
    if kind is AddServer and len(operations) >= ORDERED:
        operations = _along_the_kernel(engine, operations)
    batch: list[Request] = []
    size = 0
    for operation in operations:
        sequence = engine.next_sequence()
        data = _encode(operation, engine.family, sequence)
        batch.append(Request(operation, sequence, data))
        size += len(data)
        if size >= BATCH:
            yield send(engine.channel, batch, _is_gone)
            batch, size = [], 0
    yield send(engine.channel, batch, _is_gone)


def _along_the_kernel(engine: IpvsEngine, operations: list[IpvsOperation]) -> list[IpvsOperation]:
    """Order servers to add by their services, against the kernel's order; those of one service stay as they are."""
    place = engine.order()
    by_service: dict[ServiceKey, list[IpvsOperation]] = {}
    for operation in operations:
        if isinstance(operation, AddServer):
            by_service.setdefault(operation.service, []).append(operation)
    keys = sorted(by_service, key=lambda key: place.get(ipvs.encode_identity(key), -1), reverse=True)
    return [operation for key in keys for operation in by_service[key]]


def _encode(operation: IpvsOperation, family: int, sequence: int) -> bytes:
    match operation:
        case SetSysctl() | ExpireConnections() | DeleteConntrack():
            raise TypeError(f"{type(operation).__name__} is no message to IPVS")
        case _:
            return ipvs.encode(operation, family, sequence)


def _is_gone(operation: Operation, code: int) -> bool:
    match operation:
        case DeleteServer():
            return code in (errno.ENOENT, errno.ESRCH)
        case DeleteService():
            return code == errno.ESRCH
        case _:
            return False


def _set(engine: IpvsEngine, operation: IpvsOperation) -> Outcome:
    try:
        match operation:
            case SetSysctl():
                engine.kernel.set_sysctl(f"net.ipv4.vs.{operation.name}", str(operation.value))
            case ExpireConnections():
                engine.kernel.set_sysctl(f"net.ipv4.vs.{NODEST}", str(EXPIRING))
                time.sleep(EXPIRE_SECONDS)
                engine.kernel.set_sysctl(f"net.ipv4.vs.{NODEST}", "0")
            case DeleteConntrack():
                conntrack.delete(engine.conntrack, operation.address, operation.protocol, sequence=engine.next_sequence)
            case _:
                raise TypeError(f"{type(operation).__name__} is a message to IPVS")
    except ReconcilerError as error:
        return Outcome(operation, Status.UNKNOWN if error.retry else Status.FAILED, str(error))
    return Outcome(operation, Status.DONE)

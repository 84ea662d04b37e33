"""Execute operations of IPVS over any channel. Rules do not depend on each other: a failure does not stop the others.

The order in which servers are added only affects speed. The kernel searches for each new server in its list of recently
removed servers, newest first. It removes servers in the order of its own table. So many servers are added in the
reverse order of that table: each of them is then found at the head of the list (net/netfilter/ipvs/ip_vs_ctl.c).
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import assert_never

from reconciler.errors import ChannelError, ReconcilerError
from reconciler.model.ipvs import NODEST, ServiceKey
from reconciler.netlink import conntrack, ipvs, ipvs_listing, turn
from reconciler.netlink.execute import Request, send_all
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.netlink.pace import Pace
from reconciler.operations import Operation
from reconciler.operations.ipvs import (
    EXPIRE_SECONDS,
    EXPIRING,
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditService,
    EndOperation,
    IpvsOperation,
    MessageOperation,
    SetSysctl,
    SettingOperation,
    StartExpiring,
    StopExpiring,
    StopFallback,
)
from reconciler.operations.outcome import Outcome, Status

# Most bytes of requests in one send. Large, as each send waits for its answer, and a failure stops nothing.
BATCH = 1 << 18
# An edit of a service counts as so many bytes: with each scheduler that is changed, the kernel waits until no processor
# uses the old one (ip_vs_edit_service: synchronize_rcu), some 10 ms, as long as 40 other operations take.
EDIT = 5000
# Seconds that a step may take for each edit of a service, and for each other operation, in a machine without KVM on a
# host under load.
_EDIT_SECONDS, _SECONDS = 0.03, 0.005
# From this many servers to add, it pays to read the kernel's order.
ORDERED = 500


def execute(engine: IpvsEngine, operations: Sequence[IpvsOperation]) -> Iterator[list[Outcome]]:
    """Execute operations; yield the outcomes batch by batch. Stop early only after an unknown outcome."""
    failures = _Failures()
    for is_setting, group in groupby(operations, lambda operation: isinstance(operation, SettingOperation)):
        for outcomes in _set_all(engine, group) if is_setting else _send_all(engine, group, failures):
            yield outcomes
            if any(outcome.status is Status.UNKNOWN for outcome in outcomes):
                return


def more_seconds(operations: Sequence[IpvsOperation]) -> float:
    """Return the seconds that a step with these operations may take more than others: see `Budget.step`."""
    edits = sum(isinstance(each, EditService) for each in operations)
    return _EDIT_SECONDS * edits + _SECONDS * (len(operations) - edits)


class _Failures:
    """What failed. So nothing is deleted whose replacement is missing, and servers without a service report why."""

    def __init__(self) -> None:
        self._services: set[ServiceKey] = set()
        self._families: set[bool] = set()
        self._servers: set[ServiceKey] = set()
        self._edits: set[ServiceKey] = set()

    def note(self, outcome: Outcome) -> Outcome:
        """Record an outcome. Return it, with a better reason if its service is what failed."""
        if outcome.status is not Status.FAILED:
            return outcome
        operation = outcome.operation
        if isinstance(operation, AddService):
            self._services.add(operation.service.key)
            self._families.add(operation.service.is_ipv6)
        elif isinstance(operation, AddServer):
            if operation.service in self._services:
                return outcome._replace(reason="its service could not be added")
            self._servers.add(operation.service)
        elif isinstance(operation, EditService):
            self._edits.add(operation.service.key)
        return outcome

    def forbids(self, operation: Operation) -> str:
        """Return the reason why a deletion must be skipped; empty if it is allowed."""
        if isinstance(operation, DeleteService) and operation.service.is_ipv6 in self._families:
            return "kept, because another service of its family could not be added"
        if isinstance(operation, DeleteServer | DrainServer) and operation.service in self._servers:
            return "kept, because another server of its service could not be added"
        if isinstance(operation, StopFallback) and operation.service.key in self._servers:
            return "kept, because servers of the service still drain"
        if isinstance(operation, DrainServer) and operation.service in self._edits:
            return "kept, because its service could not be prepared for a drain"
        return ""


def _send_all(engine: IpvsEngine, operations: Iterable[IpvsOperation], failures: _Failures) -> Iterator[list[Outcome]]:
    messages = [each for each in operations if not isinstance(each, SettingOperation)]
    pace = Pace(BATCH)
    for run in _runs(messages):
        ordered = _along_the_kernel(engine, run) if isinstance(run[0], AddServer) and len(run) >= ORDERED else run
        batches = _batches(engine, ordered, pace)
        if not _removes(run[0]):
            for outcomes in pace.timed(send_all(engine.channel, batches, _is_gone)):
                yield [failures.note(outcome) for outcome in outcomes]
            continue
        for batch in batches:
            # The generator runs this after the outcomes of the earlier batches are known.
            why = {each.sequence: failures.forbids(each.operation) for each in batch}
            sent = [each for each in batch if not why[each.sequence]]
            kept = [Outcome(each.operation, Status.FAILED, why[each.sequence]) for each in batch if why[each.sequence]]
            became = pace.timed(send_all(engine.channel, [sent] if sent else [], _is_gone))
            yield [*itertools.chain.from_iterable(became), *kept]


def _removes(operation: IpvsOperation) -> bool:
    return isinstance(operation, EndOperation | DrainServer)


def _runs(operations: list[MessageOperation]) -> Iterator[list[MessageOperation]]:
    """Split operations into runs: many added servers are one, and so are deletions, which wait for earlier outcomes."""
    run: list[MessageOperation] = []
    for (adds, removes), group in groupby(operations, lambda each: (isinstance(each, AddServer), _removes(each))):
        part = list(group)
        apart = removes or (adds and len(part) >= ORDERED)
        if run and apart:
            yield run
            run = []
        run += part
        if apart:
            yield run
            run = []
    if run:
        yield run


def _batches(engine: IpvsEngine, operations: list[MessageOperation], pace: Pace) -> Iterator[list[Request]]:
    batch: list[Request] = []
    size = 0
    for operation in operations:
        sequence = engine.next_sequence()
        data = ipvs.encode(operation, engine.family, sequence)
        batch.append(Request(operation, sequence, data))
        size += EDIT if isinstance(operation, EditService) else len(data)
        if size >= pace.size:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _along_the_kernel(engine: IpvsEngine, operations: list[MessageOperation]) -> list[MessageOperation]:
    """Sort servers to add by service, in the reverse of the kernel's order. The order within a service stays."""
    try:
        place = ipvs_listing.order(engine.kernel.ipvs_listing() or "")
    except ReconcilerError:
        # The order is only for speed. If something is wrong, adding the servers will fail and report it.
        return operations
    by_service: dict[ServiceKey, list[MessageOperation]] = {}
    for operation in operations:
        if isinstance(operation, AddServer):
            by_service.setdefault(operation.service, []).append(operation)
    keys = sorted(by_service, key=lambda key: place.get(ipvs_listing.words(key), -1), reverse=True)
    return [operation for key in keys for operation in by_service[key]]


def _is_gone(operation: Operation, code: int) -> bool:
    """Return whether the object is already gone, or already exists: the operation then counts as done.

    The verification shows whether the object is as desired. A dump can lack a service while others are added and
    deleted, because the kernel continues a dump by counting entries.
    """
    if isinstance(operation, AddService | AddServer):
        return code == errno.EEXIST
    if isinstance(operation, DeleteServer | DrainServer):
        return code in (errno.ENOENT, errno.ESRCH)
    return isinstance(operation, DeleteService) and code == errno.ESRCH


def _set_all(engine: IpvsEngine, operations: Iterable[IpvsOperation]) -> Iterator[list[Outcome]]:
    for operation in operations:
        if isinstance(operation, SettingOperation):
            yield [_set(engine, operation)]


def _set(engine: IpvsEngine, operation: SettingOperation) -> Outcome:
    try:
        match operation:
            case SetSysctl():
                engine.kernel.set_sysctl(f"net.ipv4.vs.{operation.name}", str(operation.value))
            case StartExpiring():
                engine.kernel.set_sysctl(f"net.ipv4.vs.{NODEST}", str(EXPIRING))
            case StopExpiring():
                turn.sleep(EXPIRE_SECONDS)
                engine.kernel.set_sysctl(f"net.ipv4.vs.{NODEST}", "0")
            case DeleteConntrack():
                conntrack.delete(engine.conntrack, operation.address, operation.protocol, sequence=engine.next_sequence)
            case _:
                assert_never(operation)
    except ReconcilerError as error:
        return Outcome(operation, Status.UNKNOWN if isinstance(error, ChannelError) else Status.FAILED, str(error))
    return Outcome(operation, Status.DONE)

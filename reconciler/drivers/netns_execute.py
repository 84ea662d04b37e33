"""Execute a plan in a namespace: netlink changes its inside; devices are moved here, one at a time, and recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from reconciler.drivers.given import Given, GivenDevices
from reconciler.drivers.home import find_on_host, is_temporary, number_on_host, temporary_name
from reconciler.drivers.inside import Inside
from reconciler.drivers.provenance import doubt
from reconciler.errors import HostError
from reconciler.model.interface import Origin
from reconciler.netlink import altnames, interface
from reconciler.netlink import execute as netlink
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.interface import Link
from reconciler.netlink.sections import is_gone
from reconciler.operations.interface import AdoptInterfaces, AttachInterface, DetachInterface, MoveOperation
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
from reconciler.values import replace


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
    with local_engine() as host:
        match operation:
            case AttachInterface():
                return _attach(host, inside, namespace, given, operation)
            case DetachInterface():
                return _Return(host, inside, namespace, given, operation).run()
            case AdoptInterfaces():
                return _adopt(inside, given, operation) if operation.marked else _disown(given, operation)
            case _:
                assert_never(operation)


def _attach(host: Engine, inside: Engine, namespace: int, given: GivenDevices, operation: AttachInterface) -> Outcome:
    link, links = host.link(operation.host_name), inside.links()
    number = number_on_host(link) if link else None
    if link is None or number is None:
        return _no_link(operation, operation.host_name)
    taken = {each.index for each in links}
    # The index must be known before the device has it.
    index = link.index if link.index not in taken else max(taken) + 1
    given.begin(Given(index=index, kind=link.kind, number=number, origin=operation.origin, moving=True), links)
    alias, sequence = operation.origin.to_alias(), host.next_sequence()
    data = interface.encode_move(link.index, operation.name, alias, sequence, namespace=namespace, new_index=index)
    outcome = _send(host, operation, (sequence, data))
    if outcome.status is not Status.UNKNOWN:
        given.end(inside.links())
    return outcome


def _adopt(inside: Engine, given: GivenDevices, operation: AdoptInterfaces) -> Outcome:
    """Record what is proven now. The number is read before and after: all of it is about one device."""
    before = {link.name: (link.index, given.number(link)) for link in inside.links()}
    links = inside.links()
    found = {link.name: link for link in links}
    entries = []
    for name, origin in operation.nics:
        link = found.get(name)
        if link is None:
            return _no_link(operation, name)
        number = given.number(link)
        if number is None or before.get(name) != (link.index, number) or link.hw_addr != origin.hw_addr:
            return Outcome(operation, Status.FAILED, f"{name} was replaced by another device meanwhile")
        if reason := doubt(link, inside.channel):
            return Outcome(operation, Status.FAILED, f"{name}: {reason}")
        entries.append(Given(index=link.index, kind=link.kind, number=number, origin=origin, moving=False))
    given.adopt(entries, links)
    return Outcome(operation, Status.DONE)


def _disown(given: GivenDevices, operation: AdoptInterfaces) -> Outcome:
    given.forget({origin.device for _, origin in operation.nics})
    return Outcome(operation, Status.DONE)


class _Return:
    """Brings one device home.

    The device gets a temporary name before it leaves, so that no name that others chose appears on the host. There it
    is recognised once more before it gets its own name: another one may have been put in its place meanwhile.
    """

    def __init__(
        self, host: Engine, inside: Engine, namespace: int, given: GivenDevices, operation: DetachInterface
    ) -> None:
        self._host, self._inside, self._namespace = host, inside, namespace
        self._given, self._operation = given, operation
        self._temporary = temporary_name()

    def run(self) -> Outcome:
        """Return what became of the operation."""
        links = self._inside.links()
        link = next((each for each in links if each.name == self._operation.name), None)
        if link is None:
            return _no_link(self._operation, self._operation.name)
        known = self._given.find(link)
        if known is None:
            return self._failed(f"no record proves that {link.name} is a device that was given")
        if self._host.link(self._operation.origin.device):
            return self._failed(f"the host has another device named {self._operation.origin.device} now; rename that")
        # The operation has only those attributes that were not as they were on the host when it was planned.
        was = known.origin
        origin = replace(self._operation.origin, attributes=was.attributes, altnames=was.altnames)
        to_home = replace(known, origin=origin, moving=True)
        self._given.begin(to_home, links)
        outcome = self._leave(link, to_home)
        if outcome.status is not Status.UNKNOWN:
            self._given.end(self._inside.links())
        return outcome

    def _leave(self, link: Link, known: Given) -> Outcome:
        """Send the device to the host under its temporary name; if that fails, leave it as it was."""
        engine, operation = self._inside, self._operation
        alias = operation.origin.to_alias()
        down, renamed, bare = (engine.next_sequence() for _ in range(3))
        others = [each for each in link.altnames if each not in known.origin.altnames]
        outcome = _send(
            engine,
            operation,
            (down, interface.encode_up(link.index, up=False, sequence=down)),
            (renamed, interface.encode_aside(link.index, self._temporary, alias, renamed)),
            *([(bare, altnames.encode(link.index, others, bare, delete=True))] if others else []),
        )
        if outcome.status is not Status.DONE:
            return outcome
        sequence = engine.next_sequence()
        with open("/proc/thread-self/ns/net", "rb") as home:
            data = interface.encode_move(link.index, self._temporary, alias, sequence, namespace=home.fileno())
            outcome = _send(engine, operation, (sequence, data))
        if outcome.status is Status.FAILED:
            sequence = engine.next_sequence()
            _send(engine, operation, (sequence, interface.encode_aside(link.index, link.name, link.alias, sequence)))
            return outcome
        return outcome if outcome.status is Status.UNKNOWN else self._arrive(link, known)

    def _arrive(self, link: Link, known: Given) -> Outcome:
        """Give the device its own name if it is the one that was given; or else send back what has come."""
        came = find_on_host(self._host, known)
        if came is None:
            other = self._host.link(self._temporary)
            if other:
                self._send_back(other, link)
            return self._failed(f"{link.name} was replaced by another device while it moved")
        outcome = restore(self._host, came, self._operation, known.origin)
        if outcome.status is Status.FAILED:
            self._send_back(came, link)
        return outcome

    def _send_back(self, came: Link, before: Link) -> None:
        sequence = self._host.next_sequence()
        data = interface.encode_move(
            came.index, before.name, before.alias, sequence, namespace=self._namespace, new_index=before.index
        )
        _send(self._host, self._operation, (sequence, data))

    def _failed(self, reason: str) -> Outcome:
        return Outcome(self._operation, Status.FAILED, reason)


def restore(host: Engine, link: Link, operation: DetachInterface, origin: Origin) -> Outcome:
    """Make a device that came home under a temporary name what it was."""
    sequence = host.next_sequence()
    return _send(host, operation, (sequence, interface.encode_restore(link, origin, sequence)))


def settle(inside: Engine, given: GivenDevices) -> None:
    """Finish what a run began that was killed while a device moved. HostError if that is not possible."""
    with local_engine() as host:
        for each in given.moving():
            link = find_on_host(host, each)
            if link and is_temporary(link.name):
                outcome = restore(host, link, DetachInterface(name=link.name, origin=each.origin), each.origin)
                if outcome.status is not Status.DONE:
                    raise HostError(
                        f"{each.origin.device} came home as {link.name} and cannot be restored: {outcome.reason}; "
                        f"by hand: ip link set dev {link.name} name {each.origin.device}"
                    )
    given.end(inside.links())


def _no_link(operation: MoveOperation, name: str) -> Outcome:
    return Outcome(operation, Status.FAILED, f"the link {name} no longer exists")


def _send(engine: Engine, operation: MoveOperation, *requests: tuple[int, bytes]) -> Outcome:
    """Send requests (sequence number, data) that make up an operation; return its outcome."""
    batch = [netlink.Request(operation, sequence, data) for sequence, data in requests]
    outcomes = netlink.send(engine.channel, batch, is_gone)
    return next((each for each in outcomes if each.status is not Status.DONE), outcomes[-1])

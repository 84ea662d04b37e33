"""Carries the operations of a plan out in a copy of a sandbox, with the engines that change the sandbox itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, assert_never

from reconciler.drivers.home import temporary_name
from reconciler.drivers.inside import Inside
from reconciler.errors import HostError
from reconciler.model.sandbox import Observed
from reconciler.netlink import interface, replica
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import Request, send
from reconciler.netlink.message import Failure
from reconciler.netlink.sections import is_gone
from reconciler.operations import Operation
from reconciler.operations.interface import (
    AdoptInterfaces,
    AttachInterface,
    DetachInterface,
    MoveOperation,
    RenameInterface,
)
from reconciler.operations.made import ChangeLink
from reconciler.operations.outcome import Outcome, Status
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
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.operations.machine import MachineOperation

# Bytes: of a NIC whose MTU nobody limits.
_MTU = 1500


class Files(NamedTuple):
    """The open files of the namespace of the copy and of the one in place of the host."""

    inner: int
    outer: int


class Tryout:
    """A copy of a sandbox, and the namespace in place of the host. `untried`: what cannot be tried there, and why."""

    def __init__(self, within: Inside, place: replica.Place, observed: Observed, files: Files | None = None) -> None:
        """Begin. `files`: what devices are moved by, if both namespaces are of this host."""
        self.untried: list[str] = []
        self._within, self._place, self._observed, self._files = within, place, observed, files
        self._names = {each.device: each.name for each in observed.sandbox.interfaces or ()}

    def add_devices(self) -> Iterator[str]:
        """Make the devices of the host that the plan may move. Yield what they do not have."""
        for found in (self._observed.around.devices or {}).values():
            failures = replica.make(self._host_side(), found.name, found.origin.hw_addr, found.origin.mtu)
            for failed in failures:
                yield f"{found.name} cannot be made: {failed}"
            if found.kind != "veth":
                yield f"{found.name} is a veth in the copy: what its own driver refuses is not seen"

    def _host_side(self) -> replica.Place:
        return self._place._replace(engine=self._place.outer)

    def _fill_table(self) -> bool:
        """Fill the IPVS table, just before the plan changes it. Return whether the kernel has one."""
        try:
            _ = self._within.ipvs
        except HostError as error:
            self.untried.append(f"IPVS: {error}")
            return False
        ipvs = self._observed.sandbox.ipvs
        services = (*((ipvs.services if ipvs else None) or ()), *self._observed.around.services)
        if not services:
            return True
        # Most manifests have no IPVS section.
        from reconciler.operations.ipvs import AddServer, AddService

        adding: list[AddService | AddServer] = []
        for service in services:
            adding.append(AddService(service=service))
            adding += [AddServer(service=service.key, server=server) for server in service.servers]
        for batch in self._within.execute(Table(tuple(adding))):
            for each in batch:
                if each.status is not Status.DONE:
                    self.untried.append(f"the copy lacks `{each.operation.command}`: {each.reason}")
        return True

    def execute(self, segments: Iterable[Segment]) -> Iterator[list[Outcome]]:
        """Carry out segments; yield the outcomes batch by batch."""
        for segment in segments:
            match segment:
                case Moves():
                    if self._files is None:
                        raise TypeError("no device of a host is moved into a machine")
                    yield from ([self._move(each, self._files)] for each in segment.operations)
                case Plugs():
                    self.untried.append("no NIC is plugged into or out of a machine: veths come and go in the copy")
                    yield from ([self._plug(each)] for each in segment.operations)
                case Table():
                    if self._fill_table():
                        yield from self._within.execute(segment)
                case Network():
                    yield from self._within.execute(segment.without(self._beyond_stand_ins(segment)))
                case Settings():
                    yield from self._within.execute(segment)
                case Commands() | Imports() | RuleCommands():
                    raise TypeError(f"a copy cannot carry out {type(segment).__name__}")
                case _:
                    assert_never(segment)

    def _beyond_stand_ins(self, segment: Network) -> list[Operation]:
        """Return the changes of options of links that a link of another kind stands in for."""
        changes = [each for each in segment.operations if isinstance(each, ChangeLink)]
        kinds = {link.name: link.kind for link in self._within.engine.links()} if changes else {}
        beyond = [each for each in changes if kinds.get(each.name, each.made.kind) != each.made.kind]
        for each in beyond:
            reason = f"{each.name} is a {kinds[each.name]} in the copy, and no {each.made.kind}"
            self.untried.append(f"whether `{each.command}` would succeed is unknown: {reason}")
        return list(beyond)

    def _move(self, operation: MoveOperation, files: Files) -> Outcome:
        match operation:
            case AttachInterface(host_name=name):
                place, outer = self._place, self._place.outer
                link = outer.link(name)
                if link is None:
                    return _no_link(operation, name)
                alias, sequence = operation.origin.to_alias(), outer.next_sequence()
                taken = {each.index for each in place.engine.links()}
                index = link.index if link.index not in taken else max(taken) + 1
                data = interface.encode_move(
                    link.index, operation.name, alias, sequence, namespace=files.inner, new_index=index
                )
                return _sent(outer, operation, (sequence, data))
            case DetachInterface():
                return self._detach(operation, files)
            case AdoptInterfaces():
                return Outcome(operation, Status.DONE)
            case _:
                assert_never(operation)

    def _detach(self, operation: DetachInterface, files: Files) -> Outcome:
        engine, outer = self._place.engine, self._place.outer
        link = engine.link(operation.name)
        if link is None:
            return _no_link(operation, operation.name)
        name, alias = temporary_name(), operation.origin.to_alias()
        down, aside, moved = (engine.next_sequence() for _ in range(3))
        outcome = _sent(
            engine,
            operation,
            (down, interface.encode_up(link.index, up=False, sequence=down)),
            (aside, interface.encode_aside(link.index, name, alias, aside)),
            (moved, interface.encode_move(link.index, name, alias, moved, namespace=files.outer)),
        )
        came = outer.link(name)
        if outcome.status is not Status.DONE or came is None:
            return outcome
        sequence = outer.next_sequence()
        return _sent(outer, operation, (sequence, interface.encode_restore(came, operation.origin, sequence)))

    def _plug(self, operation: MachineOperation) -> Outcome:
        """Let a veth come or go in place of a NIC of a machine."""
        from reconciler.operations.domain import AdoptNics, AttachNic, DetachNic
        from reconciler.operations.machine import (
            AddDevice,
            AddNetdev,
            AdoptDevices,
            DeleteDevice,
            DeleteNetdev,
            NameInterface,
            SetUnmanaged,
        )

        engine = self._place.engine
        match operation:
            case AddDevice(hw_addr=hw_addr, host_mtu=mtu) | AttachNic(hw_addr=hw_addr, host_mtu=mtu):
                failures = replica.make(self._place, temporary_name(), hw_addr, mtu or _MTU, carrier=True)
                return _answered(operation, failures)
            case NameInterface(hw_addr=hw_addr, name=name):
                link = next((each for each in engine.links() if each.hw_addr == hw_addr), None)
                if link is None:
                    return _no_link(operation, name)
                rename = RenameInterface(name=link.name, new_name=name)
                (batch,) = self._within.execute(Network((rename,)))
                return batch[0]._replace(operation=operation)
            case DeleteDevice(device=device) | DetachNic(device=device):
                link = engine.link(self._names.get(device, ""))
                return _answered(operation, replica.delete(engine, link.index) if link else [])
            case AddNetdev() | DeleteNetdev() | AdoptDevices() | AdoptNics() | SetUnmanaged():
                # Nothing of this is in the kernel of the machine.
                return Outcome(operation, Status.DONE)
            case _:
                assert_never(operation)


def _answered(operation: Operation, failures: Sequence[Failure]) -> Outcome:
    if failures:
        return Outcome(operation, Status.FAILED, f"the kernel: {failures[0]}")
    return Outcome(operation, Status.DONE)


def _no_link(operation: Operation, name: str) -> Outcome:
    return Outcome(operation, Status.FAILED, f"the link {name} does not exist")


def _sent(engine: Engine, operation: MoveOperation, *requests: tuple[int, bytes]) -> Outcome:
    batch = [Request(operation, sequence, data) for sequence, data in requests]
    outcomes = send(engine.channel, batch, is_gone)
    return next((each for each in outcomes if each.status is not Status.DONE), outcomes[-1])

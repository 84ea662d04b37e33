"""The operations of a container runtime's command line, `kata-runtime`. Imported only if a plan has any.

Commands are for a shell on the host.
"""

from __future__ import annotations

import json
from typing import ClassVar

from reconciler.formats.kata.interface import write_request
from reconciler.formats.kata.route import write_route
from reconciler.model.identity import HostDevice, Listed, Nic, Subject
from reconciler.model.interface import Interface
from reconciler.model.route import Route
from reconciler.operations.base import Base, Sign
from reconciler.operations.ipvs import AddServer, AddService, DeleteConntrack, ServerOperation, ServiceOperation
from reconciler.values import dataclass
from reconciler.wording import quote

_PROGRAM = "kata-runtime"

# What the runtime can do to the IPVS table; it cannot change settings.
RuleOperation = ServiceOperation | ServerOperation | DeleteConntrack


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnContainer(Base):
    container: str

    def _network(self, action: str, data: object) -> str:
        text = json.dumps(data, separators=(",", ":"))
        return f"{_PROGRAM} kata-network {action} {quote(self.container)} - <<<{quote(text)}"

    def _ipvs(self, action: str, parameters: str) -> str:
        return f"{_PROGRAM} kata-ipvs {action} --parameters {quote(parameters)} {quote(self.container)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugInterface(_OnContainer):
    """Plug an interface into a container, with its name, MTU and addresses."""

    sign: ClassVar[Sign] = "+"
    interface: Interface

    @property
    def command(self) -> str:
        """Return the command."""
        return self._network("add-iface", write_request(self.interface))

    @property
    def subject(self) -> Subject:
        """Return the interface by the host's device."""
        return HostDevice(self.interface.device)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the interface."""
        return frozenset((HostDevice(self.interface.device), Nic(self.interface.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplugInterface(_OnContainer):
    """Unplug an interface from a container."""

    sign: ClassVar[Sign] = "-"
    name: str

    @property
    def command(self) -> str:
        """Return the command."""
        return self._network("del-iface", {"name": self.name})

    @property
    def subject(self) -> Subject:
        """Return the interface by its name in the container."""
        return Nic(self.name)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the interface: its name is free afterwards."""
        return frozenset((Nic(self.name),))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnContainerRoute(_OnContainer):
    route: Route

    @property
    def subject(self) -> Subject:
        """Return the route."""
        return Listed("routes", self.route.key)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the interfaces that it goes through."""
        return frozenset(map(Nic, self.route.devices))


class AddContainerRoute(_OnContainerRoute):
    """Add a route to a container."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def command(self) -> str:
        """Return the command."""
        return self._network("add-route", write_route(self.route)[0])


class DeleteContainerRoute(_OnContainerRoute):
    """Delete a route of a container."""

    __slots__ = ()

    sign: ClassVar[Sign] = "-"

    @property
    def command(self) -> str:
        """Return the command."""
        return self._network("del-route", write_route(self.route)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnRule(_OnContainer):
    @property
    def sign(self) -> Sign:
        """Return what it does to the rule."""
        return self._operation.sign

    @property
    def _operation(self) -> RuleOperation:
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """Return the kind of the operation on the rule, the same as without a runtime."""
        return self._operation.kind

    @property
    def comment(self) -> str:
        """Return what is replaced, the same as without a runtime."""
        return self._operation.comment

    @property
    def subject(self) -> Subject:
        """Return the rule."""
        return self._operation.subject

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the rule, and the service of a server."""
        return self._operation.needs

    @property
    def provides(self) -> frozenset[Subject]:
        """Return a service, which its servers need."""
        return self._operation.provides


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCommand(_OnRule):
    """Execute `operation` on an IPVS rule or on connections of a container."""

    operation: RuleOperation

    @property
    def _operation(self) -> RuleOperation:
        return self.operation

    @property
    def command(self) -> str:
        """Return the command."""
        if isinstance(self.operation, DeleteConntrack):
            return self._ipvs("cleanup", self.operation.parameters)
        return self._ipvs("ipvsadm", self.operation.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRule(_OnRule):
    """Add a service or a server to a container; one import adds all of them at once."""

    operation: AddService | AddServer

    @property
    def _operation(self) -> RuleOperation:
        return self.operation

    @property
    def command(self) -> str:
        """Return the command that imports this rule alone."""
        rules = quote(self.operation.parameters)
        return f"{_PROGRAM} kata-ipvs ipvsadm --restore - {quote(self.container)} <<<{rules}"

    @property
    def comment(self) -> str:
        """Return that one import adds all of them."""
        return "one import of all new services and their servers"


ObjectCommand = PlugInterface | UnplugInterface | AddContainerRoute | DeleteContainerRoute
RuntimeOperation = ObjectCommand | RuleCommand | ImportedRule

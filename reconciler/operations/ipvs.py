"""Operations on the IPVS table. Imported only if a plan has any."""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats.ipvsadm import write as notation
from reconciler.model.identity import RealServer, Setting, Subject, VirtualService
from reconciler.model.ipvs import NODEST, Server, Service, ServiceKey, Timeouts
from reconciler.operations.base import Base, Sign
from reconciler.values import dataclass

# The temporary value of `expire_nodest_conn`, and for how many seconds.
EXPIRING, EXPIRE_SECONDS = 2, 0.5
_EXPIRE = f"net.ipv4.vs.{NODEST}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnService(Base):
    service: Service

    @property
    def command(self) -> str:
        """Return the command."""
        return f"ipvsadm {self.parameters}"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        raise NotImplementedError

    @property
    def subject(self) -> Subject:
        """Return the service."""
        return VirtualService(self.service.key)

    @property
    def provides(self) -> frozenset[Subject]:
        """Return the service, which its servers need."""
        return frozenset((VirtualService(self.service.key),))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnServer(Base):
    service: ServiceKey
    server: Server

    @property
    def command(self) -> str:
        """Return the command."""
        return f"ipvsadm {self.parameters}"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        raise NotImplementedError

    @property
    def subject(self) -> Subject:
        """Return the server."""
        return RealServer(self.service, self.server.key)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return its service."""
        return frozenset((VirtualService(self.service),))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSysctl(Base):
    """Change a setting below net.ipv4.vs; `before` is None if the kernel did not report it."""

    sign: ClassVar[Sign] = "~"
    name: str
    value: int
    before: int | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        return f"sysctl -w net.ipv4.vs.{self.name}={self.value}"

    @property
    def comment(self) -> str:
        """Return what it was."""
        return "" if self.before is None else f"was {self.before}"

    @property
    def subject(self) -> Subject:
        """Return the setting."""
        return Setting(f"sysctls.{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeouts(Base):
    """Change how long the kernel remembers idle connections."""

    sign: ClassVar[Sign] = "~"
    timeouts: Timeouts
    before: Timeouts

    @property
    def command(self) -> str:
        """Return the command; 0 leaves a timeout as it is."""
        return f"ipvsadm --set {' '.join(str(seconds or 0) for seconds in self.timeouts)}"

    @property
    def comment(self) -> str:
        """Return what they were."""
        return f"was {' '.join(str(seconds or 0) for seconds in self.before)}"

    @property
    def subject(self) -> Subject:
        """Return the timeouts."""
        return Setting("timeouts")


class AddService(_OnService):
    """Add a virtual service, without its servers, and mark it as ours."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return f"-A {notation.service_options(self.service)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditService(_OnService):
    """Change the settings of a virtual service, and mark it as ours. Its connections stay."""

    sign: ClassVar[Sign] = "~"
    before: Service

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return f"-E {notation.service_options(self.service)}"

    @property
    def comment(self) -> str:
        """Return what it was, and whether it is only for the time of a drain."""
        passing = "; the fallback is on only while servers drain" if self.service.draining else ""
        return f"was {notation.service_options(self.before)}{passing}"


class StopFallback(_OnService):
    """Switch off the fallback flag of a scheduler that was on while servers drained. `service` has no more of it."""

    __slots__ = ()

    sign: ClassVar[Sign] = "~"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return f"-E {notation.service_options(self.service)}"

    @property
    def comment(self) -> str:
        """Return the reason."""
        return "no server drains any more, so the fallback ends"


class MarkService(_OnService):
    """Mark a virtual service as ours, and change nothing else. `service` is as observed, except for the mark."""

    __slots__ = ()

    sign: ClassVar[Sign] = "~"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that edit the service; ipvsadm can neither show nor set the mark."""
        return f"-E {notation.service_options(self.service)}"

    @property
    def comment(self) -> str:
        """Return what it does."""
        return "marks it as ours"


class DeleteService(_OnService):
    """Delete a virtual service with all its servers."""

    __slots__ = ()

    sign: ClassVar[Sign] = "-"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return f"-D {notation.service_key_options(self.service.key)}"


class AddServer(_OnServer):
    """Add a real server to a service."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return _server_options("-a", self.service, self.server)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditServer(_OnServer):
    """Change a real server. Every edit must have all its fields; its connections stay."""

    sign: ClassVar[Sign] = "~"
    before: Server

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return _server_options("-e", self.service, self.server)

    @property
    def comment(self) -> str:
        """Return what it was."""
        return f"was {notation.server_options(self.before)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainServer(_OnServer):
    """Drain a real server: set its weight to 0, and store the deadline for its connections in the kernel."""

    sign: ClassVar[Sign] = "-"
    before: Server

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        return _server_options("-e", self.service, self.server)

    @property
    def comment(self) -> str:
        """Return what happens to the server later."""
        return "to be deleted when its connections have ended"


class DeleteServer(_OnServer):
    """Delete a real server."""

    __slots__ = ()

    sign: ClassVar[Sign] = "-"

    @property
    def parameters(self) -> str:
        """Return the options of ipvsadm that do this."""
        service, server = notation.service_key_options(self.service), notation.server_key_options(self.server.key)
        return f"-d {service} {server}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExpiring(Base):
    """Switch on the sysctl that ends connections of deleted servers: otherwise UDP flows would be lost for ever.

    No message deletes a connection of IPVS. Any value but 0 is on. With our value, a later run knows that it has to
    restore the sysctl.
    """

    sign: ClassVar[Sign] = "~"

    @property
    def command(self) -> str:
        """Return the command."""
        return f"sysctl -w {_EXPIRE}={EXPIRING}"

    @property
    def comment(self) -> str:
        """Return the purpose."""
        return "frees the connections of servers that go"

    @property
    def subject(self) -> Subject:
        """Return the setting."""
        return Setting(f"sysctls.{NODEST}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopExpiring(Base):
    """Restore the sysctl after EXPIRE_SECONDS.

    So packets to servers deleted before still end their connections.
    """

    sign: ClassVar[Sign] = "~"

    @property
    def command(self) -> str:
        """Return the commands."""
        return f"sleep {EXPIRE_SECONDS}; sysctl -w {_EXPIRE}=0"

    @property
    def subject(self) -> Subject:
        """Return the setting."""
        return Setting(f"sysctls.{NODEST}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConntrack(Base):
    """Delete the entries of connection tracking with this original destination and protocol."""

    sign: ClassVar[Sign] = "-"
    address: str
    protocol: str

    @property
    def command(self) -> str:
        """Return the command."""
        return f"conntrack -D {self.parameters}"

    @property
    def parameters(self) -> str:
        """Return the options of `kata-ipvs cleanup` that do this; conntrack has the same."""
        return f"--orig-dst {self.address} --protonum {self.protocol}"

    @property
    def subject(self) -> Subject:
        """Return the connections to that address."""
        return Setting(f"connections of {self.protocol} to {self.address}")


ServiceOperation = AddService | EditService | MarkService | StopFallback | DeleteService
ServerOperation = AddServer | EditServer | DrainServer | DeleteServer
# Messages to IPVS, and changes of other parts of the kernel.
MessageOperation = ServiceOperation | ServerOperation | SetTimeouts
SettingOperation = SetSysctl | StartExpiring | StopExpiring | DeleteConntrack
IpvsOperation = MessageOperation | SettingOperation
# Operations that end what is no longer served. While servers drain, they can become due at any moment.
EndOperation = DeleteService | DeleteServer | StopFallback | StartExpiring | StopExpiring | DeleteConntrack


def _server_options(verb: str, service: ServiceKey, server: Server) -> str:
    return f"{verb} {notation.service_key_options(service)} {notation.server_options(server)}"

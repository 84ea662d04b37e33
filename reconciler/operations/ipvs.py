"""The operations of IPVS. Loaded only where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reconciler.formats.ipvsadm import write as notation
from reconciler.model.ipvs import NODEST, Server, Service, ServiceKey, Timeouts
from reconciler.operations import Base, Sign

# What `expire_nodest_conn` is set to for a moment, and for how many seconds.
EXPIRING, EXPIRE_SECONDS = 2, 0.5
_EXPIRE = f"net.ipv4.vs.{NODEST}"


class _Ipvs(Base):
    __slots__ = ()

    ipvs: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSysctl(_Ipvs):
    """Change a setting below net.ipv4.vs; `before` is None where the kernel has not said."""

    sign: ClassVar[Sign] = "~"
    name: str
    value: int
    before: int | None = None

    @property
    def command(self) -> str:
        """The command."""
        return f"sysctl -w net.ipv4.vs.{self.name}={self.value}"

    @property
    def comment(self) -> str:
        """Say what it was."""
        return "" if self.before is None else f"was {self.before}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeouts(_Ipvs):
    """Change how long silent connections are remembered."""

    sign: ClassVar[Sign] = "~"
    timeouts: Timeouts
    before: Timeouts

    @property
    def command(self) -> str:
        """The command; 0 leaves a timeout as it is."""
        return f"ipvsadm --set {' '.join(str(seconds or 0) for seconds in self.timeouts)}"

    @property
    def comment(self) -> str:
        """Say what they were."""
        return f"was {' '.join(str(seconds or 0) for seconds in self.before)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddService(_Ipvs):
    """Add a virtual service, without its servers, and mark it as ours."""

    sign: ClassVar[Sign] = "+"
    service: Service

    @property
    def command(self) -> str:
        """The command."""
        return f"ipvsadm -A {notation.service_options(self.service)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditService(_Ipvs):
    """Change the settings of a virtual service, or only mark it as ours. Its connections stay."""

    sign: ClassVar[Sign] = "~"
    service: Service
    before: Service

    @property
    def command(self) -> str:
        """The command."""
        return f"ipvsadm -E {notation.service_options(self.service)}"

    @property
    def comment(self) -> str:
        """Say what it was, or that it is only marked."""
        return "marks it as ours" if self.only_marks else f"was {notation.service_options(self.before)}"

    @property
    def only_marks(self) -> bool:
        """Tell whether it changes nothing but our mark."""
        return notation.service_options(self.before) == notation.service_options(self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteService(_Ipvs):
    """Delete a virtual service and what servers it has."""

    sign: ClassVar[Sign] = "-"
    ends: ClassVar[bool] = True
    service: Service

    @property
    def command(self) -> str:
        """The command."""
        return f"ipvsadm -D {notation.service_key_options(self.service.key)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddServer(_Ipvs):
    """Add a real server to a service."""

    sign: ClassVar[Sign] = "+"
    service: ServiceKey
    server: Server

    @property
    def command(self) -> str:
        """The command."""
        return _server_command("-a", self.service, self.server)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditServer(_Ipvs):
    """Change a real server. The kernel wants all of it in each edit; its connections stay."""

    sign: ClassVar[Sign] = "~"
    service: ServiceKey
    server: Server
    before: Server

    @property
    def command(self) -> str:
        """The command."""
        return _server_command("-e", self.service, self.server)

    @property
    def comment(self) -> str:
        """Say what it was."""
        return f"was {notation.server_options(self.before)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainServer(_Ipvs):
    """Give a real server no new connections, and note until when its old ones are waited for."""

    sign: ClassVar[Sign] = "-"
    service: ServiceKey
    server: Server
    before: Server

    @property
    def command(self) -> str:
        """The command."""
        return _server_command("-e", self.service, self.server)

    @property
    def comment(self) -> str:
        """Say what becomes of it."""
        return "to be deleted when its connections have ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteServer(_Ipvs):
    """Delete a real server."""

    sign: ClassVar[Sign] = "-"
    ends: ClassVar[bool] = True
    service: ServiceKey
    server: Server

    @property
    def command(self) -> str:
        """The command."""
        service, server = notation.service_key_options(self.service), notation.server_key_options(self.server.key)
        return f"ipvsadm -d {service} {server}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExpiring(_Ipvs):
    """Let the kernel forget the connections of servers as they go: UDP flows would go into a hole for ever.

    No message deletes a connection of IPVS. Any value but 0 is on: ours tells whoever finds it that it is to be put back.
    """

    sign: ClassVar[Sign] = "~"
    ends: ClassVar[bool] = True

    @property
    def command(self) -> str:
        """The command."""
        return f"sysctl -w {_EXPIRE}={EXPIRING}"

    @property
    def comment(self) -> str:
        """Say what for."""
        return "frees the connections of servers that go"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopExpiring(_Ipvs):
    """Put that back, after a moment in which packets of servers that went before end their connections as well."""

    sign: ClassVar[Sign] = "~"
    ends: ClassVar[bool] = True
    compound: ClassVar[bool] = True

    @property
    def command(self) -> str:
        """The commands."""
        return f"sleep {EXPIRE_SECONDS}; sysctl -w {_EXPIRE}=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConntrack(_Ipvs):
    """Delete the entries of connection tracking with this original destination and protocol."""

    sign: ClassVar[Sign] = "-"
    ends: ClassVar[bool] = True
    address: str
    protocol: str

    @property
    def command(self) -> str:
        """The command."""
        return f"conntrack -D --orig-dst {self.address} --protonum {self.protocol}"

    @property
    def may_fail(self) -> bool:
        """Tell that there may be no such entry."""
        return True


ServiceOperation = AddService | EditService | DeleteService
ServerOperation = AddServer | EditServer | DrainServer | DeleteServer
SettingOperation = SetSysctl | SetTimeouts | StartExpiring | StopExpiring | DeleteConntrack
IpvsOperation = ServiceOperation | ServerOperation | SettingOperation


def _server_command(verb: str, service: ServiceKey, server: Server) -> str:
    return f"ipvsadm {verb} {notation.service_key_options(service)} {notation.server_options(server)}"

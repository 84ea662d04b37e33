"""A virtual server of a keepalived.conf → the services that it defines, with their servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.formats.ipvsadm.read import read_netmask
from reconciler.formats.statements import Position, Report, Statement
from reconciler.model.address import is_ipv6, unpack
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    PERSISTENT_DEFAULT,
    Server,
    ServerKey,
    Service,
    ServiceKey,
    endpoint_problems,
    scheduler_flag_names,
)


class Forwarding(NamedTuple):
    """How packets reach a server: `nat`, `dr`, or a tunnel with its type, port and checksum."""

    method: str = "nat"
    tun_type: str = "ipip"
    tun_port: int = 0
    tun_checksum: str = "none"


NAT = Forwarding()


class AddressRange(NamedTuple):
    """Consecutive addresses of one family, as numbers of `size` bytes, and a port; 0: no port."""

    position: Position
    size: int
    first: int
    last: int
    port: int

    @property
    def services(self) -> int:
        """Return the number of services that it stands for."""
        return self.last - self.first + 1


class FirewallMark(NamedTuple):
    """A firewall mark, and its family if that is written out (`inet`, `inet6`)."""

    position: Position
    number: int
    family: str = ""
    services: int = 1


# What a virtual server listens on.
Listener = AddressRange | FirewallMark


@dataclass(slots=True)
class RealServerBlock:
    """A real server as far as it has been read.

    A `port` of 0, and a `weight` and `forwarding` of None, stand for those of the virtual server.
    """

    statement: Statement
    address: str = ""
    port: int = 0
    weight: int | None = None
    upper_threshold: int = 0
    lower_threshold: int = 0
    forwarding: Forwarding | None = None

    @property
    def position(self) -> Position:
        """Return where it begins."""
        return self.statement.position


@dataclass(slots=True)
class VirtualServer:
    """A virtual server as far as it has been read. It has `listeners`, or the name of a `group` that has them.

    `scheduler_flags` are bits. `netmask`, `engine` and `ops` are the statements that set them.
    """

    statement: Statement
    listeners: tuple[Listener, ...] = ()
    group: str = ""
    protocol: str = ""
    scheduler: str = ""
    scheduler_flags: set[int] = field(default_factory=set)
    forwarding: Forwarding = NAT
    persistent: int = 0
    netmask: Statement | None = None
    engine: Statement | None = None
    ops: Statement | None = None
    family: str = ""
    weight: int = 1
    servers: list[RealServerBlock] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """Return where it begins."""
        return self.statement.position


class Expansion:
    """One virtual server → its services. Problems are reported to `on_problem`, skipped parts to `on_skipped`."""

    def __init__(
        self, virtual: VirtualServer, listeners: tuple[Listener, ...], on_problem: Report, on_skipped: Report
    ) -> None:
        self._virtual, self._listeners = virtual, listeners
        self._on_problem, self._on_skipped = on_problem, on_skipped
        self._ranges = [each for each in listeners if isinstance(each, AddressRange)]
        self._protocol = virtual.protocol or "udp"
        # By family and port (None: a mark), on which alone the servers and the netmask depend.
        self._known: dict[tuple[bool, int | None], tuple[tuple[Server, ...], str | None]] = {}

    def services(self) -> Iterator[Service]:
        """Yield the services in the order of the listeners."""
        virtual = self._virtual
        if self._ranges and not virtual.protocol:
            self._on_skipped(virtual.position, f"{virtual.statement}: imported as UDP, keepalived's default protocol")
        persistent, one_packet = self._persistent(), self._one_packet()
        engine = self._engine(persistent)
        names = scheduler_flag_names(virtual.scheduler)
        flags = tuple(names[bit] for bit in sorted(virtual.scheduler_flags))
        for key in self._keys():
            protocol, address, port = key
            servers, netmask = self._members(key)
            yield Service(
                protocol=protocol,
                address=address,
                port=port,
                scheduler=virtual.scheduler or DEFAULT_SCHEDULER,
                scheduler_flags=flags,
                persistent=persistent,
                netmask=netmask,
                persistence_engine=engine,
                one_packet=one_packet,
                servers=servers,
            )

    def _persistent(self) -> int:
        virtual = self._virtual
        if virtual.persistent or all(each.port for each in self._ranges):
            return virtual.persistent
        message = f"imported as persistent for {PERSISTENT_DEFAULT} s, as keepalived does without a port"
        self._on_skipped(virtual.position, f"{virtual.statement}: {message}")
        return PERSISTENT_DEFAULT

    def _one_packet(self) -> bool:
        ops = self._virtual.ops
        if ops and self._ranges and self._protocol != "udp":
            message = (
                f"ops: not imported; {self._protocol.upper()} services cannot have it, only UDP and firewall marks"
            )
            self._on_skipped(ops.position, message)
            return False
        return ops is not None

    def _engine(self, persistent: int) -> str | None:
        engine = self._virtual.engine
        if engine and not persistent:
            self._on_skipped(engine.position, f"{engine}: not imported because it has no effect without persistence")
            return None
        return engine.words[1] if engine else None

    def _keys(self) -> Iterator[ServiceKey]:
        first: dict[ServiceKey, Listener] = {}
        for listener in self._listeners:
            for key in self._keys_of(listener):
                if first.setdefault(key, listener) is listener:
                    yield key
                else:
                    message = f"{key_words(key)} is already defined at {first[key].position}"
                    self._on_problem(listener.position, message)

    def _keys_of(self, listener: Listener) -> Iterator[ServiceKey]:
        if isinstance(listener, FirewallMark):
            ipv6 = listener.family == "inet6" if listener.family else self._marks_are_ipv6()
            yield FWMARK, "::" if ipv6 else "0.0.0.0", listener.number
        else:
            for number in range(listener.first, listener.last + 1):
                yield self._protocol, unpack(number.to_bytes(listener.size, "big")), listener.port

    def _marks_are_ipv6(self) -> bool:
        """Return whether marks without a family are IPv6: if the first server without a tunnel is, or else all are."""
        virtual = self._virtual
        if virtual.family:
            return virtual.family == "inet6"
        if virtual.netmask:
            return "." not in virtual.netmask.words[1]
        for real in virtual.servers:
            if (real.forwarding or virtual.forwarding).method != "tunnel":
                return is_ipv6(real.address)
        return not virtual.group and all(is_ipv6(real.address) for real in virtual.servers)

    def _members(self, key: ServiceKey) -> tuple[tuple[Server, ...], str | None]:
        """Return the servers and the netmask of a service."""
        protocol, address, port = key
        case = is_ipv6(address), None if protocol == FWMARK else port
        if case not in self._known:
            self._known[case] = self._servers(key), self._netmask(address)
        return self._known[case]

    def _netmask(self, address: str) -> str | None:
        statement = self._virtual.netmask
        if statement is None:
            return None
        try:
            return read_netmask(statement.words[0], statement.words[1], address)
        except ValueError as error:
            self._on_problem(statement.position, str(error))
            return None

    def _servers(self, key: ServiceKey) -> tuple[Server, ...]:
        found: dict[ServerKey, tuple[RealServerBlock, Server]] = {}
        protocol, _, port = key
        for real in self._virtual.servers:
            server = self._server(real, 0 if protocol == FWMARK else port)
            problem = next(endpoint_problems(server.address, server.port, server.forward, key), None)
            if problem:
                self._on_problem(real.position, f"{real.statement}: {problem.message.format(tunnel='TUN')}")
                continue
            first, _ = found.setdefault(server.key, (real, server))
            if first is not real:
                message = (
                    f"{server.address} port {server.port} is already a server of this service, at {first.position}"
                )
                self._on_problem(real.position, message)
        return tuple([server for _, server in found.values()])

    def _server(self, real: RealServerBlock, service_port: int) -> Server:
        """Return a server of a service. The port of a service of a mark is 0."""
        forwarding = real.forwarding or self._virtual.forwarding
        if forwarding.method != "nat" and real.port not in (0, service_port):
            instead = f"the port {service_port} of the service" if service_port else "the port of each packet"
            message = f"{real.statement}: its port {real.port} is ignored, as only NAT changes ports; it gets {instead}"
            self._on_skipped(real.position, message)
        return Server(
            address=real.address,
            port=(real.port or service_port) if forwarding.method == "nat" else service_port,
            forward=forwarding.method,
            weight=self._virtual.weight if real.weight is None else real.weight,
            upper_threshold=real.upper_threshold,
            lower_threshold=real.lower_threshold,
            tun_type=forwarding.tun_type,
            tun_port=forwarding.tun_port,
            tun_checksum=forwarding.tun_checksum,
        )


def key_words(key: ServiceKey) -> str:
    """Name a service in a message: `tcp 10.0.0.1 port 80`, `fwmark 7`, `fwmark 7 (IPv6)`."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"fwmark {port} (IPv6)" if is_ipv6(address) else f"fwmark {port}"
    return f"{protocol} {address} port {port}"

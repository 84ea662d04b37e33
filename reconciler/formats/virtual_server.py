"""A virtual server as keepalived has it → the services that it is, with their servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.formats.ipvsadm.popt import PERSISTENT_DEFAULT
from reconciler.formats.ipvsadm.read import read_netmask
from reconciler.formats.statements import Leave, Place, Statement
from reconciler.model.address import is_ipv6, unpack
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    Server,
    ServerKey,
    Service,
    ServiceKey,
    endpoint_problems,
    scheduler_flag_names,
)

# Told what is wrong, and where.
Refuse = Callable[[Place, str], None]
# Seconds of a persistent service that does not say them.
PERSISTENT = int(PERSISTENT_DEFAULT)


class Forward(NamedTuple):
    """A way of forwarding: `nat`, `dr`, or a tunnel with its type, port and checksum."""

    method: str = "nat"
    tun_type: str = "ipip"
    tun_port: int = 0
    tun_checksum: str = "none"


NAT = Forward()


class Range(NamedTuple):
    """Addresses of one family that follow each other, as numbers of `size` bytes, and a port; 0: none."""

    place: Place
    size: int
    first: int
    last: int
    port: int

    @property
    def number(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


class Mark(NamedTuple):
    """A firewall mark, and its family if it is given (`inet`, `inet6`)."""

    place: Place
    mark: int
    family: str = ""
    number: int = 1


Entry = Range | Mark


@dataclass(slots=True)
class Real:
    """A real server as far as it has been read. `port` 0 and `weight` and `forward` None are as its virtual server has it."""

    statement: Statement
    address: str = ""
    port: int = 0
    weight: int | None = None
    upper: int = 0
    lower: int = 0
    forward: Forward | None = None

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.statement.place


@dataclass(slots=True)
class Virtual:
    """A virtual server as far as it has been read. `entries`: what it listens on, unless that is said by a group."""

    statement: Statement
    entries: tuple[Entry, ...] = ()
    group: str = ""
    protocol: str = ""
    scheduler: str = ""
    flags: set[int] = field(default_factory=set)
    forward: Forward = NAT
    persistent: int = 0
    netmask: Statement | None = None
    engine: Statement | None = None
    ops: Statement | None = None
    family: str = ""
    weight: int = 1
    servers: list[Real] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.statement.place


class Expansion:
    """One virtual server → the services that it is. What is wrong is told to `refuse`, what is left out to `leave`."""

    def __init__(self, virtual: Virtual, entries: tuple[Entry, ...], refuse: Refuse, leave: Leave) -> None:
        self._virtual, self._entries, self._refuse, self._leave = virtual, entries, refuse, leave
        self._ranges = [each for each in entries if isinstance(each, Range)]
        self._protocol = virtual.protocol or "udp"
        # By family and port (None: a mark): servers and netmask differ in nothing else.
        self._known: dict[tuple[bool, int | None], tuple[tuple[Server, ...], str | None]] = {}

    def services(self) -> Iterator[Service]:
        """Give the services in the order of what they listen on."""
        virtual = self._virtual
        if self._ranges and not virtual.protocol:
            self._leave(virtual.place, f"{virtual.statement}: no protocol; UDP is taken, as keepalived does")
        persistent, one_packet = self._persistent(), self._one_packet()
        engine = self._engine(persistent)
        names = scheduler_flag_names(virtual.scheduler)
        flags = tuple(names[bit] for bit in sorted(virtual.flags))
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
        message = f"no port, so it is persistent for {PERSISTENT} s, as keepalived has it"
        self._leave(virtual.place, f"{virtual.statement}: {message}")
        return PERSISTENT

    def _one_packet(self) -> bool:
        ops = self._virtual.ops
        if ops and self._ranges and self._protocol != "udp":
            self._leave(ops.place, f"ops: it is for UDP and firewall marks, and this is {self._protocol.upper()}")
            return False
        return ops is not None

    def _engine(self, persistent: int) -> str | None:
        engine = self._virtual.engine
        if engine and not persistent:
            self._leave(engine.place, f"{engine}: nothing without persistence, not taken over")
            return None
        return engine.words[1] if engine else None

    def _keys(self) -> Iterator[ServiceKey]:
        first: dict[ServiceKey, Entry] = {}
        for entry in self._entries:
            for key in self._keys_of(entry):
                if first.setdefault(key, entry) is entry:
                    yield key
                else:
                    self._refuse(entry.place, f"{key_words(key)} is there already, at {first[key].place}")

    def _keys_of(self, entry: Entry) -> Iterator[ServiceKey]:
        if isinstance(entry, Mark):
            ipv6 = entry.family == "inet6" if entry.family else self._marks_are_ipv6()
            yield FWMARK, "::" if ipv6 else "0.0.0.0", entry.mark
        else:
            for number in range(entry.first, entry.last + 1):
                yield self._protocol, unpack(number.to_bytes(entry.size, "big")), entry.port

    def _marks_are_ipv6(self) -> bool:
        """Tell the family of marks that have none: that of the servers, of which a tunnel says little."""
        virtual = self._virtual
        if virtual.family:
            return virtual.family == "inet6"
        if virtual.netmask:
            return "." not in virtual.netmask.words[1]
        for real in virtual.servers:
            if (real.forward or virtual.forward).method != "tunnel":
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
            self._refuse(statement.place, str(error))
            return None

    def _servers(self, key: ServiceKey) -> tuple[Server, ...]:
        found: dict[ServerKey, tuple[Real, Server]] = {}
        protocol, _, port = key
        for real in self._virtual.servers:
            server = self._server(real, 0 if protocol == FWMARK else port)
            problem = next(endpoint_problems(server.address, server.port, server.forward, key), None)
            if problem:
                self._refuse(real.place, f"{real.statement}: {problem.message.format(tunnel='TUN')}")
                continue
            first, _ = found.setdefault(server.key, (real, server))
            if first is not real:
                message = f"{server.address} port {server.port} is a server of this service already, at {first.place}"
                self._refuse(real.place, message)
        return tuple([server for _, server in found.values()])

    def _server(self, real: Real, service_port: int) -> Server:
        """Return a server of a service; the port of a service of a mark is 0."""
        forward = real.forward or self._virtual.forward
        if forward.method != "nat" and real.port not in (0, service_port):
            instead = f"it is {service_port}" if service_port else "it is that of the packet"
            self._leave(real.place, f"port {real.port} of {real.address}: only NAT changes ports; {instead}")
        return Server(
            address=real.address,
            port=(real.port or service_port) if forward.method == "nat" else service_port,
            forward=forward.method,
            weight=self._virtual.weight if real.weight is None else real.weight,
            upper_threshold=real.upper,
            lower_threshold=real.lower,
            tun_type=forward.tun_type,
            tun_port=forward.tun_port,
            tun_checksum=forward.tun_checksum,
        )


def key_words(key: ServiceKey) -> str:
    """Name a service in a message: `tcp 10.0.0.1 port 80`, `fwmark 7`, `fwmark 7 (IPv6)`."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"fwmark {port} (IPv6)" if is_ipv6(address) else f"fwmark {port}"
    return f"{protocol} {address} port {port}"

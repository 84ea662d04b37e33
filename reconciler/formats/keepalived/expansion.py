"""A virtual server that has been read → the services that it defines, with their servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.formats.ipvsadm.read import read_netmask
from reconciler.formats.keepalived.listener import AddressRange, FirewallMark, Listener, has_ranges
from reconciler.formats.keepalived.value import INET, INET6
from reconciler.formats.keepalived.virtual_server import Forwarding, RealServerBlock, VirtualServer
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

_NAT = Forwarding()


class Expansion:
    """One virtual server → its services. Problems and notes are added to the virtual server."""

    def __init__(self, virtual: VirtualServer, listeners: Sequence[Listener], family: str) -> None:
        self._virtual, self._listeners, self._family = virtual, listeners, family
        self._has_ranges = has_ranges(listeners)
        self._protocol = virtual.protocol or "udp"
        # By family and port (None: a mark), on which alone the servers and the netmask depend.
        self._known: dict[tuple[bool, int | None], tuple[tuple[Server, ...], str | None]] = {}

    def services(self) -> Iterator[Service]:
        """Yield the services in the order of the listeners."""
        virtual = self._virtual
        if self._has_ranges and not virtual.protocol:
            virtual.add_note(virtual.position, f"{virtual.statement}: imported as UDP, keepalived's default protocol")
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
        if virtual.persistent or all(each.port for each in self._listeners if isinstance(each, AddressRange)):
            return virtual.persistent
        message = f"imported as persistent for {PERSISTENT_DEFAULT} s, as keepalived does without a port"
        virtual.add_note(virtual.position, f"{virtual.statement}: {message}")
        return PERSISTENT_DEFAULT

    def _one_packet(self) -> bool:
        ops = self._virtual.ops
        if ops and self._has_ranges and self._protocol != "udp":
            reason = f"{self._protocol.upper()} services cannot have it, only UDP and firewall marks"
            self._virtual.add_note(ops.position, f"ops: not imported; {reason}")
            return False
        return ops is not None

    def _engine(self, persistent: int) -> str | None:
        engine = self._virtual.engine
        if engine and not persistent:
            reason = "not imported because it has no effect without persistence"
            self._virtual.add_note(engine.position, f"{engine}: {reason}")
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
                    self._virtual.add_problem(listener.position, message)

    def _keys_of(self, listener: Listener) -> Iterator[ServiceKey]:
        if isinstance(listener, FirewallMark):
            family = listener.family or self._family or INET
            yield FWMARK, "::" if family == INET6 else "0.0.0.0", listener.number
        else:
            for number in range(listener.first, listener.last + 1):
                yield self._protocol, unpack(number.to_bytes(listener.size, "big")), listener.port

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
            netmask = read_netmask(statement.words[0], statement.words[1], address)
        except ValueError as error:
            self._virtual.add_problem(statement.position, str(error))
            return None
        if netmask and self._virtual.group:
            reason = "not imported because keepalived does not apply it to groups"
            self._virtual.add_note(statement.position, f"{statement}: {reason}")
            return None
        return netmask

    def _servers(self, key: ServiceKey) -> tuple[Server, ...]:
        found: dict[ServerKey, tuple[RealServerBlock, Server]] = {}
        protocol, _, port = key
        for real in self._virtual.servers:
            server = self._server(real, 0 if protocol == FWMARK else port)
            problem = next(endpoint_problems(server.address, server.port, server.forward, key), None)
            if problem:
                message = f"{real.statement}: {problem.message.format(tunnel='TUN')}"
                self._virtual.add_problem(real.position, message)
                continue
            first, _ = found.setdefault(server.key, (real, server))
            if first is not real:
                endpoint = f"{server.address} port {server.port}"
                message = f"{endpoint} is already a server of this service, at {first.position}"
                self._virtual.add_problem(real.position, message)
        return tuple([server for _, server in found.values()])

    def _server(self, real: RealServerBlock, service_port: int) -> Server:
        """Return a server of a service. The port of a service of a mark is 0."""
        virtual = self._virtual
        forwarding = real.forwarding or virtual.forwarding or _NAT
        if forwarding.method != "nat" and real.port not in (0, service_port):
            instead = f"the port {service_port} of the service" if service_port else "the port of each packet"
            reason = f"its port {real.port} is ignored, as only NAT changes ports; it gets {instead}"
            virtual.add_note(real.position, f"{real.statement}: {reason}")
        # In a group, a server that keeps its own port and has none has that of each packet.
        own = real.port or (0 if virtual.group else service_port)
        return Server(
            address=real.address,
            port=own if forwarding.method == "nat" else service_port,
            forward=forwarding.method,
            weight=virtual.weight if real.weight is None else real.weight,
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

"""Observe the IPVS table of a kernel, over any channel."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.errors import BusyError, HostError, ProtocolError
from reconciler.model.ipvs import Excluded, Ipvs, ServerKey, Service, ServiceKey, Timeouts
from reconciler.netlink import ipvs, message
from reconciler.netlink.channel import GENERIC, NETFILTER, Channel, Kernel
from reconciler.netlink.engine import CONSISTENT_DUMP_TIMEOUT
from reconciler.netlink.message import Message

# What an operation may set for a moment, and what decides whether connection tracking knows of IPVS.
NODEST, CONNTRACK = "expire_nodest_conn", "conntrack"


@dataclass(slots=True)
class Table:
    """What was found, and when. `connections`: of servers that are not wanted, as `model.sandbox.Surroundings` says."""

    ipvs: Ipvs
    now: float = field(default_factory=time.time)
    foreign: list[Service] = field(default_factory=list)
    unmarked: set[ServiceKey] = field(default_factory=set)
    connections: dict[tuple[ServiceKey, ServerKey], int] = field(default_factory=dict)


class IpvsEngine:
    """Reads the IPVS table of one network namespace, and holds the channels to it."""

    def __init__(self, kernel: Kernel) -> None:
        """Open channels. HostError if the kernel has no IPVS."""
        self.kernel = kernel
        self.channel: Channel = kernel.open(GENERIC)
        self._dumps: Channel = kernel.open(GENERIC)
        self._conntrack: Channel | None = None
        self._sequence = 0
        try:
            self.family = self._ask_family()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the namespace go."""
        for channel in (self.channel, self._dumps, self._conntrack):
            if channel:
                channel.close()

    @property
    def conntrack(self) -> Channel:
        """The channel to connection tracking."""
        if self._conntrack is None:
            self._conntrack = self.kernel.open(NETFILTER)
        return self._conntrack

    def next_sequence(self) -> int:
        """Give the next sequence number."""
        self._sequence += 1
        return self._sequence

    def observe(self, desired: Ipvs) -> Table:
        """Read the table. Where a service equals a desired one by its bytes, that very object is given.

        Ours is what carries our mark, and what `desired` names; never what it excludes.
        """
        names = sorted({NODEST, CONNTRACK, *(name for name, _ in desired.sysctls)})
        values = ((name, self.kernel.sysctl(f"net.ipv4.vs.{name}")) for name in names)
        table = Table(
            replace(
                desired,
                timeouts=self.timeouts(),
                sysctls=tuple((name, int(value)) for name, value in values if value and value.lstrip("-").isdecimal()),
            )
        )
        services = self._read_services({service.key: service for service in desired.services or ()}, table)
        table.ipvs = replace(table.ipvs, services=tuple(services))
        return table

    def timeouts(self) -> Timeouts:
        """Read the timeouts."""
        sequence = self.next_sequence()
        answers = self.channel.exchange(ipvs.get_timeouts_request(self.family, sequence), sequence)
        for answer in answers:
            if answer.type == self.family and answer.sequence == sequence:
                return ipvs.decode_timeouts(answer.payload)
        raise ProtocolError("the kernel does not say the IPVS timeouts")

    def order(self) -> dict[bytes, int]:
        """Give the place of each service, as `ipvs.encode_identity` names it, in the kernel's own table."""
        return {ipvs.identity(payload): place for place, payload in enumerate(self._dump_services())}

    def _ask_family(self) -> int:
        sequence = self.next_sequence()
        answers = self.channel.exchange(ipvs.family_request(sequence), sequence)
        for answer in answers:
            if answer.type == message.ERROR:
                failed = message.failure(answer)
                if failed and failed.errno == errno.ENOENT:
                    raise HostError("this kernel has no IPVS: its module ip_vs is missing or cannot be loaded")
                if failed:
                    raise ProtocolError(f"the kernel refused to look for IPVS: {failed}")
        return ipvs.decode_family(answers[0].payload)

    def _read_services(self, wishes: Mapping[ServiceKey, Service], table: Table) -> list[Service]:
        payloads = self._dump_services()
        identities = [ipvs.identity(payload) for payload in payloads]
        expected = _Expected(wishes.values())
        ours = []
        for payload, identity, servers in zip(payloads, identities, self._dump_servers(identities), strict=True):
            same = expected.find(payload, identity, servers)
            if same:
                ours.append(same)
                continue
            service = self._sort(payload, servers, wishes, table)
            if service:
                ours.append(service)
        return ours

    def _sort(
        self, payload: bytes, payloads: list[bytes], wishes: Mapping[ServiceKey, Service], table: Table
    ) -> Service | None:
        """Decode a service that is not just as desired: give it if it is ours, else it goes to the foreign ones."""
        service, marked = ipvs.decode_service(payload)
        key = service.key
        decoded = [ipvs.decode_server(each) for each in payloads]
        service = replace(service, servers=tuple(server for server, _ in decoded))
        if _excluded(table.ipvs.exclude, key) or not (marked or key in wishes):
            table.foreign.append(service)
            return None
        if not marked:
            table.unmarked.add(key)
        wanted = {server.key for server in wishes[key].servers} if key in wishes else set()
        for server, connections in decoded:
            if server.key not in wanted:
                table.connections[key, server.key] = connections
        return service

    def _dump_services(self) -> list[bytes]:
        deadline = time.monotonic() + CONSISTENT_DUMP_TIMEOUT
        while True:
            sequence = self.next_sequence()
            answers = self.channel.exchange(ipvs.dump_services_request(self.family, sequence), sequence)
            if not any(answer.flags & message.DUMP_INTERRUPTED for answer in answers):
                break
            if time.monotonic() > deadline:
                raise BusyError(f"the IPVS table changes too fast to be read ({CONSISTENT_DUMP_TIMEOUT:.0f} s tried)")
        _check_end(answers[-1])
        return [m.payload for m in answers if m.type == self.family and ipvs.is_service(m.payload)]

    def _dump_servers(self, identities: list[bytes]) -> list[list[bytes]]:
        """Read the servers of services; none of a service that has gone meanwhile."""
        if not identities:
            return []
        first = self._sequence + 1
        self._sequence += len(identities)
        requests = [
            ipvs.dump_servers_request(self.family, identity, first + index) for index, identity in enumerate(identities)
        ]
        found: list[list[bytes]] = [[] for _ in identities]
        for kind, _, sequence, payload in self._dumps.dumps(requests):
            if kind == self.family and ipvs.is_server(payload):
                if not 0 <= sequence - first < len(found):
                    raise ProtocolError("the kernel shows servers that were not asked for")
                found[sequence - first].append(payload)
        return found


class _Expected:
    """The desired services by their bytes."""

    def __init__(self, services: Iterable[Service]) -> None:
        encode = ipvs.encode_server
        self._by_identity = {
            ipvs.encode_identity(service.key): (
                service,
                ipvs.encode_settings(service),
                set(map(encode, service.servers)),
            )
            for service in services
        }

    def find(self, payload: bytes, identity: bytes, servers: list[bytes]) -> Service | None:
        """Give the desired service that a dumped one equals."""
        found = self._by_identity.get(identity)
        if found is None:
            return None
        service, settings, expected = found
        same = len(servers) == len(expected) and ipvs.is_same_service(payload, settings)
        return service if same and expected.issuperset(map(ipvs.server_bytes, servers)) else None


def _excluded(exclude: Iterable[Excluded], key: ServiceKey) -> bool:
    return any(each.covers(key) for each in exclude)


def _check_end(answer: Message) -> None:
    failed = message.failure(answer)
    if failed:
        raise ProtocolError(f"the kernel refused to show its IPVS table: {failed}")

"""Observe the IPVS table of a kernel, over any channel."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from reconciler.errors import HostError, ProtocolError
from reconciler.model.ipvs import CONNTRACK, NODEST, Ipvs, Load, ServerKey, Service, ServiceKey, Timeouts
from reconciler.netlink import ipvs, ipvs_legacy, ipvs_listing, message
from reconciler.netlink.channel import GENERIC, NETFILTER, Channel, Kernel
from reconciler.netlink.engine import whole_dump
from reconciler.netlink.message import Message
from reconciler.netlink.sysctl import read_numbers
from reconciler.operations.ipvs import EXPIRING, AddService
from reconciler.values import dataclass, field, replace

# More than anyone uses. A hostile guest must not be able to keep us busy with endless services.
MAX_SERVICES = 65_536
_PREFIX = "net.ipv4.vs."
# Of so many services, each is dumped. Of more, one look at all servers takes less time.
FEW = 32


@dataclass(slots=True)
class IpvsTable:
    """The observed services, and the time of the look.

    See `model.sandbox.Surroundings` for `connections`, `expiring`. `listing`: see there for `ipvs_listing`.
    """

    ipvs: Ipvs
    expiring: bool = False
    now: float = field(default_factory=time.time)
    foreign: list[Service] = field(default_factory=list)
    connections: dict[tuple[ServiceKey, ServerKey], Load] = field(default_factory=dict)
    listing: str = ""


class IpvsEngine:
    """Reads the IPVS table of one network namespace over its own channels."""

    def __init__(self, kernel: Kernel) -> None:
        """Open channels. HostError if the kernel has no IPVS."""
        self.kernel = kernel
        self._conntrack: Channel | None = None
        self._sequence = 0
        self._open: list[Channel] = []
        try:
            self.channel, self._dumps = self._channel(GENERIC), self._channel(GENERIC)
            self.family = self._ask_family()
        except BaseException:
            self.close()
            raise

    def _channel(self, protocol: int) -> Channel:
        channel = self.kernel.open(protocol)
        self._open.append(channel)
        return channel

    def close(self) -> None:
        """Close the channels."""
        for channel in self._open:
            channel.close()

    @property
    def conntrack(self) -> Channel:
        """Return the channel to connection tracking."""
        if self._conntrack is None:
            self._conntrack = self._channel(NETFILTER)
        return self._conntrack

    def next_sequence(self) -> int:
        """Return the next sequence number."""
        self._sequence += 1
        return self._sequence

    def observe(self, desired: Ipvs, *, quick: bool = False) -> IpvsTable:
        """Read the table. For a service whose bytes equal those of a desired one, return that very object.

        A service is ours if it carries our mark or `desired` names it, unless `desired` excludes it. A quick look reads
        the kernel's listing. It trusts that if the kernel has many services and cannot tell all servers at once: then
        it does not see changes of thresholds and tunnels, which the listing lacks. If `desired` is about settings
        alone, services are not read.
        """
        names = sorted({NODEST, CONNTRACK, *(name for name, _ in desired.sysctls)})
        read = read_numbers(self.kernel, [f"{_PREFIX}{name}" for name in names])
        values = {name.removeprefix(_PREFIX): value for name, value in read.items()}
        expiring = values.get(NODEST) == EXPIRING
        if expiring:
            values[NODEST] = 0
        table = IpvsTable(replace(desired, timeouts=self.timeouts(), sysctls=tuple(values.items())), expiring)
        if not desired.leaves_services:
            services = self._read_services(desired.services or (), table, quick=quick)
            table.ipvs = replace(table.ipvs, services=tuple(services))
        return table

    def timeouts(self) -> Timeouts:
        """Read the timeouts."""
        sequence = self.next_sequence()
        answers = self.channel.exchange(ipvs.get_timeouts_request(self.family, sequence), sequence)
        for answer in answers:
            if answer.type == self.family and answer.sequence == sequence:
                return ipvs.decode_timeouts(answer.payload)
        raise ProtocolError("the kernel's answer lacks the IPVS timeouts")

    def guards(self, services: Iterable[Service]) -> tuple[list[bytes], list[bytes]]:
        """Return the requests that read the first service of each address family, and the requests that add it."""
        first = {service.is_ipv6: service for service in reversed(list(services))}.values()
        probes = [ipvs.get_service_request(self.family, each.key, 1) for each in first]
        return probes, [ipvs.encode(AddService(service=each), self.family, 1) for each in first]

    def _ask_family(self) -> int:
        sequence = self.next_sequence()
        answers = self.channel.exchange(ipvs.family_request(sequence), sequence)
        for answer in answers:
            if answer.type == message.ERROR:
                failed = message.failure(answer)
                if failed and failed.errno == errno.ENOENT:
                    raise HostError(
                        "this kernel has no IPVS: its module ip_vs is missing or cannot be loaded; "
                        "`modprobe ip_vs` says why",
                        path=("ipvs",),
                    )
                if failed:
                    raise ProtocolError(f"the kernel refused to look up IPVS: {failed}")
        return ipvs.decode_family(answers[0].payload)

    def _read_services(self, desired: Sequence[Service], table: IpvsTable, *, quick: bool) -> list[Service]:
        # If the kernel's table changes between two pieces of a dump, the dump can contain a service twice.
        by_identity = {ipvs.identity(payload): payload for payload in self._dump_services()}
        if len(by_identity) > MAX_SERVICES:
            raise ProtocolError(f"the kernel reports more than {MAX_SERVICES} IPVS services")
        wanted = {ipvs.encode_identity(service.key): service for service in desired}
        ours = self._glance(wanted, by_identity, table, quick=quick) if wanted and by_identity else []
        identities, payloads = list(by_identity), by_identity.values()
        expected = _Expected({identity: wanted[identity] for identity in identities if identity in wanted})
        for payload, identity, servers in zip(payloads, identities, self._dump_servers(identities), strict=True):
            same = expected.find(payload, identity, servers)
            if same:
                ours.append(same)
                continue
            service = self._sort(payload, servers, wanted.get(identity), table)
            if service:
                ours.append(service)
        return ours

    def _glance(
        self, wanted: Mapping[bytes, Service], by_identity: dict[bytes, bytes], table: IpvsTable, *, quick: bool
    ) -> list[Service]:
        """Remove the services whose servers need no dump, as they are as desired, from `by_identity`; return them."""
        if quick:
            table.listing = self.kernel.ipvs_listing() or ""
        same = []
        for identity in self._agreeing(wanted, table) if len(by_identity) > FEW else ():
            payload, service = by_identity.get(identity), wanted[identity]
            if payload is not None and ipvs.is_same_service(payload, identity + ipvs.encode_traits(service)):
                del by_identity[identity]
                same.append(service)
        return same

    def _agreeing(self, wanted: Mapping[bytes, Service], table: IpvsTable) -> list[bytes]:
        """Return the services whose servers are as desired, as far as can be told without a dump of each."""
        if answer := self.kernel.ipvs_servers():
            return ipvs_legacy.agreeing(answer, wanted)
        same = ipvs_listing.agreeing(table.listing, wanted.values()) if table.listing else []
        return [ipvs.encode_identity(service.key) for service in same]

    def _sort(self, payload: bytes, payloads: list[bytes], wish: Service | None, table: IpvsTable) -> Service | None:
        """Decode a service that differs from the desired one.

        Return it if it is ours, else add it to the foreign ones.
        """
        service = ipvs.decode_service(payload)
        key = service.key
        decoded = {server.key: (server, connections) for server, connections in map(ipvs.decode_server, payloads)}
        wanted = {server.key for server in wish.servers} if wish else set()
        for server, connections in decoded.values():
            if server.key not in wanted:
                table.connections[key, server.key] = connections
        service = replace(service, servers=tuple(server for server, _ in decoded.values()))
        if table.ipvs.excludes(key) or not (service.marked or wish):
            table.foreign.append(service)
            return None
        return service

    def _dump_services(self) -> list[bytes]:
        request = partial(ipvs.dump_services_request, self.family)
        answers = whole_dump(self.channel, request, self.next_sequence, "the IPVS table changes")
        _check_end(answers[-1])
        return [m.payload for m in answers if m.type == self.family and ipvs.is_service(m.payload)]

    def _dump_servers(self, identities: list[bytes]) -> list[list[bytes]]:
        """Read the servers of services. A service that was deleted meanwhile has none."""
        if not identities:
            return []
        first = self._sequence + 1
        self._sequence += len(identities)
        requests = [
            ipvs.dump_servers_request(self.family, identity, first + index) for index, identity in enumerate(identities)
        ]
        found: list[list[bytes]] = [[] for _ in identities]
        for answer in self._dumps.dumps(requests):
            place = answer.sequence - first
            if not 0 <= place < len(found):
                raise ProtocolError("the kernel sent servers of a service that was not asked for")
            if answer.type == self.family and ipvs.is_server(answer.payload):
                found[place].append(answer.payload)
            else:
                _check_end(answer)
        return found


class _Expected:
    """The desired services by their bytes."""

    def __init__(self, services: Mapping[bytes, Service]) -> None:
        self._by_identity = {
            identity: (service, identity + ipvs.encode_traits(service), set(map(ipvs.encode_server, service.servers)))
            for identity, service in services.items()
        }

    def find(self, payload: bytes, identity: bytes, servers: list[bytes]) -> Service | None:
        """Return the desired service that a dumped one equals; None if it equals none."""
        found = self._by_identity.get(identity)
        if found is None:
            return None
        service, settings, expected = found
        same = len(servers) == len(expected) and ipvs.is_same_service(payload, settings)
        return service if same and expected == set(map(ipvs.server_bytes, servers)) else None


def _check_end(answer: Message) -> None:
    failed = message.failure(answer) if answer.type in {message.ERROR, message.DONE} else None
    if failed:
        raise ProtocolError(f"the kernel refused to list its IPVS table: {failed}")

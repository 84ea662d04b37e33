"""What one service of a manifest cannot know: duplicates, and what belongs to somebody else."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter

from reconciler.manifest.ipvs import Section
from reconciler.manifest.schema import Finding
from reconciler.manifest.service import name, write_address
from reconciler.model.address import pack, split_prefix
from reconciler.model.ipvs import FWMARK, Excluded, Server, Service

_SERVER_KEY = attrgetter("address", "port")


def check(section: Section) -> Iterator[Finding]:
    """Check the services of a manifest against each other, as far as they could be read."""
    yield from _engines(section.services) if section.rules else _duplicates(section.services)
    if section.ipvs.exclude:
        yield from _excluded(section.services, section.ipvs.exclude)


def _duplicates(services: Iterable[Service | None]) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for index, service in enumerate(services):
        if service is None:
            continue
        if first.setdefault(service.key, index) != index:
            message = f"{name(service)} is services[{first[service.key]}] already"
            yield Finding(("ipvs", "services", index, service.protocol), message)
        if len(set(map(_SERVER_KEY, service.servers))) < len(service.servers):
            yield from _duplicate_servers(service.servers, index)


def _duplicate_servers(servers: Sequence[Server], index: int) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for number, server in enumerate(servers):
        if first.setdefault(server.key, number) != number:
            message = f"{write_address(server.address, server.port)} is servers[{first[server.key]}] already"
            yield Finding(("ipvs", "services", index, "servers", number, "address"), message)


def _engines(services: Iterable[Service | None]) -> Iterator[Finding]:
    """Find engines without persistence, which do nothing; the schema refuses them in `services`."""
    for index, service in enumerate(services):
        if service and service.persistence_engine and not service.persistent:
            message = f"{name(service)} has a persistence engine and is not persistent"
            yield Finding(("ipvs", "services", index, "persistenceEngine"), message)


def _excluded(services: Iterable[Service | None], exclude: Sequence[Excluded]) -> Iterator[Finding]:
    """Find services that the manifest leaves to somebody else; by length of prefix, as both may be thousands."""
    marks = {each.fwmark: index for index, each in enumerate(exclude) if each.prefix is None}
    networks: dict[tuple[int, int], dict[int, int]] = {}
    for index, each in enumerate(exclude):
        if each.prefix is not None:
            packed, length = split_prefix(each.prefix)
            shift = len(packed) * 8 - length
            networks.setdefault((len(packed), shift), {})[int.from_bytes(packed, "big") >> shift] = index
    for index, service in enumerate(services):
        if service is None:
            continue
        if service.protocol == FWMARK:
            found = marks.get(service.port)
        else:
            found = _network_of(pack(service.address), networks)
        if found is not None:
            message = f"{name(service)} belongs to somebody else by ipvs.exclude[{found}]"
            yield Finding(("ipvs", "services", index, service.protocol), message)


def _network_of(packed: bytes, networks: dict[tuple[int, int], dict[int, int]]) -> int | None:
    number = int.from_bytes(packed, "big")
    for (size, shift), indexes in networks.items():
        if size == len(packed) and number >> shift in indexes:
            return indexes[number >> shift]
    return None

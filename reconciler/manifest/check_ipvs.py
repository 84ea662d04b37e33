"""Checks across the services of a manifest: duplicates, and services that the manifest itself excludes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter

from reconciler.manifest.finding import Finding
from reconciler.manifest.ipvs import IpvsDraft
from reconciler.manifest.service import name, write_address
from reconciler.model.address import pack, split_prefix
from reconciler.model.ipvs import FWMARK, Excluded, Server, Service

_SERVER_KEY = attrgetter("address", "port")


def check(section: IpvsDraft) -> Iterator[Finding]:
    """Check those services of a manifest against each other that could be read."""
    yield from _engines(section.services) if section.rules else _duplicates(section.services)
    if section.ipvs.exclude:
        yield from _excluded(section.services, section.ipvs.exclude)


def _duplicates(services: Iterable[Service | None]) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for index, service in enumerate(services):
        if service is None:
            continue
        if first.setdefault(service.key, index) != index:
            message = f"{name(service)} duplicates services[{first[service.key]}]"
            yield Finding(("ipvs", "services", index, service.protocol), message)
        if len(set(map(_SERVER_KEY, service.servers))) < len(service.servers):
            yield from _duplicate_servers(service.servers, index)


def _duplicate_servers(servers: Sequence[Server], index: int) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for number, server in enumerate(servers):
        if first.setdefault(server.key, number) != number:
            message = f"{write_address(server.address, server.port)} duplicates servers[{first[server.key]}]"
            yield Finding(("ipvs", "services", index, "servers", number, "address"), message)


def _engines(services: Iterable[Service | None]) -> Iterator[Finding]:
    """Find persistence engines without persistence, which do nothing. In `services`, the schema refuses them."""
    for index, service in enumerate(services):
        if service and service.persistence_engine and not service.persistent:
            message = f"{name(service)} has a persistence engine but is not persistent; add -p"
            yield Finding(("ipvs", "services", index, "persistenceEngine"), message)


def _excluded(services: Iterable[Service | None], exclude: Sequence[Excluded]) -> Iterator[Finding]:
    """Find services that `exclude` covers. Networks are looked up by prefix length, as both lists may be long."""
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
            message = f"{name(service)} is excluded by ipvs.exclude[{found}]; remove one of the two"
            yield Finding(("ipvs", "services", index, service.protocol), message)


def _network_of(packed: bytes, networks: dict[tuple[int, int], dict[int, int]]) -> int | None:
    number = int.from_bytes(packed, "big")
    for (size, shift), indexes in networks.items():
        if size == len(packed) and number >> shift in indexes:
            return indexes[number >> shift]
    return None

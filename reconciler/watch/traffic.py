"""What the last looks have read of the connections of a sandbox's IPVS table, for those who ask about this sandbox.

A quick look reads the kernel's listing anyway. It is kept as it was read, and parsed only if somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reconciler.manifest.service import name, write_address
from reconciler.model.ipvs import FWMARK, Load, Server, Service, due
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import ipvs_listing
from reconciler.values import NamedTuple
from reconciler.watch import clock
from reconciler.watch.share import objects_of

if TYPE_CHECKING:
    # `status` reads this module and plans nothing.
    from reconciler.preview import Preview

# A listing that is longer is not kept: characters, and characters for each object of the manifest. A line has 100.
MOST, OBJECT_MOST = 64 << 10, 200


class Drain(NamedTuple):
    """A server that drains: of which service, with how many connections, until when (Unix seconds)."""

    service: str
    server: str
    connections: int
    deadline: float


class Traffic(NamedTuple):
    """The listing, and the time of the `clock` when it was read; the servers that drained at the last look."""

    listing: str = ""
    read: float = 0.0
    drains: tuple[Drain, ...] = ()

    def seen(self, desired: Sandbox, found: Preview) -> Traffic:
        """Return what is known after another look. A full look reads no listing: then the one before is kept."""
        after = self._replace(drains=tuple(_drains(found))) if found.plan.draining or self.drains else self
        listing = found.observed.around.ipvs_listing
        if not listing:
            return after
        is_long = len(listing) > MOST and len(listing) > MOST + OBJECT_MOST * objects_of(desired)
        return after._replace(listing="" if is_long else listing, read=clock.now())

    def to_data(self, services: tuple[Service, ...]) -> dict[str, Any]:
        """Return the connections of these services as plain data. A server that the listing lacks has none: null."""
        counts = ipvs_listing.connections(self.listing)
        return {
            "read": round(clock.unix(self.read), 3),
            "services": [_service_data(each, counts) for each in services] if self.listing else [],
            "draining": [each._asdict() for each in self.drains],
        }


def _service_data(service: Service, counts: dict[tuple[str, str], tuple[int, int]]) -> dict[str, Any]:
    found = [(each, _count(service, each, counts)) for each in service.servers]
    active, inactive = (sum(count[at] for _, count in found if count) for at in (0, 1))
    servers = [
        {
            "server": write_address(*server.key),
            "weight": server.weight,
            "active": count[0] if count else None,
            "inactive": count[1] if count else None,
        }
        for server, count in found
    ]
    return {"service": _words(service), "active": active, "inactive": inactive, "servers": servers}


def _count(service: Service, server: Server, counts: dict[tuple[str, str], tuple[int, int]]) -> tuple[int, int] | None:
    """Return the connections of a server, which the kernel lists in its own notation, and kata-runtime as ipvsadm."""
    kernel = ipvs_listing.words(service.key), ipvs_listing.place(*server.key)
    kind, place = (
        ("FWM", str(service.port)) if service.protocol == FWMARK else (service.protocol.upper(), name(service))
    )
    return counts.get(kernel) or counts.get((f"{kind} {place}", write_address(*server.key)))


def _drains(found: Preview) -> Iterator[Drain]:
    ipvs, around = found.observed.sandbox.ipvs, found.observed.around
    for service in (ipvs.services if ipvs else None) or ():
        for server in service.servers:
            if server.deadline is not None:
                left = around.connections.get((service.key, server.key), Load()).total
                yield Drain(_words(service), write_address(*server.key), left, due(server.deadline, around.now))


def _words(service: Service) -> str:
    return name(service) if service.protocol == FWMARK else f"{service.protocol} {name(service)}"

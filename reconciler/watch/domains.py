"""Notices that domains of libvirt start and stop: one thread asks each libvirt which of its domains run.

It asks twice a second, which costs libvirt half a millisecond, rather than to wait for events: so it misses nothing
while libvirtd restarts, and needs no loop of libvirt's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from reconciler.errors import ReconcilerError
from reconciler.model.sandbox import LibvirtAddress

if TYPE_CHECKING:
    from reconciler.drivers.vm.binding import Connection

# Seconds between two questions.
_INTERVAL = 0.5
# UUID → name, and number since its start.
_Active = Mapping[str, tuple[str, int]]


class DomainTracker:
    """Knows which domains have run at the last refresh."""

    def __init__(self, allows: Callable[[str], bool]) -> None:
        """Ask nothing yet. `allows`: whether the policy allows a URI."""
        self._allows = allows
        self._uris: frozenset[str] = frozenset()
        # What each libvirt has said last. While it does not answer, that holds.
        self._active: dict[str, _Active] = {}
        self._known: dict[str, int | None] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()

    def refresh(self, domains: Mapping[str, LibvirtAddress]) -> list[str]:
        """Track these sandboxes and no others. Return those that started, ended or did both since the last call."""
        self._uris = frozenset(filter(self._allows, (each.uri for each in domains.values())))
        if self._uris and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="domains", daemon=True)
            self._thread.start()
        before = self._known
        told = {name: each for name, each in domains.items() if each.uri in self._active}
        self._known = {name: _number(each, self._active[each.uri]) for name, each in told.items()}
        return [name for name, number in self._known.items() if before.get(name, number) != number]

    def _run(self) -> None:
        connections: dict[str, Connection] = {}
        while not self._stop.wait(_INTERVAL):
            for uri in connections.keys() - self._uris:
                connections.pop(uri).close()
            for uri in self._uris:
                try:
                    if uri not in connections:
                        connections[uri] = _connect(uri)
                    self._active[uri] = connections[uri].active()
                except ReconcilerError:
                    # The worker of each domain reports what is wrong.
                    if lost := connections.pop(uri, None):
                        lost.close()
        for connection in connections.values():
            connection.close()


def _connect(uri: str) -> Connection:
    # Most hosts have no libvirt.
    from reconciler.drivers.vm.binding import Connection

    return Connection(uri)


def _number(address: LibvirtAddress, active: _Active) -> int | None:
    """Return the number of a domain since its start; None if it does not run."""
    if address.uuid:
        return active[address.uuid][1] if address.uuid in active else None
    return next((number for name, number in active.values() if name == address.domain), None)

"""Notices that domains of libvirt start and stop, and that the agent in one ends: one thread asks each libvirt.

After a reboot of a guest, an agent that was pushed into it is gone, and nothing else tells. The thread asks twice a
second, which costs libvirt half a millisecond and as much for each domain, rather than to wait for events: so it misses
nothing while libvirtd restarts, and needs no loop of libvirt's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.errors import ReconcilerError
from reconciler.guest import agent
from reconciler.model.sandbox import LibvirtAddress
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.drivers.vm.binding import Active, Connection

# Seconds between two questions.
_INTERVAL = 0.5


class _State(NamedTuple):
    """A domain: its number since its start, None if it does not run; whether its agent has the channel open."""

    number: int | None
    open: bool

    def is_news(self, before: _State) -> bool:
        """Return whether it started, ended, or lost its agent. That the agent has come is told by the agent."""
        return self.number != before.number or (before.open and not self.open)


_GONE = _State(None, open=False)


class DomainTracker:
    """Knows which domains have run at the last refresh."""

    def __init__(self, allows: Callable[[str], bool]) -> None:
        """Ask nothing yet. `allows`: whether the policy allows a URI."""
        self._allows = allows
        self._wanted: frozenset[LibvirtAddress] = frozenset()
        # What each libvirt has said last. While it does not answer, that holds.
        self._states: dict[str, Mapping[LibvirtAddress, _State]] = {}
        self._known: dict[str, _State] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()

    def refresh(self, domains: Mapping[str, LibvirtAddress]) -> list[str]:
        """Track these sandboxes and no others. Return those that started, ended or lost their agent since then."""
        self._wanted = frozenset(each for each in domains.values() if self._allows(each.uri))
        if self._wanted and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="domains", daemon=True)
            self._thread.start()
        before = self._known
        told = {name: self._states.get(each.uri, {}).get(each) for name, each in domains.items()}
        self._known = {name: state for name, state in told.items() if state}
        return [name for name, state in self._known.items() if state.is_news(before.get(name, state))]

    def _run(self) -> None:
        connections: dict[str, Connection] = {}
        while not self._stop.wait(_INTERVAL):
            wanted = self._wanted
            uris = {each.uri for each in wanted}
            for uri in connections.keys() - uris:
                connections.pop(uri).close()
            for uri in uris:
                try:
                    if uri not in connections:
                        connections[uri] = _connect(uri)
                    self._states[uri] = _read(connections[uri], [each for each in wanted if each.uri == uri])
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


def _read(connection: Connection, wanted: Sequence[LibvirtAddress]) -> dict[LibvirtAddress, _State]:
    """Return the states of some domains."""
    uuids, names = {each.uuid for each in wanted}, {each.domain for each in wanted if not each.uuid}
    active = connection.active(lambda each: each.uuid in uuids or each.name in names)
    by_name = {each.name: each for each in active.values()}
    return {each: _state(active.get(each.uuid) if each.uuid else by_name.get(each.domain)) for each in wanted}


def _state(found: Active | None) -> _State:
    if found is None:
        return _GONE
    # Most hosts have no libvirt.
    from reconciler.drivers.vm.domain import read

    channels = read(found.xml).channels if found.xml else ()
    return _State(found.number, open=any(each.open for each in channels if each.name == agent.PORT))

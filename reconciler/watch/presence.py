"""Notices that namespaces and machines appear, vanish or are replaced.

One that does not exist costs one stat(2) for each check, and nobody has to try to open it or to connect to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.drivers.reach import open_namespace
from reconciler.model.sandbox import DriverAddress, LibvirtAddress, NetnsAddress, VmAddress
from reconciler.watch.authority import Authority
from reconciler.watch.domains import DomainTracker
from reconciler.watch.files import Stamp, read_stamp
from reconciler.watch.namespaces import NamespaceSocket, NamespaceTracker


class SocketTracker:
    """Knows which sockets each machine has had at the last refresh."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp | None, ...]] = {}

    def refresh(self, sockets: Mapping[str, Iterable[str]]) -> list[str]:
        """Track these machines and no others: sandbox → paths of its sockets.

        Return the known sandboxes of which a socket has appeared, vanished or been replaced since the last call.
        """
        before = self._known
        self._known = {name: tuple(map(read_stamp, paths)) for name, paths in sockets.items()}
        return [name for name, stamps in self._known.items() if name in before and stamps != before[name]]


class Presence:
    """Tracks all sandboxes of a watcher, and listens to their namespaces."""

    def __init__(self, channel: NamespaceSocket, authority: Authority) -> None:
        """Use a socket, which the caller closes. `authority`: which namespaces may be opened."""
        self.namespaces = NamespaceTracker(channel, lambda address: open_namespace(address, authority.policy))
        self._machines = SocketTracker()
        self._domains = DomainTracker(lambda uri: uri in authority.policy.libvirt_uris)
        self._of_libvirt: dict[str, LibvirtAddress] = {}
        self._addresses: dict[str, NetnsAddress] = {}
        self._sockets: dict[str, tuple[str, ...]] = {}

    @property
    def unheard(self) -> dict[str, str]:
        """Return sandbox → why changes in its namespace are not reported at present."""
        return self.namespaces.unheard

    def track(self, addresses: Mapping[str, DriverAddress]) -> None:
        """Track these sandboxes from now on, and no others."""
        self._addresses = {name: each for name, each in addresses.items() if isinstance(each, NetnsAddress)}
        # A channel of ours is plugged in by the look that finds the machine, so it is none of these.
        self._sockets = {name: each.sockets for name, each in addresses.items() if isinstance(each, VmAddress)}
        self._of_libvirt = {name: each for name, each in addresses.items() if isinstance(each, LibvirtAddress)}

    def reload(self) -> None:
        """Listen anew at the next refresh: the policy may have changed."""
        self.namespaces.reload()

    def refresh(self) -> list[str]:
        """Return the tracked sandboxes that came, went or were replaced since the last call."""
        return [
            *self.namespaces.refresh(self._addresses),
            *self._machines.refresh(self._sockets),
            *self._domains.refresh(self._of_libvirt),
        ]

    def close(self) -> None:
        """Stop listening to libvirt, and noticing mounts."""
        self._domains.close()
        self.namespaces.close()

"""Which sandbox has which namespace or machine, among those that one process works on.

Two manifests that mean one are refused when they are loaded, if it shows then. A namespace that is created, linked or
mounted later is found out when it is opened: the sandbox that was there first keeps it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable

from reconciler.drivers import Driver
from reconciler.errors import RefusedError
from reconciler.manifest.whereabouts import place_of
from reconciler.model.sandbox import DriverAddress, LibvirtAddress, Sandbox
from reconciler.values import NamedTuple


class _Owner(NamedTuple):
    id: str
    driver: DriverAddress


class Claims:
    """Who has what. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[Hashable, _Owner] = {}
        self._places: dict[str, Hashable] = {}

    def claim(self, sandbox: Sandbox, driver: Driver) -> None:
        """Claim what a driver has opened, in place of what the sandbox had. RefusedError if another sandbox has it."""
        place = driver.place
        with self._lock:
            owner = self._owners.get(place)
            if owner and owner.id == sandbox.id:
                return
            # A domain has one UUID, whatever its name leads to.
            if owner and (isinstance(owner.driver, LibvirtAddress) or place_of(owner.driver) == place):
                raise RefusedError(
                    f"{sandbox.driver} is the same as {owner.driver}, which sandbox {owner.id} has already; "
                    "delete one of the two manifests, or correct its driver",
                    path=("driver",),
                )
            self._drop(sandbox.id)
            if owner:
                self._drop(owner.id)
            self._owners[place], self._places[sandbox.id] = _Owner(sandbox.id, sandbox.driver), place

    def keep(self, names: Collection[str]) -> bool:
        """Drop the claims of all sandboxes but these. Return whether there were any."""
        with self._lock:
            dropped = self._places.keys() - names
            for each in dropped:
                self._drop(each)
        return bool(dropped)

    def _drop(self, name: str) -> None:
        if name in self._places:
            del self._owners[self._places.pop(name)]

"""What a look at a sandbox goes by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from reconciler.history.scribe import DRIFT, Occasion, whole_path
from reconciler.manifest.load import Manifest
from reconciler.model.policy import Policy
from reconciler.model.sandbox import KataAddress, Sandbox
from reconciler.pending import Pending
from reconciler.values import NamedTuple
from reconciler.watch.pause import Pause
from reconciler.watch.revision import Revision

# Who changes sandboxes here, and why if nothing is known of a manifest.
WATCH: Mapping[str, object] = MappingProxyType({"command": "watch"})
# Seconds by which the watcher lets the helper of a change undo it first, and to its next try.
RETRY = 0.5


class Look(NamedTuple):
    """What one look goes by: it and the guard decide by the same manifest, policy and pause, read once.

    `cause`: why the manifest is new, "start" or "manifest"; "" if it is not. `waiting`: a change that waits to be
    confirmed.
    """

    manifest: Manifest
    revision: Revision
    cause: str
    full: bool
    policy: Policy
    pause: Pause | None = None
    waiting: Pending | None = None

    @property
    def place(self) -> Sandbox:
        """Return the sandbox without its sections: it is opened, whatever else of its manifest is refused."""
        return Sandbox(id=self.manifest.sandbox.id, driver=self.manifest.sandbox.driver)

    @property
    def driver(self) -> str:
        """Return the name of the driver: netns, vm or kata."""
        return str(self.manifest.sandbox.driver).partition(" ")[0]

    @property
    def is_paused(self) -> bool:
        """Return whether the sandbox is left alone."""
        return bool(self.manifest.sandbox.paused or self.pause or self.waiting)

    @property
    def may_change_silently(self) -> bool:
        """Return whether something can change in the sandbox without an event.

        That are IPVS, most sysctls, and everything behind kata-runtime.
        """
        sandbox = self.manifest.sandbox
        tuned = sandbox.sysctls or any(each.sysctls for each in sandbox.interfaces or ())
        return sandbox.ipvs is not None or bool(tuned) or isinstance(sandbox.driver, KataAddress)

    def next_due(self) -> Iterator[float]:
        """Yield in how many seconds a pause ends, and a change that waits is undone if it was not confirmed."""
        if self.pause is not None:
            yield self.pause.until - time.time()
        if self.waiting is not None:
            # At the deadline, its helper undoes it; it may have been killed.
            yield max(RETRY, self.waiting.left + RETRY)

    def occasion(self) -> Occasion:
        """Return why the look changes the sandbox, for the history."""
        return Occasion(self.cause or DRIFT, WATCH, whole_path(self.manifest.file), *self.revision)


def drift() -> Occasion:
    """Return why a sandbox is changed that is kept by an earlier manifest, as the present one is refused."""
    return Occasion(DRIFT, WATCH)

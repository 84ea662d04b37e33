"""The thread that reads manifests and finds their revisions. Both may take seconds, and no repair waits for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from time import monotonic, thread_time

from reconciler.values import NamedTuple
from reconciler.watch import clock
from reconciler.watch.manifests import SHARE, ManifestReader, ManifestSet
from reconciler.watch.revision import Revision, RevisionFinder
from reconciler.watch.wake import Wake

# Seconds between two checks of the commit, which need not change any manifest; more, if they take more than SHARE.
REVISION = 10.0


class Read(NamedTuple):
    """What was read: the manifests, None if they are as before, and the revisions of all of them."""

    manifests: ManifestSet | None
    revisions: Mapping[str, Revision]


class Reading:
    """Reads again and again in a thread, and calls `ready` after each change. Another thread calls `take`."""

    def __init__(self, reader: ManifestReader, ready: Callable[[], None]) -> None:
        self._reader, self._ready = reader, ready
        self._finder = RevisionFinder()
        self._wake = Wake()
        self._stopped = self._asked = False
        self._found: ManifestSet | None = None
        self._revisions: dict[str, Revision] = {}
        self._revisions_due = -math.inf
        self._result: Read | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="watch-manifests", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._reader.start(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Read now. Any thread may call this."""
        self._asked = True
        self._wake.set()

    def interrupt(self) -> None:
        """Let the present reading end soon, without a result, and begin no other. A signal handler may call this."""
        self._stopped = True
        self._reader.interrupt()
        self._finder.interrupt()
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self.interrupt()
        self._thread.join()
        self._reader.stop()

    @property
    def busy(self) -> float:
        """Return for how many seconds the present reading has lasted; 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else clock.now() - since

    def take(self) -> Read | None:
        """Return what was read since the last call; None if nothing was. Raise what has ended the thread."""
        with self._lock:
            result, self._result = self._result, None
        if self._error:
            raise self._error
        return result

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._wake.wait(REVISION)
                self._busy_since = clock.now()
                asked, self._asked = self._asked, False
                self._read(asked=asked)
                self._busy_since = None
        except BaseException as error:  # noqa: BLE001 — the thread that takes the results is to raise it
            self._error = error
            self._ready()

    def _read(self, *, asked: bool) -> None:
        found = self._reader.read() if asked else None
        if found is not None:
            self._found = found
        if self._stopped or self._found is None:
            return
        revisions = self._revisions
        if found is not None or monotonic() > self._revisions_due:
            begun = thread_time()
            revisions = self._find_revisions(self._found)
            self._revisions_due = monotonic() + max(REVISION, (thread_time() - begun) / SHARE)
        if found is None and revisions == self._revisions:
            return
        self._revisions = revisions
        with self._lock:
            waiting = self._result.manifests if self._result else None
            self._result = Read(found or waiting, revisions)
        self._ready()

    def _find_revisions(self, found: ManifestSet) -> dict[str, Revision]:
        """Find the revisions of the manifests that were read; those of others that are in force stay as they are."""
        known = [each for name, each in found.manifests.items() if name not in found.broken]
        before = {name: each for name, each in self._revisions.items() if name in found.broken}
        return before | self._finder.find(known)

"""A machine as the watcher sees it: what it was told to do, and what is known of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reconciler.history.writer import Writer
from reconciler.manifest.load import Manifest
from reconciler.values import replace
from reconciler.watch.machines.messages import (
    AS_FOUND,
    Ask,
    Assign,
    Begin,
    Done,
    Ended,
    Found,
    Order,
    SetOrigin,
    Stop,
    Unstarted,
    Wish,
)
from reconciler.watch.record import record_not_pruned
from reconciler.watch.revision import Revision
from reconciler.watch.state import SandboxState, SandboxStatus


class Machine:
    """Stands for the worker of a machine in the other process; `watched.Watched` has what it offers the watcher.

    `tell` says something to that process, and returns whether it runs. The thread that hears the process calls `take`
    and `lose`, and replaces the status.
    """

    def __init__(
        self,
        number: int,
        manifest: Manifest,
        revision: Revision,
        tell: Callable[[Order], bool],
        on_done: Callable[[str, bool], None],
        history: Writer,
    ) -> None:
        self._number, self._tell, self._on_done, self._history = number, tell, on_done, history
        self._manifest, self._revision = manifest, revision
        self._status = SandboxStatus(manifest.sandbox.id, str(manifest.sandbox.driver), manifest.file, revision)
        # The edition of the manifest, and what was told of it last.
        self._edition, self._known, self._applying, self._rolled_back = 1, 0, True, ""
        # What was counted by processes that have ended.
        self._repairs = self._flushes = 0
        self._stopping = self._prune = False
        self._ended = threading.Event()

    @property
    def number(self) -> int:
        """Return what the two processes call the machine."""
        return self._number

    @property
    def status(self) -> SandboxStatus:
        """Return what is known of the sandbox."""
        return self._status

    @property
    def manifest(self) -> Manifest:
        """Return the manifest that is applied."""
        return self._manifest

    @property
    def revision(self) -> Revision:
        """Return the revision of that manifest."""
        return self._revision

    @property
    def is_applying(self) -> bool:
        """Return whether the manifest has not taken effect yet, as far as is known."""
        return self._known != self._edition or self._applying

    @property
    def rolled_back(self) -> str:
        """Return why the manifest was undone and is held until it is edited; empty if it is not."""
        return self._rolled_back if self._known == self._edition else ""

    @property
    def is_alive(self) -> bool:
        """Return whether its thread has not ended. The process may have: it is started again."""
        return not self._ended.is_set()

    @property
    def is_stopped(self) -> bool:
        """Return whether it was stopped and has ended."""
        return self._stopping and self._ended.is_set()

    @property
    def begin(self) -> Begin:
        """Return the order to watch it."""
        return Begin(self._number, self._edition, self._manifest, self._revision)

    def assign(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the sandbox differently, and apply it now."""
        self._manifest, self._revision = manifest, revision
        self._edition += 1
        self._tell(Assign(self._number, self._edition, manifest, revision))

    def set_origin(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the same, from another file or revision."""
        if (manifest, revision) != (self._manifest, self._revision):
            self._manifest, self._revision = manifest, revision
            self._tell(SetOrigin(self._number, manifest, revision))

    def request_look(self) -> None:
        """Ask for a look soon."""
        self._tell(Ask(self._number, Wish.LOOK))

    def request_full_look(self) -> None:
        """Ask for a full look now."""
        self._tell(Ask(self._number, Wish.FULL_LOOK))

    def reload(self) -> None:
        """Ask for a full look now, and postpone no repair."""
        self._tell(Ask(self._number, Wish.RELOAD))

    def retry_if_host_lacked(self) -> None:
        """Ask for a full look now if the host lacked something."""
        self._tell(Ask(self._number, Wish.RETRY))

    def stop(self, *, prune: bool = False) -> None:
        """Begin no other look. `prune`: first remove what is owned."""
        self._prune, self._stopping = prune, True
        if not self._tell(Stop(self._number, prune)):
            self.lose("the process that watches machines does not run")

    def join(self, seconds: float) -> bool:
        """Wait until a machine that was stopped is no longer watched; return whether that was in time."""
        return self._ended.wait(max(0.0, seconds))

    def take(self, report: Found | Done | Unstarted | Ended) -> None:
        """Take what was told of it."""
        match report:
            case Found():
                self._take_found(report)
            case Done(_, succeeded):
                if not self._stopping:
                    self._on_done(self._status.sandbox, succeeded)
            case Unstarted(_, reason):
                self._fail(f"cannot be watched: {reason}")
            case Ended():
                self._ended.set()

    def _take_found(self, found: Found) -> None:
        before = self._status
        before.drifts.extend(found.drifts)
        self._known, self._applying, self._rolled_back = found.edition, found.applying, found.rolled_back
        self._status = replace(
            before,
            repairs=self._repairs + found.repairs,
            flushes=self._flushes + found.flushes,
            traffic=found.traffic or before.traffic,
            **{name: getattr(found, name) for name in AS_FOUND},
        )

    def lose(self, reason: str) -> None:
        """Take that nobody watches it, as the process has ended or does not run."""
        if self._stopping:
            if self._prune and not self._ended.is_set():
                record_not_pruned(self._manifest, reason, self._history)
            self._ended.set()
            return
        was_applying, self._known = self.is_applying, 0
        self._repairs, self._flushes = self._status.repairs, self._status.flushes
        self._fail(reason)
        if was_applying:
            self._on_done(self._status.sandbox, False)

    def _fail(self, reason: str) -> None:
        status = replace(self._status, lent=0.0)
        status.set_state(SandboxState.FAILED, reason)
        self._status = status

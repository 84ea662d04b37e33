"""What the watcher needs of those that keep its sandboxes: a `worker` here, or one in the process of `machines`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from reconciler.manifest.load import Manifest
from reconciler.watch.revision import Revision
from reconciler.watch.state import SandboxState, SandboxStatus


class Watched(Protocol):
    """One sandbox that is watched. The main thread calls the methods, and none of them but `join` waits."""

    @property
    def status(self) -> SandboxStatus:
        """Return what is known of the sandbox."""

    @property
    def manifest(self) -> Manifest:
        """Return the manifest that is applied."""

    @property
    def revision(self) -> Revision:
        """Return the revision of that manifest."""

    @property
    def is_applying(self) -> bool:
        """Return whether the manifest has not taken effect yet."""

    @property
    def rolled_back(self) -> str:
        """Return why the manifest was undone and is held until it is edited; empty if it is not."""

    @property
    def is_alive(self) -> bool:
        """Return whether the thread that looks at the sandbox has not ended."""

    def assign(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the sandbox differently, and apply it now."""

    def set_origin(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the same, from another file or revision."""

    def request_look(self) -> None:
        """Ask for a look soon: something has changed in the sandbox."""

    def request_full_look(self) -> None:
        """Ask for a full look now: the sandbox was replaced, or a pause has begun or ended."""

    def reload(self) -> None:
        """Ask for a full look now, and postpone no repair: a person asks for it."""

    def retry_if_host_lacked(self) -> None:
        """Ask for a full look now if the host lacked something: its devices have changed."""

    def stop(self, *, prune: bool = False) -> None:
        """Begin no other look. `prune`: first remove what is owned from the sandbox, if possible."""

    def join(self, seconds: float) -> bool:
        """Wait for the end of a sandbox's watch that was stopped; return whether it has ended in time."""


def look_at_refused(watched: Iterable[Watched]) -> None:
    """Look again: what was refused because another sandbox had it may be possible now."""
    for each in watched:
        if each.status.state is SandboxState.REFUSED:
            each.request_full_look()

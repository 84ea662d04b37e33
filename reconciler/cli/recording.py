"""What commands of a person record in the history: what they change, by whom, and by which manifest."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

from reconciler.cli.output import warn
from reconciler.history.scribe import Occasion, Scribe, whole_path
from reconciler.history.writer import Writer
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox

if TYPE_CHECKING:
    from reconciler.imperative import LockedSandbox
    from reconciler.manifest.load import Manifest
    from reconciler.watch.revision import Revision

BY_HAND = "by hand"


def writer() -> Writer:
    """Return what writes the history, and warns once if that is impossible."""
    return Writer(_report)


def _report(problem: str) -> None:
    # Another user can change nothing, and learns that from the command itself.
    if problem and os.geteuid() == 0:
        warn(f"reconciler: {problem}; the command goes on")


class Revisions:
    """The revisions of the manifests of one command. git is asked once for all of them, if anything is recorded."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self._manifests, self._lock = manifests, threading.Lock()
        self._found: dict[str, Revision] | None = None

    def of(self, manifest: Manifest) -> Revision:
        """Return the revision of one of them. Any thread may call this."""
        with self._lock:
            if self._found is None:
                from reconciler.watch.revision import RevisionFinder

                self._found = RevisionFinder().find(self._manifests)
        return self._found[manifest.sandbox.id]


def applying(lines: Writer, manifest: Manifest, revisions: Revisions) -> Scribe:
    """Return what records that `apply` changes a sandbox."""

    @cache
    def occasion() -> Occasion:
        from reconciler.history.author import person

        revision = revisions.of(manifest)
        return Occasion(BY_HAND, person("apply"), whole_path(manifest.file), revision.commit, revision.blob)

    return Scribe(lines, manifest.sandbox.id, str(manifest.sandbox.driver), occasion)


def lock(sandbox: Sandbox, policy: Policy, command: str) -> AbstractContextManager[LockedSandbox]:
    """Open and lock a sandbox for a command that changes single objects, and record what it changes."""
    from reconciler import imperative
    from reconciler.history.author import person

    scribe = Scribe(writer(), sandbox.id, str(sandbox.driver), lambda: Occasion(BY_HAND, person(command)))
    return imperative.lock(sandbox, policy, scribe)


def tell(sandbox: str, command: str, event: str, **fields: object) -> None:
    """Record what a command did about a sandbox without a change of it."""
    from reconciler.history.author import person

    Scribe(writer(), sandbox, "").tell(event, by=person(command), **fields)

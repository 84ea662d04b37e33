"""What commands of a person record in the history: what they change, by whom, and by which manifest."""

from __future__ import annotations

import os
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

BY_HAND = "by hand"


def writer() -> Writer:
    """Return what writes the history, and warns once if that is impossible."""
    return Writer(_report)


def _report(problem: str) -> None:
    # Another user can change nothing, and learns that from the command itself.
    if problem and os.geteuid() == 0:
        warn(f"reconciler: {problem}; the command goes on")


def by_hand(lines: Writer, command: str, sandbox: Sandbox, manifest: Manifest | None = None) -> Scribe:
    """Return what records the changes of a sandbox by a command, which may apply a manifest."""

    @cache
    def occasion() -> Occasion:
        # Only what is recorded pays for finding out.
        from reconciler.history.author import person

        if manifest is None:
            return Occasion(BY_HAND, person(command))
        from reconciler.watch.revision import RevisionFinder

        revision = RevisionFinder().find([manifest])[sandbox.id]
        return Occasion(BY_HAND, person(command), whole_path(manifest.file), revision.commit, revision.blob)

    return Scribe(lines, sandbox.id, str(sandbox.driver), occasion)


def lock(sandbox: Sandbox, policy: Policy, command: str) -> AbstractContextManager[LockedSandbox]:
    """Open and lock a sandbox for a command that changes single objects, and record what it changes."""
    from reconciler import imperative

    return imperative.lock(sandbox, policy, by_hand(writer(), command, sandbox))


def tell(sandbox: str, command: str, event: str, **fields: object) -> None:
    """Record what a command did about a sandbox without a change of it."""
    from reconciler.history.author import person

    Scribe(writer(), sandbox, "").tell(event, by=person(command), **fields)

"""What the commands for one sandbox share: how the user names it, and the warning that a watcher reverts changes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from reconciler.cli.authority import add_policy
from reconciler.cli.output import warn
from reconciler.model.sandbox import Sandbox
from reconciler.watch.client import reverting_manifests


def add_sandbox(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name one sandbox."""
    parser.add_argument(
        "id", metavar="ID", help="the sandbox's ID, or the beginning of it if no other ID begins with it"
    )
    parser.add_argument(
        "--manifests",
        action="append",
        default=[],
        metavar="PATH",
        help="find the sandbox in these manifests (default: among the machines of `reconciler sandbox list`)",
    )
    add_policy(parser)


def print_undone(sandbox: Sandbox) -> None:
    """Warn on stderr if a watcher will revert what was changed in a sandbox."""
    if words := undone_words(sandbox, reverting_manifests()):
        warn(words)


def undone_words(sandbox: Sandbox, reverting: Mapping[str, str], file: str = "") -> str:
    """Return a warning if a watcher will revert what was changed in a sandbox: it has another manifest than `file`.

    `reverting`: see `reverting_manifests`.
    """
    watched = reverting.get(sandbox.id)
    if not watched or (file and _is_same(file, watched)):
        return ""
    return f"{sandbox.id}: `reconciler watch` will revert whatever differs from {watched}"


def _is_same(file: str, watched: str) -> bool:
    """Return whether two paths lead to one file. The second may be relative to the folder of another process."""
    if os.path.isabs(watched):
        return os.path.realpath(file) == os.path.realpath(watched)
    return os.path.realpath(file).endswith(os.sep + os.path.normpath(watched))

"""What the commands against one sandbox have in common: how it is named, and what is said of a watcher."""

from __future__ import annotations

import argparse
import os
import sys

from reconciler.model.sandbox import Sandbox
from reconciler.watch.client import undone_by


def add_sandbox(parser: argparse.ArgumentParser) -> None:
    """Add what names one sandbox."""
    parser.add_argument("id", metavar="ID", help="the sandbox's ID, or the beginning of it if no other one begins so")
    parser.add_argument(
        "--manifests",
        action="append",
        default=[],
        metavar="PATH",
        help="look for it in these manifests (default: among the machines of `reconciler sandbox list`)",
    )


def print_undone(sandbox: Sandbox, file: str = "") -> None:
    """Print on stderr that a watcher will undo what was changed in a sandbox, if one will: not by the same manifest."""
    watched = undone_by(sandbox.id)
    if watched and not (file and _is_same(file, watched)):
        print(f"{sandbox.id}: the watch will undo this, where its manifest {watched} does not say it", file=sys.stderr)


def _is_same(file: str, watched: str) -> bool:
    """Tell whether two paths lead to one file, of which the second may be relative to another process's folder."""
    if os.path.isabs(watched):
        return os.path.realpath(file) == os.path.realpath(watched)
    return os.path.realpath(file).endswith(os.sep + os.path.normpath(watched))

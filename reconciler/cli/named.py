"""What the commands against one sandbox have in common: how it is named, and what is said of a watcher."""

from __future__ import annotations

import argparse
import sys

from reconciler.imperative import undone_by
from reconciler.model.sandbox import Sandbox


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


def print_undone(sandbox: Sandbox) -> None:
    """Print on stderr that a watcher will undo what was changed in a sandbox, if one will."""
    file = undone_by(sandbox)
    if file:
        print(f"{sandbox.id}: the watch will undo this, as its manifest {file} does not say it", file=sys.stderr)

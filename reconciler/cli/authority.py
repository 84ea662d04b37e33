"""What the operator of this host allows to manifests: the option, and the policy that it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reconciler.model.policy import POLICY_FILE, Policy
from reconciler.values import replace


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help=f"what manifests may name on this host (default: {POLICY_FILE}; without that file, safe defaults)",
    )


def add_push(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands that push the agent into machines whose manifests have a `guestAgent`."""
    parser.add_argument(
        "--no-push",
        dest="push",
        action="store_false",
        help="do not push the agent into a machine in which none answers, and plug no channel for it in",
    )


def read_policy(file: str | None, paths: Sequence[str], *, push: bool = False) -> Policy:
    """Return the policy for manifests below some paths, as `manifest.policy.read` does.

    `push`: whether this command pushes the agent into machines, where the policy allows that.
    """
    # Only a command that reads manifests pays for the import.
    from reconciler.manifest import policy

    found = policy.read(file, paths)
    return replace(found, may_push=True) if push else found

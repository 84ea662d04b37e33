"""What the operator of this host allows to manifests: the option, and the policy that it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reconciler.model.policy import POLICY_FILE, Policy


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help=f"what manifests may name on this host (default: {POLICY_FILE}; without that file, safe defaults)",
    )


def read_policy(file: str | None, paths: Sequence[str]) -> Policy:
    """Return the policy for manifests below some paths, as `manifest.policy.read` does."""
    # Only a command that reads manifests pays for the import.
    from reconciler.manifest import policy

    return policy.read(file, paths)

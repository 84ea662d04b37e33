"""`reconciler fleet diff`: show what a push would do."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd
from reconciler.cli.fleet.push import add_tree


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_tree(parser)
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show it. Return 1 if a push would change anything."""
    from reconciler.cli.fleet import pushing

    return pushing.diff_tree(arguments)

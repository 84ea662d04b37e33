"""`reconciler fleet resume`: end a pause, or go on with a rollout that has stopped."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("host", nargs="?", metavar="HOST", help="the host that was paused (default: the rollout)")
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Go on."""
    from reconciler.cli.fleet import halting

    return halting.set_paused(arguments, paused=False)

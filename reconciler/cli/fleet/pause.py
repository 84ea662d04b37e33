"""`reconciler fleet pause`: stop the rollout, or leave one host alone."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("host", nargs="?", metavar="HOST", help="tell only this host nothing new (default: all hosts)")
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pause."""
    from reconciler.cli.fleet import halting

    return halting.set_paused(arguments, paused=True)

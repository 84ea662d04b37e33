"""`reconciler fleet rollback`: make a new release like an earlier one."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd
from reconciler.cli.fleet.push import add_terms


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("release", metavar="REL", help="the release, or its number; `fleet history` lists them")
    add_terms(parser)
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Push the plans of an earlier release once more."""
    from reconciler.cli.fleet import pushing

    return pushing.restore(arguments)

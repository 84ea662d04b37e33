"""`reconciler fleet status`: print how far hosts and the rollout are."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd
from reconciler.cli.parser import add_output


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("host", nargs="?", metavar="HOST", help="all about this host")
    parser.add_argument(
        "--watch", action="store_true", help="keep it up to date, until Ctrl-C; to a pipe, print what changes"
    )
    add_output(parser, "text", "json", "yaml", words="form of the output")
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print it. Return 0 if all is well, else 1."""
    from reconciler.cli.fleet import showing

    return showing.show(arguments)

"""`reconciler fleet wait`: wait until a release has reached its hosts."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd, with_store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("release", metavar="REL", help="the release, or its number")
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Wait for a release. Return 1 if it does not get to all hosts by itself any more."""
    from reconciler.cli.fleet.releases import find_release
    from reconciler.cli.fleet.waiting import wait_for
    from reconciler.fleet.store import Store

    async def work(store: Store) -> int:
        return await wait_for(store, await find_release(store, arguments.release))

    return with_store(arguments, work)

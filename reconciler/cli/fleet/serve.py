"""`reconciler fleet serve`: a gate of the fleet."""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource

from reconciler.cli.watch import add_page, address_of, page_of
from reconciler.watch import log

# Where the packages and the docs put what a gate shows.
FOLDER = "/etc/reconciler/fleet"
_FILES = {
    "--cert": (f"{FOLDER}/gate.crt", "the certificate of this gate"),
    "--key": (f"{FOLDER}/gate.key", "its key"),
    "--ca": (f"{FOLDER}/hosts-ca.crt", "the authority of the hosts"),
    "--etcd-cert": (f"{FOLDER}/etcd.crt", "the certificate that etcd is shown"),
    "--etcd-key": (f"{FOLDER}/etcd.key", "its key"),
    "--etcd-ca": (f"{FOLDER}/etcd-ca.crt", "the authority of etcd"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--etcd", nargs="+", action="extend", required=True, metavar="URL", help="the members of etcd, as https://…"
    )
    parser.add_argument(
        "--listen", metavar="[HOST:]PORT", type=address_of, required=True, help="where hosts connect, by TLS"
    )
    for name, (default, words) in _FILES.items():
        parser.add_argument(name, metavar="FILE", default=default, help=f"{words} (default: {default})")
    parser.add_argument(
        "--metrics", metavar="[HOST:]PORT", type=address_of, help="serve metrics for Prometheus, /healthz and /readyz"
    )
    add_page(parser, "a read-only page of the fleet")
    parser.add_argument(
        "--log", choices=log.FORMS, default="text", help="the format of the log on standard error (default: text)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from reconciler.fleet.gate import run as running

    page = page_of(arguments)
    gc.enable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each connection of a host takes a descriptor.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(arguments.log, "info")
    try:
        asyncio.run(running.run(arguments, page))
    except KeyboardInterrupt:
        return 130
    return 0

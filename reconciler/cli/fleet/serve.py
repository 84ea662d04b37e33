"""`reconciler fleet serve`: a gate of the fleet."""

from __future__ import annotations

import argparse
import gc
import resource

from reconciler.cli.fleet.connection import add_etcd, missing_extra, open_store
from reconciler.cli.parser import address_of
from reconciler.watch import log

# Where the docs put what a gate shows.
FOLDER = "/etc/reconciler/fleet"
_FILES = {
    "--cert": ("gate.crt", "the certificate of this gate"),
    "--key": ("gate.key", "its key"),
    "--ca": ("hosts-ca.crt", "the authority of the hosts"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--listen", metavar="[HOST:]PORT", type=address_of, required=True, help="where hosts connect, by TLS"
    )
    for name, (default, words) in _FILES.items():
        path = f"{FOLDER}/{default}"
        parser.add_argument(name, metavar="FILE", default=path, help=f"{words} (default: {path})")
    parser.add_argument(
        "--metrics", metavar="[HOST:]PORT", type=address_of, help="serve metrics for Prometheus, /healthz and /readyz"
    )
    add_etcd(parser, several=True)
    parser.add_argument(
        "--log", choices=log.FORMS, default="text", help="the format of the log on standard error (default: text)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    import asyncio

    try:
        from reconciler.fleet.gate.gate import Options
        from reconciler.fleet.gate.run import Serving, serve
    except ImportError as error:
        raise missing_extra(error) from None

    gc.enable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each connection of a host takes a descriptor.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(arguments.log, "info")
    host, port = arguments.listen
    options = Options(host, port, arguments.cert, arguments.key, arguments.ca)
    asyncio.run(serve(Serving(lambda: open_store(arguments), options, arguments.metrics)))
    return 0

"""`reconciler fleet serve`: a gate of the fleet."""

from __future__ import annotations

import argparse
import gc
import resource

from reconciler.cli.fleet.connection import add_etcd, missing_extra, open_store
from reconciler.cli.parser import address_of, page_address
from reconciler.errors import HostError
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
    parser.add_argument(
        "--ui",
        metavar="[HOST:]PORT|unix:PATH",
        type=page_address,
        help="serve a read-only page of the fleet on this address (default of HOST: 127.0.0.1, this host only)",
    )
    parser.add_argument(
        "--ui-token-file",
        metavar="FILE",
        default="",
        help="a file with the token that readers of the page need, which only its owner can read",
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

    if arguments.ui_token_file and not arguments.ui:
        raise HostError("--ui-token-file is for the page, which --ui HOST:PORT serves")
    gc.enable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each connection of a host takes a descriptor.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(arguments.log, "info")
    host, port = arguments.listen
    options = Options(host, port, arguments.cert, arguments.key, arguments.ca)
    page = arguments.ui and arguments.ui._replace(token_file=arguments.ui_token_file)
    asyncio.run(serve(Serving(lambda: open_store(arguments), options, arguments.metrics, page)))
    return 0

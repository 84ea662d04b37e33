"""`reconciler fleet agent`: keep the folder of this host's watcher as the fleet describes it."""

from __future__ import annotations

import argparse
import gc
import signal
import threading
from typing import TYPE_CHECKING

from reconciler.errors import HostError
from reconciler.watch import log

if TYPE_CHECKING:
    from reconciler.fleet.agent.agent import Fleet

# Where the packages and the docs put what a host shows to gates.
FOLDER = "/etc/reconciler/fleet"
CERTIFICATE, KEY, AUTHORITY = f"{FOLDER}/host.crt", f"{FOLDER}/host.key", f"{FOLDER}/hosts-ca.crt"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--server",
        nargs="+",
        action="extend",
        required=True,
        metavar="URL",
        help="a gate of the fleet, as https://HOST:PORT; of several, one is asked as long as it answers",
    )
    add_credentials(parser)
    parser.add_argument(
        "--log", choices=log.FORMS, default="text", help="the format of the log on standard error (default: text)"
    )


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Add the options for what a host shows to gates."""
    parser.add_argument(
        "--cert", metavar="FILE", default=CERTIFICATE, help=f"the certificate of this host (default: {CERTIFICATE})"
    )
    parser.add_argument("--key", metavar="FILE", default=KEY, help=f"its key (default: {KEY})")
    parser.add_argument(
        "--ca", metavar="FILE", default=AUTHORITY, help=f"the authority of the gates (default: {AUTHORITY})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    from reconciler.fleet.agent.agent import Agent

    gc.enable()
    log.configure(arguments.log, "info")
    agent = Agent(fleet_of(arguments.server, arguments))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    agent.start()
    ended.wait()
    agent.stop()
    return 0


def fleet_of(urls: list[str], arguments: argparse.Namespace) -> Fleet:
    """Return where the fleet is, and what this host shows to it. HostError if a URL is wrong."""
    from reconciler.fleet.agent.agent import Fleet
    from reconciler.fleet.agent.client import Credentials, parse_gate

    try:
        gates = [parse_gate(each) for each in urls]
    except ValueError as error:
        raise HostError(str(error)) from None
    return Fleet(gates, Credentials(arguments.cert, arguments.key, arguments.ca))

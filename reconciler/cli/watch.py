"""`reconciler watch`: keep sandboxes as their manifests describe them, until a signal ends it."""

from __future__ import annotations

import argparse
import resource

from reconciler.cli.authority import add_push
from reconciler.cli.fleet.agent import add_credentials, fleet_of
from reconciler.cli.parser import address_of, checked, page_address, seconds
from reconciler.errors import HostError
from reconciler.manifest.files import is_stream
from reconciler.watch import log
from reconciler.watch.probation import Confirm
from reconciler.watch.rollout import Pace, parse_at_once
from reconciler.watch.settings import Settings
from reconciler.watch.tuning import tune
from reconciler.watch.watcher import Options, Watcher

# The defaults of --look and --full-look, in seconds.
LOOK, FULL_LOOK = 5.0, 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--mode", choices=("repair", "report"), default="repair", help="`report` only reports drift and changes nothing"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="when a manifest is deleted, remove everything that reconciler created in its sandbox",
    )
    parser.add_argument(
        "--at-once",
        metavar="N|N%",
        type=_at_once,
        default=Pace(),
        help="the most sandboxes that changed manifests are applied to at the same time (default: all)",
    )
    parser.add_argument(
        "--stop-after-failures",
        metavar="N",
        type=_natural,
        default=0,
        help="stop applying changed manifests after so many failures (default: never)",
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="undo a changed manifest whose checks fail, and hold it until it is edited",
    )
    parser.add_argument(
        "--bake",
        metavar="TIME",
        type=seconds,
        default=0.0,
        help="make the checks of a changed manifest once more after so long; until then, its turn is not over",
    )
    parser.add_argument(
        "--look",
        metavar="TIME",
        type=seconds,
        default=LOOK,
        help="time between two quick looks, at IPVS and kata (default: 5s)",
    )
    parser.add_argument(
        "--full-look",
        metavar="TIME",
        type=seconds,
        default=FULL_LOOK,
        help="time between two full looks (default: 10min)",
    )
    parser.add_argument(
        "--no-guard",
        dest="guard",
        action="store_false",
        help="do not let the agent in a machine restore flushed services by itself",
    )
    add_push(parser)
    parser.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        type=address_of,
        help="serve metrics for Prometheus, /healthz and /readyz here (default of HOST: 127.0.0.1, for this host only)",
    )
    parser.add_argument(
        "--ui",
        metavar="[HOST:]PORT|unix:PATH",
        type=page_address,
        help="serve a read-only page of all sandboxes on this address (default of HOST: 127.0.0.1, this host only)",
    )
    parser.add_argument(
        "--ui-token-file",
        metavar="FILE",
        default="",
        help="a file with the token that readers of the page need, which only its owner can read",
    )
    parser.add_argument(
        "--fleet",
        nargs="+",
        action="extend",
        metavar="URL",
        help="keep what a fleet wants of this host, instead of PATHs: its gates, as https://HOST:PORT",
    )
    add_credentials(parser)
    parser.add_argument(
        "--log", choices=log.FORMS, default="text", help="the format of the log on standard error (default: text)"
    )
    parser.add_argument(
        "--log-level",
        choices=log.LEVELS,
        default="operation",
        help="the lowest level that is logged (default: operation, which names each single operation)",
    )


def _confirm(arguments: argparse.Namespace) -> Confirm:
    if arguments.confirm or arguments.bake:
        return Confirm.ALL
    return Confirm.NONE if arguments.at_once == Pace() else Confirm.CHECKED


def _at_once(text: str) -> Pace:
    return checked(parse_at_once, text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a number')
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Watch until SIGTERM or SIGINT."""
    if bool(arguments.paths) == bool(arguments.fleet):
        raise HostError("name either manifests or folders to watch, or the gates of a fleet with --fleet URL…")
    if any(map(is_stream, arguments.paths)):
        raise HostError("standard input cannot be watched; name files or folders instead")
    if arguments.ui_token_file and not arguments.ui:
        raise HostError("--ui-token-file is for the page, which --ui HOST:PORT serves")
    tune()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each sandbox takes a descriptor, and a shell often allows only 1,024.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(arguments.log, arguments.log_level)
    settings = Settings(
        look=arguments.look,
        full_look=max(arguments.full_look, arguments.look),
        change=arguments.mode == "repair",
        guard=arguments.guard,
        confirm=_confirm(arguments),
        bake=arguments.bake,
    )
    pace = arguments.at_once._replace(stop_after=arguments.stop_after_failures)
    options = Options(
        settings,
        pace,
        arguments.prune,
        metrics=arguments.metrics,
        page=arguments.ui and arguments.ui._replace(token_file=arguments.ui_token_file),
        policy=arguments.policy,
        push=arguments.push,
    )
    if not arguments.fleet:
        Watcher(arguments.paths, options).run()
        return 0
    from reconciler.fleet.agent.agent import Agent
    from reconciler.fleet.agent.cache import CURRENT

    agent = Agent(fleet_of(arguments.fleet, arguments))
    watcher = Watcher([CURRENT], options)
    agent.start()
    try:
        watcher.run()
    finally:
        agent.stop()
    return 0

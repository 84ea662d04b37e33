"""`reconciler fleet push`: give hosts what a tree says."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import add_etcd
from reconciler.cli.parser import checked
from reconciler.wording import seconds

_WAVES = "1,5%,25%,100%"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from reconciler.cli.limits import fingerprint

    add_tree(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, show what would be done, and do nothing"
    )
    parser.add_argument(
        "--expect",
        type=fingerprint,
        metavar="FINGERPRINT",
        help="refuse unless the push does what `fleet diff` printed this fingerprint for",
    )
    add_terms(parser)
    add_etcd(parser)


def add_tree(parser: argparse.ArgumentParser) -> None:
    """Add the argument for a tree."""
    parser.add_argument("tree", metavar="TREE", help="a git work tree, or a folder in one, whose folders are hosts")


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a release gets to the hosts."""
    parser.add_argument(
        "--waves",
        type=_waves,
        default=_waves(_WAVES),
        metavar="N|N%,…",
        help=f"how many of the hosts that change have been told after each wave (default: {_WAVES.replace('%', '%%')})",
    )
    parser.add_argument(
        "--bake",
        type=_time,
        default=0.0,
        metavar="TIME",
        help="how long a wave is watched before the next (default: 0s)",
    )
    parser.add_argument(
        "--stop-after", type=_count, default=1, metavar="N", help="stop the rollout if so many hosts fail (default: 1)"
    )
    add_allowance(parser)
    parser.add_argument("--wait", action="store_true", help="wait until it has reached its hosts, as `fleet wait` does")


def add_allowance(parser: argparse.ArgumentParser) -> None:
    """Add the option for deletions."""
    from reconciler.cli.limits import allowance

    parser.add_argument(
        "--allow-delete",
        metavar="N|N%|all",
        type=allowance,
        help="allow so many deletions of sandboxes, and so many hosts that have none left; `all` also allows a tree of "
        "another repository (default: 10 sandboxes, or 30 %% if that is more, and no host)",
    )


def _waves(text: str) -> tuple[str, ...]:
    from reconciler.fleet.proposal import parse_waves

    return checked(parse_waves, text)


def _time(text: str) -> float:
    try:
        return seconds(text)
    except ValueError:
        if text in {"0", "0s"}:
            return 0.0
        raise argparse.ArgumentTypeError(f'"{text}" is not a time such as 90s, 15min or 1h') from None


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 99999:
        return int(text)
    raise argparse.ArgumentTypeError(f'"{text}" is not a number of hosts such as 1')


def run(arguments: argparse.Namespace) -> int:
    """Push a tree."""
    from reconciler.cli.fleet import pushing

    return pushing.push_tree(arguments)

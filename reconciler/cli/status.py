"""`reconciler status`: print the state of the sandboxes that the watcher of this host keeps."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from reconciler import pending
from reconciler.cli.output import print_data, say, warn
from reconciler.cli.overview import BAD, is_good, left_words, lines, selected
from reconciler.cli.parser import add_output
from reconciler.errors import HostError
from reconciler.watch.client import NoWatcherError, read_status
from reconciler.watch.state import SandboxState
from reconciler.wording import select, suggest

_STATES = (*(each.value for each in SandboxState), BAD)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="all about this sandbox; `web-*` stands for several")
    parser.add_argument(
        "--state",
        metavar="STATE,…",
        type=_states,
        default=(),
        help=f"only sandboxes in these states; `{BAD}` stands for all that are not as they should be",
    )
    parser.add_argument(
        "--watch", action="store_true", help="keep it up to date, until Ctrl-C; to a pipe, print what changes"
    )
    add_output(parser, "text", "json", "yaml", words="form of the output")


def _states(text: str) -> tuple[str, ...]:
    for each in text.split(","):
        if each not in _STATES:
            raise argparse.ArgumentTypeError(f'"{each}" is no state; {suggest(each, _STATES)}')
    return tuple(text.split(","))


def run(arguments: argparse.Namespace) -> int:
    """Print the sandboxes that are asked for. Return 0 if all is well with them, else 1."""
    try:
        found = read_status(arguments.ids)
    except NoWatcherError:
        warn(*_waiting(()))
        raise
    _check(arguments.ids, found)
    if arguments.watch:
        # Not every status waits for changes.
        from reconciler.cli.follow import Follower

        found = Follower(arguments, found).run()
    elif arguments.output == "text":
        say(*lines(arguments, found))
        warn(*_waiting([each["sandbox"] for each in found["sandboxes"]] if not arguments.ids else None))
        warn(*found["alarms"], *found["problems"])
    else:
        print_data({**found, "sandboxes": selected(arguments, found)}, arguments.output)
    return _exit_code(arguments, found)


def _waiting(known: Sequence[str] | None) -> list[str]:
    """Return lines about changes that wait to be confirmed in sandboxes that no watcher keeps. None: do not look."""
    if known is None or os.geteuid() != 0:
        return []
    with suppress(HostError, OSError):
        return [
            f"{each.sandbox}: {left_words(each.words, each.left)}"
            for each in pending.every()
            if each.sandbox not in known
        ]
    return []


def _check(ids: Sequence[str], found: dict[str, Any]) -> None:
    """Raise HostError if nothing that the watcher keeps has one of these IDs."""
    if all(select([id_], (each["sandbox"] for each in found["sandboxes"])) for id_ in ids):
        return
    known = [each["sandbox"] for each in read_status()["sandboxes"]]
    for id_ in ids:
        if not select([id_], known):
            hint = suggest(id_, known, listed_by="`reconciler status`") if known else "it watches none at present"
            raise HostError(f'the watcher of this host watches no sandbox "{id_}"; {hint}')


def _exit_code(arguments: argparse.Namespace, found: dict[str, Any]) -> int:
    """Return 0 if all is well; the alarms and problems count unless some sandboxes are asked for."""
    wrong = (found["alarms"] or found["problems"]) and not arguments.ids and not arguments.state
    return int(bool(wrong) or not all(map(is_good, selected(arguments, found))))

"""`reconciler resume`: end the pause of a sandbox."""

from __future__ import annotations

import argparse

from reconciler.cli.output import say
from reconciler.cli.recording import tell
from reconciler.errors import HostError
from reconciler.watch import pause
from reconciler.watch.client import NoWatcherError, await_status

# Seconds to wait for the watcher to look at the sandbox again.
PATIENCE = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("sandbox", metavar="ID", help="the sandbox's ID, as in its manifest")


def run(arguments: argparse.Namespace) -> int:
    """End a pause, and return once the watcher looks again. HostError if the watcher does not know the sandbox."""
    name = arguments.sandbox
    check(name)
    was_paused = pause.end(name)
    if was_paused:
        tell(name, "resume", "resumed")
    try:
        found = await_status(name, lambda each: not was_paused or each["state"] != "paused", PATIENCE)
    except NoWatcherError:
        found = {"state": ""}
    words = "no longer paused" if was_paused else "was not paused"
    if found["state"] == "paused":
        words += f" by command; still paused: {found['detail']} ({found['file']})"
    say(f"{name}: {words}")
    return 0


def check(name: str) -> None:
    """Raise HostError if a name is no ID of a sandbox."""
    if not pause.is_id(name):
        raise HostError(f'"{name}" is not a valid sandbox ID')

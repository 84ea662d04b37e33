"""`reconciler pause`: make the watcher leave a sandbox alone for some time."""

from __future__ import annotations

import argparse
import time

from reconciler.errors import HostError
from reconciler.watch import pause
from reconciler.wording import seconds


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("sandbox", metavar="ID", help="the sandbox's ID, as in its manifest")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--for", dest="time", metavar="TIME", help="for how long: 90s, 15min, 1h, 2d")
    how.add_argument("--end", action="store_true", help="end the pause now")
    parser.add_argument("--reason", default="paused by hand", help="why; `status` shows it")


def run(arguments: argparse.Namespace) -> int:
    """Begin a pause, or end it."""
    name = arguments.sandbox
    if not pause.is_id(name):
        raise HostError(f'"{name}" is not a valid sandbox ID')
    if arguments.end:
        print(f"{name}: {'no longer paused' if pause.end(name) else 'was not paused'}")
        return 0
    try:
        until = time.time() + seconds(arguments.time)
    except ValueError as error:
        raise HostError(f"--for: {error}") from None
    pause.write(name, pause.Pause(until, arguments.reason))
    print(f"{name}: paused until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(until))}")
    return 0

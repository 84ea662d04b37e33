"""`reconciler pause`: make the watcher leave a sandbox alone for some time."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress

from reconciler.cli import resume
from reconciler.cli.output import say, warn
from reconciler.cli.recording import tell
from reconciler.errors import HostError
from reconciler.history.lines import timestamp
from reconciler.watch import pause
from reconciler.watch.client import NoWatcherError, UnknownSandboxError, await_status
from reconciler.wording import seconds

# Seconds to wait for the watcher to leave the sandbox alone: a look at it may have to end first.
PATIENCE = 15.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("sandbox", metavar="ID", help="the sandbox's ID, as in its manifest")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--for", dest="time", metavar="TIME", help="for how long: 90s, 15min, 1h, 2d")
    how.add_argument("--end", action="store_true", help="end the pause now, as `reconciler resume` does")
    parser.add_argument("--reason", default="paused by hand", help="why; `status` shows it")


def run(arguments: argparse.Namespace) -> int:
    """Begin a pause, and return once the watcher obeys it; or end one.

    HostError if the watcher does not know the sandbox, or does not obey in time.
    """
    if arguments.end:
        return resume.run(arguments)
    name = arguments.sandbox
    resume.check(name)
    try:
        until = time.time() + seconds(arguments.time)
    except ValueError as error:
        raise HostError(f"--for: {error}") from None
    shown = f"paused until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(until))}"
    written = pause.Pause(until, arguments.reason)
    try:
        await_status(name, lambda _: True, 0.0)
        _begin(name, written)
        found = await_status(name, lambda each: each["state"] == "paused", PATIENCE)
    except UnknownSandboxError:
        raise
    except NoWatcherError as error:
        # A watcher that is being restarted must obey, too.
        _begin(name, written)
        say(f"{name}: {shown}")
        warn(f"{name}: {error}; it will obey the pause if it watches this sandbox")
        return 0
    except HostError as error:
        _begin(name, written)
        raise HostError(f"{name}: {shown}, but it is unknown whether the watcher obeys: {error}") from error
    if found["state"] != "paused":
        state = ": ".join(filter(None, (found["state"], found["detail"])))
        raise HostError(
            f"{name}: {shown}, but the watcher does not say yet that it leaves the sandbox alone ({state}). "
            "`reconciler status` shows when it does"
        )
    say(f"{name}: {shown}")
    return 0


def _begin(name: str, written: pause.Pause) -> None:
    with suppress(HostError):
        if pause.read(name) == written:
            return
    pause.write(name, written)
    tell(name, "pause", "paused", reason=written.reason, until=timestamp(written.until))

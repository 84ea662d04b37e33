"""`reconciler confirm`: keep a change that `apply --confirm` has made, and wait for that on a terminal."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Sequence

from reconciler import pending
from reconciler.cli import resume
from reconciler.cli.output import is_obedient, rewrite, say, warn
from reconciler.cli.recording import tell, writer
from reconciler.errors import HostError, ReconcilerError
from reconciler.history.lines import IN_FORCE
from reconciler.pending import Pending
from reconciler.wording import failure

# Seconds between two looks at what waits.
_POLL = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sandboxes."""
    parser.add_argument("sandboxes", nargs="+", metavar="ID", help="the sandbox's ID, as in its manifest")


def run(arguments: argparse.Namespace) -> int:
    """Keep the changes of these sandboxes. Return 2 if one of them cannot be kept any more, or none waits."""
    worst = 0
    for name in arguments.sandboxes:
        try:
            resume.check(name)
            keep(name)
        except HostError as error:
            warn(f"reconciler: {error}")
            worst = error.exit_code
    return worst


def keep(name: str) -> None:
    """Keep the change of a sandbox, and record that. HostError if that is not possible."""
    kept = pending.confirm(name)
    tell(name, "confirm", "confirmed", file=kept.file)
    if kept.effect:
        tell(name, "confirm", IN_FORCE, **{key: value for key, value in kept.effect.items() if key != "by"})
    say(f"{name}: confirmed")


def await_confirmation(waiting: Sequence[Pending]) -> int:
    """Wait on a terminal until Enter keeps changes, or until they are undone; return the exit code for that.

    Elsewhere there is nobody to wait for.
    """
    if not waiting or not (sys.stdin.isatty() and is_obedient(sys.stderr)):
        return 0
    names = {each.sandbox for each in waiting}
    try:
        typed = _await_enter(names)
    finally:
        rewrite("")
    if typed is None:
        return _tell_ends(names)
    # The end of the input is no Enter.
    for name in sorted(names) if typed else ():
        keep(name)
    return 0


def _await_enter(names: set[str]) -> bytes | None:
    """Return what was typed; None if none of the changes waits any more."""
    while left := [each for each in pending.every() if each.sandbox in names and not each.is_reverting]:
        rewrite(f"Enter keeps it; undone in {max(0, round(min(each.left for each in left)))} s ")
        if select.select([sys.stdin], [], [], _POLL)[0]:
            return os.read(sys.stdin.fileno(), 1024)
    return None


def _tell_ends(names: set[str]) -> int:
    """Report what became of changes that Enter has not kept."""
    while any(each.sandbox in names for each in pending.every()):
        select.select([], [], [], _POLL)
    from reconciler.history.reader import read

    worst = 0
    for name in sorted(names):
        last = next((each for each in reversed(read([name])) if each.event in _ENDS), None)
        if last and last.event == "confirmed":
            say(f"{name}: confirmed")
        else:
            warn(f"{name}: not confirmed in time: {'undone' if not last or last.event == 'reverted' else last.reason}")
            worst = 2
    return worst


_ENDS = {"confirmed", "reverted", "not reverted"}


def undo_overdue() -> None:
    """Undo what nobody has confirmed in time, where the process that should do that was killed."""
    try:
        found = pending.every()
        if not any(each.is_due for each in found):
            return
        from reconciler.confirm.revert import finish

        for each in found:
            if each.is_due and finish(each.sandbox, writer()):
                warn(f"{each.sandbox}: a change was not confirmed in time, and is undone")
    except ReconcilerError as error:
        warn(f"reconciler: {error}")
    except OSError as error:
        if os.geteuid() == 0:
            warn(f"reconciler: {failure(error)}")

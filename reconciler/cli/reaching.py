"""What a command says and records of a machine that it changes merely to reach it."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.cli.output import warn
from reconciler.drivers import Report


def reaching(sandbox: str, command: str, say: Callable[[str], None] = warn) -> Report:
    """Return what `drivers.connect` calls when a command pushes the agent into a machine, or plugs its channel in."""

    def report(words: str) -> None:
        # Few commands change a machine to reach it.
        from reconciler.cli.recording import tell

        say(f"{sandbox}: {words}")
        tell(sandbox, command, "pushed", reason=words)

    return report

"""What the watcher measures while it works. Here nothing is kept: `watch.exposition` keeps it, with `--metrics`."""

from __future__ import annotations

from reconciler.converge import Result
from reconciler.watch.look import Look


class Meter:
    """Takes measurements, and keeps none. Any thread may call all methods."""

    def record_look(self, look: Look, seconds: float, *, succeeded: bool) -> None:
        """Record how long a look took, from connecting to the sandbox until the end of its repair."""

    def record_repair(self, look: Look, result: Result) -> None:
        """Record what a look did to its sandbox, and what it could not change."""

    def record_error(self, error: Exception) -> None:
        """Record an error that ended a look, or that is about a manifest."""

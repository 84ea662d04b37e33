"""What `ip monitor` prints of the routes of a namespace: every route that comes and goes, however short it is away."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.conftest import ip

# A route that tells how far the monitor has come.
_MARKER = "203.0.113.255"
# A route whose changes are printed once it has subscribed. The kernel reports no replacement by the same route.
_FIRST = "203.0.113.254"


@contextmanager
def monitored_routes(namespace: str) -> Iterator[Callable[[], list[str]]]:
    """Give what returns the lines since its last call."""
    command = ["ip", "-n", namespace, "monitor", "route"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout
        assert output

        def lines() -> list[str]:
            ip("route", "replace", "blackhole", _MARKER, "table", "77", namespace=namespace)
            ip("route", "del", "blackhole", _MARKER, "table", "77", namespace=namespace)
            found: list[str] = []
            while not found or not (found[-1].startswith("Deleted") and _MARKER in found[-1]):
                found.append(output.readline())
            return [line for line in found if _MARKER not in line]

        try:
            # It has subscribed once it prints a change.
            while not select.select([output], [], [], 0.01)[0]:
                for verb in ("replace", "del"):
                    ip("route", verb, "blackhole", _FIRST, "table", "77", namespace=namespace)
            lines()
            yield lines
        finally:
            process.terminate()

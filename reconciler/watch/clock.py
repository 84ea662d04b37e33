"""The clock of the watcher's records: it never jumps, and goes on while the host is suspended (CLOCK_BOOTTIME)."""

from __future__ import annotations

import threading
import time

# Seconds by which the host's clock must differ from what it was, so that it was set. It is also slewed all the time.
STEP = 1.0


def now() -> float:
    """Return the seconds since the host has booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Calendar:
    """Converts times of this clock to Unix seconds. A time keeps its date until the host's clock is set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boot = time.time() - now()

    def unix(self, moment: float) -> float:
        """Return a time in Unix seconds; 0, which stands for never, for 0."""
        return moment and self._boot_time() + moment

    def _boot_time(self) -> float:
        with self._lock:
            boot = time.time() - now()
            if abs(boot - self._boot) > STEP:
                self._boot = boot
            return self._boot


unix = Calendar().unix

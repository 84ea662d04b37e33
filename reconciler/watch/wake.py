"""A flag that a thread waits for, beside other descriptors."""

from __future__ import annotations

import os
import select
from contextlib import suppress

# Seconds; a poll takes no more milliseconds than an int of C holds. Who waits longer waits again.
LONGEST = 86400.0


class Wake:
    """Set by any thread, awaited and cleared by one."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Give the descriptor, which can be read while the flag is set."""
        return self._descriptor

    def set(self) -> None:
        """Set it."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Clear it."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, seconds: float) -> None:
        """Wait until it is set, or so long, and clear it."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        poller.poll(min(max(0.0, seconds), LONGEST) * 1000)
        self.clear()

    def close(self) -> None:
        """Let it go; nobody may use it any more."""
        os.close(self._descriptor)

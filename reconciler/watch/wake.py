"""A flag that one thread waits for, alone or together with other descriptors."""

from __future__ import annotations

import os
import select
from contextlib import suppress

# The longest single wait, in seconds: poll(2) takes milliseconds as a C int. Callers that wait longer call again.
LONGEST = 86400.0


class Wake:
    """Any thread sets the flag; one thread waits for it and clears it."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that poll(2) reports as readable while the flag is set."""
        return self._descriptor

    def set(self) -> None:
        """Set the flag."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Clear the flag."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, seconds: float) -> None:
        """Wait until the flag is set, but no longer than so many seconds; then clear it."""
        await_readable(self._descriptor, seconds)
        self.clear()

    def close(self) -> None:
        """Close the descriptor. The flag must not be used after that."""
        os.close(self._descriptor)


def await_readable(descriptor: int, seconds: float) -> None:
    """Wait until a descriptor is readable, but no longer than so many seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll(min(max(0.0, seconds), LONGEST) * 1000)

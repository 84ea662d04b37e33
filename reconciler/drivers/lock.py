"""The lock of a sandbox against our other runs, by what the sandbox is, whatever it is called."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError
from reconciler.model.sandbox import DriverAddress
from reconciler.rundir import NamedLock


def refuse_waiting(place: Hashable) -> None:
    """Raise BusyError if a change of a sandbox waits to be confirmed. `place`: what all of its names have in common."""
    # Only a change pays for the import.
    from reconciler import pending

    pending.check(place)


def of_namespace(device: int, inode: int) -> str:
    """Return the name of the lock of a network namespace, by the device and inode number of its file."""
    return f"netns {device}:{inode}"


class SandboxLock:
    """The lock of one sandbox. Its file is opened when it is first locked: only root can lock, others can look."""

    def __init__(self, name: str, address: DriverAddress) -> None:
        self._name, self._address = name, address
        self._lock: NamedLock | None = None

    def close(self) -> None:
        """End the lock."""
        if self._lock:
            self._lock.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the sandbox. BusyError if another run has it. The kernel ends the lock with the process."""
        self._lock = self._lock or NamedLock(self._name)
        if not self._lock.acquire():
            raise BusyError(f"another reconciler is changing {self._address}; try again when it has finished")
        try:
            yield
        finally:
            self._lock.release()

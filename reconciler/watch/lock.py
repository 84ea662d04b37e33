"""The lock of this host: one watcher runs on it at a time."""

from __future__ import annotations

import fcntl
import os

from reconciler import rundir
from reconciler.errors import BusyError

LOCK = "/run/reconciler/watch.lock"


def lock_host() -> int:
    """Return the descriptor of the lock of this host; closing it frees the lock. BusyError if another watcher runs."""
    rundir.make(os.path.dirname(LOCK))
    lock = rundir.open_file(LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError("another watcher runs on this host already; `reconciler status` shows its sandboxes") from None
    return lock

"""The lock of this host: one watcher runs on it at a time."""

from __future__ import annotations

import fcntl
import os

from reconciler.errors import BusyError, HostError

LOCK = "/run/reconciler/watch.lock"


def lock_host() -> int:
    """Return the descriptor of the lock of this host; closing it frees the lock. BusyError if another watcher runs."""
    try:
        os.makedirs(os.path.dirname(LOCK), mode=0o755, exist_ok=True)
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{LOCK}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError("another watcher runs on this host already; `reconciler status` shows its sandboxes") from None
    return lock

"""The lock of a sandbox that is an open file: a namespace itself, or a file made for it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError
from reconciler.model.sandbox import DriverAddress


@contextmanager
def locked(file: int, address: DriverAddress) -> Iterator[None]:
    """Keep our other runs away. BusyError if one is at it. The kernel ends it with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"another reconciler is changing {address}; try again when it has finished") from None
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)

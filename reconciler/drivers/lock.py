"""The lock of a sandbox that is an open file, a namespace itself, or that has but a name."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import BusyError
from reconciler.model.sandbox import DriverAddress

# struct flock (fcntl(2)): type, whence, start, length, process, with the padding of C.
_FLOCK = struct.Struct("@hhqqi0q")


@contextmanager
def locked(file: int, address: DriverAddress) -> Iterator[None]:
    """Keep our other runs away. BusyError if one is at it. The kernel ends it with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(address) from None
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def locked_name(file: int, name: str, address: DriverAddress) -> Iterator[None]:
    """Do the same by the byte of a file that a name is hashed to, so that no file is left of a sandbox that is no more."""
    # Most programs have no use for it.
    from hashlib import sha256

    start = int.from_bytes(sha256(name.encode()).digest()[:7])
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0))
    except BlockingIOError:
        raise _busy(address) from None
    try:
        yield
    finally:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, 1, 0))


def _busy(address: DriverAddress) -> BusyError:
    return BusyError(f"another reconciler is changing {address}; try again when it has finished")

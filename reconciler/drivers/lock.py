"""The lock of a sandbox: on its open file, such as a namespace itself, or on a name if it has no file."""

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
    """Lock a file against our other runs. BusyError if another run has it.

    The kernel ends the lock with the process.
    """
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
    """Lock the byte of a file that a name is hashed to. So no lock file remains of a sandbox that is gone.

    BusyError and the end of the lock are as for `locked`.
    """
    # Only this lock pays for the import.
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

"""Our folder below /run, which only root may enter, and the locks in it.

Whoever can open a file, even only for reading, can lock it: flock(2) asks for no more. So nothing is locked that other
users can open, such as a namespace or a file beside the socket of a machine. All locks are in one folder, which is
closed to other users whatever the umask is, and almost all of them are bytes of one file there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from reconciler.errors import HostError
from reconciler.wording import reason

ROOT = "/run/reconciler"
_BOOT = "/proc/sys/kernel/random/boot_id"
# struct flock (fcntl(2)): type, whence, start, length, process, with the padding of C.
_FLOCK = struct.Struct("@hhqqi0q")
_ONLY_OWNER, _ONLY_OWNER_FILE = 0o700, 0o600
_WRITABLE_BY_OTHERS = 0o022
# What opening a folder fails with if there is a file or a link in its place.
_NO_FOLDER = {errno.ENOTDIR, errno.ELOOP}


def make(folder: str) -> str:
    """Create a folder that only its owner may enter, and those above it up to ROOT. Return its path.

    A folder that exists is closed to other users if they could enter it. HostError if they could have written to it, if
    it belongs to another user, or if it cannot be created.
    """
    os.close(_open(folder, create=True))
    return folder


def replace(folder: str, name: str, text: str) -> None:
    """Write a file below ROOT that only its owner may read, in place of an earlier one: all of it, or nothing.

    `folder` is created as by `make`. `name`: of a sandbox, so it begins with no dot, as what is written first does.
    """
    make(folder)
    new = os.path.join(folder, f".{name}.{os.getpid()}")
    with open(new, "w", encoding="utf-8", opener=_open_private) as file:
        file.write(text)
    os.replace(new, os.path.join(folder, name))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, _ONLY_OWNER_FILE)


@contextmanager
def opened(folder: str) -> Iterator[int]:
    """Yield a descriptor of a folder that `make` created, which stays as it is.

    HostError as `make` raises it; FileNotFoundError.
    """
    descriptor = _open(folder, create=False)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check(path: str, found: os.stat_result) -> None:
    """Raise HostError if what was opened belongs to another user, or if another user could have written to it."""
    _check_owner(path, found)
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise HostError(
            f"{path}: other users can write to it (mode {stat.S_IMODE(found.st_mode):04o}), so they may have "
            "put there whatever it contains; remove it, and run the same command again"
        )


def _open(folder: str, *, create: bool) -> int:
    above = os.path.dirname(folder)
    if above == ROOT or above.startswith(f"{ROOT}/"):
        os.close(_open(above, create=create))
    try:
        descriptor = _open_folder(folder, create=create)
    except FileNotFoundError:
        if create:
            raise HostError(f"{above}: no such folder") from None
        raise
    except OSError as error:
        if error.errno in _NO_FOLDER:
            raise HostError(f"{folder} is not a folder, but a file or a link; remove it") from None
        raise HostError(f"{folder}: {reason(error)}") from error
    try:
        found = os.fstat(descriptor)
        check(folder, found)
        # mkdir(2) takes the bits of the umask away, and does nothing for a folder that exists.
        if create and stat.S_IMODE(found.st_mode) != _ONLY_OWNER:
            os.fchmod(descriptor, _ONLY_OWNER)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_folder(folder: str, *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(folder, flags)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(folder, _ONLY_OWNER)
    return os.open(folder, flags)


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise HostError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}, who runs this; "
            "find out who made it, and remove it"
        )


def open_file(path: str) -> int:
    """Return the descriptor of a file to lock. Only its owner can open it. It is created if it is missing.

    HostError if it cannot be opened, is no regular file, or belongs to another user.
    """
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, _ONLY_OWNER_FILE)
    except OSError as error:
        raise HostError(f"{path}: {reason(error)}") from error
    try:
        _close_to_others(path, opened)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _close_to_others(path: str, opened: int) -> None:
    found = os.fstat(opened)
    _check_owner(path, found)
    if not stat.S_ISREG(found.st_mode):
        raise HostError(f"{path} is not a regular file; remove it")
    if stat.S_IMODE(found.st_mode) != _ONLY_OWNER_FILE:
        os.fchmod(opened, _ONLY_OWNER_FILE)


def boot_id() -> str:
    """Return which boot of the host this is: what is in /run is of this one, and what is elsewhere may be older."""
    return _read_boot_id(_BOOT)


@cache
def _read_boot_id(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


class NamedLock:
    """A lock of anything that has a name: a byte of one file, so that no file remains of what is gone.

    It ends with `close`, and with the process. The same object may acquire it again, and release it once.
    """

    def __init__(self, name: str) -> None:
        """Open the file. HostError if that is impossible."""
        # Commands that lock nothing do not pay for the import.
        from hashlib import sha256

        self.name = name
        # An offset is a signed number of 64 bits.
        self._start = int.from_bytes(sha256(os.fsencode(name)).digest()[:7])
        self._file = open_file(os.path.join(make(ROOT), "locks"))

    def acquire(self) -> bool:
        """Lock, without waiting. Return whether that succeeded."""
        try:
            self._set(fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        return True

    def is_taken(self) -> bool:
        """Return whether another object has locked it, of this process or of another one."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._start, 1, 0)
        kind: int = _FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK

    def release(self) -> None:
        """Unlock."""
        self._set(fcntl.F_UNLCK)

    def close(self) -> None:
        """Unlock, and close the file."""
        os.close(self._file)

    def _set(self, kind: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, self._start, 1, 0))

"""The files of the history: one for each sandbox, and the one before it. All of them together are bounded.

A file that is full becomes the one before, whose place it takes. If all files together have too much, those are deleted
first that have more than their share: so one sandbox, however much happens in it, costs no other its history.
"""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager, suppress

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.values import NamedTuple

STATE = "/var/lib/reconciler"
FOLDER = f"{STATE}/history"
# Bytes of a file. A sandbox has two at most.
FILE = 256 << 10
# Bytes of all files on the disk, and how many more there may be for a moment.
ALL, SLACK = 64 << 20, 1 << 20
# Its length is how many bytes were written since the files were last counted. It is a sparse file, without blocks.
_UNCOUNTED = ".uncounted"
# How the name of a file ends, and that of the one before. The names of two sandboxes never clash.
CURRENT, BEFORE = ".jsonl", ".jsonl.1"


def opened() -> AbstractContextManager[int]:
    """Open the folder, for a descriptor of it. FileNotFoundError if it is missing, HostError if it may not be read."""
    return rundir.opened(FOLDER)


def make() -> None:
    """Create the folder. HostError if that is impossible, or if another user could write to it."""
    rundir.make(STATE)
    rundir.make(FOLDER)


def open_file(name: str, flags: int, folder: int) -> int:
    """Return the descriptor of a file in the folder. OSError; HostError if it is no regular file of this user alone."""
    found = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    try:
        _check(f"{FOLDER}/{name}", os.fstat(found))
    except BaseException:
        os.close(found)
        raise
    return found


def _check(path: str, found: os.stat_result) -> None:
    rundir.check(path, found)
    if not stat.S_ISREG(found.st_mode):
        raise HostError(f"{path} is not a regular file; remove it")


def sandbox_of(name: str) -> str:
    """Return the sandbox that a file is of; empty if the name is none of ours."""
    for end in (BEFORE, CURRENT):
        if name.endswith(end) and not name.startswith("."):
            return name.removesuffix(end)
    return ""


class _File(NamedTuple):
    name: str
    size: int
    written: float


def count(folder: int, written: int) -> None:
    """Count bytes that were written, by whatever process; trim the files once there are more than SLACK."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        counter = os.open(_UNCOUNTED, flags, dir_fd=folder)
    except FileNotFoundError:
        # Nobody knows what is there. Nor does anybody afterwards, if there is no room for one more file.
        trim(folder)
        counter = os.open(_UNCOUNTED, flags | os.O_CREAT, 0o600, dir_fd=folder)
    try:
        total = os.fstat(counter).st_size + written
        os.ftruncate(counter, total if total < SLACK else 0)
    finally:
        os.close(counter)
    if total >= SLACK:
        trim(folder)


def trim(folder: int) -> None:
    """Delete files until all of them together have no more than they may."""
    files: list[_File] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if sandbox_of(entry.name):
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    files.append(_File(entry.name, found.st_blocks * 512, found.st_mtime))
    for name in to_delete(files):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def to_delete(files: list[_File]) -> list[str]:
    """Return the files to delete, in order: those before the current ones of sandboxes that have more than their share.

    After these, the files of the sandboxes in which nothing happened for the longest time.
    """
    sizes: dict[str, int] = {}
    for each in files:
        sizes[sandbox_of(each.name)] = sizes.get(sandbox_of(each.name), 0) + each.size
    excess, share = sum(sizes.values()) - ALL, ALL / max(1, len(sizes))
    gone: list[str] = []

    def is_first(each: _File) -> bool:
        return each.name.endswith(BEFORE) and sizes[sandbox_of(each.name)] > share

    for each in sorted(files, key=lambda each: (not is_first(each), each.written)):
        if excess <= 0:
            break
        gone.append(each.name)
        excess -= each.size
    return gone

"""Writes lines of the history. Whatever fails of that, the caller goes on: what could not be written is counted.

Several processes write to one file: a line is one write(2), and only who has the lock of the file puts another one in
its place. What cannot be locked at once is not waited for: then the file only grows a little longer than it should.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.history import folder as files
from reconciler.history.force import last_in
from reconciler.history.lines import MISSING, line, now
from reconciler.values import NamedTuple
from reconciler.wording import plural, reason

# Tries to lock a file, and seconds between two. Others have it for microseconds.
_TRIES, _WAIT = 20, 0.001
# Bytes of a block of a file system, as a rule.
_BLOCK = 4096
# Bytes at the end of a file that `last` reads. No line is longer.
_TAIL = 80 << 10


class _Missing(NamedTuple):
    """What a sandbox lacks: how many lines, since when, and why."""

    lines: int
    since: str
    reason: str


class Writer:
    """Writes lines. Any thread may call all methods, and none of them raises an error of the file system.

    `report` is called when records begin to be missing, with the reason, and once none is missing any more, with "".
    """

    def __init__(self, report: Callable[[str], None] = lambda _: None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._missing: dict[str, _Missing] = {}

    @property
    def problem(self) -> str:
        """Return what is wrong, in words; empty if all records were written."""
        missing = list(self._missing.values())
        if not missing:
            return ""
        count = sum(each.lines for each in missing)
        return f"the history lacks {count:,} {plural('line', count)} since {missing[0].since}: {missing[-1].reason}"

    def write(self, sandbox: str, *lines: Mapping[str, Any]) -> None:
        """Append lines to the history of a sandbox, as one write. What is missing there is said before them."""
        with self._lock:
            had = bool(self._missing)
            missing = self._missing.get(sandbox)
            gap = [_gap(sandbox, missing, lines)] if missing else []
            try:
                self._append(sandbox, b"".join(_encoded(each) for each in (*gap, *lines)))
                self._missing.pop(sandbox, None)
            except (OSError, ReconcilerError) as error:
                words = f"{files.FOLDER}: {reason(error)}" if isinstance(error, OSError) else str(error)
                count, since = (missing.lines, missing.since) if missing else (0, now())
                self._missing[sandbox] = _Missing(count + len(lines), since, words)
            problem = self.problem
        if had != bool(problem):
            self._report(problem)

    def retry(self) -> None:
        """Say in the history what is missing of it, if that is possible by now."""
        for sandbox in list(self._missing):
            self.write(sandbox)
            if sandbox in self._missing:
                return

    def last(self, sandbox: str) -> bytes:
        """Return the last line of a sandbox; empty if there is none, or it cannot be read."""
        with suppress(OSError, ReconcilerError), files.opened() as folder:
            found = files.open_file(sandbox + files.CURRENT, os.O_RDONLY, folder)
            try:
                size = os.fstat(found).st_size
                data = os.pread(found, _TAIL, max(0, size - _TAIL))
            finally:
                os.close(found)
            return data.rstrip(b"\n").rpartition(b"\n")[2]
        return b""

    def _append(self, sandbox: str, data: bytes) -> None:
        try:
            with files.opened() as folder:
                self._append_in(folder, sandbox, data)
        except FileNotFoundError:
            files.make()
            with files.opened() as folder:
                self._append_in(folder, sandbox, data)

    def _append_in(self, folder: int, sandbox: str, data: bytes) -> None:
        current = _open(folder, sandbox)
        try:
            locked = _lock(current)
            size = os.fstat(current).st_size
            if locked and size and size + len(data) > files.FILE and _is_current(current, folder, sandbox):
                in_force = last_in(sandbox + files.CURRENT, folder) or last_in(sandbox + files.BEFORE, folder)
                os.rename(sandbox + files.CURRENT, sandbox + files.BEFORE, src_dir_fd=folder, dst_dir_fd=folder)
                os.close(current)
                current, size = _open(folder, sandbox), 0
                data = b"".join((in_force, b"\n" if in_force else b"", data))
            # A file has a block at least.
            written = len(data) + (_BLOCK if size == 0 else 0)
            if size and os.pread(current, 1, size - 1) != b"\n":
                # A line of a killed process ends here, and counts as none.
                data = b"\n" + data
            _write(current, data, size if locked else None)
        finally:
            os.close(current)
        with suppress(OSError):
            files.count(folder, written)


def _open(folder: int, sandbox: str) -> int:
    return files.open_file(sandbox + files.CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT, folder)


def _lock(descriptor: int) -> bool:
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_WAIT)
    return False


def _is_current(descriptor: int, folder: int, sandbox: str) -> bool:
    """Return whether a file still is the current one: another process may have put another one in its place."""
    found, named = os.fstat(descriptor), os.stat(sandbox + files.CURRENT, dir_fd=folder, follow_symlinks=False)
    return (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)


def _write(descriptor: int, data: bytes, size: int | None) -> None:
    """Write all, or nothing: a part of it is taken back, from a file of this size that is locked."""
    written = os.write(descriptor, data)
    if written < len(data):
        if size is not None:
            os.ftruncate(descriptor, size)
        # The next write of a full disk fails with the reason.
        os.write(descriptor, data if size is not None else b"\n" + data)


def _gap(sandbox: str, missing: _Missing, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = line(sandbox, MISSING, lines=missing.lines, since=missing.since, reason=missing.reason)
    # No line is later than those behind it.
    return found | {"time": before[0].get("time", found["time"])} if before else found


def _encoded(data: Mapping[str, Any]) -> bytes:
    import json

    # Only ASCII: a line is what grep and a terminal can have, and names that are no UTF-8 are escapes.
    return json.dumps(data, separators=(",", ":"), default=str).encode() + b"\n"

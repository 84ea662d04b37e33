"""Follows the history, by inotify: what was added is read from the files to which it was added.

Where inotify has no room left (fs.inotify.max_user_instances), each call looks at all files. A process that is killed
causes no event, so call `read` at least every second or so.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from reconciler.history import folder as files
from reconciler.history.reader import Reader
from reconciler.history.record import Record

# inotify(7): IN_MODIFY, IN_MOVED_TO, IN_CREATE; IN_NONBLOCK and IN_CLOEXEC.
_EVENTS, _FLAGS = 0x2 | 0x80 | 0x100, os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("@iIII")
_IGNORED = 0x8000


class Follower:
    """Reads the history of the sandboxes that match one of `patterns`, and waits for more. `close` it."""

    def __init__(self, patterns: Sequence[str] = ("*",)) -> None:
        """Begin. HostError if the history may not be read."""
        # What does not exist cannot be listened to.
        files.make()
        self._reader = Reader(patterns)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = int(self._libc.inotify_init1(_FLAGS))
        self._watched: tuple[int, int] | None = None

    def fileno(self) -> int:
        """Return what becomes readable when something was added; -1 if inotify has no room left."""
        return self._inotify

    def close(self) -> None:
        """Stop following."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def read(self) -> list[Record]:
        """Return what was added since the last call, at first all. Changes are returned once they have ended."""
        if (changed := self._changed()) is not None and not changed:
            return self._reader.take_interrupted()
        return [*self._reader.read(changed), *self._reader.take_interrupted()]

    def _changed(self) -> list[str] | None:
        """Return the names of files that something was added to; None if that is not known."""
        if self._inotify < 0 or self._listen():
            return None
        names: set[str] = set()
        with suppress(BlockingIOError):
            while data := os.read(self._inotify, 1 << 16):
                for descriptor, mask, name in _events(data):
                    if descriptor < 0:
                        # The queue was full.
                        return None
                    if mask & _IGNORED:
                        self._watched = None
                    names.add(name)
        return sorted(filter(None, names))

    def _listen(self) -> bool:
        """Listen to the folder. Return whether that began only now: it is another one, or the first."""
        try:
            found = os.stat(files.FOLDER)
        except OSError:
            self._watched = None
            return True
        identity = (found.st_dev, found.st_ino)
        if identity == self._watched:
            return False
        watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(files.FOLDER), _EVENTS)
        self._watched = identity if watch >= 0 else None
        return True


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    at = 0
    while at < len(data):
        descriptor, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield descriptor, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length

"""Where a path leads, and whether another user can change that.

A path is followed by hand: each part is opened with O_PATH and without following it, relative to the part above it. So
a part that is replaced meanwhile leads nowhere else, and to open a part has no effect. The links of /proc are followed
as the text that they show, so that they lead to no file system of another process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.values import NamedTuple

# Symbolic links of one path, as in path_resolution(7).
MAX_LINKS = 40
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedError(Exception):
    """Another user can change where a path leads, or what is there. The text says how."""


class Entry(NamedTuple):
    """What a path names: a name in an open folder (O_PATH), whose real path is `real`.

    `distrust`: how another user could put something else there; empty if only root can, or the user of this process.
    """

    folder: int
    real: str
    name: str
    distrust: str

    @property
    def path(self) -> str:
        """Return its real path; it may still be a symbolic link."""
        return self.real if self.name == "." else join(self.real, self.name)

    def open(self) -> int:
        """Open it with O_PATH, without following it."""
        return os.open(self.name, _STEP, dir_fd=self.folder)


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}"


@contextmanager
def locate(path: str) -> Iterator[Entry]:
    """Find what an absolute path names: all links are followed but one at its end. OSError if a folder is missing."""
    walk = _Walk(path)
    try:
        yield walk.run()
    finally:
        os.close(walk.folder)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open what a path leads to with O_PATH. UntrustedError if another user can change it. OSError if it is missing."""
    for _ in range(MAX_LINKS):
        with locate(path) as entry:
            found = entry.open()
            try:
                status = os.fstat(found)
                if reason := entry.distrust or _writable(status, entry.path):
                    raise UntrustedError(reason)
                if not stat.S_ISLNK(status.st_mode):
                    yield found
                    return
                path = _target(entry.real, os.readlink("", dir_fd=found))
            finally:
                os.close(found)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def real_folder(path: str) -> str:
    """Return the real path of a folder; the path itself if there is none, or if another user can change its links."""
    at = path
    try:
        for _ in range(MAX_LINKS):
            with locate(at) as entry:
                if entry.distrust:
                    return path
                if not stat.S_ISLNK(os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False).st_mode):
                    return entry.path
                at = _target(entry.real, os.readlink(entry.name, dir_fd=entry.folder))
    except OSError:
        pass
    return path


class _Walk:
    """Follows a path to the folder that its last part is in."""

    def __init__(self, path: str) -> None:
        self._todo = deque(_parts(path))
        self._links = 0
        self._distrust = ""
        self._begin()

    def _begin(self) -> None:
        self.folder = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._real = "/"

    def run(self) -> Entry:
        """Follow it; leave the descriptor of the folder open."""
        while True:
            name = self._todo.popleft()
            folder = os.fstat(self.folder)
            self._distrust = self._distrust or _changeable(folder, self._real)
            if not self._todo:
                return Entry(self.folder, self._real, name, self._distrust or self._sticky(folder, name))
            if name == "..":
                self._enter(os.open("..", _STEP | os.O_DIRECTORY, dir_fd=self.folder), os.path.dirname(self._real))
            elif name != ".":
                self._distrust = self._distrust or self._sticky(folder, name)
                self._step(name)

    def _step(self, name: str) -> None:
        found = os.open(name, _STEP, dir_fd=self.folder)
        mode = os.fstat(found).st_mode
        if stat.S_ISDIR(mode):
            self._enter(found, join(self._real, name))
            return
        try:
            if not stat.S_ISLNK(mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._links += 1
            if self._links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=found)
        finally:
            os.close(found)
        self._todo.extendleft(reversed(_parts(target)))
        if target.startswith("/"):
            os.close(self.folder)
            self._begin()

    def _enter(self, folder: int, real: str) -> None:
        os.close(self.folder)
        self.folder, self._real = folder, real

    def _sticky(self, folder: os.stat_result, name: str) -> str:
        """Return how another user can replace an entry of a folder in which each user can replace only their own."""
        if not folder.st_mode & _OTHERS:
            return ""
        try:
            owner = os.stat(name, dir_fd=self.folder, follow_symlinks=False).st_uid
        except FileNotFoundError:
            return ""
        return "" if _is_trusted(owner) else f"{join(self._real, name)} belongs to user {owner}"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part] or ["."]


def _target(folder: str, link: str) -> str:
    return link if link.startswith("/") else join(folder, link)


def _is_trusted(owner: int) -> bool:
    return owner in {0, os.geteuid()}


def _changeable(folder: os.stat_result, path: str) -> str:
    """Return how another user can change the entries of a folder, or all of them."""
    if not _is_trusted(folder.st_uid):
        return f"{path} belongs to user {folder.st_uid}"
    return "" if folder.st_mode & stat.S_ISVTX else _writable(folder, path)


def _writable(found: os.stat_result, path: str) -> str:
    """Return how another user can change a file, or a folder in which each may replace all entries."""
    if not _is_trusted(found.st_uid):
        return f"{path} belongs to user {found.st_uid}"
    if stat.S_ISLNK(found.st_mode) or not found.st_mode & _OTHERS:
        return ""
    return f"{path} is writable by others (mode {stat.S_IMODE(found.st_mode):04o})"

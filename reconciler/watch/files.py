"""Files below paths, as they are now, and which folders decide what is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from reconciler.errors import Problem
from reconciler.manifest.load import find, unreadable

# As many links on a path as the kernel follows: path_resolution(7).
MAX_LINKS = 40


class Stamp(NamedTuple):
    """What changes when a file does; the time of change cannot be set back."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class Look(NamedTuple):
    """How all files were at a moment.

    `files`: the manifests, in order. `missing`: PATH → what is wrong with it. `unreadable`: folders below a PATH that could
    not be searched. `stamps`: of manifests and of other files that were asked for; None: not there.
    """

    files: tuple[str, ...]
    missing: Mapping[str, Problem]
    unreadable: tuple[Problem, ...]
    stamps: Mapping[str, Stamp | None]


def look(paths: Sequence[str], others: Iterable[str]) -> Look:
    """Find the manifests below paths, as `manifest.load` does, and stamp them and other files."""
    files: list[str] = []
    missing: dict[str, Problem] = {}
    refused: list[Problem] = []
    for path in paths:
        wrong: list[Problem] = []
        found = [] if (reason := _absence(path)) else list(find([path], wrong))
        files += found
        if found:
            refused += wrong
        else:
            missing[path] = wrong[0] if wrong else unreadable(path, reason)
    return Look(tuple(files), missing, tuple(refused), {each: stamp(each) for each in dict.fromkeys((*files, *others))})


def _absence(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def stamp(path: str) -> Stamp | None:
    """Give the stamp of what a path leads to; None: to nothing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def git_lock(paths: Iterable[str]) -> str | None:
    """Give the lock of a git that works on the tree in which a path is, if there is one."""
    real = map(os.path.realpath, paths)
    for folder in {each if os.path.isdir(each) else os.path.dirname(each) for each in real}:
        lock = _lock_above(folder)
        if lock and os.path.lexists(lock):
            return lock
    return None


def _lock_above(folder: str) -> str | None:
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == (folder := os.path.dirname(folder)):
            return None
    git = os.path.join(folder, ".git")
    # In a work tree beside its repository, such as git-sync makes, it is a file that says where that is.
    with suppress(OSError), open(git, encoding="utf-8", errors="surrogateescape") as stream:
        git = os.path.join(folder, stream.readline().removeprefix("gitdir: ").rstrip("\n"))
    return os.path.join(git, "index.lock")


class Ways:
    """What decides where paths lead: in which folders which names. No folder is a link, nor below one."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}
        self._here = os.getcwd()
        self._real: dict[str, str] = {}

    def add(self, path: str) -> str:
        """Add a path; give what it leads to, which need not be there."""
        above, name = os.path.split(os.path.join(self._here, path))
        if above not in self._real:
            self._real[above] = self._walk("/", above)
        real = self._walk(self._real[above], name)
        self._note(*os.path.split(real))
        return real

    def _note(self, folder: str, name: str) -> None:
        self.names.setdefault(folder, set()).add(name)

    def _walk(self, real: str, path: str) -> str:
        """Go on from a folder; note each link, and each name that is missing."""
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                real = os.path.dirname(real)
                continue
            step = os.path.join(real, name)
            target, missing = _link(step)
            if target or missing:
                self._note(real, name)
            real = step
            if target and links < MAX_LINKS:
                links += 1
                real = "/" if target.startswith("/") else os.path.dirname(step)
                todo += target.split("/")[::-1]
        return real


def _link(path: str) -> tuple[str, bool]:
    """Give where a link leads; empty: it is none. And whether there is nothing at all."""
    try:
        return os.readlink(path), False
    except OSError as error:
        return "", error.errno != errno.EINVAL
    except ValueError:
        return "", True


def wanted(paths: Iterable[str], files: Iterable[str]) -> dict[str, set[str] | None]:
    """Give the folders to watch: those that paths lead to with all below them (None), others for some names in them."""
    ways = Ways()
    trees: dict[str, set[str] | None] = {}
    for real in sorted(filter(os.path.isdir, map(ways.add, paths))):
        if not _is_below(real, trees):
            trees[real] = None
    for file in files:
        ways.add(file)
    beside = {folder: names for folder, names in ways.names.items() if not _is_below(folder, trees)}
    # The trees first: where a limit is reached within one, watchdog says nothing, and the next folder tells.
    return trees | beside


def _is_below(folder: str, trees: Mapping[str, object]) -> bool:
    while folder not in trees:
        if folder == (folder := os.path.dirname(folder)):
            return False
    return True

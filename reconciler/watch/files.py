"""Snapshots of the manifest files below some paths, and the folders to watch for changes of them.

If two snapshots are equal, no file changed between them. The paths may contain symbolic links. Replacing a link changes
which files are read, so the folders that contain the links have to be watched as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence

from reconciler.errors import Problem
from reconciler.manifest.beneath import MAX_LINKS, Roots, Source
from reconciler.manifest.files import distinct, file_problem, find
from reconciler.values import NamedTuple
from reconciler.watch.git import find_tree, repository


class Stamp(NamedTuple):
    """Metadata of a file that differs after each change of it. No program can set `changed` (the ctime) back."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class Snapshot(NamedTuple):
    """The state of all files at one moment, without their contents.

    `files`: the manifests, in the order in which they are read. `missing`: PATH → why it has no manifest. `unreadable`:
    the folders below a PATH that could not be listed. `stamps`: of the manifests and of the other files that the caller
    named; None if there is no such file.
    """

    files: tuple[Source, ...]
    missing: Mapping[str, Problem]
    unreadable: tuple[Problem, ...]
    stamps: Mapping[str, Stamp | None]


def take_snapshot(paths: Sequence[str], others: Iterable[Source]) -> Snapshot:
    """Find the manifests below paths, as `manifest.load` does, and read the stamps of them and of other files."""
    files: list[Source] = []
    missing: dict[str, Problem] = {}
    unlisted: list[Problem] = []
    for path in paths:
        if reason := _absence(path):
            missing[path] = file_problem(path, reason)
            continue
        found = find(path)
        files += found.files
        if found.files or not found.problems:
            unlisted += found.problems
        else:
            missing[path] = found.problems[0]
    files = distinct(files)
    with Roots() as roots:
        stamps = {each.path: _read_stamp(each, roots) for each in dict.fromkeys((*files, *others))}
    return Snapshot(tuple(files), missing, tuple(unlisted), stamps)


def _read_stamp(file: Source, roots: Roots) -> Stamp | None:
    try:
        return _stamp(roots.stat(file))
    except (OSError, ValueError):
        return None


def _absence(path: str) -> str:
    """Return why a path leads to nothing; empty if it leads to a file or folder."""
    try:
        os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_stamp(path: str) -> Stamp | None:
    """Return the stamp of the file or folder that a path leads to; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _stamp(found)


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def find_git_lock(paths: Iterable[str]) -> str | None:
    """Return the `index.lock` of a work tree around one of the paths: git is working. None if there is none.

    OSError if that cannot be found out.
    """
    real = map(os.path.realpath, paths)
    for folder in {each if os.path.isdir(each) else os.path.dirname(each) for each in real}:
        tree = find_tree(folder)
        git = repository(tree) if tree else ""
        if git and os.path.lexists(lock := os.path.join(git, "index.lock")):
            return lock
    return None


class PathResolver:
    """Resolves paths as the kernel does, and collects the directory entries on which the results depend.

    `entries`: folder → names in it. While none of these entries is created, replaced or deleted, all paths lead where
    they led. The folders are real paths, without symbolic links.
    """

    def __init__(self) -> None:
        self.entries: dict[str, set[str]] = {}
        self._working_folder = os.getcwd()
        self._real_folders: dict[str, str] = {}

    def resolve(self, path: str) -> str:
        """Return the real path that a path leads to, which need not exist."""
        folder, name = os.path.split(os.path.join(self._working_folder, path))
        if folder not in self._real_folders:
            self._real_folders[folder] = self._walk("/", folder)
        real = self._walk(self._real_folders[folder], name)
        self._add_entry(*os.path.split(real))
        return real

    def _add_entry(self, folder: str, name: str) -> None:
        self.entries.setdefault(folder, set()).add(name)

    def _walk(self, real: str, path: str) -> str:
        """Resolve a path that starts in the folder `real`; collect the symbolic links and missing names on the way."""
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
            target, missing = _read_link(step)
            if target or missing:
                self._add_entry(real, name)
            real = step
            if target and links < MAX_LINKS:
                links += 1
                real = "/" if target.startswith("/") else os.path.dirname(step)
                todo += target.split("/")[::-1]
        return real


def _read_link(path: str) -> tuple[str, bool]:
    """Return the target of a symbolic link, or "" if the path is not one; and whether nothing exists there."""
    try:
        return os.readlink(path), False
    except OSError as error:
        return "", error.errno != errno.EINVAL
    except ValueError:
        return "", True


def folders_to_watch(paths: Iterable[str], files: Iterable[str]) -> dict[str, set[str] | None]:
    """Return folder → the names in it whose changes matter; None: everything in the folder and below it matters."""
    resolver = PathResolver()
    trees: dict[str, set[str] | None] = {}
    for real in sorted(filter(os.path.isdir, map(resolver.resolve, paths))):
        if not _is_below(real, trees):
            trees[real] = None
    for file in files:
        resolver.resolve(file)
    beside = {folder: names for folder, names in resolver.entries.items() if not _is_below(folder, trees)}
    # The trees come first: if inotify's limit is reached within a tree, watchdog only raises at the next folder.
    return trees | beside


def _is_below(folder: str, trees: Mapping[str, object]) -> bool:
    """Return whether a folder is one of the trees or below one."""
    while folder not in trees:
        if folder == (folder := os.path.dirname(folder)):
            return False
    return True

"""Opens files beneath a folder, and nothing else, whatever links the authors of its contents make.

A path is followed by hand: each part is opened with O_PATH and without following it, relative to the part above it. So
a part that is replaced meanwhile leads nowhere else, and to open a part has no effect. A symbolic link is followed if
it leads to what is beneath the folder as well. Only what has turned out to be a regular file or a folder is then opened
for reading, through its descriptor: no FIFO, device or socket ever is. (openat2(2) does the same, but Python 3.11 does
not have it.)
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Self

from reconciler.values import NamedTuple

# Symbolic links of one path, as in path_resolution(7); and the folders above a file, each of which is a descriptor.
MAX_LINKS = 40
MAX_DEPTH = 64
# Names of a folder that a pattern is compared with.
_LISTED = 100_000
# What a part of a pattern has that is not just a name.
_MAGIC = frozenset("*?[")
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class OutsideError(ValueError):
    """A path leads out of the folder that it must stay beneath."""


class Entry(NamedTuple):
    """What is in a folder: its name, and whether it is a folder or a symbolic link itself."""

    name: str
    is_folder: bool
    is_link: bool


class Source(NamedTuple):
    """A file: its path, and the folders of which it must be beneath one ("" is the working directory)."""

    path: str
    roots: tuple[str, ...]

    def beside(self, path: str, folders: Sequence[str] = ()) -> Source:
        """Return the source for a file that this one names. `folders`: where it may be, besides beneath these roots."""
        return Source(path, (*self.roots, *folders))


def named(path: str) -> Source:
    """Return the source for a file that the operator named: it is in its folder or, if it is a link, in its target's.

    What it names in turn is beneath one of the two as well.
    """
    folders = (os.path.dirname(path), *([os.path.dirname(os.path.realpath(path))] if os.path.islink(path) else []))
    return Source(path, folders)


class Roots:
    """Opens sources, and keeps a descriptor of each root meanwhile, so that many files of one are opened quickly."""

    def __init__(self) -> None:
        self._roots: dict[str, Root] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for root in self._roots.values():
            root.close()
        self._roots.clear()

    def read(self, source: Source, most: int) -> bytes:
        """Return the first `most` bytes of a regular file. OSError or ValueError if it cannot be read."""
        with self.open(source) as found:
            return read_regular(found, most)

    def stat(self, source: Source) -> os.stat_result:
        """Return the status of what a source leads to. OSError or ValueError if that is nothing beneath its roots."""
        with self.open(source) as found:
            return os.fstat(found)

    def glob(self, pattern: Source) -> list[Source]:
        """Return, by name, the sources that match a pattern of glob. OSError or ValueError if a folder is outside.

        A pattern without `*`, `?` and `[` is found if there is anything of that name, even a link to nothing.
        """
        found = ["/" if pattern.path.startswith("/") else ""]
        for part in filter(None, pattern.path.split("/")):
            if not _MAGIC.isdisjoint(part):
                found = [each for folder in found for each in self._matches(pattern._replace(path=folder), part)]
            else:
                found = [os.path.join(folder, part) for folder in found]
        sources = [pattern._replace(path=each) for each in sorted(found)]
        return [each for each in sources if self._exists(each)]

    def _matches(self, folder: Source, part: str) -> list[str]:
        try:
            with self.open(folder) as found:
                entries = _list(found, _LISTED)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [each.name for each in entries if part.startswith(".") or not each.name.startswith(".")]
        return [os.path.join(folder.path, name) for name in fnmatch.filter(names, part)]

    def _exists(self, source: Source) -> bool:
        try:
            self.stat(source)
        except (FileNotFoundError, NotADirectoryError):
            return os.path.lexists(source.path)
        except (OSError, ValueError):
            # Reading it has the same reason.
            return True
        return True

    @contextmanager
    def open(self, source: Source) -> Iterator[int]:
        """Open what a source leads to with O_PATH. OSError or ValueError if it leads to nothing beneath its roots."""
        found = self._open(source)
        try:
            yield found
        finally:
            os.close(found)

    def _open(self, source: Source) -> int:
        first, *others = source.roots
        try:
            return self._root(first).open(source.path)
        except OutsideError:
            for folder in filter(os.path.isdir, others):
                with suppress(OutsideError):
                    return self._root(folder).open(source.path)
            raise

    def _root(self, folder: str) -> Root:
        if folder not in self._roots:
            self._roots[folder] = Root(folder)
        return self._roots[folder]


class Root:
    """A folder out of which nothing leads. `real` is its path without links. OSError if it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.real = os.readlink(f"/proc/self/fd/{self._descriptor}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self._descriptor)

    def open(self, path: str) -> int:
        """Open what a path leads to with O_PATH, and return the descriptor: never one of a symbolic link.

        The path begins with that of the root, is relative to the same folder, or is absolute. OutsideError if it leads
        out of the root, other ValueError or OSError if it cannot be followed.
        """
        todo = self._steps(path)
        links = 0
        opened: list[int] = []
        try:
            while todo:
                name = todo.pop()
                if name in {"", "."}:
                    continue
                if name == ".." and opened:
                    os.close(opened.pop())
                    continue
                target = f"{self.real}/.."
                if name != "..":
                    if len(opened) >= MAX_DEPTH:
                        raise ValueError(f"deeper than {MAX_DEPTH} folders")
                    opened.append(os.open(name, _STEP, dir_fd=opened[-1] if opened else self._descriptor))
                    if not stat.S_ISLNK(os.fstat(opened[-1]).st_mode):
                        continue
                    target = os.readlink("", dir_fd=opened[-1])
                    os.close(opened.pop())
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    todo = self._beneath("/".join(reversed(todo)))
                    while opened:
                        os.close(opened.pop())
            return opened.pop() if opened else os.dup(self._descriptor)
        finally:
            for each in opened:
                os.close(each)

    def entries(self, path: str, most: int) -> list[Entry]:
        """Return the entries of a folder by name, at most so many. OSError or ValueError if it cannot be listed."""
        found = self.open(path)
        try:
            return _list(found, most)
        finally:
            os.close(found)

    def _steps(self, path: str) -> list[str]:
        """Return the parts of a path below the root, the last first."""
        prefix = os.path.join(self.path, "")
        if path.startswith(prefix) and (prefix or not path.startswith("/")):
            return path[len(prefix) :].split("/")[::-1]
        return self._beneath(os.path.join(os.getcwd(), path))

    def _beneath(self, path: str) -> list[str]:
        """Return the same of an absolute path that may lead anywhere. Its parts are followed once more by hand."""
        real = os.path.realpath(path)
        if real == self.real:
            return []
        prefix = os.path.join(self.real, "")
        if not real.startswith(prefix):
            raise OutsideError(f"leads out of {self.path or '.'}, and only what is beneath it is read")
        return real[len(prefix) :].split("/")[::-1]


def _list(descriptor: int, most: int) -> list[Entry]:
    """Return the entries of the folder that an O_PATH descriptor is of, by name, at most so many."""
    folder = os.open(f"/proc/self/fd/{descriptor}", _READ | os.O_DIRECTORY)
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Entry(each.name, each.is_dir(follow_symlinks=False), each.is_symlink())
                for each in islice(entries, most)
            )
    finally:
        os.close(folder)


def read_regular(descriptor: int, most: int) -> bytes:
    """Return the first `most` bytes of what an O_PATH descriptor is of. ValueError if that is no regular file."""
    check_regular(os.fstat(descriptor).st_mode)
    with open(f"/proc/self/fd/{descriptor}", "rb", opener=lambda name, _: os.open(name, _READ)) as stream:
        return stream.read(most)


def check_regular(mode: int) -> None:
    """Raise ValueError unless a mode is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise ValueError(f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")

"""Which files contain manifests, and their texts.

Nothing here waits for another program, except on what the caller's shell has opened, and nothing leads out of the
folder of a manifest: see `beneath`.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress

from reconciler.errors import Problem
from reconciler.manifest.beneath import Entry, OutsideError, Root, Roots, Source, named
from reconciler.manifest.empty import EMPTY
from reconciler.values import NamedTuple
from reconciler.wording import reason

# Bytes of one file. 20,000 IPVS rules are 3 MB.
MAX_BYTES = 32 << 20
SUFFIXES = (".yaml", ".yml", ".json")
# The problem of a folder in which no file is one.
NO_MANIFEST = f"this folder contains no manifest ({', '.join(f'*{suffix}' for suffix in SUFFIXES)})"
STDIN = "-"
# Descriptors that this process was started with. A shell writes `<(command)` as one of these.
_OPENED = re.compile(r"/dev/stdin|(?:/dev|/proc/self)/fd/[0-9]+")
# Files and folders, also hidden ones and others, that are listed to find the manifests of one path.
MAX_ENTRIES = 200_000


class Found(NamedTuple):
    """The files to read below a path, in order; of a path that is no folder, the path itself, even if it is missing.

    `problems`: the folders that could not be searched, and the path itself if it is a folder that has neither a
    manifest nor the file EMPTY.
    """

    files: list[Source]
    problems: list[Problem]


def find(path: str) -> Found:
    """Find the manifests below a path: in a folder all `*.yaml`, `*.yml` and `*.json` below it, except hidden ones.

    Symbolic links to folders are followed if these are below the path as well; each folder is searched once.
    """
    if is_stream(path) or not os.path.isdir(path):
        return Found([named(path)], [])
    try:
        with Root(path) as root:
            found = _Search(root).run()
    except OSError as error:
        return Found([], [file_problem(path, reason_of(error))])
    if not found.files and not found.problems and not os.path.lexists(os.path.join(path, EMPTY)):
        found.problems.append(file_problem(path, NO_MANIFEST))
    return found


class _Search:
    """The search of one folder, and what it has found so far."""

    def __init__(self, root: Root) -> None:
        self._root, self._found = root, Found([], [])
        self._searched: set[Hashable] = set()
        # Names that may still be listed.
        self._left = MAX_ENTRIES

    def run(self) -> Found:
        """Search the folder and all below it, without recursion."""
        todo = [self._root.path]
        self._searched.add(self._folder(self._root.path))
        while todo:
            folder = todo.pop()
            try:
                entries = self._root.entries(folder, self._left + 1)
            except (OSError, ValueError) as error:
                self._add_problem(folder, reason_of(error))
                continue
            self._left -= len(entries)
            if self._left < 0:
                self._add_problem(self._root.path, f"contains more than {MAX_ENTRIES:,} files and folders")
                break
            todo += reversed(self._search(folder, [each for each in entries if not each.name.startswith(".")]))
        return self._found

    def _search(self, folder: str, entries: Sequence[Entry]) -> list[str]:
        """Add the files of a folder; return the folders in it that are still to be searched."""
        below = []
        for entry in entries:
            path = os.path.join(folder, entry.name)
            found = None
            if entry.is_folder or entry.is_link:
                try:
                    found = self._folder(path)
                except OutsideError as error:
                    # Of a file, this is found once it is read.
                    if not entry.name.endswith(SUFFIXES) and os.path.isdir(path):
                        self._add_problem(path, str(error))
            if found is None:
                if entry.name.endswith(SUFFIXES):
                    self._found.files.append(Source(path, (self._root.path,)))
            elif found not in self._searched:
                self._searched.add(found)
                below.append(path)
        return below

    def _folder(self, path: str) -> Hashable | None:
        """Return what all paths of a folder have in common; None if it is none. OutsideError if it is not beneath."""
        try:
            descriptor = self._root.open(path)
        except OutsideError:
            raise
        except (OSError, ValueError):
            return None
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None

    def _add_problem(self, path: str, message: str) -> None:
        self._found.problems.append(file_problem(path, message))


def distinct(files: Iterable[Source]) -> list[Source]:
    """Return files without those that are an earlier one by another path: another spelling, or a link."""
    first: dict[Hashable, Source] = {}
    with Roots() as roots:
        for file in files:
            first.setdefault(_identity(file, roots), file)
    return list(first.values())


def _identity(file: Source, roots: Roots) -> Hashable:
    if is_stream(file.path):
        return identity(file.path)
    try:
        found = roots.stat(file)
    except (OSError, ValueError):
        # Whatever is wrong with it is wrong with this path.
        return file.path
    return found.st_dev, found.st_ino


def identity(path: str) -> Hashable:
    """Return what all paths of a file have in common: its device and inode; the real path if these are unknown."""
    if path == STDIN:
        return path
    with suppress(OSError, ValueError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    # Links in /proc cannot be read of every process.
    with suppress(OSError, ValueError):
        return os.path.realpath(path)
    return path


def is_stream(file: str) -> bool:
    """Return whether a file is standard input or another descriptor of this process: it can be read only once."""
    return file == STDIN or _OPENED.fullmatch(file) is not None


def read_text(file: Source) -> str:
    """Read the text of a regular file, or of a stream of this process. OSError or ValueError if that is impossible."""
    if file.path == STDIN:
        return _decode(sys.stdin.buffer.read(MAX_BYTES + 1))
    if is_stream(file.path):
        with open(file.path, "rb") as stream:
            return _decode(stream.read(MAX_BYTES + 1))
    with Roots() as roots:
        return _decode(roots.read(file, MAX_BYTES + 1))


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError("not UTF-8 but UTF-16, by its byte order mark; save it as UTF-8") from None
        raise ValueError(f"not UTF-8 (byte {error.start}); save it as UTF-8") from None


def reason_of(error: OSError | ValueError) -> str:
    """Return why a file could not be read."""
    return reason(error) if isinstance(error, OSError) else str(error)


def file_problem(file: str, message: str) -> Problem:
    """Return the problem of a file or folder as a whole."""
    return Problem(file=file, line=0, column=0, path="", message=message)

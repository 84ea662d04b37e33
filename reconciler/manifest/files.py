"""Which files contain manifests, and their texts.

Nothing here waits for another program, except on what the caller's shell has opened: a FIFO, a device or a socket among
the files is never opened.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from collections.abc import Hashable, Iterable
from contextlib import suppress
from functools import partial
from typing import BinaryIO, NamedTuple

from reconciler.errors import Problem
from reconciler.manifest.compose import MAX_BYTES

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"
# Descriptors that this process was started with. A shell writes `<(command)` as one of these.
_OPENED = re.compile(r"/dev/stdin|(?:/dev|/proc/self)/fd/[0-9]+")
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Found(NamedTuple):
    """The files to read below a path, in order; of a path that is no folder, the path itself, even if it is missing.

    `linked`: the symbolic links to folders below it. `problems`: the folders that could not be listed, and the path
    itself if it is a folder without a manifest.
    """

    files: list[str]
    linked: list[str]
    problems: list[Problem]


def find(path: str) -> Found:
    """Find the manifests below a path: in a folder all `*.yaml`, `*.yml` and `*.json` below it, except hidden ones.

    Symbolic links to folders are followed; each folder is searched once.
    """
    if is_stream(path) or not os.path.isdir(path):
        return Found([path], [], [])
    found = Found([], [], [])
    searched = {identity(path)}
    for parent, folders, files in os.walk(path, onerror=partial(_add_unlisted, found), followlinks=True):
        names, folders[:] = sorted(folders), []
        for name in names:
            below = os.path.join(parent, name)
            if name.startswith(".") or (place := identity(below)) in searched:
                continue
            searched.add(place)
            folders.append(name)
            if os.path.islink(below):
                found.linked.append(below)
        shown = (name for name in sorted(files) if name.endswith(SUFFIXES) and not name.startswith("."))
        found.files.extend(os.path.join(parent, name) for name in shown)
    if not found.files and not found.problems:
        names = [f"*{suffix}" for suffix in SUFFIXES]
        found.problems.append(file_problem(path, f"this folder contains no manifest ({', '.join(names)})"))
    return found


def _add_unlisted(found: Found, error: OSError) -> None:
    found.problems.append(file_problem(error.filename, reason_of(error)))


def distinct(files: Iterable[str]) -> list[str]:
    """Return files without those that are an earlier one by another path: another spelling, or a link."""
    first: dict[Hashable, str] = {}
    for file in files:
        first.setdefault(identity(file), file)
    return list(first.values())


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


def read_text(file: str) -> str:
    """Read the text of a regular file, or of a stream of this process. OSError or ValueError if that is impossible."""
    if file == STDIN:
        return _read(sys.stdin.buffer)
    if is_stream(file):
        with open(file, "rb") as stream:
            return _read(stream)
    return read_regular(file)


def read_regular(file: str) -> str:
    """Read the text of a regular file. OSError or ValueError if it cannot be read, or is anything else."""
    # Merely to open a device can have an effect.
    _check_kind(os.stat(file).st_mode)
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        _check_kind(os.fstat(stream.fileno()).st_mode)
        return _read(stream)


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


def _read(stream: BinaryIO) -> str:
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError("not UTF-8 but UTF-16, by its byte order mark; save it as UTF-8") from None
        raise ValueError(f"not UTF-8 (byte {error.start})") from None


def reason_of(error: OSError | ValueError) -> str:
    """Return why a file could not be read."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def file_problem(file: str, message: str) -> Problem:
    """Return the problem of a file or folder as a whole."""
    return Problem(file=file, line=0, column=0, path="", message=message)

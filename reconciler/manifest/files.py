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
    """The files to read below some paths, in order, even missing ones; each file once, by whatever paths it is found.

    `linked`: the symbolic links to folders below the paths. `problems`: the folders that could not be listed, and the
    paths that are folders without a manifest.
    """

    files: list[str]
    linked: list[str]
    problems: list[Problem]


def find(paths: Iterable[str]) -> Found:
    """Find the manifests of files and of folders: all `*.yaml`, `*.yml`, `*.json` below, except hidden ones."""
    found = Found([], [], [])
    for path in paths:
        if is_stream(path) or not os.path.isdir(path):
            found.files.append(path)
            continue
        before = len(found.files), len(found.problems)
        _search(path, found)
        if (len(found.files), len(found.problems)) == before:
            names = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
            found.problems.append(file_problem(path, f"this folder contains no manifest ({names})"))
    return found._replace(files=distinct(found.files))


def _search(folder: str, found: Found) -> None:
    """Add the manifests below a folder. Symbolic links to folders are followed; each folder is searched once."""

    def on_error(error: OSError) -> None:
        found.problems.append(file_problem(error.filename, reason_of(error)))

    searched = {_identity(folder)}
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        names, folders[:] = sorted(folders), []
        for name in names:
            below = os.path.join(parent, name)
            if name.startswith(".") or (identity := _identity(below)) in searched:
                continue
            searched.add(identity)
            folders.append(name)
            if os.path.islink(below):
                found.linked.append(below)
        found.files.extend(
            os.path.join(parent, name) for name in sorted(files) if name.endswith(SUFFIXES) and not name.startswith(".")
        )


def distinct(files: Iterable[str]) -> list[str]:
    """Return files without those that are an earlier one by another path: another spelling, or a link."""
    first: dict[Hashable, str] = {}
    for file in files:
        first.setdefault(_identity(file), file)
    return list(first.values())


def _identity(path: str) -> Hashable:
    """Return what all paths of a file have in common; the path itself if it leads to nothing."""
    if path == STDIN:
        return path
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path
    return found.st_dev, found.st_ino


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

"""Reads the history: all of it, and then what was added since. The two lines of a change become one record.

A change whose second line is missing is still running if its process is, or else was interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from reconciler.errors import HostError
from reconciler.history import folder as files
from reconciler.history.lines import BEGUN, CONVERGED, ENDED, IN_FORCE, INTERRUPTED, MISSING
from reconciler.history.record import RUNNING, UNKNOWN, Record, to_record
from reconciler.values import NamedTuple
from reconciler.wording import reason

# What a name has that stands for several.
_GLOB = "*?["
_Lines = tuple[str, list[dict[str, Any]]]


class _Position(NamedTuple):
    """Up to where a sandbox was read: the number of its file, and the bytes of it."""

    inode: int
    offset: int


class Reader:
    """Reads the history of the sandboxes that match one of `patterns` (as in a shell), again and again.

    Records of one sandbox are in the order in which they were written, those of several by their times.
    """

    def __init__(self, patterns: Sequence[str] = ("*",)) -> None:
        self._patterns = patterns
        self._positions: dict[str, _Position] = {}
        # The changes of each sandbox that have begun, and whose end was not read: ID → first line.
        self._begun: dict[str, dict[str, dict[str, Any]]] = {}
        # The last line of a manifest in force: it goes along when a file is full, and then is there twice.
        self._in_force: dict[str, dict[str, Any]] = {}

    def read(self, changed: Sequence[str] | None = None) -> list[Record]:
        """Return what was added since the last call, at first all: the changes that have ended, and all else.

        `changed`: only files with these names are looked at. HostError if the history may not be read.
        """
        found: list[Record] = []
        try:
            with files.opened() as folder:
                names = self._names(folder) if changed is None else sorted({files.sandbox_of(each) for each in changed})
                for sandbox in filter(self._matches, names):
                    for data in self._new_lines(folder, sandbox):
                        found += self._join(sandbox, data)
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda each: each.at)

    def unfinished(self) -> list[Record]:
        """Return the changes that were begun and have not ended: they are running, or were interrupted."""
        lines = [each for begun in self._begun.values() for each in begun.values()]
        return sorted(filter(None, map(_unfinished, lines)), key=lambda each: each.at)

    def take_interrupted(self) -> list[Record]:
        """Return the changes that were interrupted since the last call: their processes have ended."""
        found = [each for each in self.unfinished() if each.result == INTERRUPTED]
        for each in found:
            self._begun[each.sandbox].pop(each.id, None)
        return found

    def _names(self, folder: int) -> list[str]:
        if not any(set(_GLOB) & set(each) for each in self._patterns):
            return list(self._patterns)
        return sorted(set(filter(None, map(files.sandbox_of, os.listdir(folder)))))

    def _matches(self, sandbox: str) -> bool:
        return bool(sandbox) and any(fnmatchcase(sandbox, each) for each in self._patterns)

    def _join(self, sandbox: str, data: dict[str, Any]) -> Iterator[Record]:
        """Yield the records that a line completes."""
        if data.get("event") == IN_FORCE:
            before, self._in_force[sandbox] = self._in_force.get(sandbox), data
            if before == data:
                return
        begun, event = self._begun.setdefault(sandbox, {}), data.get("event")
        if event == ENDED:
            record = _finished(begun.pop(str(data.get("id")), {}), data)
        else:
            yield from self._close(begun, data)
            if event == BEGUN:
                begun[str(data.get("id"))] = data
                return
            record = to_record(data)
        if record:
            yield record

    @staticmethod
    def _close(begun: dict[str, dict[str, Any]], data: dict[str, Any]) -> Iterator[Record]:
        """Yield the changes that have ended by what a later line says, whatever it is about."""
        event = data.get("event")
        for id_, each in list(begun.items()):
            if _is_running(id_):
                # Whoever changes a sandbox has its lock, so the next one has begun after the end of this one.
                if event not in {BEGUN, MISSING}:
                    continue
                end = {"result": UNKNOWN, "reason": "its end could not be written"}
            elif event in {BEGUN, CONVERGED}:
                left = data.get("count", 0) if event == BEGUN else 0
                why = f"its process ended meanwhile; the next look found {left} operations left to do"
                end = {"result": INTERRUPTED, "reason": why}
            else:
                continue
            del begun[id_]
            if record := _finished(each, end):
                yield record

    def _new_lines(self, folder: int, sandbox: str) -> Iterator[dict[str, Any]]:
        """Yield the lines that were added to the files of a sandbox."""
        current = _open(folder, sandbox + files.CURRENT)
        before = _open(folder, sandbox + files.BEFORE)
        try:
            while current >= 0 and before >= 0 and _inode(current) == _inode(before):
                # It was put in the other's place between the two calls.
                os.close(current)
                current = -1
                current = _open(folder, sandbox + files.CURRENT)
            known = self._positions.get(sandbox)
            if before >= 0 and (known is None or _inode(current) != known.inode):
                yield from _lines(before, known.offset if known and known.inode == _inode(before) else 0)[1]
            if current >= 0:
                offset = known.offset if known and known.inode == _inode(current) else 0
                end, lines = _lines(current, offset)
                self._positions[sandbox] = _Position(_inode(current), end)
                yield from lines
        finally:
            for each in (current, before):
                if each >= 0:
                    os.close(each)


def _open(folder: int, name: str) -> int:
    """Return the descriptor of a file, -1 if it is missing. HostError if it cannot be opened, or is none of ours."""
    try:
        return files.open_file(name, os.O_RDONLY, folder)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise HostError(f"{files.FOLDER}/{name}: {reason(error)}") from error


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino if descriptor >= 0 else -1


def _lines(descriptor: int, offset: int) -> tuple[int, list[dict[str, Any]]]:
    """Return the offset after the last whole line of a file, and its lines from `offset` on, without what is none."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, max(0, size - offset), offset)
    whole = data[: data.rfind(b"\n") + 1]
    found: list[dict[str, Any]] = []
    for each in whole.splitlines():
        with suppress(ValueError, RecursionError):
            value = json.loads(each)
            if isinstance(value, dict):
                found.append(value)
    return offset + len(whole), found


def _finished(begun: dict[str, Any], ended: dict[str, Any]) -> Record | None:
    """Return the record of a change: what its second line has counts, and the time of the first one."""
    return to_record({**begun, **ended, "time": begun.get("time") or ended.get("time")})


def _unfinished(begun: dict[str, Any]) -> Record | None:
    if _is_running(str(begun.get("id"))):
        return to_record({**begun, "result": RUNNING})
    why = "its process ended meanwhile, and nothing was written about a look since"
    return to_record({**begun, "result": INTERRUPTED, "reason": why})


def _is_running(change: str) -> bool:
    """Return whether the process of a change still runs. Its ID begins with that process, and when it began."""
    from reconciler.history.author import started

    pid, _, rest = change.partition(".")
    return pid.isdecimal() and len(pid) < 10 and started(int(pid)) == rest.partition(".")[0] != ""


def read(patterns: Sequence[str] = ("*",)) -> list[Record]:
    """Return all records of the sandboxes that match a pattern, also changes that have not ended."""
    reader = Reader(patterns)
    found = reader.read()
    return sorted((*found, *reader.unfinished()), key=lambda each: each.at)


def sandboxes() -> list[str]:
    """Return the names about which something is recorded."""
    try:
        with files.opened() as folder:
            return sorted(set(filter(None, map(files.sandbox_of, os.listdir(folder)))))
    except FileNotFoundError:
        return []


def is_complete(sandbox: str) -> bool:
    """Return whether the history of a sandbox has its beginning: no older file had to make room."""
    try:
        with files.opened() as folder:
            before = _open(folder, sandbox + files.BEFORE)
            if before >= 0:
                os.close(before)
            return before < 0
    except FileNotFoundError:
        return True

"""Pauses of sandboxes, as one file each below /run: they outlive the watcher, and end at the latest with a reboot."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.pending import REVERTING, WAITING
from reconciler.values import NamedTuple

FOLDER = "/run/reconciler/paused"


class Pause(NamedTuple):
    """When a pause ends (Unix seconds), and why it was made."""

    until: float
    reason: str


def is_id(text: str) -> bool:
    """Return whether a text is a valid sandbox ID, by the same rule as in the schema of manifests."""
    return len(text) <= 64 and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text) is not None


def write(sandbox: str, pause: Pause) -> None:
    """Begin a pause of a sandbox, or replace the pause that it has."""
    rundir.replace(FOLDER, sandbox, json.dumps(pause._asdict()))


def end(sandbox: str) -> bool:
    """End the pause of a sandbox; return whether there was one."""
    try:
        os.unlink(os.path.join(FOLDER, sandbox))
    except FileNotFoundError:
        return False
    return True


def read(sandbox: str) -> Pause | None:
    """Return the pause of a sandbox; None if it has none, or if that is over.

    A file that is no pause counts as one: better no change than one that an operator wanted to prevent.
    HostError if the file could not be read: then it is unknown whether there is a pause.
    """
    path = os.path.join(FOLDER, sandbox)
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        pause = Pause(float(data["until"]), str(data["reason"]))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Pause(time.time() + 3600, f"{path} cannot be read, so the sandbox counts as paused")
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}: it is unknown whether the sandbox is paused") from error
    return pause if pause.until > time.time() else None


class PauseTracker:
    """Notices that pauses begin, end or are replaced, and so do changes that wait to be confirmed."""

    def __init__(self) -> None:
        self._folder, self._known = _folders(), _stamps()
        # Whether to list the pauses once more: two changes within a tick of the kernel's clock have the same time.
        self._again = True

    def refresh(self) -> list[str]:
        """Return the sandboxes whose pauses have changed since the last call. OSError if they cannot be listed."""
        folder = _folders()
        if folder == self._folder and not self._again:
            return []
        before, found = self._known, _stamps()
        self._again = folder != self._folder
        self._folder, self._known = folder, found
        return sorted({name for name, _ in before.items() ^ found.items()})


def _folders() -> tuple[tuple[int, int], ...]:
    return tuple(map(_stamp, (FOLDER, WAITING, REVERTING)))


def _stamps() -> dict[str, tuple[tuple[int, int], ...]]:
    """Return what changes with each pause, and each change that waits, by sandbox."""
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for folder in (FOLDER, WAITING, REVERTING):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for each in entries:
                if is_id(each.name):
                    found[each.name] = (*found.get(each.name, ()), _stamp(each.path))
    return found


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)

"""Pauses of sandboxes, as one file each below /run: they outlive the watcher, and end at the latest with a reboot."""

from __future__ import annotations

import json
import os
import re
import time
from typing import NamedTuple

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
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    path = os.path.join(FOLDER, sandbox)
    # This cannot be the file of another sandbox: no ID begins with a dot.
    new = os.path.join(FOLDER, f".{sandbox}.new")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(pause._asdict(), file)
    os.replace(new, path)


def end(sandbox: str) -> bool:
    """End the pause of a sandbox; return whether there was one."""
    try:
        os.unlink(os.path.join(FOLDER, sandbox))
    except FileNotFoundError:
        return False
    return True


def read(sandbox: str) -> Pause | None:
    """Return the pause of a sandbox; None if it has none, or if that is over.

    A file that cannot be read counts as a pause: better no change than one that an operator wanted to prevent.
    """
    path = os.path.join(FOLDER, sandbox)
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        pause = Pause(float(data["until"]), str(data["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return Pause(time.time() + 3600, f"{path} cannot be read, so the sandbox counts as paused")
    return pause if pause.until > time.time() else None


def stamp() -> int:
    """Return a number that changes whenever a pause is written or ended."""
    try:
        return os.stat(FOLDER).st_mtime_ns
    except OSError:
        return 0

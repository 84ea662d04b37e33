"""Sandboxes that are left alone for a while, whether a watcher runs or not: a file each, gone with the next boot."""

from __future__ import annotations

import json
import os
import re
import time
from typing import NamedTuple

FOLDER = "/run/reconciler/paused"


class Pause(NamedTuple):
    """Until when (Unix seconds), and why."""

    until: float
    reason: str


def is_id(text: str) -> bool:
    """Tell whether a text can be the ID of a sandbox, as the schema of manifests has it."""
    return len(text) <= 64 and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text) is not None


def write(sandbox: str, pause: Pause) -> None:
    """Leave a sandbox alone."""
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    path = os.path.join(FOLDER, sandbox)
    # No ID begins with a dot.
    new = os.path.join(FOLDER, f".{sandbox}.new")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(pause._asdict(), file)
    os.replace(new, path)


def end(sandbox: str) -> bool:
    """Leave it alone no more; tell whether it was."""
    try:
        os.unlink(os.path.join(FOLDER, sandbox))
    except FileNotFoundError:
        return False
    return True


def read(sandbox: str) -> Pause | None:
    """Give the pause of a sandbox, if it is not over."""
    path = os.path.join(FOLDER, sandbox)
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        pause = Pause(float(data["until"]), str(data["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return Pause(time.time() + 3600, f"{path} cannot be read")
    return pause if pause.until > time.time() else None


def stamp() -> int:
    """Give a number that changes when a pause begins or is ended."""
    try:
        return os.stat(FOLDER).st_mtime_ns
    except OSError:
        return 0

"""Who changes a sandbox: this process, and the user behind it.

The audit ID of a login (/proc/self/loginuid) was set by the kernel for a session, and no su or sudo changes it. What
sudo says is in the environment, where root can change it.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from functools import cache
from typing import Any

# What the kernel has for a process that belongs to no login.
_NO_LOGIN = 0xFFFFFFFF
_LONGEST = 64
_changes = itertools.count(1)


def change_id() -> str:
    """Return the ID of a change: this process, when it began, and a number. No other change of this boot has it."""
    return f"{_process(os.getpid())}.{next(_changes)}"


@cache
def _process(pid: int) -> str:
    return f"{pid}.{started(pid)}"


def started(pid: int) -> str:
    """Return when a process began, in ticks since the boot; empty if it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[19].decode()
    except (OSError, IndexError):
        return ""


def person(command: str) -> dict[str, Any]:
    """Return who runs this command: the user, the login and terminal it came from, and whom sudo names."""
    found: dict[str, Any] = {"command": command, "uid": os.getuid(), "user": _name(os.getuid())}
    if (login := _login()) not in (_NO_LOGIN, None):
        found |= {"login_uid": login, "login": _name(login)}
    if (sudo := os.environ.get("SUDO_UID", "")).isdecimal() and len(sudo) <= 10:
        found |= {"sudo_uid": int(sudo), "sudo_user": os.environ.get("SUDO_USER", "")[:_LONGEST]}
    if terminal := _terminal():
        found["terminal"] = terminal
    return {name: value for name, value in found.items() if value != ""}


def _login() -> int | None:
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _name(uid: int | None) -> str:
    if uid == 0:
        return "root"
    # Only a change by hand pays for the import.
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name if uid is not None else ""
    except (KeyError, OverflowError):
        return ""


def _terminal() -> str:
    for descriptor in range(3):
        with suppress(OSError):
            return os.ttyname(descriptor).removeprefix("/dev/")[:_LONGEST]
    return ""

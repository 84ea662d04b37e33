"""Reads what the watcher of this host says of itself, and what the host says of the watcher."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from reconciler.doctor.facts import Running, Usage, Watcher
from reconciler.doctor.host import limit_of
from reconciler.errors import HostError
from reconciler.watch import client

# The unit is enabled if systemd has a link to it here.
_ENABLED = "/etc/systemd/system/multi-user.target.wants/reconciler.service"
# struct ucred of unix(7).
_UCRED = struct.Struct("=iII")


def read() -> Watcher:
    """Return what is known of the watcher."""
    running, words, data = _ask()
    # One that says nothing cannot say this either.
    pid = int(data.get("pid", 0)) or (_pid() if running in {Running.YES, Running.SILENT} else 0)
    return Watcher(
        running=running,
        words=words,
        data=data,
        enabled=os.path.lexists(_ENABLED),
        pid=pid,
        started=_started(pid),
        policy_changed=_changed(data.get("policy", {}).get("file", "")),
        installed=_installed(),
        descriptors={each: found for each in _processes(pid) if (found := _descriptors(each))},
        now=time.time(),
    )


def _ask() -> tuple[Running, str, dict[str, Any]]:
    """Return whether a watcher runs; why it says nothing; and what it says."""
    try:
        return Running.YES, "", client.read_status()
    except client.NoWatcherError as error:
        return Running.KILLED if os.path.lexists(client.SOCKET) else Running.NO, str(error), {}
    except HostError as error:
        return Running.UNKNOWN if os.geteuid() != 0 else Running.SILENT, str(error), {}


def _pid() -> int:
    """Return the process that serves the status, or 0: the kernel remembers who began to listen."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(client.TIMEOUT)
        channel.connect(client.SOCKET)
        pid, _, _ = _UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return int(pid)
    return 0


def folder_of(pid: int) -> str:
    """Return the folder that a watcher's relative paths are in; "" if that is not known."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd") if pid else ""
    return ""


def _started(pid: int) -> float:
    """Return when a process began, in Unix seconds; 0 if that is not known."""
    with (
        suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file,
    ):
        ticks = int(file.read().rpartition(")")[2].split()[19])
        since_boot = ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    return 0.0


def _changed(path: str) -> float:
    with suppress(OSError):
        return os.stat(path).st_mtime
    return 0.0


def _installed() -> float:
    """Return when this program was installed; 0 if that is not known."""
    from importlib.metadata import PackageNotFoundError, distribution

    with suppress(PackageNotFoundError, OSError):
        found = os.fspath(str(distribution("reconciler").locate_file("")))
        infos = (each.path for each in os.scandir(found) if each.name.startswith("reconciler-") and each.is_dir())
        return max((os.stat(each).st_mtime for each in infos if each.endswith(".dist-info")), default=0.0)
    return 0.0


def _processes(pid: int) -> list[int]:
    """Return a process, unless it is 0, and those that it has started."""
    found = [pid] if pid else []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def _descriptors(pid: int) -> Usage | None:
    most = limit_of(pid)
    with suppress(OSError):
        return Usage(len(os.listdir(f"/proc/{pid}/fd")), most) if most else None
    return None

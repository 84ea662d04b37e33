"""Reads the status of the watcher on this host over its socket."""

from __future__ import annotations

import json
import socket
from typing import Any

from reconciler.errors import HostError

SOCKET = "/run/reconciler/watch.sock"
# Seconds for one step of a status request: the watcher waits so long for the client to read, the client twice as long.
TIMEOUT = 5.0


def read_status() -> dict[str, Any]:
    """Return the status of the watcher, as `Watcher.to_data` makes it. HostError if none runs or answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(2 * TIMEOUT)
        try:
            channel.connect(SOCKET)
            parts = []
            while part := channel.recv(1 << 16):
                parts.append(part)
            found: dict[str, Any] = json.loads(b"".join(parts))
        except (FileNotFoundError, ConnectionRefusedError):
            raise HostError("no watcher runs on this host; `reconciler watch PATH…` starts one") from None
        except (OSError, ValueError) as error:
            raise HostError(f"the watcher does not answer: {error}") from error
    return found


def find_reverting_manifest(sandbox: str) -> str:
    """Return the file of the manifest by which a watcher reverts changes of a sandbox; empty if none does."""
    try:
        watched = read_status()["sandboxes"]
    except HostError:
        return ""
    return next((each["file"] for each in watched if each["sandbox"] == sandbox and each["state"] != "paused"), "")

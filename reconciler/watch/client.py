"""Asks the watcher of this host what it knows."""

from __future__ import annotations

import json
import socket
from typing import Any

from reconciler.errors import HostError

SOCKET = "/run/reconciler/watch.sock"
# Seconds for whoever asks to read the answer, or to give it.
TIMEOUT = 5.0


def ask() -> dict[str, Any]:
    """Ask the watcher of this host. HostError if none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(2 * TIMEOUT)
        try:
            channel.connect(SOCKET)
            parts = []
            while part := channel.recv(1 << 16):
                parts.append(part)
            found: dict[str, Any] = json.loads(b"".join(parts))
        except (FileNotFoundError, ConnectionRefusedError):
            raise HostError("no watcher runs on this host; `reconciler watch PATH…` is one") from None
        except (OSError, ValueError) as error:
            raise HostError(f"the watcher does not answer: {error}") from error
    return found


def undone_by(sandbox: str) -> str:
    """Give the manifest by which the watcher undoes what others change in a sandbox; empty if none does."""
    try:
        watched = ask()["sandboxes"]
    except HostError:
        return ""
    return next((each["file"] for each in watched if each["sandbox"] == sandbox and each["state"] != "paused"), "")

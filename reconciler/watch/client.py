"""Reads the status of the watcher on this host over its socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from reconciler.errors import HostError
from reconciler.wording import reason, suggest

SOCKET = "/run/reconciler/watch.sock"
# Seconds for one step of a status request: the watcher waits so long for the client to read, the client twice as long.
TIMEOUT = 5.0
# Seconds between two requests of a command that waits for a state.
POLL = 0.1


class NoWatcherError(HostError):
    """No watcher runs on this host."""


class UnknownSandboxError(HostError):
    """The watcher of this host does not watch this sandbox."""


def read_status(named: Sequence[str] = ()) -> dict[str, Any]:
    """Return the status of the watcher, as `Watcher.to_data` makes it. `named`: see there.

    NoWatcherError if none runs, HostError if it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(2 * TIMEOUT)
        try:
            channel.connect(SOCKET)
            channel.sendall(json.dumps(list(named)).encode() + b"\n")
            parts = []
            while part := channel.recv(1 << 16):
                parts.append(part)
            found: dict[str, Any] = json.loads(b"".join(parts))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoWatcherError("no watcher runs on this host; `reconciler watch PATH…` starts one") from None
        except PermissionError as error:
            raise HostError(f"only root can ask the watcher of this host ({SOCKET}: {reason(error)})") from None
        except (OSError, ValueError) as error:
            raise HostError(f"the watcher does not answer: {error}") from error
    return found


def await_status(sandbox: str, is_done: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
    """Return the status of a sandbox as soon as a condition holds for it, or what it is after so many seconds.

    UnknownSandboxError if the watcher does not watch it; else the errors of `read_status`.
    """
    deadline = time.monotonic() + seconds
    while True:
        known: dict[str, dict[str, Any]] = {each["sandbox"]: each for each in read_status()["sandboxes"]}
        if sandbox not in known:
            hint = suggest(sandbox, known, listed_by="`reconciler status`") if known else "it watches none at present"
            raise UnknownSandboxError(f'the watcher of this host watches no sandbox "{sandbox}"; {hint}')
        if is_done(known[sandbox]) or time.monotonic() > deadline:
            return known[sandbox]
        time.sleep(POLL)


def reverting_manifests() -> dict[str, str]:
    """Return the files of the manifests by which a watcher reverts changes of sandboxes, by their IDs."""
    try:
        watched = read_status()["sandboxes"]
    except HostError:
        return {}
    return {each["sandbox"]: each["file"] for each in watched if each["state"] != "paused"}

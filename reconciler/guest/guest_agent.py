"""The client of QEMU's own agent in a guest (qemu-guest-agent): commands and answers as lines of JSON.

Source: docs/interop/qemu-ga-ref of QEMU. Traps: a second client of the socket waits in silence, so there is a lock of
it. The agent answers whoever is connected, also what an earlier client asked: so a connection begins with
`guest-sync-delimited`, before whose answer everything is discarded. And an input of 512 KiB hangs the agent.

What a guest sends is bounded in size and time. What is made of commands here needs nothing but `GuestCommands`, so
another program that holds the channel (libvirt) can carry them as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from types import TracebackType
from typing import Any, Protocol, Self

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError
from reconciler.guest.connection import connect, gone, identity, lock_name
from reconciler.rundir import NamedLock
from reconciler.values import NamedTuple
from reconciler.wording import shorten

# Seconds for an answer, and for the first one, which shows whether an agent is there.
TIMEOUT, SYNC_TIMEOUT = 10.0, 2.0
# Seconds for a program that the agent runs, and between two questions whether it has ended.
RUN_TIMEOUT, _POLL = 30.0, 0.05
# Bytes of an answer, and of one read. What we run prints a few lines.
_LINE_SIZE, _READ_SIZE = 1 << 20, 1 << 16
# Characters of what a guest says in an error.
WORDS = 500
# It stands before the command and the answer of a synchronisation, and in no JSON.
_DELIMITER = b"\xff"


class GuestCommandError(HostError):
    """The agent refused a command. `text` is what it said."""

    def __init__(self, command: str, text: str) -> None:
        super().__init__(f"the guest agent refused {command}: {text}")
        self.text = text


class GuestCommands(Protocol):
    """What carries commands to the agent, and their answers: a socket, or libvirt."""

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command. Return what the agent returns: any JSON value.

        GuestCommandError if it refuses, BusyError if it is not there (yet), ChannelError if it does not answer.
        """


class GuestAgent:
    """The only client of a guest agent's socket, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, *, target: str = "") -> None:
        """Connect. SandboxGoneError if no QEMU serves it, BusyError if another run uses it or no agent answers.

        `target`: where to connect to, if not to `path`: an open file of that socket.
        """
        self._path = path
        self._buffer = bytearray()
        self._lock = NamedLock(lock_name(identity(path)))
        if not self._lock.acquire():
            self._lock.close()
            raise BusyError(f"another process uses the guest agent at {path}; try again when it has finished")
        try:
            self._socket = connect(target or path, TIMEOUT, gone=gone(path), late=self._absent())
        except BaseException:
            self._lock.close()
            raise
        try:
            self._synchronise()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the socket for other processes."""
        self._socket.close()
        self._lock.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command, as the protocol says."""
        deadline = time.monotonic() + TIMEOUT
        late = ChannelError(f"the guest agent did not answer {command} within {TIMEOUT:.0f} s ({self._path})")
        self._send(_message(command, arguments), late)
        return returned(command, self._receive(b"\n", deadline, late))

    def _synchronise(self) -> None:
        """Discard what earlier clients left; BusyError if no agent answers."""
        number = int.from_bytes(os.urandom(4), "big")
        deadline = time.monotonic() + SYNC_TIMEOUT
        self._send(_DELIMITER + _message("guest-sync-delimited", {"id": number}), self._absent())
        while True:
            self._receive(_DELIMITER, deadline, self._absent())
            # There may be one of an answer to an earlier client as well.
            line = self._receive(b"\n", deadline, self._absent()).rpartition(_DELIMITER)[2]
            try:
                if json.loads(line) == {"return": number}:
                    return
            except (ValueError, RecursionError):
                # Half an answer to an earlier client.
                continue

    def _absent(self) -> BusyError:
        return BusyError(
            f"no guest agent answers at {self._path}: the guest is starting, or no qemu-guest-agent runs in it, or "
            "another program is connected to this socket"
        )

    def _send(self, data: bytes, late: Exception) -> None:
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.sendall(data)
        except TimeoutError:
            raise late from None
        except OSError as error:
            raise ChannelError(f"QEMU closed the connection to the guest agent ({self._path})") from error

    def _receive(self, end: bytes, deadline: float, late: Exception) -> bytes:
        """Return what comes before `end`. Raise `late` after the deadline, ProtocolError if it is too much."""
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > _LINE_SIZE:
                raise ProtocolError(f"the guest agent sent an answer of more than {_LINE_SIZE >> 20} MiB")
            left = deadline - time.monotonic()
            if left <= 0:
                raise late
            try:
                self._socket.settimeout(left)
                data = self._socket.recv(_READ_SIZE)
            except TimeoutError:
                raise late from None
            except OSError as error:
                raise ChannelError(f"QEMU closed the connection to the guest agent ({self._path})") from error
            if not data:
                raise ChannelError(f"QEMU closed the connection to the guest agent ({self._path})")
            self._buffer += data
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found


def _message(command: str, arguments: Any) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def returned(command: str, line: bytes) -> Any:
    """Return what an answer to a command says. GuestCommandError if that was refused."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and "return" in answer:
        return answer["return"]
    failed = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(failed, dict):
        raise ProtocolError(f"the guest agent answered {command} with something that is no answer")
    raise GuestCommandError(command, shorten(str(failed.get("desc")), WORDS))


class Ran(NamedTuple):
    """What became of a program in the guest: its exit status, what it printed, and what it printed as errors."""

    status: int
    output: str
    errors: str


def enabled(guest: GuestCommands, command: str) -> bool:
    """Return whether the agent has a command and may execute it."""
    answer = guest.execute("guest-info")
    known = answer.get("supported_commands") if isinstance(answer, dict) else None
    if not isinstance(known, list):
        raise ProtocolError("the guest agent answered guest-info without a list of commands")
    return any(isinstance(each, dict) and each.get("name") == command and each.get("enabled") is True for each in known)


def run(guest: GuestCommands, script: str, standard_input: bytes = b"") -> Ran:
    """Run a script of the shell in the guest, as root. ChannelError if it does not end within RUN_TIMEOUT.

    GuestCommandError if the agent may not run anything.
    """
    more = {"input-data": base64.b64encode(standard_input).decode()} if standard_input else {}
    arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True, **more}
    started = guest.execute("guest-exec", **arguments)
    pid = started.get("pid") if isinstance(started, dict) else None
    if not isinstance(pid, int):
        raise ProtocolError("the guest agent answered guest-exec without a process")
    deadline = time.monotonic() + RUN_TIMEOUT
    while True:
        found = guest.execute("guest-exec-status", pid=pid)
        if not isinstance(found, dict):
            raise ProtocolError("the guest agent answered guest-exec-status with something that is no status")
        if found.get("exited") is True:
            # Of a program that a signal ended there is no exit code.
            status = found.get("exitcode")
            return Ran(status if isinstance(status, int) else -1, _text(found, "out-data"), _text(found, "err-data"))
        if time.monotonic() > deadline:
            raise ChannelError(f"a program that the guest agent runs did not end within {RUN_TIMEOUT:.0f} s")
        time.sleep(_POLL)


def _text(found: dict[str, Any], field: str) -> str:
    try:
        return base64.b64decode(found.get(field) or "", validate=True).decode(errors="replace")
    except (binascii.Error, TypeError, ValueError):
        raise ProtocolError(f"the guest agent sent a {field} that is not base64") from None

"""The client of QEMU's monitor (QMP): commands and answers as lines of JSON over a unix socket, each with a deadline.

Source: docs/interop/qmp-spec.rst and qapi/*.json of QEMU. Traps: QEMU lets a second client connect, but sends no
greeting until the first one leaves. And QEMU does not repeat events for a client that connects later.

The package qemu.qmp is not used: it imports asyncio, which takes longer than a whole look at a machine, and it waits
for a greeting without a timeout.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest.connection import connect, gone
from reconciler.netlink.budget import UNASKED, Budget

# Seconds for an answer. QEMU answers in milliseconds, or it waits for a backend that does not listen.
TIMEOUT = 5.0
# Seconds for QEMU to close a character device that was removed, as it does when its backend has just ended.
_CLOSE_TIMEOUT, _CLOSE_POLL = 5.0, 0.02
# Bytes of a line. Of 200 PCI devices, the longest line has 160 KB.
_LINE_SIZE = 1 << 20
# Bytes of one read.
_READ_SIZE = 1 << 16
# Characters of the words in which QEMU refuses a command.
_WORDS = 1024
# Events that wait for `await_event`. Older ones are dropped.
_EVENTS = 256

Event = Mapping[str, Any]


class QmpError(HostError):
    """QEMU refused a command. `kind` is the class of the error, such as DeviceNotFound."""

    def __init__(self, command: str, kind: str, text: str) -> None:
        super().__init__(f"QEMU: {command}: {text}")
        self.kind = kind


class Monitor:
    """The only client of a machine's monitor, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, timeout: float = TIMEOUT, *, target: str = "", budget: Budget | None = None) -> None:
        """Connect. SandboxGoneError if the socket is not served, BusyError if QEMU does not greet in time.

        `target`: where to connect to, if not to `path`: an open file of that socket. `budget`: what all answers of the
        machine may cost; by default, each command has one of its own.
        """
        self._path, self._timeout = path, timeout
        self._budget = budget or Budget()
        self._buffer = bytearray()
        # In so many bytes of the buffer no line ends.
        self._searched = 0
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        # Each command has an id, which its answer repeats. The ids of two clients differ, because QEMU sends a late
        # answer even to the next client.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big"))
        self._socket = connect(
            target or path,
            timeout,
            gone=gone(path),
            late=BusyError(f"QEMU did not accept a connection to {path} within {timeout:g} s; try again later"),
        )
        try:
            self._greet()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the monitor for other processes."""
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command. Return what QEMU returns: any JSON value, see `guest.answer`.

        QmpError if QEMU refuses, ChannelError if it does not answer, ProtocolError if it sends too much.
        """
        with self._budget.step():
            return self._execute(command, arguments)

    def _execute(self, command: str, arguments: Mapping[str, Any], descriptor: int | None = None) -> Any:
        deadline = self._budget.deadline(self._timeout)
        id_ = next(self._ids)
        message = {"execute": command, "arguments": arguments, "id": id_}
        try:
            self._socket.settimeout(self._timeout)
            line = json.dumps(message).encode() + b"\n"
            if descriptor is None:
                self._socket.sendall(line)
            else:
                # A short line goes as a whole.
                socket.send_fds(self._socket, [line], [descriptor])
        except TimeoutError:
            raise ChannelError(f"QEMU did not read the command {command} within {self._timeout:g} s") from None
        except OSError as error:
            raise self._gone(error.strerror) from error
        while True:
            answer = self._receive(deadline, command)
            if "event" in answer:
                self._events.append(answer)
            elif answer.get("id") == id_ and "error" in answer:
                raise _refusal(command, answer["error"])
            elif answer.get("id") == id_ and "return" in answer:
                return answer["return"]
            if time.monotonic() > deadline:
                raise self._late(command)

    def pass_descriptor(self, descriptor: int, name: str) -> None:
        """Pass an open file to QEMU, under a name that the next commands can use."""
        with self._budget.step():
            self._execute("getfd", {"fdname": name}, descriptor)

    def add_chardev(self, label: str, backend: Mapping[str, Any]) -> None:
        """Add a character device. Wait for one of this label that was removed, if QEMU has not closed it yet."""
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        while True:
            try:
                self.execute("chardev-add", id=label, backend=backend)
            except QmpError as error:
                # It is in no list any more.
                if "duplicate yank instance" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_CLOSE_POLL)
            else:
                return

    def human(self, line: str) -> str:
        """Execute a line of the human monitor, for what QMP does not have. Return its output."""
        output = self.execute("human-monitor-command", **{"command-line": line})
        if not isinstance(output, str):
            raise ProtocolError(f"QEMU answered the line {line} of the human monitor with something that is no text")
        return output

    def await_event(self, name: str, matches: Callable[[Mapping[str, Any]], bool], timeout: float) -> bool:
        """Wait for an event of this name whose data match. Return whether it came within `timeout` seconds.

        An event that came before the call counts as well.
        """
        with self._budget.step():
            return self._await_event(name, matches, self._budget.deadline(timeout))

    def _await_event(self, name: str, matches: Callable[[Mapping[str, Any]], bool], deadline: float) -> bool:
        while True:
            while self._events:
                event = self._events.popleft()
                data = event.get("data", {})
                if event.get("event") == name and isinstance(data, dict) and matches(data):
                    return True
            if time.monotonic() > deadline:
                return False
            try:
                self._events.append(self._receive(deadline, name))
            except ChannelError:
                return False

    def fileno(self) -> int:
        """Return a descriptor that is readable when QEMU has sent an event."""
        return self._socket.fileno()

    def noticed(self) -> set[str]:
        """Return the names of the events that QEMU has sent, without waiting, and forget them."""
        with self._budget.step():
            while self._is_readable():
                self._events.append(self._receive(time.monotonic() + self._timeout, "half an event"))
        found = {str(each.get("event")) for each in self._events}
        self._events.clear()
        return found

    def _is_readable(self) -> bool:
        return b"\n" in self._buffer or bool(select.select([self._socket], [], [], 0)[0])

    def _greet(self) -> None:
        try:
            greeting = self._receive(time.monotonic() + self._timeout, "connect")
        except ChannelError:
            reasons = "another client uses it, QEMU hangs, or it is the socket of another program"
            raise BusyError(f"QEMU does not answer on {self._path}: {reasons}") from None
        if "QMP" not in greeting:
            raise ProtocolError(f"{self._path} is not a monitor (QMP) of QEMU")

    def _gone(self, reason: str | None) -> SandboxGoneError:
        return SandboxGoneError(f"QEMU is gone ({self._path}: {reason})")

    def _late(self, what: str) -> ChannelError:
        return ChannelError(f"QEMU did not answer {what} within {self._timeout:g} s")

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        """Return the next line. `what` names what is waited for in the message of an error."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > _LINE_SIZE:
                raise ProtocolError(f"QEMU sent a line of more than {_LINE_SIZE} bytes")
            try:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(_READ_SIZE)
            except TimeoutError:
                raise self._late(what) from None
            except OSError as error:
                raise self._gone(error.strerror) from error
            if not data:
                raise self._gone("it closed the connection")
            self._buffer += data
            if b"\n" not in data and time.monotonic() > deadline:
                raise self._late(what)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        self._budget.spend(len(line), UNASKED)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ProtocolError("QEMU sent a line that is not a JSON object")
        return answer


def _refusal(command: str, failed: Any) -> ReconcilerError:
    if not isinstance(failed, dict):
        return ProtocolError(f"QEMU refused {command} without a reason")
    return QmpError(command, str(failed.get("class"))[:_WORDS], str(failed.get("desc"))[:_WORDS])

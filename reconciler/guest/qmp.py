"""QEMU's monitor (QMP): commands and answers as JSON, a line each, over a unix socket, every one within a deadline.

Source: docs/interop/qmp-spec.rst and qapi/*.json of QEMU. A second client of a monitor is connected, but gets no greeting
until the first one leaves; events of the time before are never told again.

Ours and not the qemu.qmp package: that is built on asyncio, whose import costs more than a whole look at a machine, and
waits for a greeting for ever.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest.connection import connect
from reconciler.wording import printable

# Seconds for an answer: QEMU answers in milliseconds, or waits for a backend that does not come.
TIMEOUT = 5.0
# Bytes of a line; the device tree of a large machine takes some KB.
_LINE_SIZE = 4 << 20
_READ_SIZE = 1 << 16
# Events that wait to be asked for; nobody asks for old ones.
_EVENTS = 256

Event = Mapping[str, Any]


class QmpError(HostError):
    """QEMU refused a command: `kind` is its error class, such as DeviceNotFound."""

    def __init__(self, command: str, kind: str, words: str) -> None:
        super().__init__(f"QEMU: {command}: {printable(words)}")
        self.kind = kind


class Monitor:
    """The only client of a machine's monitor, from `__init__` to `close`. For one thread."""

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        """Connect and be greeted. SandboxGoneError if nobody serves the socket, BusyError without a greeting."""
        self._path, self._timeout = path, timeout
        self._buffer = bytearray()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        # Answers name the command. One that comes late is no other's: QEMU sends it even to the client that comes next.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big"))
        self._socket = connect(
            path,
            timeout,
            gone=SandboxGoneError(f"no machine serves {path}"),
            late=BusyError(f"QEMU does not take a connection on {path}"),
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
        """Leave the monitor to others."""
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command; give what it returns. QmpError if QEMU refuses, ChannelError if it does not answer."""
        id_ = next(self._ids)
        message = {"execute": command, "arguments": arguments, "id": id_}
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError:
            raise ChannelError(f"QEMU did not take {command} within {self._timeout:.0f} s") from None
        except OSError as error:
            raise SandboxGoneError(f"QEMU is gone ({self._path}: {error.strerror})") from error
        deadline = time.monotonic() + self._timeout
        while True:
            answer = self._receive(deadline, command)
            if "event" in answer:
                self._events.append(answer)
            elif answer.get("id") == id_ and "error" in answer:
                raise _refusal(command, answer["error"])
            elif answer.get("id") == id_ and "return" in answer:
                return answer["return"]
            if time.monotonic() > deadline:
                raise ChannelError(f"QEMU did not answer {command} in time")

    def human(self, line: str) -> str:
        """Execute a line of the human monitor, for what QMP cannot say; give its text."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def await_event(self, name: str, matches: Callable[[Mapping[str, Any]], bool], timeout: float) -> bool:
        """Wait for an event whose data match, one that is here already counts; tell whether it came in `timeout` seconds."""
        deadline = time.monotonic() + timeout
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

    def _greet(self) -> None:
        try:
            greeting = self._receive(time.monotonic() + self._timeout, "connect")
        except ChannelError:
            raise BusyError(f"QEMU does not answer on {self._path}: another client holds it, or QEMU hangs") from None
        if "QMP" not in greeting:
            raise ProtocolError(f"{self._path} is no monitor of QEMU")

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_SIZE:
                raise ProtocolError(f"QEMU answers with more than {_LINE_SIZE} bytes")
            try:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(_READ_SIZE)
            except TimeoutError:
                raise ChannelError(f"QEMU did not answer {what} in time") from None
            except OSError as error:
                raise SandboxGoneError(f"QEMU is gone ({self._path}: {error.strerror})") from error
            if not data:
                raise SandboxGoneError(f"QEMU is gone ({self._path} was closed)")
            self._buffer += data
            if b"\n" not in data and time.monotonic() > deadline:
                raise ChannelError(f"QEMU did not answer {what} in time")
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ProtocolError("QEMU answers with what is no JSON object")
        return answer


def _refusal(command: str, failed: Any) -> ReconcilerError:
    if not isinstance(failed, dict):
        return ProtocolError(f"QEMU refuses {command} without saying why")
    return QmpError(command, str(failed.get("class")), str(failed.get("desc")))

"""Runs a command in the guest: its input, its output and its exit status. The guest's end is runner.py."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from reconciler.errors import ChannelError, HostError, ProtocolError
from reconciler.guest import agent, runner
from reconciler.guest.agent import Frame
from reconciler.guest.connection import TIMEOUT, Connection

# The id of the only request of a connection.
_REQUEST = 1
# Seconds without a frame, after which the guest counts as hung: it reports a silent command every agent.TICK.
SILENCE = 3 * agent.TICK
# Bytes of one read of the input.
_READ_SIZE = 32 << 10

Sink = Callable[[bytes], object]


def run(path: str | socket.socket, command: Sequence[str], stdin: int | None, stdout: Sink, stderr: Sink) -> int:
    """Run a command over the socket of an exec port. Return its exit status (127: not found, 128 + n: signal n).

    `path` is as for Connection. `stdin` is a descriptor that is read to its end; None: the input is empty. The command
    ends when this process does.
    """
    words = [os.fsencode(word) for word in command]
    if not words or any(b"\0" in word for word in words):
        raise HostError("a command for the guest must have at least one word, and no word may contain a zero byte")
    with Connection(path) as connection:
        connection.greet(time.monotonic() + TIMEOUT)
        connection.push(_REQUEST, runner.RUN, b"\0".join(words))
        return _Exchange(connection, stdin, {runner.STDOUT: stdout, runner.STDERR: stderr}).run()


class _Exchange:
    """Carries the input of a command to the guest, and its output to the sinks."""

    def __init__(self, connection: Connection, stdin: int | None, sinks: dict[int, Sink]) -> None:
        self._connection = connection
        self._stdin = stdin
        self._sinks = sinks
        # Bytes of input that the guest has room for.
        self._credit = runner.WINDOW
        if stdin is None:
            connection.push(_REQUEST, runner.STDIN)

    def run(self) -> int:
        """Return the exit status, when the command has ended."""
        while True:
            wants_input = self._credit > 0 and not self._connection.pending
            if self._connection.step(time.monotonic() + SILENCE, self._stdin if wants_input else None):
                self._read_input()
            while self._connection.has_frame():
                status = self._handle(self._connection.receive(0))
                if status is not None:
                    return status

    def _read_input(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, min(_READ_SIZE, self._credit))
        except OSError as error:
            raise HostError(f"cannot read the command's standard input: {error.strerror}") from error
        self._credit -= len(data)
        for piece in _pieces(data):
            self._connection.push(_REQUEST, runner.STDIN, piece)
        if not data:
            self._stdin = None

    def _handle(self, frame: Frame) -> int | None:
        """Handle a frame of the guest. Return the exit status if the frame is that."""
        if (frame.request, frame.kind) == (0, agent.HELLO):
            raise ChannelError("the guest's runner has started again, so nobody knows what became of the command")
        if frame.request != _REQUEST:
            raise ProtocolError(f"the guest answered request {frame.request}, which was not sent")
        payload = frame.payload
        match frame.kind:
            case runner.STDOUT | runner.STDERR:
                self._sinks[frame.kind](payload)
            case runner.CREDIT if len(payload) == runner.CREDIT_BODY.size:
                self._credit = min(self._credit + runner.CREDIT_BODY.unpack(payload)[0], runner.WINDOW)
            case runner.ALIVE:
                pass
            case runner.EXIT if len(payload) == runner.EXIT_BODY.size:
                return int(runner.EXIT_BODY.unpack(payload)[0]) & 0xFF
            case agent.FAILED:
                text = payload[agent.FAILED_HEAD.size :].decode(errors="replace")
                raise ChannelError(f"the guest could not run the command: {text}")
            case _:
                raise ProtocolError(f"the guest sent an unexpected frame: kind {frame.kind}, {len(payload)} bytes")
        return None


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut input wherever it contains agent.MAGIC, which no frame may contain. Its end, b"", is one piece."""
    while (at := data.find(agent.MAGIC)) >= 0:
        yield data[: at + 1]
        data = data[at + 1 :]
    yield data

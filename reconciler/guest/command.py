"""A command in the guest: its streams, and its exit status. The guest's end is runner.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from reconciler.errors import ChannelError, HostError, ProtocolError
from reconciler.guest import agent, runner
from reconciler.guest.connection import TIMEOUT, Connection

# The one request of a connection.
_REQUEST = 1
# Seconds of silence: a silent command gives a sign of life every agent.TICK.
SILENCE = 3 * agent.TICK
_READ_SIZE = 32 << 10

Sink = Callable[[bytes], object]


def run(path: str, command: Sequence[str], stdin: int | None, stdout: Sink, stderr: Sink) -> int:
    """Run a command over the socket of an exec port; give its exit status (127: not found, 128 + n: ended by a signal).

    `stdin` is a descriptor that is read to its end, or None. Whoever closes the connection kills the command.
    """
    words = [os.fsencode(word) for word in command]
    if not words or any(b"\0" in word for word in words):
        raise HostError("a command needs at least one word, and no word may hold a zero byte")
    with Connection(path) as connection:
        connection.greet(time.monotonic() + TIMEOUT)
        connection.push(_REQUEST, runner.RUN, b"\0".join(words))
        return _Pump(connection, stdin, {runner.STDOUT: stdout, runner.STDERR: stderr}).run()


class _Pump:
    def __init__(self, connection: Connection, stdin: int | None, sinks: dict[int, Sink]) -> None:
        self._connection, self._stdin, self._sinks = connection, stdin, sinks
        self._credit = runner.WINDOW
        if stdin is None:
            connection.push(_REQUEST, runner.STDIN)

    def run(self) -> int:
        while True:
            takes = self._credit > 0 and not self._connection.pending
            if self._connection.step(time.monotonic() + SILENCE, self._stdin if takes else None):
                self._read()
            while self._connection.has_frame():
                status = self._take(*self._connection.receive(0))
                if status is not None:
                    return status

    def _read(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, min(_READ_SIZE, self._credit))
        except OSError as error:
            raise HostError(f"standard input: {error.strerror}") from error
        self._credit -= len(data)
        for piece in _pieces(data):
            self._connection.push(_REQUEST, runner.STDIN, piece)
        if not data:
            self._stdin = None

    def _take(self, request: int, kind: int, payload: bytes) -> int | None:
        """Take a frame of the guest; give the exit status if it is that."""
        if request != _REQUEST:
            raise ProtocolError(f"the guest answers request {request}, which it was not asked")
        match kind:
            case runner.STDOUT | runner.STDERR:
                self._sinks[kind](payload)
            case runner.CREDIT if len(payload) == runner.CREDIT_BODY.size:
                self._credit = min(self._credit + runner.CREDIT_BODY.unpack(payload)[0], runner.WINDOW)
            case runner.ALIVE:
                pass
            case runner.EXIT if len(payload) == runner.EXIT_BODY.size:
                return int(runner.EXIT_BODY.unpack(payload)[0]) & 0xFF
            case agent.FAILED:
                words = payload[agent.FAILED_HEAD.size :].decode(errors="replace")
                raise ChannelError(f"the guest could not run it: {''.join(filter(str.isprintable, words))}")
            case _:
                raise ProtocolError(f"the guest sends a frame of kind {kind}, {len(payload)} bytes, about a command")
        return None


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut where the agent's mark stands, so that no frame holds it: an end of input is one empty piece."""
    while (at := data.find(agent.MAGIC)) >= 0:
        yield data[: at + 1]
        data = data[at + 1 :]
    yield data

"""One run of the process of the machines, from its start to its end, as the watcher sees it."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import cast

from reconciler.watch.machines import wire
from reconciler.watch.machines.messages import REPORTS, Alive, Order, Report, Tick

# Ticks that may go unanswered. The process answers as soon as one of its threads has computed for a moment.
SILENT = 60
# Seconds for the end of the process, once nobody talks to it any more.
_END = 2.0
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_COMMAND = f"import sys; sys.path.insert(0, {_PACKAGE!r}); from reconciler.watch.machines.inside import main; main()"
# What belongs to the watcher alone: the service manager expects its messages from nobody else.
_NOT_ITS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Process:
    """A process that runs. One thread writes what it is told, one reads what it says; no caller waits for it.

    `take` is called in the reading thread with each report, and `ended` as the last thing, with the reason.
    """

    def __init__(
        self, orders: Iterable[Order], take: Callable[[Report], None], ended: Callable[[Process, str], None]
    ) -> None:
        """Start it, with its first orders. OSError or RuntimeError if that is not possible now."""
        self.begun = time.monotonic()
        self.history = ""
        self._take, self._on_end = take, ended
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._unanswered, self._killed_for = 0, ""
        self._has_ended = False
        for order in orders:
            self._orders.put(order)
        self._channel, its = socket.socketpair()
        try:
            with its:
                self._process = _start(its)
        except OSError:
            self._channel.close()
            raise
        self._writer = threading.Thread(target=self._write, name="machines-orders", daemon=True)
        self._reader = threading.Thread(target=self._read, name="machines", daemon=True)
        try:
            self._reader.start()
        except RuntimeError:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            raise

    @property
    def hears(self) -> bool:
        """Return whether the process has not ended."""
        return not self._has_ended

    @property
    def pid(self) -> int:
        """Return its ID."""
        return self._process.pid

    def send(self, order: Order) -> None:
        """Say something to it, behind all that was said before."""
        self._orders.put(order)

    def tick(self) -> None:
        """Ask for a sign of life. A process that has given none for long is killed."""
        self._unanswered += 1
        if self._unanswered > SILENT:
            self._kill(f"it did not answer {SILENT} times in turn")
        self.send(Tick())

    def close(self) -> None:
        """Let it end."""
        self._orders.put(None)

    def join(self) -> None:
        """Wait until it has ended, which `close` has asked for."""
        self._reader.join(2 * _END)

    def _write(self) -> None:
        with suppress(OSError):
            while (order := self._orders.get()) is not None:
                self._channel.sendall(wire.pack(order))
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            self._writer.start()
            with self._channel.makefile("rb") as said:
                for report in cast("Iterator[Report]", wire.reports(said, REPORTS)):
                    self._hear(report)
        except OSError:
            # It has ended before it had read all.
            pass
        except Exception as error:
            logging.getLogger(__name__).exception("defect")
            self._kill(f"what it said could not be read: {error}")
        code = self._await_end()
        self._has_ended = True
        self._on_end(self, self._killed_for or _words(code))

    def _hear(self, report: Report) -> None:
        if isinstance(report, Alive):
            self._unanswered, self.history = 0, report.history
        else:
            self._take(report)

    def _await_end(self) -> int:
        """Wait for the end of the process, which says nothing any more. Return its status."""
        try:
            code = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.close()
        with suppress(RuntimeError):
            # Unless it could not be started.
            self._writer.join()
        self._channel.close()
        return code

    def _kill(self, reason: str) -> None:
        self._killed_for = reason
        self._process.kill()


def _start(its: socket.socket) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _COMMAND]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_ITS}
    return subprocess.Popen(words, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=environment)


def _words(code: int) -> str:
    """Return why a process has ended."""
    if code >= 0:
        return f"it exited with status {code}"
    with suppress(ValueError):
        return f"{signal.Signals(-code).name} ended it"
    return f"signal {-code} ended it"

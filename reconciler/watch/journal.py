"""Writes events to systemd's journal by its native protocol: a datagram for each, with the fields of the event.

So `journalctl SANDBOX=web-1` finds them, and `journalctl --priority warning` those that matter. The journal is used if
it is what standard error goes to (systemd.exec(5), JOURNAL_STREAM). If it does not take a datagram, the event is a line
on standard error, with its priority in front as sd-daemon(3) has it: then it is in the journal without its fields.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
# The lowest level of each priority of syslog(3): err, warning, info. All below are debug.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def receives(stream: TextIO | None) -> bool:
    """Return whether a stream goes to the journal. None is standard error if it was closed at the start."""
    if stream is not None:
        with suppress(OSError, ValueError):
            found = os.fstat(stream.fileno())
            return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def priority(level: int) -> int:
    """Return the priority of syslog(3) for a level of the log."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)


class JournalHandler(logging.Handler):
    """Writes each event. `fields` returns its name and its fields; each value is one line of text."""

    def __init__(self, fields: Callable[[logging.LogRecord], Mapping[str, str]]) -> None:
        super().__init__()
        self._fields = fields
        # Not connected: a journal that was started anew has another socket in its place.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event."""
        message, number = self.format(record), priority(record.levelno)
        data = {
            "MESSAGE": message,
            "PRIORITY": str(number),
            "SYSLOG_IDENTIFIER": "reconciler",
            **{name.upper(): value for name, value in self._fields(record).items()},
        }
        try:
            self._socket.sendto("".join(f"{name}={value}\n" for name, value in data.items()).encode(), SOCKET)
        except OSError:
            with suppress(OSError):
                print(f"<{number}>{message}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

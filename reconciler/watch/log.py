"""Writes events as log lines on standard error: `key=value` for people, JSON for programs. One line per event.

In systemd's journal, each event has its fields as well, whichever form its line has.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Mapping

from reconciler.watch import journal
from reconciler.watch.journal import JournalHandler
from reconciler.wording import printable, shorten, to_json

FORMS = ("text", "json")
INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
# The level of each single operation: below that of all other events.
OPERATION = 15
logging.addLevelName(OPERATION, "OPERATION")
# The name of each level → what is logged from it on.
LEVELS = {"operation": OPERATION, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_logger = logging.getLogger("reconciler.watch")


def configure(form: str, level: str = "operation") -> None:
    """Write all log lines of this program of a level and above it to standard error, in one of FORMS.

    If that is systemd's journal, each line has its fields there as well (`watch.journal`).
    """
    # Nothing of these is in a line, and to find them takes a third of the time of one.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    is_journal = journal.receives(sys.stderr)
    handler: logging.Handler = JournalHandler(_words) if is_journal else logging.StreamHandler(sys.stderr)
    # The journal has the time and the level of each line anyway.
    handler.setFormatter(_Json() if form == "json" else _Text(bare=is_journal))
    root = logging.getLogger("reconciler")
    root.handlers = [handler]
    root.setLevel(LEVELS[level])
    root.propagate = False
    threading.excepthook = _log_end


def configured() -> tuple[str, str]:
    """Return the form and the level that `configure` was called with."""
    root = logging.getLogger("reconciler")
    is_json = any(isinstance(each.formatter, _Json) for each in root.handlers)
    level = next((name for name, number in LEVELS.items() if number == root.level), "operation")
    return ("json" if is_json else "text"), level


def _log_end(ended: threading.ExceptHookArgs) -> None:
    """Log the error that has ended a thread, as one line: a defect, as all others are handled."""
    if ended.exc_value is not None:
        _logger.error(
            "defect", exc_info=ended.exc_value, extra={"fields": {"thread": ended.thread and ended.thread.name}}
        )


def emit(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event. Fields that are None or empty are left out; 0 and False are not."""
    shown = {name: value for name, value in fields.items() if value not in (None, "", ())}
    _logger.log(level, event, extra={"fields": shown})


def emit_operations(sandbox: str, commands: Iterable[str]) -> None:
    """Log each operation that was executed, by its command, in order."""
    if _logger.isEnabledFor(OPERATION):
        for command in commands:
            emit("operation", level=OPERATION, sandbox=sandbox, command=command)


def report_history(problem: str) -> None:
    """Log that records of the history begin to be missing, or that none is any more."""
    emit("alarm" if problem else "history", level=ERROR if problem else INFO, history=problem or "complete again")


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found: Mapping[str, object] = getattr(record, "fields", {})
    return found


def _words(record: logging.LogRecord) -> dict[str, str]:
    """Return the name of an event, its fields and its traceback if there is one, each as one line of text."""
    found = {"event": record.getMessage(), **_fields(record)}
    if record.exc_info:
        found["traceback"] = logging.Formatter().formatException(record.exc_info)
    return {name: printable(_plain(value)) for name, value in found.items()}


class _Text(logging.Formatter):
    """Makes lines for people. `bare`: without time and level."""

    def __init__(self, *, bare: bool = False) -> None:
        super().__init__()
        self._bare = bare

    def format(self, record: logging.LogRecord) -> str:
        words = [printable(shorten(record.getMessage()))]
        words += [f"{name}={_value(value)}" for name, value in _fields(record).items()]
        if record.exc_info:
            words.append(f"traceback={_value(self.formatException(record.exc_info))}")
        return " ".join(words if self._bare else (_time(record.created), record.levelname.lower(), *words))


def _time(when: float) -> str:
    """Format Unix seconds as local time with its zone: `2026-11-27T18:07:27+01:00`."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(when))
    return f"{text[:-2]}:{text[-2:]}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        data = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
        data |= _fields(record)
        if record.exc_info:
            data["traceback"] = self.formatException(record.exc_info)
        return to_json({name: _shortened(value) for name, value in data.items()})


def _shortened(value: object) -> object:
    """Return a value of which no text is so long that it fills the log."""
    if isinstance(value, list | tuple):
        return [_shortened(each) for each in value]
    return shorten(value) if isinstance(value, str) else value


def _plain(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else shorten(str(value))


def _value(value: object) -> str:
    """Format a value as one word; as a JSON string if it has spaces, quotes, `=` or control characters."""
    text = _plain(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return to_json(text)

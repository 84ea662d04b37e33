"""Writes events as log lines on standard error: `key=value` for people, JSON for programs. One line per event."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Mapping

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
    """Write all log lines of this program of a level and above it to standard error, in one of FORMS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger("reconciler")
    root.handlers = [handler]
    root.setLevel(LEVELS[level])
    root.propagate = False


def emit(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event. Fields that are None or empty are left out; 0 and False are not."""
    shown = {name: value for name, value in fields.items() if value not in (None, "", ())}
    _logger.log(level, event, extra={"fields": shown})


def emit_operations(sandbox: str, commands: Iterable[str]) -> None:
    """Log each operation that was executed, by its command, in order."""
    if _logger.isEnabledFor(OPERATION):
        for command in commands:
            emit("operation", level=OPERATION, sandbox=sandbox, command=command)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found: Mapping[str, object] = getattr(record, "fields", {})
    return found


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        words = [when, record.levelname.lower(), printable(shorten(record.getMessage()))]
        words += [f"{name}={_value(value)}" for name, value in _fields(record).items()]
        if record.exc_info:
            words.append(f"traceback={_value(self.formatException(record.exc_info))}")
        return " ".join(words)


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


def _value(value: object) -> str:
    """Format a value as one word; as a JSON string if it has spaces, quotes, `=` or control characters."""
    text = f"{value:.3f}" if isinstance(value, float) else shorten(str(value))
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return to_json(text)

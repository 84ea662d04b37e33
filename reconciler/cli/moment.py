"""Reads when something was, as a person writes it: so long ago, or a date with or without a time."""

from __future__ import annotations

import re
import time

from reconciler.wording import seconds

FORMS = "a time such as 90s, 15min, 1h, 2d, 2026-11-27 or 2026-11-27T10:00"


def read_moment(text: str) -> float:
    """Return a moment in Unix seconds. A date without a zone is of this host's zone. ValueError if it is none."""
    try:
        return time.time() - seconds(text)
    except ValueError:
        pass
    from datetime import datetime

    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:$|[T ])", text):
        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            pass
    raise ValueError(f'"{text}" is not {FORMS}')

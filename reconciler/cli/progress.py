"""The progress line of a long apply, on a terminal."""

from __future__ import annotations

import sys
import time

from reconciler.cli.output import is_obedient, rewrite
from reconciler.cli.terminal import columns
from reconciler.wording import plural

# Operations. An apply of fewer ends before a person could read the line.
_SHORT = 200
_WIDTH = 20
# Columns of a terminal that has room for the bar.
_WIDE = 80


class Progress:
    """One line on standard error, rewritten as operations are done, and erased in the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show how many operations are done. Show nothing for a few of them, or if stderr is no terminal."""
        if total < _SHORT or not is_obedient(sys.stderr):
            return
        seconds = f"{time.monotonic() - self._begin:.1f} s"
        counts = f"{done:,} / {total:,}"
        line = f"{counts}  {seconds}  {self._name}"
        if (columns(sys.stderr) or _WIDE) >= _WIDE:
            bar = "█" * (done * _WIDTH // total)
            line = f"{self._name}  applying  {bar:░<{_WIDTH}}  {counts} {plural('operation', total)}  {seconds}"
        rewrite(line)
        self._shown = True

    def clear(self) -> None:
        """Erase the line."""
        if self._shown:
            rewrite("")

"""Whether the watcher works, for probes as those of Kubernetes: `/healthz`, and `/readyz` after the first looks.

A sandbox that is not as its manifest says is not a reason to restart the watcher: the metrics tell that.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.watch.metrics import Answer
from reconciler.wording import printable, shorten

_KIND = "text/plain; charset=utf-8"
# Names that a line lists.
_LISTED = 10


def answer(problems: Sequence[str]) -> Answer:
    """Return `ok` with 200 if there is no problem; otherwise 503, and each problem in a line."""
    lines = [printable(shorten(each)) for each in problems] or ["ok"]
    return Answer(503 if problems else 200, _KIND, "".join(f"{line}\n" for line in lines).encode())


def listed(names: Sequence[str]) -> str:
    """Return names in words: at most _LISTED of them, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

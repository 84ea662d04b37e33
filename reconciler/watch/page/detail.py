"""What the page shows of one sandbox: what differs still, and what happened in it."""

from __future__ import annotations

from typing import Any

from reconciler.errors import HostError
from reconciler.history.reader import read
from reconciler.watch import clock
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.state import Standing

# The most records of the history that the page shows.
RECORDS = 50


def of(standing: Standing) -> dict[str, Any]:
    """Return the status of a sandbox as plain data, with `outstanding` and `history`, the newest record first.

    Nothing is observed for it: `outstanding` is what the last look has left, None if that is unknown.
    """
    outstanding = standing.status.outstanding
    history, problem = _history(standing.status.sandbox)
    return {
        "sandbox": standing.to_data(),
        "outstanding": outstanding and _to_data(outstanding),
        "history": history,
        "history_problem": problem,
    }


def _to_data(found: Outstanding) -> dict[str, Any]:
    lines = [{"sign": each.sign, "text": each.text, "comment": each.comment} for each in found.lines]
    return {"looked": round(clock.unix(found.looked), 3), "lines": lines, "more": found.more}


def _history(sandbox: str) -> tuple[list[dict[str, Any]], str]:
    try:
        records = read((sandbox,))[-RECORDS:]
    except (HostError, OSError) as error:
        return [], str(error)
    return [{**each.to_data(), "at": each.at} for each in reversed(records)], ""

"""What the page of the fleet shows: what `fleet status -o json` prints, and all that is known of one host.

The server of the page, its bounds and who may read it are those of `watch --ui`. It runs in a thread of its own, and
asks the event loop of the gate for what it reads of the store: only while a page is open, and every two seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any, TypeVar

from reconciler.fleet import overview
from reconciler.fleet.known import Known, read_fleet
from reconciler.fleet.store import Store

_T = TypeVar("_T")
# Seconds for which the page waits for the store.
_PATIENCE = 3.0
PACKAGE = "reconciler.fleet.gate"


class FleetSource:
    """A `board.Source`: its rows are hosts. Any thread but that of the event loop may call it."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._loop = store, loop

    def to_data(self) -> Mapping[str, Any]:
        """Return the state of the fleet. StoreError or TimeoutError if the store does not answer."""
        known, report, leader = self._do(read_fleet(self._store))
        states = overview.host_states(known, report)
        found = overview.document(known, report, states, leader)
        hosts = [{"sandbox": each["host"], **each} for each in found.pop("hosts")]
        return {**found, "waves": _waves(known, states), "sandboxes": hosts}

    def pulse(self) -> Hashable:
        """Return nothing that changes: the store is read as often as time alone asks for."""
        return 0

    def detail(self, sandbox: str) -> Mapping[str, Any] | None:
        """Return what is known of a host; None if there is no such one."""
        known, report, _ = self._do(read_fleet(self._store))
        record, status, plan = known.hosts.get(sandbox), report.statuses.get(sandbox), known.plans.get(sandbox)
        if record is None:
            return None
        (state,) = (each for each in overview.host_states(known, report) if each.host == sandbox)
        unusual = {each.sandbox: each for each in status.unusual} if status else {}
        desired = known.desired.get(sandbox)
        names = sorted({*(desired.sandboxes if desired else {}), *unusual})
        return {
            "host": state._asdict(),
            "gate": report.alive.get(sandbox, ""),
            "labels": record.labels,
            "reported": status.when if status else 0.0,
            "alarms": status.alarms if status else (),
            "changed": plan.changed if plan else (),
            "withheld": desired.withheld if desired else {},
            "sandboxes": [
                {
                    "sandbox": each,
                    "state": unusual[each].state if each in unusual else "",
                    "detail": unusual[each].detail if each in unusual else "",
                }
                for each in names
            ],
        }

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)


def _waves(known: Known, states: list[overview.HostState]) -> list[dict[str, int]]:
    """Return, for each wave, how many hosts it has, and how many of them have reached the release."""
    reached = {each.host for each in states if each.state in overview.GOOD}
    waves = known.release.waves if known.release else ()
    return [{"hosts": len(each), "reached": len(reached & set(each))} for each in waves]

"""Starts the process of the machines with the first of them, and again if it ends; ends it with the last one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import assert_never

from reconciler.manifest.load import Manifest
from reconciler.watch import log
from reconciler.watch.agenda import MOST, backoff
from reconciler.watch.machines.machine import Machine
from reconciler.watch.machines.messages import Alive, Allow, Claim, Done, Ended, Found, Order, Report, Setup, Unstarted
from reconciler.watch.machines.process import Process
from reconciler.watch.meter import Failed, Looked, Repaired
from reconciler.watch.revision import Revision
from reconciler.watch.worker import Common


class Room:
    """All machines of a watcher. Its main thread calls all methods; another one hears what the process says.

    `on_done` is called as by a `worker.Worker`. `on_end` is called with the reason when the process has ended.
    """

    def __init__(self, common: Common, on_done: Callable[[str, bool], None], on_end: Callable[[str], None]) -> None:
        self._common, self._on_done, self._on_end = common, on_done, on_end
        self._numbers = itertools.count(1)
        # Only the main thread writes.
        self._machines: dict[int, Machine] = {}
        self._names: frozenset[str] = frozenset()
        self._process: Process | None = None
        # How often in turn the process has soon ended; when to start it again.
        self._deaths, self._due = 0, 0.0
        # Why it does not run although it should.
        self._reason = ""

    @property
    def problems(self) -> list[str]:
        """Return what is wrong with the process. Any thread may ask."""
        process = self._process
        return [each for each in (self._reason, process.history if process else "") if each]

    @property
    def pid(self) -> int:
        """Return the ID of the process; 0 if it does not run. Any thread may ask."""
        process = self._process
        return process.pid if process else 0

    def watch(self, manifest: Manifest, revision: Revision) -> Machine:
        """Watch a machine. OSError or RuntimeError if the process cannot be started."""
        machine = Machine(next(self._numbers), manifest, revision, self._tell, self._on_done, self._common.history)
        self._machines[machine.number] = machine
        if self._process is None and not self._reason:
            try:
                self._start()
            except (OSError, RuntimeError):
                del self._machines[machine.number]
                raise
        elif not self._tell(machine.begin) and self._reason:
            machine.lose(self._reason)
        return machine

    def keep_claims(self, names: Iterable[str]) -> None:
        """Drop the claims of all sandboxes but these."""
        if (found := frozenset(names)) != self._names:
            self._names = found
            self._tell(Claim(found))

    def reload(self) -> None:
        """Go by the policy that is in force now."""
        self._tell(Allow(self._common.authority.policy))

    def tick(self) -> None:
        """See to it that the process runs as long as there are machines."""
        self._machines = {number: each for number, each in self._machines.items() if not each.is_stopped}
        if self._process and not self._process.hears:
            is_new = time.monotonic() - self._process.begun < MOST
            self._deaths = self._deaths + 1 if is_new else 0
            self._due = time.monotonic() + (backoff(self._deaths - 1) if self._deaths else 0.0)
            self._process = None
        if not self._machines:
            self._release()
        elif self._process:
            self._process.tick()
        elif time.monotonic() >= self._due:
            try:
                self._start()
            except (OSError, RuntimeError) as error:
                self._reason = f"the process that watches machines cannot be started: {error}"

    def close(self) -> None:
        """Let the process end, and wait for that."""
        if process := self._release():
            process.join()

    def _release(self) -> Process | None:
        process, self._process = self._process, None
        self._reason, self._deaths, self._due = "", 0, 0.0
        if process:
            process.close()
        return process

    def _start(self) -> None:
        settings, _, authority, meter, _ = self._common
        form, level = log.configured()
        setup = Setup(settings, authority.policy, form, level, meter.keeps)
        begin = [each.begin for each in self._machines.values() if not each.is_stopped]
        self._process = Process([setup, Claim(self._names), *begin], self._take, self._lose)
        self._reason = ""

    def _tell(self, order: Order) -> bool:
        process = self._process
        if process is None or not process.hears:
            return False
        process.send(order)
        return True

    def _take(self, report: Report) -> None:
        match report:
            case Found(number) | Done(number) | Unstarted(number) | Ended(number):
                if machine := self._machines.get(number):
                    machine.take(report)
            case Looked() | Repaired() | Failed():
                self._common.meter.add(report)
            case Alive():
                # The process is known to live.
                pass
            case _:
                assert_never(report)

    def _lose(self, process: Process, reason: str) -> None:
        """Take that the process has ended, in the thread that heard it."""
        if process is not self._process:
            return
        self._reason = f"the process that watches machines has ended, and is started again: {reason}"
        for each in self._machines.copy().values():
            each.lose(self._reason)
        self._on_end(self._reason)

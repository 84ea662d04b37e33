"""Starts, replaces and ends those that keep the sandboxes: a worker for each namespace, `machines` for all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import NetnsAddress
from reconciler.watch.account import Held
from reconciler.watch.machines.room import Room
from reconciler.watch.record import record_unstarted
from reconciler.watch.revision import Revision
from reconciler.watch.watched import Watched, look_at_refused
from reconciler.watch.worker import Common, Worker


class Crew:
    """Those that keep the sandboxes of a watcher; they are in `held.workers`. Only the main thread calls it.

    `on_done` is called as by a `Worker`, and `on_end` with the reason when the process of the machines has ended.
    """

    def __init__(
        self, held: Held, common: Common, on_done: Callable[[str, bool], None], on_end: Callable[[str], None]
    ) -> None:
        self._held, self._common, self._on_done = held, common, on_done
        self._room = Room(common, on_done, on_end)
        # Those that were stopped, and may still be at work.
        self._ending: list[Watched] = []

    @property
    def problems(self) -> list[str]:
        """Return what is wrong with the process of the machines. Any thread may ask."""
        return self._room.problems

    @property
    def pid(self) -> int:
        """Return the ID of the process of the machines; 0 if there is none. Any thread may ask."""
        return self._room.pid

    def watch(self, manifest: Manifest, revision: Revision) -> None:
        """Watch a sandbox by a manifest, which is new or has changed. What cannot be started is in `held.unstarted`."""
        name = manifest.sandbox.id
        worker = self._held.workers.get(name)
        if worker and _is_machine(worker.manifest) == _is_machine(manifest):
            worker.assign(manifest, revision)
            return
        if worker:
            self.end(name)
        try:
            self._held.workers[name] = self._start(manifest, revision)
        except (OSError, RuntimeError) as error:
            # This process has no descriptor or thread left, or may have no more processes.
            known = name in self._held.unstarted
            self._held.unstarted[name] = str(error)
            if not known:
                record_unstarted(manifest, str(error), self._common.history)
        else:
            self._held.unstarted.pop(name, None)

    def _start(self, manifest: Manifest, revision: Revision) -> Watched:
        if _is_machine(manifest):
            return self._room.watch(manifest, revision)
        worker = Worker(manifest, revision, self._common, self._on_done)
        worker.start()
        return worker

    def end(self, name: str, *, prune: bool = False) -> None:
        """Stop to watch a sandbox. `prune`: first remove what is owned."""
        worker = self._held.workers.pop(name)
        worker.stop(prune=prune)
        if not worker.join(0):
            self._ending.append(worker)

    def keep_claims(self, manifests: Mapping[str, Manifest]) -> None:
        """Drop the claims of all sandboxes but these. What another sandbox had may be possible now."""
        machines = {name for name, each in manifests.items() if _is_machine(each)}
        self._room.keep_claims(machines)
        if self._common.claims.keep(manifests.keys() - machines):
            look_at_refused(self._held.workers.values())

    def reload(self) -> None:
        """Go by the policy that is in force now, look at all sandboxes, and postpone no repair."""
        self._room.reload()
        for worker in self._held.workers.values():
            worker.reload()

    def tick(self) -> None:
        """Forget those that have ended, and see to the process of the machines."""
        self._ending = [worker for worker in self._ending if not worker.join(0)]
        self._room.tick()

    def stop(self, seconds: float) -> list[str]:
        """Stop all, and wait until their looks have ended; return the sandboxes whose looks have not, in that time."""
        for worker in self._held.workers.values():
            worker.stop()
        deadline = time.monotonic() + seconds
        late = [worker for worker in (*self._held.workers.values(), *self._ending) if not worker.join(0)]
        late = [worker for worker in late if not worker.join(deadline - time.monotonic())]
        self._room.close()
        return [worker.status.sandbox for worker in late]


def _is_machine(manifest: Manifest) -> bool:
    """Return whether what a look reads was written by a guest, or by what stands for one."""
    return not isinstance(manifest.sandbox.driver, NetnsAddress)

"""The watch as a whole: manifests in, workers out. One on a host."""

from __future__ import annotations

import fcntl
import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from reconciler.errors import BusyError, HostError
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import NetnsAddress
from reconciler.safety import ALWAYS, SHARE
from reconciler.watch import log, notify, pause
from reconciler.watch.manifests import ManifestReader, ManifestSet
from reconciler.watch.namespaces import HOST, Followed, Namespaces
from reconciler.watch.report import MetricsServer, StatusSocket, format_metrics
from reconciler.watch.revision import revisions
from reconciler.watch.rollout import Pace, Rollout
from reconciler.watch.state import SandboxStatus
from reconciler.watch.wake import Wake
from reconciler.watch.worker import Settings, Worker
from reconciler.wording import plural

LOCK = "/run/reconciler/watch.lock"
# Seconds between two looks whether namespaces are the ones they were, and pauses as well.
TICK = 1.0
# Why nothing is removed.
TOO_MUCH = f"a PATH is gone, or more than {SHARE} % (and {ALWAYS}) of the manifests at once, or all of them"
# Seconds between two looks which commit is checked out: a commit need not change any manifest.
REVISION = 10.0
# Seconds for what is under way when the watch ends.
STOP_TIMEOUT = 30.0


class Options(NamedTuple):
    """How to watch as a whole. `metrics`: host and port."""

    settings: Settings
    pace: Pace = Pace()
    prune: bool = False
    metrics: tuple[str, int] | None = None


class Watcher:
    """Runs until it is told to end. Everything but the workers is done in the thread that calls `run`."""

    def __init__(self, paths: Sequence[str], options: Options) -> None:
        self._options = options
        self._manifests = ManifestReader(paths)
        self._workers: dict[str, Worker] = {}
        self._leaving: list[Worker] = []
        self._rollout = Rollout(options.pace)
        self._stopped_at: tuple[str, ...] = ()
        self._reading: ManifestSet | None = None
        self._not_pruned: tuple[str, ...] = ()
        self._revisions: dict[str, str] = {}
        self._revisions_at = 0.0
        self._pauses = pause.stamp()
        self._host_changed = False
        self._wake, self._manifests_wake = Wake(), Wake()
        self._ended: deque[tuple[str, bool]] = deque()
        self._stopping = self._reload = False

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. BusyError if another one runs on this host."""
        with ExitStack() as stack:
            stack.callback(os.close, _lock())
            namespaces = Namespaces()
            stack.callback(namespaces.close)
            followed = Followed(namespaces)
            stack.callback(StatusSocket(self.to_data).close)
            if self._options.metrics:
                server = MetricsServer(*self._options.metrics, self._metrics)
                stack.callback(server.close)
                log.emit("metrics", host=self._options.metrics[0], port=server.port)
            self._handle_signals(stack)
            stack.callback(self._stop)
            self._manifests.start(self._manifests_wake.set)
            stack.callback(self._manifests.stop)
            self._loop(namespaces, followed)

    def _handle_signals(self, stack: ExitStack) -> None:
        def end(*_: object) -> None:
            self._stopping = True
            self._wake.set()

        def reload(*_: object) -> None:
            self._reload = True
            self._wake.set()

        for number, handler in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, reload)):
            stack.callback(signal.signal, number, signal.signal(number, handler))

    def _loop(self, namespaces: Namespaces, followed: Followed) -> None:
        period = notify.watchdog_period()
        tick = min(TICK, period or TICK)
        with selectors.DefaultSelector() as selector:
            for source in (self._wake, self._manifests_wake, namespaces):
                selector.register(source, selectors.EVENT_READ)
            ticked = 0.0
            while not self._stopping:
                ready = {key.fileobj for key, _ in selector.select(max(0.0, ticked + tick - time.monotonic()))}
                if self._wake in ready:
                    self._wake.clear()
                    self._serve_wishes()
                if self._manifests_wake in ready:
                    self._manifests_wake.clear()
                    self._read()
                if namespaces in ready:
                    self._hear(followed)
                if time.monotonic() >= ticked + tick:
                    ticked = time.monotonic()
                    self._tick(followed)

    def _serve_wishes(self) -> None:
        """Do what signals and workers ask for."""
        if self._reload:
            self._reload = False
            log.emit("reload")
            notify.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            for worker in self._workers.values():
                worker.reload()
            self._manifests_wake.set()
            notify.send("READY=1")
        while self._ended:
            sandbox, well = self._ended.popleft()
            self._rollout.end(sandbox, well=well)
        self._begin()

    def _told(self, sandbox: str, well: bool) -> None:
        """Take note, in a worker's thread, that it is through with a manifest."""
        self._ended.append((sandbox, well))
        self._wake.set()

    def _read(self) -> None:
        reading = self._manifests.read()
        if reading is None:
            return
        before, self._reading = self._reading, reading
        said = set(before.problems if before else ())
        for problem in reading.problems:
            if problem not in said:
                log.emit("manifest", level=logging.ERROR, problem=str(problem))
        for path in reading.missing:
            if before is None or path not in before.missing:
                log.emit("alarm", level=logging.ERROR, missing=path, consequence="what it said still holds")
        self._look_at_revisions()
        self._take(reading, first=before is None)
        if before is None:
            notify.send("READY=1")
            count = len(reading.manifests)
            log.emit("watching", sandboxes=count, problems=len(reading.problems))
        notify.send(f"STATUS={len(self._workers):,} {plural('sandbox', len(self._workers))}")

    def _look_at_revisions(self) -> None:
        self._revisions_at = time.monotonic()
        manifests = self._reading.manifests.values() if self._reading else ()
        self._revisions = revisions({each.file for each in manifests})

    def _take(self, reading: ManifestSet, *, first: bool) -> None:
        """Give each manifest that is news to a worker: all at once at the start, in turn later."""
        changed = []
        for name, manifest in reading.manifests.items():
            worker = self._workers.get(name)
            if worker is None and first:
                self._start(manifest)
            elif worker is None or worker.manifest.sandbox != manifest.sandbox:
                changed.append(manifest)
            else:
                worker.follow(manifest, self._revisions.get(manifest.file, ""))
                self._rollout.withdraw(name)
        self._rollout.add(changed)
        self._begin()
        self._leave([name for name in self._workers if name not in reading.manifests], reading)
        for name, worker in self._workers.items():
            worker.status.refused = reading.broken.get(name, "")

    def _begin(self) -> None:
        for manifest in self._rollout.begin(len(self._reading.manifests) if self._reading else 0):
            worker = self._workers.get(manifest.sandbox.id)
            if worker is None:
                self._start(manifest)
            else:
                worker.assign(manifest, self._revisions.get(manifest.file, ""))
        stopped, self._stopped_at = self._stopped_at, self._rollout.stopped
        if self._stopped_at and not stopped:
            failed, waiting = ", ".join(self._stopped_at), len(self._rollout.waiting)
            log.emit("alarm", level=logging.ERROR, rollout="stopped", failed=failed, waiting=waiting)

    def _start(self, manifest: Manifest) -> None:
        revision = self._revisions.get(manifest.file, "")
        worker = Worker(manifest, revision, self._options.settings, self._told)
        self._workers[manifest.sandbox.id] = worker
        worker.start()

    def _leave(self, gone: Sequence[str], reading: ManifestSet) -> None:
        """Let go of sandboxes whose manifest is gone; with `prune`, remove what was ours, unless that is too much."""
        prune = self._options.prune and self._options.settings.change
        kept = tuple(gone) if prune and gone and self._is_too_much(len(gone), reading) else ()
        if kept and kept != self._not_pruned:
            log.emit("alarm", level=logging.ERROR, not_pruned=len(kept), of=len(self._workers), reason=TOO_MUCH)
        self._not_pruned = kept
        held = {manifest.sandbox.driver for manifest in reading.manifests.values()}
        for name in gone:
            if name in kept:
                # It stays as it is, and is looked after, until a person has had a look.
                continue
            worker = self._workers.pop(name)
            self._rollout.drop(name)
            # Under another ID it is somebody's still.
            removes = prune and worker.manifest.sandbox.driver not in held
            worker.stop(prune=removes)
            self._leaving.append(worker)
            log.emit("let go", sandbox=name, file=worker.manifest.file, pruned=removes)

    def _is_too_much(self, count: int, reading: ManifestSet) -> bool:
        total = len(self._workers)
        return bool(reading.missing) or count == total > 1 or (count > ALWAYS and count * 100 > SHARE * total)

    def _hear(self, followed: Followed) -> None:
        for name in followed.changed():
            if name is None:
                for worker in self._workers.values():
                    worker.urge()
            elif name == HOST:
                self._host_changed = True
            elif found := self._workers.get(str(name)):
                found.poke()

    def _tick(self, followed: Followed) -> None:
        """See which namespaces have come, gone or been replaced, and which sandboxes may be touched again."""
        notify.send("WATCHDOG=1")
        addresses = {name: worker.manifest.sandbox.driver for name, worker in self._workers.items()}
        files = {name: address.file for name, address in addresses.items() if isinstance(address, NetnsAddress)}
        for name in followed.look(files):
            self._workers[name].urge()
        pauses = pause.stamp()
        if pauses != self._pauses:
            self._pauses = pauses
            for worker in self._workers.values():
                worker.urge()
        if time.monotonic() > self._revisions_at + REVISION:
            self._look_at_revisions()
            for worker in self._workers.values():
                worker.follow(worker.manifest, self._revisions.get(worker.manifest.file, ""))
        if self._host_changed:
            self._host_changed = False
            for worker in self._workers.values():
                worker.supply()
        self._leaving = [worker for worker in self._leaving if not worker.join(0)]

    def _stop(self) -> None:
        """End all workers; what is under way may end."""
        notify.send("STOPPING=1")
        workers = [*self._workers.values(), *self._leaving]
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        late = [worker for worker in workers if not worker.join(deadline - time.monotonic())]
        log.emit("stopped", unfinished=", ".join(worker.status.sandbox for worker in late))

    @property
    def _alarms(self) -> list[str]:
        reading = self._reading
        missing = reading.missing if reading else ()
        alarms = [f"{path} is gone, or gives no manifest; what it said still holds" for path in missing]
        if self._not_pruned:
            alarms.append(f"{len(self._not_pruned):,} manifests are gone at once; nothing of them is removed")
        if self._rollout.stopped:
            failed, waiting = ", ".join(self._rollout.stopped), len(self._rollout.waiting)
            alarms.append(f"the rollout has stopped at failures ({failed}); {waiting:,} more have not been changed")
        if self._manifests.unsettled:
            alarms.append(f"changes of manifests are not read: {self._manifests.unsettled}")
        return alarms

    def _statuses(self) -> list[SandboxStatus]:
        return [worker.status for _, worker in sorted(self._workers.copy().items())]

    def to_data(self) -> dict[str, Any]:
        """Give all that is known, as plain data."""
        reading = self._reading
        return {
            "alarms": self._alarms,
            "problems": [str(problem) for problem in reading.problems] if reading else [],
            "polling": self._manifests.polling,
            "sandboxes": [status.to_data() for status in self._statuses()],
        }

    def _metrics(self) -> str:
        problems = len(self._reading.problems) if self._reading else 0
        return format_metrics(self._statuses(), alarms=len(self._alarms), problems=problems)


def _lock() -> int:
    try:
        os.makedirs(os.path.dirname(LOCK), mode=0o755, exist_ok=True)
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{LOCK}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError("another watcher runs on this host; `reconciler status` asks it") from None
    return lock

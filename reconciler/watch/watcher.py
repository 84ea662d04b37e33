"""Runs the watch: reads the manifests, keeps one worker per sandbox, and forwards changes to the workers.

The main thread sleeps in `_loop` until one of these happens:

- A signal came, or a worker is done with a manifest: `_handle_requests`.
- Manifests or their revisions have changed, which another thread has read: `_take_manifests`. A changed manifest goes
  to its worker when the rollout allows it. A worker whose manifest was deleted is stopped.
- Something changed in a network namespace: `_forward_changes` asks its worker for a look.
- TICK seconds have passed: `_tick` finds namespaces and machines that came, went or were replaced, pauses that began or
  ended, and new revisions.

Only one watcher runs on a host (`lock`).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from reconciler.drivers.claims import Claims
from reconciler.errors import ManifestError
from reconciler.guest import lend
from reconciler.history.lines import WATCHER, line
from reconciler.history.writer import Writer
from reconciler.manifest.load import Manifest
from reconciler.manifest.whereabouts import place_of
from reconciler.values import NamedTuple
from reconciler.watch import clock, health, log, notify
from reconciler.watch.account import IN_FORCE, Account, Held
from reconciler.watch.authority import Authority
from reconciler.watch.crew import Crew
from reconciler.watch.lock import lock_host
from reconciler.watch.look import WATCH
from reconciler.watch.manifests import ManifestReader, ManifestSet
from reconciler.watch.meter import Meter
from reconciler.watch.metrics import OPEN, MetricsServer, Pages
from reconciler.watch.namespaces import HOST, NamespaceSocket
from reconciler.watch.page.address import PageAddress
from reconciler.watch.pause import PauseTracker
from reconciler.watch.presence import Presence
from reconciler.watch.prune import TOO_MANY, are_too_many
from reconciler.watch.reading import Reading
from reconciler.watch.report import StatusSocket
from reconciler.watch.revision import Revision
from reconciler.watch.rollout import Pace, Rollout
from reconciler.watch.settings import Settings
from reconciler.watch.wake import Wake
from reconciler.watch.worker import Common
from reconciler.wording import plural

# Seconds between two checks of namespaces and pauses.
TICK = 1.0
# Seconds for which the end of the watch waits for workers.
STOP_TIMEOUT = 30.0


class Options(NamedTuple):
    """How to watch all sandboxes.

    `metrics`: the host and port to serve metrics on. `page`: where to serve the page. `policy`: the operator's file;
    None: the default one. `push`: whether the agent is pushed into machines, where the policy allows that.
    """

    settings: Settings
    pace: Pace = Pace()
    prune: bool = False
    metrics: tuple[str, int] | None = None
    page: PageAddress | None = None
    policy: str | None = None
    push: bool = False


class Watcher:
    """Watches all sandboxes until a signal ends it. Only the thread that calls `run` changes anything here."""

    def __init__(self, paths: Sequence[str], options: Options) -> None:
        self._options = options
        self._authority = Authority(options.policy, paths, push=options.push)
        self._reader = ManifestReader(paths, policy=self._authority.policy)
        self._held = Held()
        self._history = Writer(log.report_history)
        self._rollout = Rollout(options.pace)
        # The failures for which an alarm was logged.
        self._stopped_at: tuple[str, ...] = ()
        self._pauses, self._host_changed, self._reload = PauseTracker(), False, False
        # How far ahead of its own clock the host's clock was when the main thread was last at work.
        self._ahead = time.time() - time.monotonic()
        self._wake, self._manifests_wake = Wake(), Wake()
        self._reading = Reading(self._reader, self._manifests_wake.set)
        # Sandboxes whose workers are done with a manifest, and whether they succeeded. Other threads append.
        self._done: deque[tuple[str, bool]] = deque()
        self._account = Account(self._held, self._reader, self._reading, self._rollout, self._authority, self._problems)
        self._meter, self._pages = self._make_pages()
        self._crew = Crew(
            self._held,
            Common(options.settings, Claims(), self._authority, self._meter, self._history),
            self._on_done,
            lambda reason: self._tell("alarm", level=logging.ERROR, machines=reason),
        )

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. BusyError if another watcher runs on this host."""
        with ExitStack() as stack:
            stack.callback(os.close, lock_host())
            lend.prune()
            channel = NamespaceSocket()
            stack.callback(channel.close)
            self._presence = Presence(channel, self._authority)
            stack.callback(self._presence.close)
            stack.callback(StatusSocket(self._account.to_data).close)
            if self._options.metrics:
                server = MetricsServer(*self._options.metrics, self._pages)
                stack.callback(server.close)
                level, reason = (logging.WARNING, OPEN) if server.is_public else (logging.INFO, "")
                log.emit("metrics", level=level, host=self._options.metrics[0], port=server.port, reason=reason)
            if self._options.page:
                self._serve_page(self._options.page, stack)
            self._handle_signals(stack)
            stack.callback(self._stop)
            self._reading.start()
            stack.callback(self._reading.stop)
            self._loop(channel)

    def _serve_page(self, address: PageAddress, stack: ExitStack) -> None:
        # Only a watcher with a page pays for the import.
        from reconciler.watch.page import server

        page = server.PageServer(address, self._account)
        stack.callback(page.close)
        level, reason = (logging.WARNING, server.OPEN) if page.is_public else (logging.INFO, "")
        log.emit("page", level=level, address=page.url, reason=reason)

    def _make_pages(self) -> tuple[Meter, Pages]:
        """Return what measures the watch, and what is served. Without `--metrics`, the library is not imported."""
        if self._options.metrics is None:
            return Meter(), {}
        from reconciler.watch.exposition import Metrics

        metrics = Metrics(self._account.snapshot, lambda: self._crew.pid)
        return metrics, {
            "/metrics": metrics.expose,
            "/healthz": lambda _: health.answer(self._account.faults()),
            "/readyz": lambda _: health.answer([*self._account.faults(), *self._account.unready()]),
        }

    def _problems(self) -> list[str]:
        """Return what is wrong with the history, and with the process of the machines."""
        return [*filter(None, [self._history.problem]), *self._crew.problems]

    def _handle_signals(self, stack: ExitStack) -> None:
        def end(*_: object) -> None:
            self._held.stopping = True
            self._reading.interrupt()
            self._wake.set()

        def reload(*_: object) -> None:
            self._reload = True
            self._wake.set()

        for number, handler in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, reload)):
            stack.callback(signal.signal, number, signal.signal(number, handler))

    def _loop(self, channel: NamespaceSocket) -> None:
        tick = min(TICK, notify.watchdog_period() or TICK)
        with selectors.DefaultSelector() as selector:
            for source in (self._wake, self._manifests_wake, channel):
                selector.register(source, selectors.EVENT_READ)
            ticked = 0.0
            while not self._held.stopping:
                ready = {key.fileobj for key, _ in selector.select(max(0.0, ticked + tick - time.monotonic()))}
                if self._wake in ready:
                    self._wake.clear()
                    self._handle_requests()
                if self._manifests_wake in ready:
                    self._manifests_wake.clear()
                    self._take_manifests()
                if channel in ready:
                    self._forward_changes()
                if time.monotonic() >= ticked + tick:
                    ticked = time.monotonic()
                    self._tick()
                self._held.alive_at = clock.now()

    def _handle_requests(self) -> None:
        """Do what SIGHUP asks for, and continue the rollout with the results of workers."""
        if self._reload:
            self._reload = False
            self._tell("reload")
            notify.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._authority.reload()
            self._reader.policy = self._authority.policy
            self._crew.reload()
            self._presence.reload()
            if self._authority.problem:
                self._tell("alarm", level=logging.ERROR, policy=self._authority.problem)
            self._reading.wake()
            notify.send("READY=1")
        while self._done:
            sandbox, succeeded = self._done.popleft()
            done = self._held.workers.get(sandbox)
            self._rollout.end(sandbox, succeeded=succeeded, rolled_back=bool(done and done.rolled_back))
        self._continue_rollout()

    def _on_done(self, sandbox: str, succeeded: bool) -> None:
        """Record that a worker is done with a manifest. The worker's thread calls this."""
        self._done.append((sandbox, succeeded))
        self._wake.set()

    def _take_manifests(self) -> None:
        """Take what was read. If manifests have changed, log what is wrong with them and distribute them to workers."""
        read = self._reading.take()
        if read is None:
            return
        self._held.revisions = read.revisions
        if read.manifests is None:
            self._update_revisions()
            return
        found = read.manifests
        before, self._held.manifests = self._held.manifests, found
        known_problems = set(before.problems if before else ())
        for problem in found.problems:
            if problem not in known_problems:
                self._tell("manifest", level=logging.ERROR, problem=str(problem))
                self._meter.record_error(ManifestError([problem]))
        for path in found.missing:
            if before is None or path not in before.missing:
                self._tell("alarm", level=logging.ERROR, missing=path, consequence=IN_FORCE)
        self._distribute(found, first=before is None)
        self._held.distributed = True
        if before is None:
            notify.send("READY=1")
            self._tell("watching", sandboxes=len(found.manifests), problems=len(found.problems))
        notify.send(f"STATUS={len(self._held.workers):,} {plural('sandbox', len(self._held.workers))}")

    def _update_revisions(self) -> None:
        for name, worker in self._held.workers.items():
            if not self._account.doubt(name) and worker.revision != self._revision_of(worker.manifest):
                worker.set_origin(worker.manifest, self._revision_of(worker.manifest))

    def _revision_of(self, manifest: Manifest) -> Revision:
        return self._held.revisions.get(manifest.sandbox.id, Revision())

    def _distribute(self, found: ManifestSet, *, first: bool) -> None:
        """Bring the workers in line with the manifests: all at once at the start, later as the rollout allows it."""
        # Whatever changes in a namespace after its first look is reported.
        self._track()
        self._refresh_presence()
        self._crew.keep_claims(found.manifests)
        changed = []
        for name, manifest in found.manifests.items():
            worker = self._held.workers.get(name)
            if worker is None and first:
                self._watch(manifest)
            elif worker is None or worker.manifest.sandbox != manifest.sandbox:
                changed.append(manifest)
            else:
                worker.set_origin(manifest, self._revision_of(manifest))
                self._rollout.withdraw(name)
        self._rollout.add(changed)
        self._continue_rollout()
        self._release([name for name in self._held.workers if name not in found.manifests], found)
        self._track()

    def _continue_rollout(self) -> None:
        """Begin with the changed manifests whose turn it is; log an alarm if failures have stopped the rollout."""
        begun = self._rollout.begin(len(self._held.manifests.manifests) if self._held.manifests else 0)
        for manifest in begun:
            self._watch(manifest)
        if begun:
            self._track()
        alarmed, self._stopped_at = self._stopped_at, self._rollout.stopped
        if self._stopped_at and not alarmed:
            failed, waiting = ", ".join(self._stopped_at), len(self._rollout.waiting)
            self._tell("alarm", level=logging.ERROR, rollout="stopped", failed=failed, waiting=waiting)

    def _watch(self, manifest: Manifest) -> None:
        self._crew.watch(manifest, self._revision_of(manifest))

    def _release(self, gone: Sequence[str], found: ManifestSet) -> None:
        """Stop the workers whose manifests were deleted; with `--prune`, let them remove first what is owned.

        With `--prune`, very many deleted manifests may be a mistake: these sandboxes stay watched until a person
        decides.
        """
        prune = self._options.prune and self._options.settings.change
        too_many = found.missing or are_too_many(len(gone), len(self._held.workers))
        spared = tuple(gone) if prune and gone and too_many else ()
        if spared and spared != self._held.not_pruned:
            self._tell(
                "alarm", level=logging.ERROR, not_pruned=len(spared), of=len(self._held.workers), reason=TOO_MANY
            )
        self._held.not_pruned = spared
        in_use = {place_of(manifest.sandbox.driver) for manifest in found.manifests.values()} if gone else set()
        for name in gone:
            if name in spared:
                continue
            manifest = self._held.workers[name].manifest
            self._rollout.drop(name)
            # If another manifest has the same namespace or machine, the sandbox has only got another ID.
            pruned = prune and place_of(manifest.sandbox.driver) not in in_use
            self._crew.end(name, prune=pruned)
            log.emit("released", sandbox=name, file=manifest.file, pruned=pruned)
            reason = "its manifest was deleted"
            self._history.write(name, line(name, "released", by=WATCH, file=manifest.file, reason=reason))

    def _forward_changes(self) -> None:
        """Ask for looks at the sandboxes in whose namespaces something has changed."""
        for name in self._presence.namespaces.read_changes():
            if name == HOST:
                self._host_changed = True
            elif worker := self._held.workers.get(str(name)):
                worker.request_look()

    def _tick(self) -> None:
        """Ask for looks where namespaces, machines, pauses or the host's devices have changed; update the revisions."""
        notify.send("WATCHDOG=1")
        self._refresh_presence()
        # A failure is tried again at the next tick; the command that pauses waits until the state says so.
        with suppress(OSError):
            self._request_full_looks(self._pauses.refresh())
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        if abs(self._ahead - before) > clock.STEP:
            # The host was suspended, or its clock was set: looks are late, and pauses may be over.
            self._request_full_looks(self._held.workers)
        manifests = self._held.manifests.manifests if self._held.manifests else {}
        for name in self._held.unstarted.keys() & manifests.keys():
            self._watch(manifests[name])
        if self._host_changed:
            self._host_changed = False
            for worker in self._held.workers.values():
                worker.retry_if_host_lacked()
        self._crew.tick()
        self._history.retry()

    def _track(self) -> None:
        """Track the namespaces and machines of all manifests in force, and of those that are not yet."""
        in_force = {name: worker.manifest for name, worker in self._held.workers.items()}
        manifests = {**(self._held.manifests.manifests if self._held.manifests else {}), **in_force}
        self._presence.track({name: each.sandbox.driver for name, each in manifests.items()})

    def _refresh_presence(self) -> None:
        """Ask for looks at the sandboxes that came, went or were replaced; listen to all that are there."""
        unheard = set(self._presence.unheard)
        self._request_full_looks(self._presence.refresh())
        self._held.unheard = self._presence.unheard
        self._forward_changes()
        for name in self._presence.unheard.keys() - unheard:
            self._tell("alarm", level=logging.ERROR, unheard=name, reason=self._presence.unheard[name])

    def _request_full_looks(self, names: Iterable[str]) -> None:
        for name in names:
            if worker := self._held.workers.get(name):
                worker.request_full_look()

    def _stop(self) -> None:
        """Stop all workers, and wait until their current looks have ended."""
        notify.send("STOPPING=1")
        late = self._crew.stop(STOP_TIMEOUT)
        self._tell("stopped", unfinished=", ".join(late))

    def _tell(self, event: str, *, level: int = logging.INFO, **fields: object) -> None:
        """Log and record what happens to the watch as a whole."""
        log.emit(event, level=level, **fields)
        self._history.write(WATCHER, line(WATCHER, event, by={**WATCH, "pid": os.getpid()}, **fields))

"""One sandbox that is watched, in a thread of its own: none that is slow, frozen or dead delays another.

It looks when it is told that something has changed, and in any case now and then. What it finds is compared as a whole, so
that no event has to be understood, and none that is lost or is our own does harm.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from reconciler.converge import repair
from reconciler.drivers import Driver, connect
from reconciler.errors import BusyError, HostError, ReconcilerError, RefusedError, SandboxGoneError
from reconciler.guest.lend import Lender, is_back, lend
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import DriverAddress, KataAddress, Sandbox, VmAddress
from reconciler.preview import preview
from reconciler.safety import Allowance
from reconciler.watch import log, pause
from reconciler.watch.agenda import Agenda
from reconciler.watch.fights import Fights
from reconciler.watch.record import LookRecorder
from reconciler.watch.state import SandboxState, SandboxStatus
from reconciler.watch.wake import Wake

if TYPE_CHECKING:
    from reconciler.drivers.vm import VmDriver

# Seconds until the next try where the sandbox is not there or another run has it, and the next look at servers that drain.
SOON, DRAIN = 1.0, 0.5
# Seconds for another run to be done with a sandbox that is to be pruned.
PRUNE_TIMEOUT = 20.0
# What a look took is this share of the time until the next one that nothing but time asks for.
SHARE = 20
# Seconds by which a look may be late before the last one says nothing any more.
SLACK = 10.0


class Settings(NamedTuple):
    """How to watch. `look`, `full_look`: seconds; `change`: whether to change anything; `guard`: whether guests guard."""

    look: float
    full_look: float
    change: bool = True
    guard: bool = True


class Worker:
    """Keeps one sandbox as its manifest says. `told` is called in its thread when a manifest is through: well or not."""

    def __init__(
        self, manifest: Manifest, revision: str, settings: Settings, told: Callable[[str, bool], None]
    ) -> None:
        self._recorder = LookRecorder(manifest, revision)
        self._settings = settings
        self._told = told
        self._wake = Wake()
        self._fights = Fights()
        self._lock = threading.Lock()
        self._agenda = Agenda(settings.full_look)
        # What others may change, under the lock: what is to be, and why that is news.
        self._manifest, self._revision, self._news = manifest, revision, "start"
        # What the look that is under way makes of the sandbox.
        self._begun = manifest.sandbox
        # What it was made last.
        self._held: Sandbox | None = None
        self._stopping = self._prune = self._lacks = False
        # Somebody who waits for the machine.
        self._asker: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=manifest.sandbox.id, daemon=True)

    @property
    def status(self) -> SandboxStatus:
        """What is known of the sandbox."""
        return self._recorder.status

    @property
    def manifest(self) -> Manifest:
        """What the sandbox is to be."""
        return self._manifest

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def assign(self, manifest: Manifest, revision: str) -> None:
        """Keep it as another manifest says from now on."""
        with self._lock:
            self._manifest, self._revision, self._news = manifest, revision, "manifest"
        self.urge()

    def follow(self, manifest: Manifest, revision: str) -> None:
        """Take note of where a manifest that says the same stands now."""
        with self._lock:
            self._manifest, self._revision = manifest, revision
        self._recorder.set_manifest(manifest, revision)

    def poke(self) -> None:
        """Look soon: something has changed in it."""
        self._agenda.poke()
        self._wake.set()

    def urge(self) -> None:
        """Look at everything now: it may be another sandbox, or may be touched again."""
        self._agenda.urge()
        self._wake.set()

    def reload(self) -> None:
        """Look at everything now, and put off nothing: a person asks for it."""
        self._fights = Fights()
        self.urge()

    def supply(self) -> None:
        """Look now if the host lacked something: devices have changed."""
        if self._lacks:
            self.urge()

    def stop(self, *, prune: bool = False) -> None:
        """End; `prune`: remove what is ours first, if that can be done now."""
        self._prune, self._stopping = prune, True
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end; tell whether it came."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            return False
        self._wake.close()
        return True

    def _run(self) -> None:
        while not self._stopping:
            self._begun = self._manifest.sandbox
            try:
                with connect(self._begun.driver, borrow=False) as driver:
                    self._attend(driver, self._begun.driver)
            except ReconcilerError as error:
                self._failed(error)
            except Exception as error:
                # A defect that one sandbox brings to light is not to end the watch of the others.
                logging.getLogger(__name__).exception("defect")
                self._failed(error)
            if self._asker:
                self._lend(self._asker)
            while not self._stopping and (wait := self._agenda.wait()) > 0:
                self._wake.wait(wait)
        if self._prune:
            self._remove()

    def _attend(self, driver: Driver, address: DriverAddress) -> None:
        """Look once at what must not be held; stay with a machine, which tells of changes only to who is connected."""
        if isinstance(address, VmAddress):
            with Lender(address.file, self._wake.fileno()) as lender:
                self._stay(driver, address, lender)  # type: ignore[arg-type]
        else:
            self._look_if_due(driver, address)

    def _stay(self, machine: VmDriver, address: VmAddress, lender: Lender) -> None:
        """Keep a machine until another one is meant, or somebody asks for it."""
        machine.listen()
        guarded: Sandbox | None = None
        while not self._stopping and self._manifest.sandbox.driver == address and not self._asker:
            guarded = self._guard(machine, guarded, before=True)
            if self._look_if_due(machine, address):
                guarded = self._guard(machine, guarded, before=False)
            heard = machine.heard(self._agenda.wait(), lender.fileno())
            self._wake.clear()
            self._asker = lender.asker()
            if heard.guarded:
                self._recorder.record_flush(len(heard.guarded))
            if heard.lost:
                guarded = None
                machine.listen()
                self._agenda.urge()
            elif not self._asker and (heard.messages or heard.guarded):
                self._agenda.poke()
                # What it tells meanwhile would say no more: so a guest that tells without end costs no more than looks.
                self._wake.wait(self._agenda.wait())
        if guarded:
            machine.guard(())

    def _lend(self, asker: socket.socket) -> None:
        """Leave the machine to somebody who asks for it, an `apply` or a `diff`; then look what it is like."""
        begin = time.monotonic()
        # Nobody looks meanwhile.
        self.status.valid_for = min(self.status.valid_for, time.time() - self.status.looked + SLACK)
        with asker:
            lend(asker)
            while not is_back(asker, self._wake.fileno()) and not self._stopping:
                self._wake.clear()
        self._asker = None
        self._agenda.urge()
        log.emit("lent", sandbox=self._begun.id, seconds=time.monotonic() - begin)

    def _guard(self, machine: VmDriver, guarded: Sandbox | None, *, before: bool) -> Sandbox | None:
        """Guard nothing while the table becomes another one, and the first services of it afterwards."""
        desired = self._manifest.sandbox
        if guarded is not None and (guarded != desired or self._is_paused()):
            machine.guard(())
            return None
        services = desired.ipvs.services if desired.ipvs else None
        wanted = self._settings.guard and self._settings.change and not self._is_paused()
        if before or guarded or not services or not wanted:
            return guarded
        machine.guard(services)
        return desired

    def _is_paused(self) -> bool:
        return bool(self._manifest.sandbox.paused or pause.read(self.status.sandbox))

    def _look_if_due(self, driver: Driver, address: DriverAddress) -> bool:
        """Look if it is time, and still this sandbox that is meant; tell whether that was so."""
        with self._lock:
            manifest, revision, news = self._manifest, self._revision, self._news
            if manifest.sandbox.driver != address or (full := self._agenda.take()) is None:
                return False
            self._news, self._begun = "", manifest.sandbox
        begin = time.monotonic()
        self._recorder.set_manifest(manifest, revision)
        if news:
            self._fights.reset()
        try:
            self._look(driver, manifest, news, full=full)
        except BaseException:
            with self._lock:
                # At the next try it is still what this manifest brings.
                self._news = self._news or news
            raise
        took = time.monotonic() - begin
        self._lacks = False
        if self.status.state is SandboxState.PAUSED:
            with self._lock:
                # It is still to take effect.
                self._news = self._news or news
        self.status.looked = time.time()
        self.status.valid_for = self._agenda.settle(self._next(manifest, took), took=took, full=full) + 2 * took + SLACK
        if news:
            self._told(self.status.sandbox, True)
        return True

    def _next(self, manifest: Manifest, took: float) -> float:
        """Give the seconds until the next look that nothing but time asks for."""
        waits = [self._settings.full_look]
        if self.status.state is SandboxState.DRAINING:
            waits.append(max(DRAIN, SHARE * took))
        elif _is_silent(manifest.sandbox) and self.status.state is not SandboxState.PAUSED:
            waits.append(max(self._settings.look, SHARE * took))
        if (held := self._fights.next_due()) is not None:
            waits.append(held)
        if (paused := pause.read(self.status.sandbox)) is not None:
            waits.append(paused.until - time.time())
        return max(0.0, min(waits))

    def _look(self, driver: Driver, manifest: Manifest, news: str, *, full: bool) -> None:
        paused = pause.read(self.status.sandbox)
        if manifest.sandbox.paused or paused:
            self._recorder.record_pause(manifest, paused)
        elif self._settings.change:
            self._keep(driver, manifest, news, quick=not full)
        else:
            self._recorder.record_comparison(preview(driver, manifest.sandbox, quick=not full))

    def _keep(self, driver: Driver, manifest: Manifest, news: str, *, quick: bool) -> None:
        try:
            result = repair(driver, manifest.sandbox, quick=quick, holds=self._fights.holds)
        except RefusedError:
            if self._held and self._held.driver == manifest.sandbox.driver:
                # What held before goes on.
                self._fights.note(repair(driver, self._held, quick=quick, holds=self._fights.holds).operations)
            raise
        self._held = manifest.sandbox
        if not news:
            self._fights.note(result.operations)
        self._recorder.record_repair(result, news, self._fights.named())

    def _failed(self, error: Exception) -> None:
        gone, busy = isinstance(error, SandboxGoneError), isinstance(error, BusyError)
        # Whether a namespace has come is looked at for all of them at once.
        soon = busy or (gone and isinstance(self._manifest.sandbox.driver, VmAddress))
        # Nothing was done then: a device that is given and comes back must not make itself tried again.
        self._lacks = isinstance(error, HostError)
        self._recorder.record_failure(self._manifest, error, self._agenda.fail(SOON if soon else None))
        # Where another run is at it, or there is another manifest by now, nothing is known of this one.
        if not busy and self._begun == self._manifest.sandbox:
            # A sandbox that is not there gets what its manifest says when it comes.
            self._told(self.status.sandbox, gone)

    def _remove(self) -> None:
        """Remove what is ours from the sandbox: its manifest is gone, and that is to count."""
        old = self._manifest.sandbox
        empty = replace(
            old,
            interfaces=None if old.interfaces is None else (),
            routes=None if old.routes is None else (),
            ipvs=None
            if old.ipvs is None
            else replace(old.ipvs, services=() if old.ipvs.services is not None else None),
        )
        if self._is_paused():
            log.emit("not pruned", level=logging.WARNING, sandbox=old.id, reason="it is paused")
            return
        deadline = time.monotonic() + PRUNE_TIMEOUT
        while True:
            try:
                with connect(old.driver, borrow=False) as driver:
                    result = repair(driver, empty, quick=False, allowance=Allowance())
                log.emit("pruned", sandbox=old.id, operations=len(result.operations), file=self._manifest.file)
            except SandboxGoneError:
                log.emit("pruned", sandbox=old.id, operations=0, reason="the sandbox is gone as well")
            except ReconcilerError as error:
                if error.retry and time.monotonic() < deadline:
                    self._wake.wait(SOON)
                    continue
                log.emit("not pruned", level=logging.ERROR, sandbox=old.id, reason=str(error))
            return


def _is_silent(sandbox: Sandbox) -> bool:
    """Tell whether something can change in a sandbox without a word."""
    return sandbox.ipvs is not None or isinstance(sandbox.driver, KataAddress)


with suppress(ValueError):
    # Hundreds of threads that mostly wait.
    threading.stack_size(512 << 10)

"""Keeps one sandbox as its manifest describes it, in threads of its own: a slow or dead sandbox delays no other.

A look is due when the agenda says so: because an event showed that something may have changed, because the watcher
asked for a look, or because enough time has passed. There is a thread from then until none is due any more (`shift`). A
look observes the sandbox, compares it with the whole manifest, and repairs what differs. So no event has to be
understood, and one that is lost, or that our own repair caused, does no harm. A look begins before anything is opened,
and it ends with the time of the next one: so no failure, however early, is tried again at once.

A namespace is opened for each look and closed after it, because an open namespace stays alive after its deletion. A
machine stays connected between looks, because its agent reports changes over that connection only. Other commands that
need the machine ask for it, and the worker lends it to them.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from reconciler import pending
from reconciler.drivers import Driver, attend, connect
from reconciler.drivers.claims import Claims
from reconciler.errors import BusyError, HostError, ReconcilerError, SandboxGoneError
from reconciler.guest.lend import Lender, is_back, lend
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
from reconciler.manifest.allow import check
from reconciler.manifest.digest import digest
from reconciler.manifest.load import Manifest
from reconciler.model.ipvs import GUARD_NFT, GUARD_SERVICES
from reconciler.model.sandbox import DriverAddress, MachineAddress, NetnsAddress, Sandbox
from reconciler.netlink.turn import Turn, Turns
from reconciler.values import NamedTuple
from reconciler.watch import clock, log, pause
from reconciler.watch.agenda import GAP, Agenda
from reconciler.watch.authority import InForce
from reconciler.watch.look import Look
from reconciler.watch.meter import Meter
from reconciler.watch.probation import Confirm, Probation
from reconciler.watch.prune import prune
from reconciler.watch.record import LookRecorder
from reconciler.watch.repairs import Repairs
from reconciler.watch.revision import Revision
from reconciler.watch.settings import Settings
from reconciler.watch.share import WorkShare, objects_of
from reconciler.watch.shift import Shift
from reconciler.watch.state import GOOD, SandboxState, SandboxStatus
from reconciler.watch.wake import Wake, await_readable

if TYPE_CHECKING:
    from reconciler.drivers.vm.driver import VmDriver
    from reconciler.model.ipvs import Ipvs

# Seconds to the next try if another run uses the sandbox; to the next look while servers drain.
SOON, DRAIN = 1.0, 0.5
# Wait at least REST times as long as the last look took before the next periodic one.
REST = 20
# Seconds by which a look may be late before the state of the last one counts as stale.
SLACK = 10.0
# One look computes while the kernel works for another one.
_TURNS = Turns(2)


class Common(NamedTuple):
    """What all workers of a process share.

    `claims`: which of their sandboxes have which namespaces. `authority`: what the operator allows at present. `meter`
    measures the looks, and `history` gets what happens.
    """

    settings: Settings
    claims: Claims
    authority: InForce
    meter: Meter
    history: Writer


class Worker:
    """Watches one sandbox.

    The worker's thread calls `on_done`, with the sandbox's ID and whether it succeeded, each time that a manifest has
    taken effect or failed to; `on_change` each time that the status is another one; and `on_end` as the last thing.
    Other threads may call all public methods.
    """

    def __init__(
        self,
        manifest: Manifest,
        revision: Revision,
        common: Common,
        on_done: Callable[[str, bool], None],
        on_change: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        settings, self._claims, self._authority, self._meter, history = common
        self._history = history
        self._scribe = Scribe(history, manifest.sandbox.id, str(manifest.sandbox.driver))
        self._recorder = LookRecorder(manifest, revision, self._scribe)
        self._settings = settings
        confirm = settings.confirm if settings.change else Confirm.NONE
        self._probation = Probation(manifest.sandbox.id, history, confirm, settings.bake)
        self._on_done, self._on_change = on_done, on_change
        self._wake = Wake()
        # A look at anything else than a namespace mostly waits for answers.
        is_namespace = isinstance(manifest.sandbox.driver, NetnsAddress)
        self._turn = Turn(_TURNS, self._wake) if is_namespace else None
        change = settings.change
        self._repairs = Repairs(self._recorder, self._scribe, self._meter, self._probation, change=change)
        self._agenda = Agenda(settings.full_look)
        # The lock protects the next two lines: the manifest, and why it is new: "start", "manifest", or "" once it has
        # taken effect; the manifest whose digest was asked for last, and that digest.
        self._lock = threading.Lock()
        self._manifest, self._revision, self._cause = manifest, revision, "start"
        self._digested: tuple[Manifest | None, str] = (None, "")
        # What the current look goes by.
        self._current = Look(manifest, revision, self._cause, full=True, policy=self._authority.policy)
        # When the current look began; None after its end, while a machine stays connected.
        self._begun: float | None = None
        self._stopping = self._prune = False
        # Whether a change has passed its checks, and the watcher waits whether it passes them once more.
        self._is_baking = False
        # The connection of a command that waits for the machine.
        self._borrower: socket.socket | None = None
        self._share = WorkShare()
        # What was reported of attempts to reach the machine, which has not been reached since.
        self._reported: set[str] = set()
        self._shift = Shift(manifest.sandbox.id, self._seconds_to_work, self._work, self._hinder, on_end)

    @property
    def status(self) -> SandboxStatus:
        """Return what is known of the sandbox."""
        return self._recorder.status

    @property
    def manifest(self) -> Manifest:
        """Return the manifest that the worker applies."""
        return self._manifest

    @property
    def revision(self) -> Revision:
        """Return the revision of that manifest."""
        return self._revision

    @property
    def is_applying(self) -> bool:
        """Return whether the manifest has not taken effect yet, or not for long enough."""
        return bool(self._cause) or self._probation.baked_in is not None

    @property
    def rolled_back(self) -> str:
        """Return why the manifest was undone and is held until it is edited; empty if it is not."""
        return self._probation.held.reason if self._probation.held else ""

    @property
    def is_alive(self) -> bool:
        """Return whether the watch of the sandbox has begun, and has not ended."""
        return self._shift.is_alive

    def start(self) -> None:
        """Begin with a full look. RuntimeError if this process may have no more threads."""
        try:
            self._shift.begin()
        except RuntimeError:
            self._wake.close()
            raise

    def assign(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the sandbox differently, and apply it now."""
        with self._lock:
            self._manifest, self._revision, self._cause = manifest, revision, "manifest"
        self.request_full_look()

    def set_origin(self, manifest: Manifest, revision: Revision) -> None:
        """Replace the manifest by one that describes the same, from another file or revision."""
        with self._lock:
            # A sandbox that is like a manifest is like each other one that describes the same.
            before, now = digest(self._manifest), digest(manifest)
            if self.status.digest == before:
                self.status.digest = now
            if self.status.tried == before:
                self.status.tried = now
            self._manifest, self._revision = manifest, revision
        self._recorder.set_manifest(manifest, revision)

    def request_look(self, *, full: bool = False) -> None:
        """Ask for a look soon: something has changed in the sandbox. `full`: or anything may have, unnoticed."""
        self._agenda.request_look(full=full)
        if self._turn and self._repairs.found_nothing:
            # Our own repairs cause events as well, and so does each round of a fight: those are not urgent.
            self._turn.hurry()
        self._rouse()

    def request_full_look(self) -> None:
        """Ask for a full look now: the sandbox was replaced, or a pause has begun or ended."""
        self._agenda.request_full_look()
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        self._shift.rouse()

    def reload(self) -> None:
        """Ask for a full look now, and postpone no repair: a person asks for it."""
        self._repairs.postpone_nothing()
        self.request_full_look()

    def retry_if_host_lacked(self) -> None:
        """Ask for a full look now if the host lacked something: its devices have changed."""
        if self._repairs.host_lacks:
            self.request_full_look()

    def stop(self, *, prune: bool = False) -> None:
        """Begin no other look. `prune`: first remove what is owned from the sandbox, if possible.

        This costs nothing, so thousands of workers can be stopped before the first one is waited for.
        """
        self._prune, self._stopping = prune, True

    def join(self, seconds: float) -> bool:
        """Wake a worker that was stopped, and wait for its end; return whether that has come in time."""
        if self._shift.is_alive:
            self._wake.set()
            if not self._shift.join(seconds):
                return False
        self._wake.close()
        return True

    def _seconds_to_work(self) -> float:
        return 0.0 if self._stopping else self._agenda.seconds_to_next()

    def _work(self) -> bool:
        """Look at the sandbox if a look is due; return whether others can follow."""
        self._share.begin()
        with self._turn or nullcontext():
            if not self._stopping:
                self._try_look()
        if self._borrower:
            self._lend(self._borrower)
        # What came after a look counts as well.
        self._share.rest()
        if not self._stopping:
            return True
        if self._prune:
            prune(self._manifest, self._authority.policy, self._claims, self._history)
        return False

    def _hinder(self, error: RuntimeError) -> None:
        """Record that a look cannot even begin; see `Shift`."""
        self._agenda.begin_look()
        self._end_failed_look(HostError(str(error)))

    def _try_look(self) -> None:
        try:
            if look := self._begin_look():
                self._attempt(look)
        except (ReconcilerError, OSError) as error:
            self._end_failed_look(error)
        except Exception as error:
            # A defect that shows in one sandbox must not end the watch of the others.
            logging.getLogger(__name__).exception("defect")
            self._end_failed_look(error)

    def _begin_look(self, address: DriverAddress | None = None) -> Look | None:
        """Return what a look goes by; None if none is due, or if the manifest does not name this address any more."""
        with self._lock:
            if address not in (None, self._manifest.sandbox.driver) or (full := self._agenda.begin_look()) is None:
                return None
            self._begun = time.monotonic()
            self._current = Look(self._manifest, self._revision, self._cause, full, self._authority.policy)
        name = self.status.sandbox
        self._current = self._current._replace(pause=pause.read(name), waiting=pending.read(name))
        return self._current

    def _attempt(self, look: Look) -> None:
        """Watch a machine for as long as possible; look once at any other sandbox, which must not stay open."""
        address = look.manifest.sandbox.driver
        if isinstance(address, MachineAddress):
            self._attend(address, look)
        elif look.is_paused:
            self._end_paused_look(look)
        else:
            with connect(look.place, look.policy) as driver:
                self._look(driver, look)

    def _attend(self, address: MachineAddress, look: Look) -> None:
        """Connect to a machine and watch it. A paused one has to be reached as well: its guard may still run."""
        try:
            with (
                attend(look.place, look.policy, report=self._report) as machine,
                Lender(machine.port, self._wake.fileno()) as lender,
            ):
                self._watch_machine(machine, address, lender, look)
        except SandboxGoneError:
            if not look.is_paused or self._current is not look:
                raise
            # A machine that does not run has no guard.
            self._end_paused_look(look)

    def _report(self, words: str) -> None:
        """Log and record what is changed in a machine merely to reach it, once until it is reached."""
        if words in self._reported:
            return
        self._reported.add(words)
        log.emit("pushed", level=logging.WARNING, sandbox=self.status.sandbox, reason=words)
        self._scribe.tell("pushed", reason=words)

    def _watch_machine(self, machine: VmDriver, address: MachineAddress, lender: Lender, look: Look | None) -> None:
        """Look at a machine again and again, until the manifest names another one or a command asks for the machine."""
        self._reported.clear()
        # This begins with a greeting, which ends a guard of whoever was connected before.
        machine.listen()
        guarded: Sandbox | None = None
        while True:
            if look:
                # The guard must not restore a service that this look deletes, and nothing once it is called paused:
                # before that it is ended, whatever is known of it.
                if look.is_paused or (guarded and guarded != look.manifest.sandbox):
                    machine.guard(())
                    guarded = None
                self._look(machine, look)
                guarded = guarded or self._guard(machine, look)
            notices = machine.heard(self._agenda.seconds_to_next(), lender.fileno())
            if notices.guarded:
                self._recorder.record_flush(len(notices.guarded))
                self._on_change()
            if notices.lost:
                # The guard has ended, or only notifications were lost and it still runs.
                machine.guard(())
                guarded = None
                machine.listen()
            rest = min(self._agenda.seconds_to_next(), max(GAP, self._share.rest()))
            if notices.lost or notices.messages or notices.guarded:
                self._agenda.request_look(full=notices.lost)
                rest = self._agenda.seconds_to_next()
            # Read nothing more until then: so a guest that sends without end takes no more than its share.
            await_readable(lender.fileno(), rest)
            self._wake.clear()
            self._borrower = lender.asker()
            if self._stopping or self._borrower or self._manifest.sandbox.driver != address:
                break
            look = self._begin_look(address)
        if guarded:
            machine.guard(())

    def _lend(self, borrower: socket.socket) -> None:
        """Lend the machine to a command such as `apply` or `diff`. When it is back, a full look is due."""
        begin = time.monotonic()
        self.status.lent = clock.now()
        # There is no look meanwhile, so the state becomes stale after SLACK seconds.
        self.status.valid_until = min(self.status.valid_until, clock.now() + SLACK)
        self._on_change()
        with borrower:
            lend(borrower)
            while not is_back(borrower, self._wake.fileno()) and not self._stopping:
                self._wake.clear()
        self._borrower = None
        self.status.lent = 0.0
        self._on_change()
        self._agenda.request_full_look()
        log.emit("lent", sandbox=self.status.sandbox, seconds=time.monotonic() - begin)

    def _guard(self, machine: VmDriver, look: Look) -> Sandbox | None:
        """Let the agent of a machine restore services that are flushed. Return the sandbox that it now guards, if any.

        That begins after a look only, as the guard restores what the manifest says.
        """
        desired = look.manifest.sandbox
        if not self._settings.guard or not self._settings.change or look.is_paused:
            return None
        if desired.ipvs is None or not desired.ipvs.services:
            return None
        machine.guard(desired.ipvs.services)
        self._shield(machine, desired.ipvs)
        return desired

    def _shield(self, machine: VmDriver, desired: Ipvs) -> None:
        """Protect the services from the machine's own TCP, by a table of nftables, or record why that is not possible.

        The table ends with the connection to the agent. So it is made anew with each guard.
        """
        if desired.guard == GUARD_SERVICES or not desired.services:
            return
        try:
            self._recorder.record_shield(machine.shield(desired.services))
        except HostError as error:
            self._recorder.record_shield(0, str(error), wanted=desired.guard == GUARD_NFT)

    def _look(self, driver: Driver, look: Look) -> None:
        """Look at the sandbox, and repair it unless it is paused."""
        if look.is_paused:
            self._end_paused_look(look, driver)
            return
        begin = time.monotonic()
        self._recorder.begin_look()
        self._recorder.set_manifest(look.manifest, look.revision)
        # A machine that is attended may have been opened under an earlier policy.
        check(look.place, look.policy)
        if look.cause:
            self._repairs.begin_manifest()
            self._recorder.begin_manifest(look.manifest)
        self._claims.claim(look.manifest.sandbox, driver)
        succeeded = self._repairs.compare(driver, look)
        self._end_look(look, time.monotonic() - begin, succeeded=succeeded)
        with self._lock:
            if self._manifest.sandbox == look.manifest.sandbox:
                # It has taken effect. Until then it stays new, whatever a look ends with. Nobody calls it good before,
                # and from now on its last look is known.
                self._cause = ""
            if self.status.state in GOOD:
                self.status.digest = self._digest_of(look)
        self._end_try(look)
        self._tell_done(look, succeeded=succeeded)

    def _end_try(self, look: Look) -> None:
        """Record that the state is what this manifest has led to. Whoever reads the state has read this before."""
        with self._lock:
            self.status.tried = self._digest_of(look)

    def _digest_of(self, look: Look) -> str:
        """Return the digest of the manifest of a look: of its present form, if that describes the same."""
        found = self._manifest if self._manifest.sandbox == look.manifest.sandbox else look.manifest
        if self._digested[0] is not found:
            # The text of a large table has a megabyte, and most looks are at the same one.
            self._digested = found, digest(found)
        return self._digested[1]

    def _end_paused_look(self, look: Look, driver: Driver | None = None) -> None:
        """Record that the sandbox is left alone, unless a change has to be undone that was not confirmed in time.

        `driver`: the open sandbox, if it is open.
        """
        if look.waiting and look.waiting.is_due and self._settings.change:
            # Most looks find no such change.
            from reconciler.confirm.revert import finish

            if finish(look.waiting.sandbox, self._history, driver):
                self._agenda.request_full_look()
        self._recorder.set_manifest(look.manifest, look.revision)
        self._recorder.record_pause(look.manifest, look.pause, look.waiting)
        self._end_try(look)
        # Nothing was looked at.
        self._begun = None
        self._end_look(look, 0.0, succeeded=True)
        self._tell_done(look, succeeded=True)

    def _end_look(self, look: Look, took: float, *, succeeded: bool) -> None:
        """Record that a look has ended, and when the next one is due. `succeeded`: no operation failed."""
        if look.cause:
            self._share.fill(objects_of(look.manifest.sandbox))
        rest = max(took, self._share.rest())
        wait = self._agenda.end_look(self._seconds_to_periodic_look(look, took), took=rest, full=look.full)
        self.status.looked, self.status.took = clock.now(), took
        if look.full:
            self.status.full_looked = self.status.looked
        self.status.valid_until = self.status.looked + wait + 2 * took + SLACK
        self._measure(look, succeeded=succeeded)

    def _tell_done(self, look: Look, *, succeeded: bool) -> None:
        """Tell the watcher that the manifest of a look has taken effect, or failed to, if it was new.

        While a change has to pass its checks once more, it has not taken effect yet.
        """
        self._on_change()
        if look.cause or self._is_baking:
            self._is_baking = self._probation.baked_in is not None
            if not self._is_baking and not self._stopping:
                self._on_done(self.status.sandbox, succeeded)

    def _measure(self, look: Look, *, succeeded: bool) -> None:
        """Measure how long a look took, unless none was under way."""
        begun, self._begun = self._begun, None
        if begun is not None:
            self._meter.record_look(look, time.monotonic() - begun, succeeded=succeeded)

    def _seconds_to_periodic_look(self, look: Look, took: float) -> float:
        """Return the seconds until the next look that no event causes."""
        waits = [self._settings.full_look]
        # A repair takes longer than a look, and says nothing about the next one.
        rest = 0.0 if self._repairs.changed else REST * took
        if self.status.state is SandboxState.DRAINING:
            waits.append(max(DRAIN, rest))
        elif look.may_change_silently and not look.is_paused:
            waits.append(max(self._settings.look, rest))
        waits += [*self._repairs.next_due(), *look.next_due()]
        if (baked := self._probation.baked_in) is not None:
            waits.append(baked)
        return max(0.0, min(waits))

    def _end_failed_look(self, error: Exception) -> None:
        """Record that a look failed, and when to try again."""
        look = self._current
        gone, busy = isinstance(error, SandboxGoneError), isinstance(error, BusyError)
        wait = SOON if busy else None
        if gone and isinstance(look.manifest.sandbox.driver, NetnsAddress):
            # The watcher notices within a second that the namespace exists, and asks for a look then.
            wait = self._settings.full_look
        self._repairs.record_failure(error)
        self._is_baking = self._probation.baked_in is not None
        least = self._share.rest()
        self._measure(look, succeeded=False)
        self._meter.record_error(error)
        self._recorder.set_manifest(look.manifest, look.revision)
        self._recorder.record_failure(look.manifest, error, self._agenda.end_failed_look(wait, least=least))
        self._end_try(look)
        self._on_change()
        # If another run uses the sandbox, or the manifest has changed meanwhile, this says nothing about the manifest.
        if not busy and not self._stopping and look.manifest.sandbox == self._manifest.sandbox:
            # A rollout does not count a missing sandbox as a failure: the manifest is applied when the sandbox appears.
            self._on_done(self.status.sandbox, gone)

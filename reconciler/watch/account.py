"""What the watcher knows, for those who ask: `status`, the page, metrics and probes. Any thread may ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.values import dataclass, field
from reconciler.watch import clock, health
from reconciler.watch.authority import Authority
from reconciler.watch.manifests import PATIENCE, ManifestReader, ManifestSet
from reconciler.watch.reading import Reading
from reconciler.watch.revision import Revision
from reconciler.watch.rollout import Rollout
from reconciler.watch.state import GOOD, Doubt, SandboxState, SandboxStatus, Standing
from reconciler.watch.watched import Watched
from reconciler.wording import plural, select

if TYPE_CHECKING:
    from reconciler.watch.exposition import Snapshot

# Seconds without a sign of life of the main thread, after which nobody knows whether manifests have changed.
LATE = 10.0
# What happens with manifests whose PATH is missing.
IN_FORCE = "the manifests read from it before stay in force"


@dataclass(slots=True)
class Held:
    """What the main thread of the watcher holds. Only that thread writes; others read a field at a time.

    `not_pruned`: sandboxes that stay watched although their manifests were deleted, because these are too many.
    `unstarted`: sandboxes whose workers could not be started, and why. `unheard`: those whose changes are not
    noticed, and why. `alive_at`: when the main thread was last at work. `distributed`: whether all manifests have been
    read and distributed.
    """

    workers: dict[str, Watched] = field(default_factory=dict)
    manifests: ManifestSet | None = None
    revisions: Mapping[str, Revision] = field(default_factory=dict)
    not_pruned: tuple[str, ...] = ()
    unstarted: dict[str, str] = field(default_factory=dict)
    unheard: Mapping[str, str] = field(default_factory=dict)
    alive_at: float = field(default_factory=clock.now)
    distributed: bool = False
    stopping: bool = False


class Account:
    """Says what is known, and what is doubtful about it."""

    def __init__(
        self,
        held: Held,
        reader: ManifestReader,
        reading: Reading,
        rollout: Rollout,
        authority: Authority,
        problems: Callable[[], Sequence[str]],
    ) -> None:
        """Tell of these. `problems`: what is wrong besides."""
        self._held, self._reader, self._reading = held, reader, reading
        self._rollout, self._authority, self._problems = rollout, authority, problems
        # Whether each sandbox has been looked at since the start.
        self._ready = False

    def snapshot(self) -> Snapshot:
        """Return what the metrics show."""
        # Only a watcher with metrics pays for the import.
        from reconciler.watch.exposition import Snapshot

        problems = self._held.manifests.problems if self._held.manifests else ()
        return Snapshot(self.standings(), len(self.alarms), len(problems))

    @property
    def alarms(self) -> list[str]:
        """Return what is wrong with the watch as a whole."""
        if self._held.manifests is None:
            return ["the manifests have not been read yet"]
        alarms = [f"{path} does not exist or contains no manifest; {IN_FORCE}" for path in self._held.manifests.missing]
        if count := len(self._held.not_pruned):
            alarms.append(
                f"{count:,} {plural('manifest', count)} disappeared at once, so --prune removed nothing; restore them, "
                "or restart the watcher to release their sandboxes"
            )
        if self._rollout.stopped:
            failed, waiting = ", ".join(self._rollout.stopped), len(self._rollout.waiting)
            alarms.append(
                f"the rollout stopped because {failed} failed; {waiting:,} changed {plural('manifest', waiting)} still "
                "to apply; it continues when any manifest changes"
            )
        rolled_back = {name: worker.rolled_back for name, worker in self._held.workers.copy().items()}
        alarms += [f"{name}: {reason}" for name, reason in sorted(rolled_back.items()) if reason]
        if self._authority.problem:
            alarms.append(self._authority.problem)
        if self._reader.unsettled:
            alarms.append(f"changed manifests are not read: {self._reader.unsettled}")
        return [*alarms, *self._problems()]

    def standings(self, named: Sequence[str] = ()) -> list[Standing]:
        """Return what is known of each sandbox, or of those with these patterns of IDs. Any thread may call this."""
        found = {name: worker.status for name, worker in self._held.workers.copy().items()}
        for name, manifest in (self._held.manifests.manifests if self._held.manifests else {}).items():
            if name not in found:
                state = SandboxState.FAILED if name in self._held.unstarted else SandboxState.PENDING
                found[name] = SandboxStatus(name, str(manifest.sandbox.driver), manifest.file, state=state)
        asked = sorted(found.items()) if not named else ((each, found[each]) for each in select(named, sorted(found)))
        return [Standing(status, self.doubt(name)) for name, status in asked]

    def doubt(self, name: str) -> Doubt | None:
        """Return why a sandbox need not be as its folder says, whatever its looks find. Any thread may call this."""
        worker, held = self._held.workers.get(name), self._held.manifests
        manifest = held.manifests.get(name) if held else None
        if (silent := clock.now() - self._held.alive_at) > LATE:
            return Doubt(SandboxState.OUTDATED, f"the manifests were last checked {silent:.0f} s ago")
        if (busy := self._reading.busy) > PATIENCE:
            return Doubt(SandboxState.OUTDATED, f"the manifests have been being read for {busy:.0f} s")
        if held and name in held.broken:
            return Doubt(SandboxState.OUTDATED, f"manifest not used: {held.broken[name]}")
        if manifest and (reason := self._reader.why_unread(manifest)):
            return Doubt(SandboxState.OUTDATED, f"the manifest has changed and was not read yet: {reason}")
        # After that question: what has been read meanwhile may not have been distributed yet.
        read = self._reader.latest
        if read and name in read.broken:
            return Doubt(SandboxState.OUTDATED, f"manifest not used: {read.broken[name]}")
        if name in self._held.unstarted:
            return Doubt(SandboxState.FAILED, f"cannot be watched: {self._held.unstarted[name]}")
        if self._rollout.is_waiting(name):
            failed = ", ".join(self._rollout.stopped)
            why = f"the rollout stopped because {failed} failed" if failed else "others come first (--at-once)"
            return Doubt(SandboxState.PENDING, f"the changed manifest is not applied yet: {why}")
        if worker and worker.is_applying and worker.status.state in GOOD:
            return Doubt(SandboxState.PENDING, "the changed manifest is being applied")
        newest = read.manifests.get(name) if read else None
        if read and (manifest is None or newest is None):
            return Doubt(SandboxState.OUTDATED, "the manifest was deleted")
        if worker and newest and newest is not worker.manifest and newest.sandbox != worker.manifest.sandbox:
            return Doubt(SandboxState.PENDING, "the changed manifest was read just now, and is not applied yet")
        if reason := self._held.unheard.get(name, ""):
            return Doubt(SandboxState.FAILED, f"changes are not noticed: {reason}")
        return None

    def to_data(self, named: Sequence[str] = ()) -> dict[str, Any]:
        """Return all that the watcher knows, as `reconciler status -o json` prints it.

        `named`: patterns of IDs; if there are any, only these sandboxes are returned, with the connections of IPVS.
        """
        # First of all, so that nothing is good beside an alarm or a problem that has ended meanwhile.
        sandboxes = [
            each.to_data() | (self._traffic_data(each.status) if named else {}) for each in self.standings(named)
        ]
        manifests = self._held.manifests
        return {
            "alarms": self.alarms,
            "problems": [str(problem) for problem in manifests.problems] if manifests else [],
            "polling": self._reader.polling,
            "pid": os.getpid(),
            "policy": {"file": self._authority.file, "read": round(self._authority.read, 3)},
            "sandboxes": sandboxes,
        }

    def pulse(self) -> Hashable:
        """Return what is another value after each look and each change of manifests. Any thread may call this."""
        looks = [worker.status for worker in self._held.workers.copy().values()]
        found = tuple((each.looked, each.state, each.detail, each.revision) for each in looks)
        others = (tuple(self.alarms), len(self._rollout.waiting), tuple(self._held.unheard))
        return (id(self._held.manifests), id(self._held.revisions), found, others)

    def detail(self, name: str) -> dict[str, Any] | None:
        """Return what the page shows of one sandbox, as `page.detail` makes it; None if it is not watched."""
        from reconciler.watch.page import detail

        return next((detail.of(each) for each in self.standings() if each.status.sandbox == name), None)

    def _traffic_data(self, status: SandboxStatus) -> dict[str, Any]:
        worker = self._held.workers.get(status.sandbox)
        ipvs = worker.manifest.sandbox.ipvs if worker else None
        return {"ipvs": status.traffic.to_data(ipvs.services or ()) if ipvs else None}

    def faults(self) -> list[str]:
        """Return which threads do not work, and since when. Any thread may call this."""
        found = []
        if (silent := clock.now() - self._held.alive_at) > LATE:
            found.append(f"the main thread was last at work {silent:.0f} s ago")
        if (busy := self._reading.busy) > PATIENCE:
            found.append(f"the manifests have been being read for {busy:.0f} s")
        ended = [name for name, worker in self._held.workers.copy().items() if not worker.is_alive]
        if ended and not self._held.stopping:
            found.append(f"the threads of these sandboxes have ended: {health.listed(ended)}")
        return found

    def unready(self) -> list[str]:
        """Return what has to happen before the watcher is ready for the first time. Any thread may call this."""
        if not self._held.distributed:
            return ["the manifests have not been read yet"]
        new = [each.status.sandbox for each in self.standings() if each.state is SandboxState.NEW]
        self._ready = self._ready or not new
        return [] if self._ready else [f"these sandboxes have not been looked at yet: {health.listed(new)}"]

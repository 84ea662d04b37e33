"""What became of looks at a sandbox, in its status and in the log."""

from __future__ import annotations

import logging
import time

from reconciler.converge import Result
from reconciler.errors import ApplyError, BusyError, RefusedError, SandboxGoneError
from reconciler.manifest.load import Manifest
from reconciler.preview import Preview
from reconciler.watch import log
from reconciler.watch.pause import Pause
from reconciler.watch.state import State, Status
from reconciler.wording import plural

# Operations that are named in a log line.
_NAMED = 3
# Seconds between two log lines about flushes: a guest may tell of as many as it likes.
_FLUSHES = 1.0


class Record:
    """Writes one status. `news` is why a manifest takes effect: the start or a change of it; empty: it holds already."""

    def __init__(self, manifest: Manifest, revision: str) -> None:
        self.status = Status(manifest.sandbox.id, str(manifest.sandbox.driver), manifest.file, revision)
        self._flush_said = 0.0

    def begin(self, manifest: Manifest, revision: str) -> None:
        """Note that a look begins, with this manifest."""
        self.status.driver, self.status.file = (str(manifest.sandbox.driver), manifest.file)
        self.status.revision = revision

    def paused(self, manifest: Manifest, pause: Pause | None) -> None:
        """Note that the sandbox is left alone."""
        words = manifest.sandbox.paused or (pause.reason if pause else "")
        until = f", until {time.strftime('%H:%M:%S', time.localtime(pause.until))}" if pause else ""
        if self.status.become(State.PAUSED, f"{words}{until}"):
            log.say("paused", sandbox=self.status.sandbox, reason=words)

    def kept(self, result: Result, news: str, fights: list[tuple[str, int]]) -> None:
        """Note what was done to it; `fights`: commands that are undone again and again, and how often they were given."""
        if result.operations:
            self._say_operations(result, news)
        self.status.fights = tuple(command for command, _ in fights)
        if fights:
            self._say_fight(fights)
        elif result.held:
            count = f"{len(result.held):,} {plural('operation', len(result.held))}"
            words = f"{count} put off, as somebody has just undone the like, the first: {result.held[0].command}"
            self.status.become(State.DRIFTED, words)
        elif result.draining:
            self.status.become(State.DRAINING, f"{result.draining:,} IPVS {plural('server', result.draining)}")
        else:
            words = self.status.detail if self.status.state is State.CONVERGED else ""
            if result.operations and not news:
                count = f"{len(result.operations):,} {plural('operation', len(result.operations))}"
                words = f"{count} against drift in {result.seconds:.1f} s, at {time.strftime('%H:%M:%S')}"
            self._converged(words)

    def _say_operations(self, result: Result, news: str) -> None:
        status, count = self.status, len(result.operations)
        if not news:
            status.drifts.append(time.time())
            status.repairs += count
        log.say(
            "applied" if news else "repaired",
            sandbox=status.sandbox,
            cause=news or "drift",
            operations=count,
            seconds=result.seconds,
            revision=status.revision,
            file=status.file,
            first="; ".join(each.command for each in result.operations[:_NAMED]),
        )

    def _say_fight(self, fights: list[tuple[str, int]]) -> None:
        command, repairs = max(fights, key=lambda each: each[1])
        more = f" (and {len(fights) - 1} more)" if len(fights) > 1 else ""
        words = f"undone by somebody again and again, repaired {repairs} times: {command}{more}"
        if self.status.become(State.FIGHTING, words):
            log.say("fight", level=logging.WARNING, sandbox=self.status.sandbox, repairs=repairs, command=command)

    def _converged(self, words: str) -> None:
        status = self.status
        if status.become(State.CONVERGED, words):
            log.say("converged", sandbox=status.sandbox, revision=status.revision, file=status.file)

    def compared(self, found: Preview) -> None:
        """Note what would be done to it."""
        status, operations = self.status, found.plan.operations
        if not operations:
            self._converged("")
            return
        words = f"{len(operations):,} {plural('operation', len(operations))} to do, the first: {operations[0].command}"
        before = status.detail
        if status.become(State.DRIFTED, words) or words != before:
            status.drifts.append(time.time())
            log.say("drift", level=logging.WARNING, sandbox=status.sandbox, file=status.file, detail=words)

    def failed(self, manifest: Manifest, error: Exception, retry: float) -> None:
        """Note that it could not be looked at, or not be changed; the next try is in `retry` seconds."""
        state = State.FAILED
        if isinstance(error, (SandboxGoneError, BusyError)):
            state = State.WAITING
        elif isinstance(error, RefusedError):
            state = State.REFUSED
        words, before = str(error) or type(error).__name__, self.status.detail
        if self.status.become(state, words) or words != before:
            where = manifest.where(error.path) if isinstance(error, ApplyError) else manifest.file
            level = logging.INFO if state is State.WAITING else logging.ERROR
            log.say(state.value, level=level, sandbox=self.status.sandbox, reason=words, retry=retry, file=where)

    def flushed(self, services: int) -> None:
        """Note that a machine's guard found so many services gone."""
        if time.monotonic() - self._flush_said > _FLUSHES:
            self._flush_said = time.monotonic()
            log.say("flush", level=logging.WARNING, sandbox=self.status.sandbox, guarded=services)

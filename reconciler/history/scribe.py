"""Records what is done to one sandbox: before it is executed, and after it.

`converge` calls it around each change, so no change is made without a record, whoever asks for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.errors import BusyError, ReconcilerError, RefusedError, SandboxGoneError, VerifyError
from reconciler.history.author import change_id
from reconciler.history.lines import BEGUN, CONVERGED, ENDED, INTERRUPTED, Step, line, steps
from reconciler.values import NamedTuple
from reconciler.wording import failure

if TYPE_CHECKING:
    from reconciler.operations import Operation

# Causes: the sandbox differs from a manifest that was in force before; servers have drained.
DRIFT, DRAIN = "drift", "drain"
VERIFIED, NOT_VERIFIED, PARTLY, UNDONE, FAILED = "verified", "not verified", "partly", "undone", "failed"


class _Lines(Protocol):
    def write(self, sandbox: str, *lines: Mapping[str, Any]) -> None: ...
    def last(self, sandbox: str) -> bytes: ...


class Occasion(NamedTuple):
    """Why a sandbox is changed, by whom, and by which manifest.

    `cause`: start, manifest, drift, drain, by hand, prune or revert.
    """

    cause: str
    by: Mapping[str, Any]
    file: str = ""
    revision: str = ""
    blob: str = ""


NONE = Occasion("", {})


def whole_path(file: str) -> str:
    """Return the path of a manifest from the root: a record outlives the folder that a path is relative to."""
    return file if file.startswith("<") else os.path.abspath(file)


class Change:
    """A change that is being made. It has succeeded, unless `fail` is called or an error ends it."""

    def __init__(self) -> None:
        self.result, self.reason = VERIFIED, ""
        self.steps: list[Step] = []

    def fail(
        self, result: str, error: Exception, fates: Mapping[str, Sequence[Operation]] = MappingProxyType({})
    ) -> None:
        """Set what became of it. `fates`: what became of the operations (kept, undone, failed, not tried)."""
        self.result, self.reason = result, str(error)
        self.steps = [each for fate, operations in fates.items() for each in steps(operations, fate)]


class Scribe:
    """Records what is done to one sandbox, for one or more occasions.

    `driver`: its address in words. `occasion` is called when something is recorded. What failed is not recorded again
    as long as it fails again in the same way.
    """

    def __init__(
        self, lines: _Lines | None, sandbox: str, driver: str, occasion: Callable[[], Occasion] = lambda: NONE
    ) -> None:
        self._lines, self._sandbox = lines, sandbox
        self.driver, self.occasion = driver, occasion
        # What was tried last, if it failed: it is tried again and again.
        self._failed: tuple[Sequence[Operation], str, str] | None = None
        self._tries = 0
        # Whether an error that is passed on was recorded with its change.
        self._told = False

    @contextmanager
    def change(self, operations: Sequence[Operation], *, drained: bool = False) -> Iterator[Change]:
        """Record a change that is made during the block. Without operations, there is nothing to record.

        `drained`: it only ends what was drained, which is no drift.
        """
        change = Change()
        if not operations or self._lines is None:
            yield change
            return
        begin, id_, occasion = time.monotonic(), change_id(), self.occasion()
        if drained and occasion.cause == DRIFT:
            occasion = occasion._replace(cause=DRAIN)
        first = line(
            self._sandbox,
            BEGUN,
            id=id_,
            driver=self.driver,
            **occasion._asdict(),
            # No kernel says which process has changed something.
            changed_by="unknown" if occasion.cause == DRIFT else "",
            count=len(operations),
            operations=[each.to_data() for each in steps(operations)],
        )
        is_again = self._failed is not None and self._failed[0] == operations
        if not is_again:
            self._lines.write(self._sandbox, first)
        try:
            yield change
        except BaseException as error:
            if change.result == VERIFIED:
                change.result, change.reason = _result(error), _words(error)
            raise
        finally:
            self._end(change, first, operations, time.monotonic() - begin, is_again=is_again)

    def _end(
        self, change: Change, first: dict[str, Any], operations: Sequence[Operation], seconds: float, *, is_again: bool
    ) -> None:
        self._told = change.result != VERIFIED
        failed = (operations, change.result, change.reason)
        if is_again and failed == self._failed:
            self._tries += 1
            return
        last = line(
            self._sandbox,
            ENDED,
            id=first["id"],
            result=change.result,
            seconds=round(seconds, 3),
            reason=change.reason,
            operations=[each.to_data() for each in change.steps],
            tries=self._tries + 1 if is_again else None,
        )
        if self._lines:
            self._lines.write(self._sandbox, *([first] if is_again else []), last)
        self._failed, self._tries = failed if self._told else None, 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Record the error that ends the block, unless it was recorded with its change.

        What does not exist, or is used by another run, is not: nothing was tried.
        """
        self._told = False
        try:
            yield
        except (BusyError, SandboxGoneError):
            raise
        except (ReconcilerError, OSError) as error:
            if not self._told:
                event = "refused" if isinstance(error, RefusedError) else FAILED
                self.tell(event, reason=_words(error), **self.occasion()._asdict())
            raise

    def tell(self, event: str, **fields: Any) -> None:
        """Record that something else happened."""
        if self._lines:
            self._lines.write(self._sandbox, line(self._sandbox, event, driver=self.driver, **fields))

    def settle(self) -> None:
        """Record that the sandbox is as it should be, if that is news: a killed run may have left another last line."""
        last = self._lines.last(self._sandbox)[:_HEAD] if self._lines else b""
        if any(b'"event":"%b"' % each in last for each in _OPEN):
            self.tell(CONVERGED)


# The events after which it is news that a sandbox is as it should be, and the bytes of a line that have its event.
_OPEN = (BEGUN.encode(), b"failed", b"refused", b"waiting", b"drifted", b"fighting", b"paused", b"resumed", b"pushed")
_HEAD = 100


def _result(error: BaseException) -> str:
    if isinstance(error, VerifyError):
        return NOT_VERIFIED
    return FAILED if isinstance(error, Exception) else INTERRUPTED


def _words(error: BaseException) -> str:
    return failure(error) if isinstance(error, OSError) else str(error) or type(error).__name__


# For callers without a history: tests of what is done.
SILENT = Scribe(None, "", "")

"""What surrounds a change: the checks of its manifest, and the trial that it is on, if it has to be confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from reconciler.drivers import Driver
from reconciler.preview import Preview

if TYPE_CHECKING:
    # Few manifests have checks.
    from reconciler.checks import Around
    from reconciler.model.check import Check


class Trial(Protocol):
    """A change that counts only once it is confirmed: see `confirm.trial`."""

    def begin(self, driver: Driver, before: Preview) -> None:
        """Record what leads back, before the change is made."""

    def applied(self) -> None:
        """Record that the change was made and verified."""

    def fail(self, driver: Driver) -> None:
        """Undo the change, which has failed."""


@contextmanager
def on_trial(trial: Trial | None, driver: Driver, before: Preview) -> Iterator[None]:
    """Put a change on trial, before which the sandbox was `before`. If it fails, it is undone."""
    if trial is None or not before.plan.operations:
        yield
        return
    trial.begin(driver, before)
    try:
        yield
    except Exception:
        trial.fail(driver)
        raise
    trial.applied()


def checks_around(driver: Driver, checks: Sequence[Check], tell: Callable[[str], None]) -> Around | None:
    """Return the checks around a change, those before it made; None if there are none."""
    if not checks:
        return None
    # Few manifests have checks.
    from reconciler.checks import Around

    around = Around(driver, checks, tell)
    around.look_before()
    return around

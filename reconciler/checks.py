"""Make the checks of a manifest: try what they name, from sandbox or host, until each passes or its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from reconciler.drivers import Driver
from reconciler.errors import HostError
from reconciler.guest import agent
from reconciler.model.check import Check
from reconciler.netlink import turn
from reconciler.netlink.engine import local_engine
from reconciler.values import NamedTuple, dataclass
from reconciler.wording import printable

# Seconds for which all are tried that have not passed yet, before those of the host take turns; between two lookups.
_TRY, _PAUSE = 1.0, 0.1


class Verdict(NamedTuple):
    """What a check has found. `reason`: why it failed; empty if it passed."""

    check: Check
    reason: str

    def __str__(self) -> str:
        """Return it in words, such as `ping 192.0.2.1: no answer within 2 s`."""
        return f"{self.check}: {self.reason or 'passed'}"


@dataclass(slots=True)
class _Trial:
    """A check that is being made: how many tries in a row have succeeded, and why the last one failed."""

    check: Check
    passed: int = 0
    reason: str = ""

    @property
    def is_over(self) -> bool:
        return self.passed >= self.check.count

    @property
    def probe(self) -> agent.Probe:
        """Return what is still to be tried."""
        check = self.check
        kind = "tcp" if check.kind == "connects" else check.kind
        status = check.expect if kind == "http" else 0
        return agent.Probe(kind, check.address, check.port, check.count - self.passed, status, check.path)

    def note(self, result: str) -> None:
        """Take the result of tries: how many in a row succeeded, and why one before them failed, if one did."""
        count, _, reason = result.partition(" ")
        if reason:
            self.passed, self.reason = 0, printable(reason)
        if count.isdecimal():
            self.passed += int(count[:3])


def make(driver: Driver, checks: Sequence[Check]) -> list[Verdict]:
    """Make checks beside each other, each within its timeout. Return what each has found, in order.

    An error of the driver is raised: then it is unknown what they would have found.
    """
    begin = time.monotonic()
    trials = [_Trial(each) for each in checks]

    def left(trial: _Trial) -> float:
        return begin + trial.check.timeout - time.monotonic()

    while waiting := [each for each in trials if not each.is_over and left(each) > 0]:
        for from_host in (False, True):
            if group := [each for each in waiting if each.check.from_host is from_host]:
                seconds = min(_TRY, *(max(0.05, left(each)) for each in group))
                _try(group, seconds, None if from_host else driver)
        if all(each.check.kind == "route" for each in waiting):
            turn.sleep(max(0.0, min([_PAUSE, *(left(each) for each in waiting if not each.is_over)])))
    return [Verdict(each.check, "" if each.is_over else _words(each)) for each in trials]


def _words(trial: _Trial) -> str:
    check = trial.check
    reason = trial.reason or f"only {trial.passed} of {check.count} tries succeeded"
    return f"{reason} (tried for {check.timeout} s)"


def _try(trials: Sequence[_Trial], seconds: float, driver: Driver | None) -> None:
    """Try each once. `driver`: that of the sandbox; None: from the host."""
    lookups = [each for each in trials if each.check.kind == "route"]
    for each in lookups:
        each.note(_look_up(each.check, driver))
    others = [each for each in trials if each.check.kind != "route"]
    if not others:
        return
    probes = [each.probe for each in others]
    with turn.waiting():
        found = driver.attempt(probes, seconds) if driver else agent.attempt(probes, seconds)
    for each, result in zip(others, found, strict=True):
        each.note(result)


def _look_up(check: Check, driver: Driver | None) -> str:
    try:
        device = driver.device_to(check.address) if driver else _host_device_to(check.address)
    except HostError as error:
        return f"0 {error}"
    if check.device and device != check.device:
        return f"0 it leads to {device}, not to {check.device}"
    return "1 "


def _host_device_to(address: str) -> str:
    with local_engine() as engine:
        return engine.device_to(address)


class Around:
    """The checks around one change: what they found before it decides what counts after it.

    `tell` gets lines for people.
    """

    def __init__(self, driver: Driver, checks: Sequence[Check], tell: Callable[[str], None]) -> None:
        self._driver, self._checks, self._tell = driver, checks, tell
        self._failed_before: set[Check] = set()
        # Those that have passed after the change.
        self.passed: tuple[Check, ...] = ()

    def look_before(self) -> None:
        """Make the checks before the change, and report those that fail."""
        for verdict in make(self._driver, self._checks) if self._checks else ():
            if verdict.reason:
                self._failed_before.add(verdict.check)
                consequence = "it has to pass after it" if verdict.check.required else "so it decides nothing"
                self._tell(f"check {verdict}: it fails before the change, {consequence}")

    def look_after(self) -> list[Verdict]:
        """Make the checks after the change. Return those that fail, and did not before or are required."""
        made = make(self._driver, self._checks) if self._checks else []
        found = [each for each in made if each.reason]
        self.passed = tuple(each.check for each in made if not each.reason)
        counted = [each for each in found if each.check.required or each.check not in self._failed_before]
        for verdict in found:
            if verdict not in counted:
                self._tell(f"check {verdict}: it failed before the change as well, so it decides nothing")
        return counted

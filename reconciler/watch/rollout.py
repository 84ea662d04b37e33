"""Applies changed manifests to a few sandboxes at a time, and stops after failures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from reconciler.manifest.load import Manifest
from reconciler.values import NamedTuple


class Pace(NamedTuple):
    """How fast changed manifests are applied.

    `number` or `percent` (of all watched sandboxes): the most at the same time; neither: all at once. `stop_after`:
    the number of failures after which no more begin; 0: never stop.
    """

    number: int | None = None
    percent: int | None = None
    stop_after: int = 0

    def limit(self, total: int) -> int:
        """Return how many of `total` sandboxes may be under way at the same time; at least one."""
        if self.number is not None:
            return max(1, self.number)
        return max(1, math.ceil(total * self.percent / 100)) if self.percent is not None else max(1, total)


def parse_at_once(text: str) -> Pace:
    """Parse `N` or `N%`, the value of `--at-once`. ValueError otherwise."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise ValueError(f'"{text}" is not a number such as 20, or a percentage up to 100%')
    return Pace(percent=int(match[1])) if match[2] else Pace(number=int(match[1]))


class Rollout:
    """The changed manifests that wait for their turn, and the sandboxes that are under way.

    Manifests that change during a rollout join it; then the count of failures starts again at 0, and a stopped rollout
    goes on.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: dict[str, Manifest] = {}
        self._under_way: set[str] = set()
        self._failed: list[str] = []
        # Whether one of them was undone on trial: one such is enough.
        self._rolled_back = False

    @property
    def stopped(self) -> tuple[str, ...]:
        """Return the sandboxes whose failures have stopped the rollout while others wait; empty if it goes on."""
        stop = self._rolled_back or (self._pace.stop_after and len(self._failed) >= self._pace.stop_after)
        return tuple(self._failed) if stop and self._waiting else ()

    def is_waiting(self, sandbox: str) -> bool:
        """Return whether the changed manifest of a sandbox waits for its turn."""
        return sandbox in self._waiting

    @property
    def waiting(self) -> tuple[str, ...]:
        """Return the sandboxes whose changed manifests wait for their turn."""
        return tuple(self._waiting)

    def add(self, changed: Iterable[Manifest]) -> None:
        """Add manifests that are not in force yet. Those that wait already are ignored, older ones are replaced."""
        new = [each for each in changed if self._waiting.get(each.sandbox.id) != each]
        if new:
            self._failed.clear()
            self._rolled_back = False
        self._waiting |= {each.sandbox.id: each for each in new}

    def withdraw(self, sandbox: str) -> None:
        """Remove a sandbox from those that wait: its manifest changed back to the one that is in force or under way."""
        self._waiting.pop(sandbox, None)

    def drop(self, sandbox: str) -> None:
        """Forget a sandbox whose manifest was deleted."""
        self.withdraw(sandbox)
        self._under_way.discard(sandbox)
        while sandbox in self._failed:
            self._failed.remove(sandbox)

    def begin(self, total: int) -> list[Manifest]:
        """Return the manifests whose turn it is; they are under way from now on. `total`: the number of sandboxes."""
        begun: list[Manifest] = []
        while self._waiting and not self.stopped and len(self._under_way) < self._pace.limit(total):
            name = next((each for each in self._waiting if each not in self._under_way), None)
            if name is None:
                break
            self._under_way.add(name)
            begun.append(self._waiting.pop(name))
        return begun

    def end(self, sandbox: str, *, succeeded: bool, rolled_back: bool = False) -> None:
        """Record that a manifest was applied to a sandbox, or failed. Ignore sandboxes that are not under way.

        `rolled_back`: it was undone, as it failed on trial. Then no more begin.
        """
        if sandbox in self._under_way:
            self._under_way.discard(sandbox)
            if not succeeded:
                self._failed.append(sandbox)
                self._rolled_back = self._rolled_back or rolled_back

"""Manifests that have changed take effect a few at a time, and no more of them after failures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from reconciler.manifest.load import Manifest


class Pace(NamedTuple):
    """How many at once: a number, or a percentage of all that are watched; and after how many failures to stop, 0: never."""

    number: int | None = None
    percent: int | None = None
    stop_after: int = 0

    def at_once(self, total: int) -> int:
        """Give how many of so many may be under way; one at least."""
        if self.number is not None:
            return max(1, self.number)
        return max(1, math.ceil(total * self.percent / 100)) if self.percent is not None else max(1, total)


def parse_at_once(text: str) -> Pace:
    """Read `N` or `N%`. ValueError otherwise."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise ValueError(f'"{text}" is neither a number nor a percentage')
    return Pace(percent=int(match[1])) if match[2] else Pace(number=int(match[1]))


class Rollout:
    """What waits for its turn, and what is under way. A change that comes meanwhile joins; the count of failures starts anew."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: dict[str, Manifest] = {}
        self._under_way: set[str] = set()
        self._failed: list[str] = []

    @property
    def stopped(self) -> tuple[str, ...]:
        """Give the sandboxes whose failures have stopped it while others wait; empty: it goes on."""
        stop = self._pace.stop_after and len(self._failed) >= self._pace.stop_after and self._waiting
        return tuple(self._failed) if stop else ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Give the sandboxes whose turn has not come."""
        return tuple(self._waiting)

    def add(self, changed: Iterable[Manifest]) -> None:
        """Take manifests that are not those of their sandboxes yet; some may wait already."""
        news = [each for each in changed if self._waiting.get(each.sandbox.id) != each]
        if news:
            self._failed.clear()
        self._waiting |= {each.sandbox.id: each for each in news}

    def withdraw(self, sandbox: str) -> None:
        """Forget that a sandbox waits: its manifest is again what is under way, or holds."""
        self._waiting.pop(sandbox, None)

    def drop(self, sandbox: str) -> None:
        """Forget a sandbox whose manifest is gone."""
        self.withdraw(sandbox)
        self._under_way.discard(sandbox)
        while sandbox in self._failed:
            self._failed.remove(sandbox)

    def begin(self, total: int) -> list[Manifest]:
        """Give the manifests whose turn it is, of `total` sandboxes."""
        begun: list[Manifest] = []
        while self._waiting and not self.stopped and len(self._under_way) < self._pace.at_once(total):
            name = next((each for each in self._waiting if each not in self._under_way), None)
            if name is None:
                break
            self._under_way.add(name)
            begun.append(self._waiting.pop(name))
        return begun

    def end(self, sandbox: str, *, well: bool) -> None:
        """Take note that a sandbox is through."""
        if sandbox in self._under_way:
            self._under_way.discard(sandbox)
            if not well:
                self._failed.append(sandbox)

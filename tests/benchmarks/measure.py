"""Measure whole processes side by side, and print what they took as ratios."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RECONCILER = [sys.executable, "-m", "reconciler"]


def seconds(command: Sequence[str], *, code: int = 0) -> float:
    """Run a command; give its wall time. It must end with `code`."""
    begin = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - begin
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return taken


def best(measure: Callable[[], float], rounds: int) -> float:
    """Give the least of several measurements: what disturbs a machine only ever adds."""
    return min(measure() for _ in range(rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured ratio with what it must not exceed (`bar`) and what it should reach (`aim`)."""

    name: str
    detail: str
    ratio: float
    bar: float
    aim: float

    def __str__(self) -> str:
        verdict = (
            "reaches the aim" if self.ratio <= self.aim else "within the bar" if self.ratio <= self.bar else "MISSED"
        )
        return f"{self.name}: {self.ratio:.2f} (bar {self.bar:g}, aim {self.aim:g}): {verdict}\n    {self.detail}"

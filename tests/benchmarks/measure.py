"""Measure whole processes side by side, and print what they took as ratios."""

from __future__ import annotations

import os
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


def memory(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; give its wall time, and the most memory it had resident, in KiB (getrusage(2))."""
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    taken = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    return taken, usage.ru_maxrss


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

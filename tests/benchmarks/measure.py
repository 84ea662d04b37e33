"""Measure whole processes side by side, and print what they took as ratios."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from reconciler.values import dataclass

RECONCILER = [sys.executable, "-m", "reconciler"]


def seconds(command: Sequence[str], *, code: int = 0) -> float:
    """Run a command; give its wall time. It must end with `code`."""
    begin = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - begin
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return taken


class Used(NamedTuple):
    """What a process took: seconds of wall time and of a processor, KiB of resident memory at most; its exit code."""

    wall: float
    processor: float
    memory: int
    code: int


# The kernel counts the memory of a process from its parent's on, so the parent has to be small.
_LAUNCH = """
import os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
taken = time.perf_counter() - begin
report = f"{taken} {used.ru_utime + used.ru_stime} {used.ru_maxrss} {os.waitstatus_to_exitcode(status)}"
os.write(int(sys.argv[1]), report.encode())
"""


def measure(command: Sequence[str], output: int = subprocess.DEVNULL, errors: int | None = None) -> Used:
    """Run a command, whose first word is a path; give what it took. `output`, `errors`: descriptors for its streams."""
    reading, writing = os.pipe()
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(writing), *command]
    with os.fdopen(reading) as report:
        subprocess.run(launch, check=True, stdout=output, stderr=errors, pass_fds=[writing])
        os.close(writing)
        wall, processor, memory_, code = report.read().split()
    return Used(float(wall), float(processor), int(memory_), int(code))


def memory(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; give its wall time, and the most memory it had resident, in KiB (getrusage(2))."""
    used = measure(command)
    if used.code:
        raise RuntimeError(f"{' '.join(command)} ended with {used.code}")
    return used.wall, used.memory


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

"""The start-up: `diff` of a small manifest, beside an interpreter that does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.measure import RECONCILER, Figure, best, seconds
from tests.benchmarks.routes import HEAD
from tests.conftest import Kernel

ROUNDS = 20


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    file = folder / "start.yaml"
    file.write_text(
        HEAD.format(namespace=kernel.namespace(), device=kernel.tap()) + "  - {dest: 10.0.0.0/8, type: blackhole}\n"
    )
    seconds([*RECONCILER, "apply", str(file)])
    bare = best(lambda: seconds([sys.executable, "-c", "pass"]), ROUNDS)
    diff = best(lambda: seconds([*RECONCILER, "diff", str(file)]), ROUNDS)
    return [
        Figure(
            name="start-up of a small diff, beside `python3 -c pass`",
            detail=f"diff {diff * 1000:.0f} ms, bare interpreter {bare * 1000:.0f} ms",
            ratio=diff / bare,
            bar=7.5,
            aim=6,
        )
    ]

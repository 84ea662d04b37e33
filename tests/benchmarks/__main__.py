"""`make bench`: every figure, measured in one run."""

from __future__ import annotations

import compileall
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import doctor, flush, guard, hostile, ipvs, kata, many, page, plug, routes, scrape, start, watch
from tests.benchmarks.measure import Figure
from tests.conftest import Kernel


def main() -> int:
    # As an installed package is; a checkout may not have been run before.
    compileall.compile_dir("reconciler", quiet=1)
    kernel = Kernel()
    try:
        with tempfile.TemporaryDirectory() as folder:
            missed = [
                figure
                for part in (start, routes, many, ipvs, kata, flush, guard, plug, doctor, watch, scrape, page, hostile)
                for figure in printed(part.run(kernel, Path(folder)))
                if figure.ratio > figure.bar
            ]
    finally:
        kernel.remove()
    return int(bool(missed))


def printed(figures: list[Figure]) -> list[Figure]:
    """Print the figures of a part as soon as they are known: a later part may fail. Return them."""
    for figure in figures:
        print(figure, flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())

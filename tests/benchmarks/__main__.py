"""`make bench`: every figure, measured in one run."""

from __future__ import annotations

import compileall
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import doctor, flush, guard, hostile, ipvs, kata, many, page, plug, routes, scrape, start, watch
from tests.conftest import Kernel


def main() -> int:
    # As an installed package is; a checkout may not have been run before.
    compileall.compile_dir("reconciler", quiet=1)
    kernel = Kernel()
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = [
                figure
                for part in (start, routes, many, ipvs, kata, flush, guard, plug, doctor, watch, scrape, page, hostile)
                for figure in part.run(kernel, Path(folder))
            ]
    finally:
        kernel.remove()
    print("\n".join(map(str, figures)))
    return int(any(figure.ratio > figure.bar for figure in figures))


if __name__ == "__main__":
    sys.exit(main())

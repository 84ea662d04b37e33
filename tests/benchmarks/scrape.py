"""A scrape of the metrics of many sandboxes, beside the JSON that `status` gets of the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.watch.exposition import Metrics, Snapshot
from reconciler.watch.state import SandboxState, SandboxStatus, Standing
from tests.benchmarks.measure import Figure, best
from tests.conftest import Kernel

MANY, ROUNDS = 2000, 7


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    states = [SandboxStatus(f"web-{number:04}", "netns web", "web.yaml", looked=1.5) for number in range(MANY)]
    for each in states:
        each.state = SandboxState.CONVERGED
    standings = [*map(Standing, states)]
    metrics = Metrics(lambda: Snapshot(standings, 0, 0))
    status = best(lambda: processor(lambda: json.dumps([each.to_data() for each in standings])), ROUNDS)
    # As Prometheus asks.
    scrape = best(lambda: processor(lambda: metrics.expose("application/openmetrics-text")), ROUNDS)
    return [
        Figure(
            name=f"a scrape of {MANY:,} sandboxes, beside the JSON of `status`",
            detail=f"scrape {scrape * 1000:.0f} ms of a processor, JSON {status * 1000:.0f} ms",
            ratio=scrape / status,
            bar=15,
            aim=10,
        )
    ]


def processor(work: Callable[[], object]) -> float:
    """Return the seconds of a processor that some work takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin

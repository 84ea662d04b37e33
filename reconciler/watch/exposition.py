"""The metrics of the watcher, in the formats of Prometheus and OpenMetrics. This imports prometheus_client.

What is known of each sandbox is read when somebody asks. What happens (looks, changes, errors) is counted when it
happens. The labels are IDs of sandboxes, of which the operator decides how many there are, and words of this program.
"""

from __future__ import annotations

import sys
from collections import Counter as Count
from collections.abc import Callable, Iterator, Sequence
from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reconciler.values import NamedTuple
from reconciler.version import installed_version
from reconciler.watch import clock
from reconciler.watch.meter import KINDS, Failed, Looked, Measurement, Meter, Repaired
from reconciler.watch.metrics import Answer
from reconciler.watch.state import SandboxState, Standing
from reconciler.wording import printable

# Upper bounds of the buckets, in seconds: a quick look takes a millisecond, and a machine may take a minute to answer.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OPENMETRICS = "application/openmetrics-text"
_TEXT = {"text/plain", "text/*", "*/*"}
# In these states, the present text of a manifest is not in force.
_NOT_USED = {SandboxState.OUTDATED, SandboxState.PENDING}


class Snapshot(NamedTuple):
    """What is known at one moment. `alarms`, `problems`: how many there are."""

    standings: Sequence[Standing]
    alarms: int
    problems: int


class _Each(NamedTuple):
    """A metric that each sandbox has: its family, its name, a text about it, and the function that reads it."""

    family: type[GaugeMetricFamily | CounterMetricFamily]
    name: str
    words: str
    read: Callable[[Standing], float]


_EACH = (
    _Each(
        GaugeMetricFamily,
        "converged",
        "1 if the last look is recent and found the sandbox as its manifest describes it now",
        lambda each: each.is_converged,
    ),
    _Each(
        GaugeMetricFamily,
        "last_look_timestamp_seconds",
        "time of the last look that succeeded, in Unix seconds; 0 for never",
        lambda each: clock.unix(each.status.looked),
    ),
    _Each(
        GaugeMetricFamily,
        "stale",
        "1 if the last look that succeeded is older than it should be",
        lambda each: not each.status.is_fresh(),
    ),
    _Each(CounterMetricFamily, "repairs", "operations that repaired drift", lambda each: each.status.repairs),
    _Each(
        GaugeMetricFamily,
        "fights",
        "objects whose repair another program reverts again and again",
        lambda each: len(each.status.fights),
    ),
    _Each(
        GaugeMetricFamily,
        "manifest_refused",
        "1 if the present text of its manifest is not used, or not yet",
        lambda each: each.doubt is not None and each.doubt.state in _NOT_USED,
    ),
    _Each(
        GaugeMetricFamily,
        "draining_servers",
        "IPVS servers whose connections are given time to end",
        lambda each: len(each.status.traffic.drains),
    ),
    _Each(
        GaugeMetricFamily,
        "drain_deadline_timestamp_seconds",
        "when the first of these servers is deleted at the latest, in Unix seconds; 0 if none drains",
        lambda each: min((drain.deadline for drain in each.status.traffic.drains), default=0),
    ),
    _Each(
        CounterMetricFamily,
        "guard_flushes",
        "times that the guard of a machine has found IPVS services gone and restored them",
        lambda each: each.status.flushes,
    ),
)


class _Standings(Collector):
    """Reads what is known when somebody asks."""

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read
        self._versions = {"version": installed_version(), "python": ".".join(map(str, sys.version_info[:3]))}

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the names are ours alone, and to collect needs a watcher that is complete."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        known = self._read()
        info = GaugeMetricFamily("reconciler_build_info", "versions of reconciler and Python", labels=[*self._versions])
        info.add_metric([*self._versions.values()], 1)
        yield info
        yield GaugeMetricFamily(
            "reconciler_alarms",
            "number of alarms of the whole watcher; `reconciler status` lists them",
            value=known.alarms,
        )
        yield GaugeMetricFamily(
            "reconciler_manifest_problems",
            "number of problems in manifests; `reconciler status` lists them",
            value=known.problems,
        )
        states = GaugeMetricFamily("reconciler_sandboxes", "number of sandboxes in each state", labels=("state",))
        count = Count(each.state for each in known.standings)
        for state in SandboxState:
            states.add_metric((state.value,), count[state])
        yield states
        names = [printable(each.status.sandbox) for each in known.standings]
        for metric in _EACH:
            family = metric.family(f"reconciler_{metric.name}", metric.words, labels=("sandbox",))
            for name, each in zip(names, known.standings, strict=True):
                family.add_metric((name,), metric.read(each))
            yield family


class _Plain(Collector):
    """All families of a registry, without the times at which each of their series began, which no rule makes use of."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family


class Metrics(Meter):
    """All metrics of one watcher.

    `read` returns what is known; the thread of whoever asks calls it. `machines` returns the ID of the process of the
    machines, 0 if there is none.
    """

    keeps = True

    def __init__(self, read: Callable[[], Snapshot], machines: Callable[[], int] = int) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Standings(read))
        ProcessCollector(registry=self._registry)
        # Nothing is found of a process 0.
        ProcessCollector("reconciler_machines", machines, registry=self._registry)
        self._looks = Histogram(
            "reconciler_look_duration_seconds",
            "time of a look at a sandbox, with its repair if there was one",
            ("driver", "kind", "result"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._applies = Histogram(
            "reconciler_apply_duration_seconds",
            "time of the looks that changed a sandbox, from the observation to the verification",
            ("driver", "cause"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._errors = Counter(
            "reconciler_errors",
            "errors of looks and changes, and problems of manifests, by their kind",
            ("kind",),
            registry=self._registry,
        )
        # From 0 on: nobody sees the increase of a series that begins with 1.
        for kind in KINDS:
            self._errors.labels(kind)
        self._drains = Counter("reconciler_drains", "IPVS servers that have begun to drain", registry=self._registry)

    def add(self, measurement: Measurement) -> None:
        """Count a measurement."""
        match measurement:
            case Looked(driver, full, succeeded, seconds):
                kind, result = "full" if full else "quick", "ok" if succeeded else "failed"
                self._looks.labels(driver, kind, result).observe(seconds)
            case Repaired(driver, cause, seconds, drains):
                self._applies.labels(driver, cause).observe(seconds)
                self._drains.inc(drains)
            case Failed(kind):
                self._errors.labels(kind).inc()
            case _:
                assert_never(measurement)

    def expose(self, accept: str) -> Answer:
        """Return all metrics. `accept`: the header of a request, which may prefer OpenMetrics."""
        encode, kind = choose_encoder(_OPENMETRICS if _prefers_openmetrics(accept) else "")
        return Answer(200, kind, encode(_Plain(self._registry)))


def _prefers_openmetrics(accept: str) -> bool:
    """Return whether a header `Accept` prefers OpenMetrics to text. Only the answer of the library has a version."""
    weights = {True: 0.0, False: 0.0}
    for offer in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in offer.split(";"))
        if kind == _OPENMETRICS or kind in _TEXT:
            weight = next((_weight(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
            is_openmetrics = kind == _OPENMETRICS
            weights[is_openmetrics] = max(weights[is_openmetrics], weight)
    return weights[True] > 0 and weights[True] >= weights[False]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0

"""The metrics of a gate. This imports prometheus_client.

No label is the name of a host: whoever has a certificate makes no series. `fleet status` has each host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reconciler.fleet.gate.gate import Gate
from reconciler.watch import health
from reconciler.watch.metrics import Answer, Pages


class _Gate(Collector):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterable[Metric]:
        gate = self._gate
        gauges: Mapping[str, tuple[str, float]] = {
            "hosts": ("hosts that are connected with this gate", gate.peers.hosts),
            "connections": ("connections of hosts", gate.peers.connections),
            "waiting": ("requests that wait for news", gate.mirror.waiting),
            "store_age_seconds": ("for how long the store has not been heard of", gate.mirror.age),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(f"reconciler_gate_{name}", words, value)
        counters: Mapping[str, tuple[str, float]] = {
            "reports_written": ("reports of hosts that were written to the store", gate.reports.written),
            "reports_unchanged": ("reports that said nothing new", gate.reports.unchanged),
            "refused": ("requests and connections of hosts that are not let in", gate.peers.refused),
            "crowded": ("connections that had to leave, as their host took too much", gate.peers.crowded),
            "dropped": ("connections that were closed before their handshake: too many waited", gate.listener.dropped),
        }
        for name, (words, value) in counters.items():
            yield CounterMetricFamily(f"reconciler_gate_{name}", words, value)
        answers = CounterMetricFamily("reconciler_gate_answers", "answers to hosts, by status", labels=["status"])
        for status, count in sorted(gate.application.answers.copy().items()):
            answers.add_metric([str(status)], count)
        yield answers


def pages_of(gate: Gate) -> Pages:
    """Return what is served on the port of metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Gate(gate))

    def expose(accept: str) -> Answer:
        encode, kind = choose_encoder(accept)
        return Answer(200, kind, encode(registry))

    def is_ready(_: str) -> Answer:
        late = [] if gate.mirror.is_current else [f"the store was last heard of {gate.mirror.age:.0f} s ago"]
        return health.answer(late)

    # A gate that does not reach the store is not mended by a restart.
    return {"/metrics": expose, "/healthz": lambda _: health.answer([]), "/readyz": is_ready}

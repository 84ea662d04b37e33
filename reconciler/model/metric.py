"""The metrics of a route (RTAX_* of linux/rtnetlink.h), in one table.

A new metric is a line here, a property of the schema, and rows in docs/manifest.md and tests/completeness. The MTU and
its lock are fields of their own, as plans and checks reckon with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from reconciler.values import NamedTuple

# Of a route: a number, `on` or nothing, milliseconds, a set of FEATURES, the name of a congestion control.
Kind = Literal["number", "switch", "milliseconds", "features", "name"]


class Metric(NamedTuple):
    """A metric: its field in a manifest, its number RTAX_*, and its kind.

    `locked`: the kernel heeds it only with its bit in RTAX_LOCK, which `ip` sets by itself.
    """

    field: str
    number: int
    kind: Kind = "number"
    locked: bool = False

    @property
    def word(self) -> str:
        """Return its name for iproute2."""
        return "".join(f"_{each.lower()}" if each.isupper() else each for each in self.field)

    def words(self, value: int | str) -> str:
        """Return the metric with a value as iproute2 writes it."""
        if self.kind == "milliseconds":
            return f"{self.word} {value}ms"
        return f"{self.word} {' '.join(features(int(value))) if self.kind == 'features' else value}"


# In the order of their numbers, in which the kernel dumps them.
METRICS = (
    Metric("window", 3),
    Metric("advmss", 8),
    Metric("hoplimit", 10),
    Metric("initcwnd", 11),
    Metric("features", 12, "features"),
    # tcp_rto_min of net/ipv4/tcp_input.c
    Metric("rtoMin", 13, "milliseconds", locked=True),
    Metric("initrwnd", 14),
    Metric("quickack", 15, "switch"),
    Metric("congctl", 16, "name"),
)
BY_FIELD = {metric.field: metric for metric in METRICS}
BY_NUMBER = {metric.number: metric for metric in METRICS}
# RTAX_FEATURE_*
FEATURES = {"ecn": 1}
# The kernel loads the module tcp_NAME for a name that it does not know: so the list is closed.
CONGESTION_CONTROLS = (
    *("bbr", "bic", "cdg", "cubic", "dctcp", "highspeed", "htcp", "hybla", "illinois", "lp", "nv", "reno"),
    *("scalable", "vegas", "veno", "westwood", "yeah"),
)

# (field, value), in the order of METRICS.
Metrics = tuple[tuple[str, "int | str"], ...]


def ordered(values: Iterable[tuple[str, int | str]]) -> Metrics:
    """Return metrics in their order."""
    return tuple(sorted(values, key=lambda each: BY_FIELD[each[0]].number))


def features(bits: int) -> list[str]:
    """Return the names of features."""
    return [name for name, bit in FEATURES.items() if bits & bit]


def is_expressible(metric: Metric, value: int | str) -> bool:
    """Return whether a manifest can have a value that the kernel has."""
    match metric.kind:
        case "switch":
            return value == 1
        case "features":
            return isinstance(value, int) and not value & ~sum(FEATURES.values())
        case "name":
            return value in CONGESTION_CONTROLS
        case _:
            return True

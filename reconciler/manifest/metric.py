"""The metrics of a route in a manifest: checked data → model, and model → data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.model.metric import BY_FIELD, FEATURES, METRICS, Metrics, features

FIELDS = frozenset(BY_FIELD)


def read(data: Mapping[str, Any]) -> Metrics:
    """Read the metrics of a route that meets the schema."""
    if FIELDS.isdisjoint(data):
        return ()
    found: list[tuple[str, int | str]] = []
    for metric in METRICS:
        value = data.get(metric.field)
        if isinstance(value, list):
            value = sum(FEATURES[name] for name in {*value})
        if value:
            found.append((metric.field, value if isinstance(value, str) else int(value)))
    return tuple(found)


def write(metrics: Metrics) -> dict[str, Any]:
    """Return metrics as the data of a manifest."""
    data: dict[str, Any] = {}
    for field, value in metrics:
        kind = BY_FIELD[field].kind
        data[field] = features(int(value)) if kind == "features" else bool(value) if kind == "switch" else value
    return data

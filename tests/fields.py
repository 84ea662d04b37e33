"""The fields of a schema, for tests that something speaks of each."""

from __future__ import annotations

from typing import Any


def names(schema: Any) -> set[str]:
    """Return the names of all fields of a schema, without those of sysctls, of which there are hundreds."""
    if isinstance(schema, list):
        return set[str]().union(*map(names, schema))
    if not isinstance(schema, dict):
        return set()
    properties = schema.get("properties", {})
    deeper = [value for name, value in schema.items() if name != "properties"]
    deeper += [value for name, value in properties.items() if name != "sysctls"]
    return set(properties) | set[str]().union(*map(names, deeper))

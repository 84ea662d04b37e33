"""Values of a document as messages show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from reconciler.wording import plural, shorten

# Fields of a mapping that a message names.
_NAMED = 8
# Characters of an example in a message.
_EXAMPLE = 100


def example(value: Any, schema: Mapping[str, Any]) -> str:
    """Return an example of the mapping or list that stands in the place of a single value, if the words have none."""
    examples = schema.get("examples", ())
    if isinstance(value, dict | list) or "such as" in schema.get("description", "") or not examples:
        return ""
    text = _flow(examples[0]) if isinstance(examples[0], dict | list) else ""
    return f", such as {text}" if 0 < len(text) <= _EXAMPLE else ""


def _flow(value: Any) -> str:
    """Return an example of the schema as YAML in one line."""
    match value:
        case dict():
            return f"{{{', '.join(f'{name}: {_flow(each)}' for name, each in value.items())}}}"
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case str() if ":" not in value and "*" not in value:
            return value
        case _:
            return json.dumps(value)


def kind_of(value: Any) -> str:
    """Return what a single value of the wrong kind was read as."""
    match value:
        case bool():
            return " is a boolean"
        case int():
            return " is a number"
        case str():
            return " is text"
        case None:
            return " is given"
        case _:
            return ""


def count(value: list[Any]) -> str:
    """Return how many items a list has: `2 items`."""
    return f"{len(value)} {plural('item', len(value))}"


def show(value: Any) -> str:
    """Return a value as messages show it: shortened, and text in quotes."""
    match value:
        case None:
            return "nothing"
        case True | False:
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return f'"{value}"' if len(value) <= 40 else f'"{value[:37]}…" ({len(value)} characters)'
        case list():
            return f"a list of {count(value)}" if value else "an empty list"
        case _:
            fields = ", ".join(shorten(name, 40) for name in islice(value, _NAMED))
            more = f" and {len(value) - _NAMED:,} more" if len(value) > _NAMED else ""
            return f"a mapping with {fields}{more}" if value else "an empty mapping"

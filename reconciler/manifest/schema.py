"""The gate: does a document meet `schemas/`, and if not, where and why, in our words.

The schema file is the one contract. jsonschema-rs says yes, or where not, in a few milliseconds; only then does
jsonschema look at just the flagged parts, and each of its errors is worded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema_rs

from reconciler.manifest.compose import Path
from reconciler.wording import suggest

if TYPE_CHECKING:
    from jsonschema import ValidationError

NAME = "reconciler-v1.schema.json"


class Finding(NamedTuple):
    """One thing that is wrong with a document: where, and what. `at_key`: it is the field's name that is wrong."""

    path: Path
    message: str
    at_key: bool = False


def path_text(path: Path) -> str:
    """Write a path as people do: `interfaces[0].mtu`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@cache
def schema_text() -> str:
    """Read the schema: in a checkout it stands beside the package, in an installed package inside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for parent in (os.path.dirname(package), package):
        file = os.path.join(parent, "schemas", NAME)
        if os.path.isfile(file):
            with open(file, encoding="utf-8") as stream:
                return stream.read()
    raise FileNotFoundError(f"{NAME} is missing from this installation")


@cache
def _gate() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema_text())


def check(document: Any) -> list[Finding]:
    """Give all that the schema has against a document. Empty means that it is met."""
    gate = _gate()
    if gate.is_valid(document):
        return []
    return _explain(document, [tuple(error.instance_path) for error in gate.iter_errors(document)])


def _explain(document: Any, flagged: Iterable[Path]) -> list[Finding]:
    import json

    from jsonschema import Draft202012Validator

    pruned, indexes = _prune(document, _tree(flagged), ())
    findings: list[Finding] = []
    for error in Draft202012Validator(json.loads(schema_text())).iter_errors(pruned):
        where: Path = ()
        for step in error.absolute_path:
            where = (*where, indexes[where][step] if isinstance(step, int) else step)
        findings += _word(error, where)
    # jsonschema has an error for each field that is missing, and each names them all.
    return list(dict.fromkeys(findings))


def _tree(paths: Iterable[Path]) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for path in paths:
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def _prune(value: Any, tree: Mapping[Any, Any], path: Path) -> tuple[Any, dict[Path, list[int]]]:
    """Leave out list items that are not flagged; give the rest, and for each list the true index of each item.

    `path` is the true path of `value`.
    """
    indexes: dict[Path, list[int]] = {}
    if isinstance(value, list):
        kept = [index for index in range(len(value)) if index in tree] if tree else list(range(len(value)))
        indexes[path] = kept
        items = [(index, value[index]) for index in kept]
    elif isinstance(value, dict):
        items = list(value.items())
    else:
        return value, indexes
    parts: list[tuple[Any, Any]] = []
    for step, part in items:
        if not path and isinstance(part, list) and step not in tree:
            # A section in which nothing is wrong; an empty one is right as well.
            parts.append((step, []))
            continue
        pruned, below = _prune(part, tree.get(step, {}), (*path, step))
        indexes |= below
        parts.append((step, pruned))
    return [part for _, part in parts] if isinstance(value, list) else dict(parts), indexes


def _word(error: ValidationError, path: Path) -> Iterator[Finding]:
    """Word an error of jsonschema: what is wrong, and what was expected."""
    limit: Any = error.validator_value
    value: Any = error.instance
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    expected = schema.get("description", "something else")
    match error.validator:
        case "required":
            for name in limit:
                if name not in value:
                    field = schema.get("properties", {}).get(name, {})
                    yield Finding((*path, name), f"missing; expected {_describe(field)}")
        case "additionalProperties":
            known = list(schema["properties"])
            for name in value:
                if name not in known:
                    yield Finding((*path, name), f"unknown field; {suggest(name, known)}", at_key=True)
        case "maximum":
            yield Finding(path, f"{value} is above the maximum of {limit}")
        case "minimum":
            yield Finding(path, f"{value} is below the minimum of {limit}")
        case "maxItems":
            yield Finding(path, f"{len(value)} items; at most {limit} are allowed")
        case "minItems":
            yield Finding(path, f"{len(value)} items; at least {limit} are needed")
        case "minProperties" | "maxProperties":
            yield Finding(path, f"{_show(value)}; expected {expected}")
        case "type":
            yield Finding(path, f"{_show(value)} is {_kind(value)}; expected {expected}")
        case _:
            yield Finding(path, f"{_show(value)} is not valid; expected {expected}")


def _describe(schema: Mapping[str, Any]) -> str:
    import json

    reference = schema.get("$ref")
    if reference:
        schema = json.loads(schema_text())["$defs"][reference.rpartition("/")[2]]
    return str(schema.get("description", "a value"))


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "a truth value"
        case int():
            return "a number"
        case str():
            return "text"
        case None:
            return "given"
        case _:
            return "no single value"


def _show(value: Any) -> str:
    """Show a value in a message, shortened, so that text and numbers can be told apart."""
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
            return f"a list of {len(value)} items" if value else "an empty list"
        case _:
            fields = ", ".join(value)
            return f"a mapping with {fields}" if value else "an empty mapping"

"""The gate: does a document meet `schemas/`, and if not, where and why, in our words.

The schema file is the one contract. jsonschema-rs says yes, or where not, in a few milliseconds; only then does
jsonschema look at just the flagged parts, and each of its errors is worded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema_rs

from reconciler.manifest.compose import Path
from reconciler.wording import plural, suggest

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
    errors = list(gate.iter_errors(document))
    findings = _explain(document, {tuple(error.instance_path) for error in errors})
    # Should the two ever not agree, no still means no.
    return findings or [Finding(tuple(error.instance_path), error.message) for error in errors]


def _explain(document: Any, flagged: set[Path]) -> list[Finding]:
    import json

    from jsonschema import Draft202012Validator

    pruned, indexes = _prune(document, flagged)
    findings: list[Finding] = []
    for error in Draft202012Validator(json.loads(schema_text())).iter_errors(pruned):
        where: Path = tuple(error.absolute_path)
        if len(where) > 1 and where[0] in indexes:
            where = (where[0], indexes[where[0]][int(where[1])], *where[2:])
        findings += _word(error, where)
    # jsonschema has an error for each field that is missing, and each names them all.
    return list(dict.fromkeys(findings))


def _prune(document: Any, flagged: set[Path]) -> tuple[Any, dict[Any, list[int]]]:
    """Leave out of each section the items that are not flagged, as jsonschema is slow; give the true indexes of the rest.

    A section that is flagged itself stays whole.
    """
    if not isinstance(document, dict):
        return document, {}
    indexes = {
        section: sorted({int(path[1]) for path in flagged if path[0:1] == (section,) and len(path) > 1})
        for section, items in document.items()
        if isinstance(items, list) and (section,) not in flagged
    }
    pruned = {section: [document[section][index] for index in kept] for section, kept in indexes.items()}
    return document | pruned, indexes


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
            yield Finding(path, f"{_items(value)}; at most {limit} are allowed")
        case "minItems":
            yield Finding(path, f"{_items(value)}; at least {limit} are needed")
        case "minProperties" | "maxProperties":
            yield Finding(path, f"{_show(value)}; expected {expected}")
        case "type":
            yield Finding(path, f"{_show(value)}{_kind(value)}; expected {expected}")
        case _:
            yield Finding(path, f"{_show(value)} is not valid; expected {expected}")


def _describe(schema: Mapping[str, Any]) -> str:
    import json

    reference = schema.get("$ref")
    if reference:
        schema = json.loads(schema_text())["$defs"][reference.rpartition("/")[2]]
    return str(schema.get("description", "a value"))


def _kind(value: Any) -> str:
    """Say what a single value of the wrong kind is taken for."""
    match value:
        case bool():
            return " is a truth value"
        case int():
            return " is a number"
        case str():
            return " is text"
        case None:
            return " is given"
        case _:
            return ""


def _items(value: list[Any]) -> str:
    return f"{len(value)} {plural('item', len(value))}"


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
            return f"a list of {_items(value)}" if value else "an empty list"
        case _:
            fields = ", ".join(value)
            return f"a mapping with {fields}" if value else "an empty mapping"

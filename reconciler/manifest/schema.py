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
from reconciler.wording import plural, suggest

if TYPE_CHECKING:
    from jsonschema import ValidationError

NAME = "reconciler-v1.schema.json"
# No list that needs a number of items is as long as this and right.
_LONG = 64


class Finding(NamedTuple):
    """One thing that is wrong with a document: where, and what.

    `at_key`: it is the field's name that is wrong. `line`, from 1: that of a text of many lines, such as rules.
    """

    path: Path
    message: str
    at_key: bool = False
    line: int = 0


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

    kept: dict[Path, list[int]] = {}
    pruned = _prune(document, (), flagged, kept)
    findings: list[Finding] = []
    for error in Draft202012Validator(json.loads(schema_text())).iter_errors(pruned):
        findings += _word(error, _unpruned(tuple(error.absolute_path), kept))
    # jsonschema has an error for each field that is missing, and each names them all.
    return list(dict.fromkeys(findings))


def _prune(value: Any, path: Path, flagged: set[Path], kept: dict[Path, list[int]]) -> Any:
    """Leave out of each long list the items that are not flagged, as jsonschema is slow; note the indexes of the rest.

    A list that is flagged itself stays whole.
    """
    if isinstance(value, dict):
        return {name: _prune(below, (*path, name), flagged, kept) for name, below in value.items()}
    if not isinstance(value, list):
        return value
    indexes: Iterable[int] = range(len(value))
    if len(value) > _LONG and path not in flagged:
        depth = len(path)
        indexes = kept[path] = sorted({int(at[depth]) for at in flagged if len(at) > depth and at[:depth] == path})
    return [_prune(value[index], (*path, index), flagged, kept) for index in indexes]


def _unpruned(path: Path, kept: Mapping[Path, list[int]]) -> Path:
    """Give the path in the whole document."""
    whole: Path = ()
    for step in path:
        whole = (*whole, kept[whole][int(step)] if whole in kept else step)
    return whole


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
        case "oneOf" if _is_told(value, limit, schema):
            return
        case "dependentRequired":
            for name, needed in limit.items():
                for other in needed:
                    if name in value and other not in value:
                        yield Finding((*path, name), f"needs {other} beside it", at_key=True)
        case "minProperties" | "maxProperties":
            yield Finding(path, f"{_show(value)}; expected {expected}")
        case "type":
            yield Finding(path, f"{_show(value)}{_kind(value)}; expected {expected}")
        case _:
            yield Finding(path, f"{_show(value)} is not valid; expected {expected}")


def _is_told(value: Any, choices: list[Any], schema: Mapping[str, Any]) -> bool:
    """Tell whether another error says it better: it is no mapping, or what it must have is there, but misspelt."""
    if not isinstance(value, dict):
        return True
    needed = {name for choice in choices for name in choice["required"]}
    return not needed & value.keys() and not value.keys() <= schema["properties"].keys()


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

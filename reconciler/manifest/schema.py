"""Check a document against its schema in `schemas/`, and word what is wrong with it.

The schema file is the only contract: of a manifest, or of the operator's policy. jsonschema-rs finds in a few
milliseconds whether a document is valid, or which parts are not. Only these parts are checked by the slower jsonschema,
whose errors have the details that messages need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema_rs

from reconciler.manifest.compose import Path
from reconciler.manifest.mistakes import misread_key, misread_text
from reconciler.wording import plural, suggest

if TYPE_CHECKING:
    from jsonschema import ValidationError

MANIFEST, POLICY = "reconciler-v1.schema.json", "reconciler-policy-v1.schema.json"
# Lists longer than this are pruned; the lists that need a certain number of items are shorter.
_LONG = 64


class Finding(NamedTuple):
    """One thing that is wrong with a document: where, and what.

    `at_key`: the name of the field is wrong, not its value. `line`, from 1: the line within a text of many lines, such
    as rules.
    """

    path: Path
    message: str
    at_key: bool = False
    line: int = 0


def path_text(path: Path) -> str:
    """Write a path as messages show it: `interfaces[0].mtu`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@cache
def schema_text(name: str = MANIFEST) -> str:
    """Return a schema. In a checkout it is beside the package, in an installed package inside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for parent in (os.path.dirname(package), package):
        file = os.path.join(parent, "schemas", name)
        if os.path.isfile(file):
            with open(file, encoding="utf-8") as stream:
                return stream.read()
    raise FileNotFoundError(f"{name} is missing from this installation")


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema_text(name))


def check(document: Any, name: str = MANIFEST) -> list[Finding]:
    """Return everything that is wrong with a document by a schema; empty if it is valid."""
    validator = _validator(name)
    if validator.is_valid(document):
        return []
    errors = list(validator.iter_errors(document))
    findings = _explain(document, {tuple(error.instance_path) for error in errors}, name)
    # If the two libraries disagree, the document is still invalid.
    return findings or [Finding(tuple(error.instance_path), error.message) for error in errors]


def _explain(document: Any, flagged: set[Path], name: str) -> list[Finding]:
    import json

    from jsonschema import Draft202012Validator

    kept: dict[Path, list[int]] = {}
    pruned = _prune(document, (), flagged, kept)
    findings: list[Finding] = []
    for error in Draft202012Validator(json.loads(schema_text(name))).iter_errors(pruned):
        findings += _word(error, _unpruned(tuple(error.absolute_path), kept), name)
    # jsonschema has one error for each missing field, and each error names all of them.
    return list(dict.fromkeys(findings))


def _prune(value: Any, path: Path, flagged: set[Path], kept: dict[Path, list[int]]) -> Any:
    """Return a value without the valid items of long lists, because jsonschema is slow.

    `flagged`: the paths of what is invalid; a list that is flagged itself stays whole. `kept` gets the indexes of the
    items that are left in each list.
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
    """Return the path in the whole document for a path in the pruned one."""
    whole: Path = ()
    for step in path:
        whole = (*whole, kept[whole][int(step)] if whole in kept else step)
    return whole


def _word(error: ValidationError, path: Path, file: str = MANIFEST) -> Iterator[Finding]:
    """Yield an error of jsonschema in our words: what is wrong, and what was expected. `file`: the schema."""
    limit: Any = error.validator_value
    value: Any = error.instance
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    expected = schema.get("description", "something else")
    if mistake := _misread(value):
        yield Finding(path, mistake)
        return
    match error.validator:
        case "required":
            written = _written(value)
            for name in limit:
                if name not in written:
                    field = schema.get("properties", {}).get(name, {})
                    yield Finding((*path, name), f"missing; expected {_describe(field, file)}")
        case "additionalProperties":
            # A name that the schema has in order to refuse it is no hint, and has an error of its own.
            known = [name for name, each in schema["properties"].items() if each.get("not") != {}]
            patterns = "|".join(schema.get("patternProperties", ())) or "(?!)"
            for name in value:
                if name not in schema["properties"] and not re.search(patterns, name):
                    mistake = misread_text(name) if value[name] is None else None
                    yield Finding((*path, name), mistake or f"unknown field; {suggest(name, known)}", at_key=True)
        case "maximum":
            yield Finding(path, f"{value} is above the maximum of {limit}")
        case "minimum":
            yield Finding(path, f"{value} is below the minimum of {limit}")
        case "maxItems":
            yield Finding(path, f"{_items(value)}; at most {limit} are allowed")
        case "minItems":
            yield Finding(path, f"{_items(value)}; at least {limit} are needed")
        case "oneOf" if _has_better_error(value, limit, schema):
            return
        case "dependentRequired":
            for name, needed in limit.items():
                for other in needed:
                    if name in value and other not in value:
                        yield Finding((*path, name), f"needs {other} beside it", at_key=True)
        case "minProperties" | "maxProperties":
            yield Finding(path, f"{_show(value)}; expected {expected}")
        case "type" if isinstance(value, str) and limit != "string" and (mistake := misread_text(value)):
            yield Finding(path, mistake)
        case "type":
            yield Finding(path, f"{_show(value)}{_kind(value)}; expected {expected}")
        case _:
            yield Finding(path, f"{_show(value)} is not valid; expected {expected}")


def _written(value: Mapping[str, Any]) -> set[str]:
    """Return the fields of a mapping, with those whose value follows their colon at once."""
    return {name.partition(":")[0] if value[name] is None and misread_text(name) else name for name in value}


def _misread(value: Any) -> str | None:
    """Return the mistake behind a mapping that was written as a text, if it is one."""
    if not isinstance(value, dict) or list(value.values()) != [None] or _written(value) != value.keys():
        return None
    return misread_key(next(iter(value)))


def _has_better_error(value: Any, choices: list[Any], schema: Mapping[str, Any]) -> bool:
    """Return whether another error explains it better: it is no mapping, or a field that it needs is misspelt."""
    if not isinstance(value, dict):
        return True
    written = _written(value)
    if written != value.keys():
        return True
    needed = {name for choice in choices for name in choice["required"]}
    return not needed & written and not value.keys() <= schema["properties"].keys()


def _describe(schema: Mapping[str, Any], file: str) -> str:
    import json

    reference = schema.get("$ref")
    if reference:
        schema = json.loads(schema_text(file))["$defs"][reference.rpartition("/")[2]]
    return str(schema.get("description", "a value"))


def _kind(value: Any) -> str:
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


def _items(value: list[Any]) -> str:
    return f"{len(value)} {plural('item', len(value))}"


def _show(value: Any) -> str:
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
            return f"a list of {_items(value)}" if value else "an empty list"
        case _:
            fields = ", ".join(value)
            return f"a mapping with {fields}" if value else "an empty mapping"

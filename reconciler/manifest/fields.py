"""The fields of a manifest by their paths, as the schema describes them: what `reconciler explain` prints.

A path is written as in messages (`interfaces[0].mtu`) or without the indexes (`interfaces.mtu`). Names of sysctls have
dots in them, so of the names that a path can go on with, the longest counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from reconciler.manifest.schema import schema_text
from reconciler.values import NamedTuple
from reconciler.wording import nearest, plural, shorten

Schema = Mapping[str, Any]
_INDEX = re.compile(r"\.?(?:\[(?:[0-9]{0,9}|\*)\]|(?:[0-9]{1,9}|\*)(?=[.\[]|\Z))")
_TYPES = {"string": "text", "integer": "integer", "boolean": "true or false", "array": "list", "object": "mapping"}
# More fields than these are not listed in a message.
_LISTED = 12


class UnknownFieldError(Exception):
    """A path leads to no field of a manifest. The message says what may have been meant."""


class Field(NamedTuple):
    """A field. `path`: such as `routes[].dest`. `name`: the last of it; empty for an item of a list, and the whole.

    `parent`: the schema of the mapping that it belongs to; empty if there is none.
    """

    path: str
    name: str
    schema: Schema
    parent: Schema

    @property
    def fields(self) -> dict[str, Field]:
        """Return the fields below this one, or below the items of this list, without names that are refused."""
        at = self.item or self
        return {
            name: Field(f"{at.path}.{name}".lstrip("."), name, _resolved(each), at.schema)
            for name, each in at.schema.get("properties", {}).items()
            if each.get("not") != {}
        }

    @property
    def item(self) -> Field | None:
        """Return the items of this field, if it is a list."""
        return Field(f"{self.path}[]", "", _resolved(self.schema["items"]), {}) if "items" in self.schema else None

    @property
    def is_needed(self) -> bool:
        """Return whether its mapping must have it."""
        return self.name in self.parent.get("required", ())


def find(path: str) -> Field:
    """Return the field at a path; that of an empty path is the manifest. Raise UnknownFieldError if there is none."""
    at, rest = _root(), path.strip().removeprefix("$").strip(".")
    while rest:
        if (index := _INDEX.match(rest)) and at.item:
            at, rest = at.item, rest[index.end() :]
            continue
        rest, fields = rest.removeprefix("."), at.fields
        names = [name for name in fields if rest.startswith(name) and rest[len(name) : len(name) + 1] in {"", ".", "["}]
        if not names:
            raise UnknownFieldError(_unknown(at, rest))
        name = max(names, key=len)
        at, rest = fields[name], rest[len(name) :]
    return at


def every(below: Field | None = None) -> Iterator[Field]:
    """Yield all fields below one, or of the manifest."""
    for each in (below or _root()).fields.values():
        yield each
        yield from every(each)


def type_words(schema: Schema) -> str:
    """Return what values a field has: its type and limits."""
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return " or ".join(_kind_words(kind, schema) for kind in kinds)


def rules(field: Field) -> Iterator[str]:
    """Yield what must hold between a field and others, or between the fields of a mapping."""
    schema = field.schema
    if "oneOf" in schema:
        choices = [" and ".join(each["required"]) for each in schema["oneOf"]]
        yield f"exactly one of: {', '.join(choices)}" if len(choices) > 2 else f"either {', or '.join(choices)}"
    if any(each.get("maxProperties") == 1 for each in schema.get("allOf", ())):
        yield f"exactly one of: {', '.join(field.fields)}"
    if others := field.parent.get("dependentRequired", {}).get(field.name):
        yield f"needs {' and '.join(others)} beside it"


def _kind_words(kind: str, schema: Schema) -> str:
    match kind:
        case "integer":
            words = f"integer from {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else "integer"
            if "multipleOf" in schema:
                words += f", a multiple of {schema['multipleOf']}"
            return words + (f", but not {schema['not']['const']}" if "const" in schema.get("not", {}) else "")
        case "string":
            return f"text of {_range(schema.get('minLength', 0), schema['maxLength'], 'character')}"
        case "array":
            return f"list of {_range(schema.get('minItems', 0), schema['maxItems'], 'item')}"
        case _:
            return _TYPES[kind]


def _range(least: int, most: int, noun: str) -> str:
    if not least:
        return f"at most {most} {plural(noun, most)}"
    return f"{least} {plural(noun, most)}" if least == most else f"{least} to {most} {plural(noun, most)}"


def _root() -> Field:
    return Field("", "", _published(), {})


@cache
def _published() -> Schema:
    schema: Schema = json.loads(schema_text())
    return schema


def _resolved(schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    return {**_published()["$defs"][schema["$ref"].rpartition("/")[2]], **schema}


def _unknown(at: Field, rest: str) -> str:
    """Return the message about a path that cannot go on."""
    where = f"{at.path}.{rest}".lstrip(".")
    said = shorten(where, 200)
    if hint := _refused((at.item or at).schema, rest):
        return f"{said}: {hint}"
    if not at.fields:
        return f"{said}: {at.path} has no fields; `reconciler explain {_typed(at.path)}` describes it"
    name = re.split(r"[.\[]", rest)[0]
    by_name: dict[str, list[Field]] = {}
    for each in every():
        by_name.setdefault(each.name, []).append(each)
    found = by_name.get(rest) or by_name.get(name)
    if not found and (close := nearest(rest, at.fields) or nearest(name, at.fields)):
        found = [at.fields[close]]
    if found := found or by_name.get(nearest(name, by_name) or ""):
        *first, last = (f'"{_typed(each.path)}"' for each in found)
        return f"{said}: unknown field; did you mean {', '.join(first)}{' or ' * bool(first)}{last}?"
    if len(at.fields) > _LISTED:
        return f"{said}: unknown field; `reconciler explain {_typed(at.path)}` lists {len(at.fields)} fields"
    return f"{said}: unknown field; expected one of: {', '.join(at.fields)}"


def _refused(schema: Schema, rest: str) -> str | None:
    """Return the hint of a name that the schema has in order to refuse it."""
    for name, each in schema.get("properties", {}).items():
        if name == rest and each.get("not") == {}:
            return str(each["deprecationMessage"])
    for pattern, each in schema.get("patternProperties", {}).items():
        if re.search(pattern, rest):
            return str(each["deprecationMessage"])
    return None


def _typed(path: str) -> str:
    """Return a path as people type it."""
    return path.replace("[]", "")

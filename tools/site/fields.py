"""The fields of a JSON Schema as a page: one table for each mapping, with type, limits, default and example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.manifest.dump import dump
from reconciler.manifest.fields import Field, rules, type_words
from reconciler.values import NamedTuple


class Kind(NamedTuple):
    """What a schema describes: the title of its page, its beginning, and the name of the whole document."""

    title: str
    beginning: str
    name: str


MANIFEST = Kind(
    "Fields of a manifest",
    "All fields, with their limits, from [the schema](../schemas/reconciler-v1.schema.json) that checks manifests. "
    "[The manifest](../manifest.md) explains what they do, and `reconciler explain FIELD` prints the same.",
    "the manifest",
)
POLICY = Kind(
    "Fields of the policy",
    "All fields of the operator's policy, from [its schema](../schemas/reconciler-policy-v1.schema.json). "
    "[Security](../security.md#what-the-policy-allows) explains what they allow.",
    "the policy",
)


def page(file: Path, kind: Kind) -> str:
    """Return the page about the schema in a file, as Markdown."""
    schema = json.loads(file.read_text(encoding="utf-8"))
    root = Field("", "", _inlined(schema, schema.get("$defs", {})), {})
    return "\n".join([f"# {kind.title}\n\n{kind.beginning}\n", *_tables(root, kind.name)])


def _inlined(node: Any, shared: dict[str, Any]) -> Any:
    """Return a part of a schema with what it refers to in the place of each reference; its own words come first."""
    if isinstance(node, list):
        return [_inlined(each, shared) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(reference := node.get("$ref"), str):
        node = {**shared[reference.removeprefix("#/$defs/")], **node}
    return {name: _inlined(each, shared) for name, each in node.items() if name not in {"$ref", "$defs"}}


def _tables(field: Field, name: str) -> Iterator[str]:
    """Yield a table of the fields below one, then those of each of them."""
    if not field.fields:
        return
    yield "\n".join(_table(field, name))
    for each in field.fields.values():
        yield from _tables(each, each.path)


def _table(field: Field, name: str) -> Iterator[str]:
    at = field.item or field
    yield from (f"## {name}", "")
    for sentence in (at.schema["description"], *rules(at)):
        yield from (f"{sentence[:1].upper()}{sentence[1:]}.", "")
    yield from ("| field | type and limits | default | example | meaning |", "| --- | --- | --- | --- | --- |")
    for label, each in field.fields.items():
        cells = [f"`{label}`", _type(each), _default(each), _example(each), each.schema["description"]]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _type(field: Field) -> str:
    return "; ".join([type_words(field.schema), *(rules(field) if not field.fields else ())])


def _default(field: Field) -> str:
    if field.is_needed:
        return "needed"
    return _code(field.schema["default"]) if "default" in field.schema else ""


def _example(field: Field) -> str:
    """Return an example, of a field that has no table of its own."""
    if field.fields:
        return ""
    return next(map(_code, field.schema.get("examples", ())), "")


def _code(value: Any) -> str:
    """Return a value as it can stand in a manifest, on one line."""
    if isinstance(value, list | dict):
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    # As the only one of a mapping: `{x: 1500}`.
    return f"`{dump([{'x': value}]).strip()[4:-1]}`"

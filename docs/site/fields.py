"""The fields of a JSON Schema as a page: one table for each mapping, with type, limits, default and example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Schema = dict[str, Any]


class Kind(NamedTuple):
    """What a schema describes: the title of its page, its beginning, and the name of the whole document."""

    title: str
    beginning: str
    name: str


MANIFEST = Kind(
    "Fields of a manifest",
    "All fields, with their limits, from [the schema](../schemas/reconciler-v1.schema.json) that checks manifests. "
    "[The manifest](../manifest.md) explains what they do.",
    "manifest",
)
POLICY = Kind(
    "Fields of the policy",
    "All fields of the operator's policy, from [its schema](../schemas/reconciler-policy-v1.schema.json). "
    "[Security](../security.md#what-the-policy-allows) explains what they allow.",
    "policy",
)
# Limits in the words of a reader, in the order in which they are printed.
_LIMITS = {
    "minimum": "at least {:,}",
    "maximum": "at most {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "minItems": "at least {:,} items",
    "maxItems": "at most {:,} items",
    "maxProperties": "at most {:,} entries",
}


def page(file: Path, kind: Kind) -> str:
    """Return the page about the schema in a file, as Markdown."""
    schema = json.loads(file.read_text(encoding="utf-8"))
    tables = "\n".join(_table(path, node, schema) for path, node in _mappings(kind.name, schema, schema))
    return f"# {kind.title}\n\n{kind.beginning}\n\n{tables}"


def _mappings(path: str, node: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield every mapping with named fields at or below a node, with its path."""
    if "properties" in node:
        yield path, node
        for name, child in node["properties"].items():
            yield from _mappings(f"{path}.{name}", _resolved(child, root), root)
    if "items" in node:
        yield from _mappings(f"{path}[]", _resolved(node["items"], root), root)


def _resolved(node: Schema, root: Schema) -> Schema:
    """Return a node with what it refers to; its own words come first."""
    if "$ref" not in node:
        return node
    return {**root["$defs"][node["$ref"].removeprefix("#/$defs/")], **node}


def _table(path: str, node: Schema, root: Schema) -> str:
    title = path.partition(".")[2] or path
    needed = node.get("required", [])
    lines = [f"## {title}", "", f"{_sentence(node)}", "", "| field | type and limits | default | example | meaning |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, child in node["properties"].items():
        field = _resolved(child, root)
        default = "needed" if name in needed else _code(field["default"]) if "default" in field else ""
        cells = [f"`{name}`", _limits(field), default, *map(_code, field.get("examples", [""])[:1]), _sentence(field)]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _sentence(node: Schema) -> str:
    text = str(node.get("description", ""))
    return text[:1].upper() + text[1:]


def _limits(node: Schema) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{each}`" for each in node["enum"])
    types = node.get("type", [])
    words = [" or ".join([types] if isinstance(types, str) else types)]
    # A limit of one character is that of a text that must not be empty.
    words += [text.format(node[name]) for name, text in _LIMITS.items() if name in node and not _is_trivial(name, node)]
    return ", ".join(word for word in words if word)


def _is_trivial(name: str, node: Schema) -> bool:
    return name in {"minLength", "minItems"} and node[name] == 1


def _code(value: Any) -> str:
    """Return a value as it is written in a manifest."""
    if value == "":
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"

"""`reconciler explain`: what a field of a manifest is, from the schema."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from reconciler.cli.output import say
from reconciler.errors import HostError
from reconciler.manifest.dump import dump
from reconciler.manifest.fields import Field, UnknownFieldError, find, rules, type_words

# A list of fields has its descriptions beside the names if there is as much room for them.
_BESIDE = 30
# The longest name of a field that others are aligned with.
_ALIGNED = 24


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the field."""
    parser.add_argument(
        "field",
        nargs="?",
        default="",
        metavar="FIELD",
        help="its path in a manifest, such as routes.nexthops or interfaces[0].mtu (default: all of a manifest)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the description of a field."""
    try:
        field = find(arguments.field)
    except UnknownFieldError as error:
        raise HostError(str(error)) from None
    say(*_lines(field, max(shutil.get_terminal_size().columns, 30)))
    return 0


def _lines(field: Field, width: int) -> Iterator[str]:
    schema = field.schema
    yield field.path or "the manifest"
    yield from _beside("", schema["description"], 2, width)
    yield ""
    for label, text in _facts(field):
        yield from _beside(f"  {label}", text, 11, width)
    for number, example in enumerate(schema["examples"]):
        first, *others = _example(field.name, example)
        yield f"{'' if number else '  example':11}{first}"
        yield from (f"{'':11}{line}" for line in others)
    if field.fields:
        yield ""
        yield "fields of each item (* is needed):" if field.item else "fields (* is needed):"
        yield from _fields(field, width)


def _facts(field: Field) -> Iterator[tuple[str, str]]:
    yield "type", type_words(field.schema)
    if field.name:
        yield "needed", "yes" if field.is_needed else "no"
    if field.item and field.item.schema.get("type") != "object":
        yield "items", type_words(field.item.schema)
    if "default" in field.schema:
        yield "default", dump([field.schema["default"]]).removesuffix("\n").removesuffix("\n...")
    elif field.name and not field.is_needed:
        # What holds for sysctls is said once, of their mapping.
        yield "default", f"none; without it: {field.schema.get('absent', 'it is left alone')}"
    yield from (("rule", each) for each in rules(field))


def _example(name: str, value: Any) -> list[str]:
    """Return an example as it stands in a manifest, line by line."""
    if not name:
        return dump([value]).removesuffix("\n...\n").splitlines()
    text = dump([{name: value}])
    return (text.strip()[1:-1] if text.startswith("{") else text).splitlines()


def _fields(field: Field, width: int) -> Iterator[str]:
    names = [f"{'*' if each.is_needed else ' '} {name}" for name, each in field.fields.items()]
    indent = min(max(map(len, names)), _ALIGNED) + 2
    for name, each in zip(names, field.fields.values(), strict=True):
        yield from _beside(name, each.schema["description"], indent, width)


def _beside(name: str, text: str, indent: int, width: int) -> Iterator[str]:
    """Yield a name and its text beside it; below it if the name is long, or the terminal narrow."""
    if name and width - indent < _BESIDE:
        indent = 4
    if len(name) >= indent:
        yield name
        name = ""
    yield from textwrap.wrap(
        text, width, initial_indent=f"{name:{indent}}", subsequent_indent=" " * indent, break_on_hyphens=False
    )

"""Plain data → YAML that every reader reads as the same data: text that YAML 1.1 or 1.2 would retype is quoted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from reconciler.wording import printable_lines

# Text that PyYAML does not quote and another reader reads as a number or a boolean: 1e3, 0o17, 12e4567, -.5, y.
_RETYPED_ELSEWHERE = re.compile(
    r"([-+]?(0o[0-7_]+|([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?)|[yYnN])\Z"
)


class _Dumper(yaml.CSafeDumper):
    """Writes lists and mappings in block style, except those with only scalars: these are in flow style."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    # Only in double quotes, what cannot be printed can be escaped. A lone surrogate cannot be written at all.
    style = '"' if _RETYPED_ELSEWHERE.match(text) or not text.isprintable() else None
    text = text.encode(errors="backslashreplace").decode()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_mapping(dumper: _Dumper, data: Mapping[str, Any]) -> yaml.Node:
    flat = not any(isinstance(value, Mapping | list) for value in data.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flat)


def _represent_list(dumper: _Dumper, data: Sequence[Any]) -> yaml.Node:
    flat = not any(isinstance(value, Mapping | list) for value in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(list, _represent_list)


def dump(documents: Sequence[Any], *, ascii_only: bool = False) -> str:
    """Return documents as YAML, with `---` between them. `ascii_only`: with escapes for all other characters."""
    return printable_lines(
        yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only, width=120)
    )

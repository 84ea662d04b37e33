"""Leave out of a document what no manifest can express: a kernel's IPVS table can hold values that have no notation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from reconciler.manifest.check import check_sections
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.place import SERVICES
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check

_SECTION, _SERVERS = "ipvs", "servers"
_HEAD = ("apiVersion", "sandbox", "driver")


def leave_out(document: Mapping[str, Any]) -> list[str]:
    """Delete from the IPVS section of a document, in place, what is not valid. Return what was deleted, and why.

    A service or server with an invalid field is deleted whole, as any other value would be invented.
    """
    left: list[str] = []
    while findings := _findings(document):
        first: dict[Path, Finding] = {}
        for finding in findings:
            first.setdefault(_object_of(finding.path), finding)
        if any(len(place) < 2 or place == SERVICES for place in first):
            # This is about the section or its services as a whole, such as too many rules.
            return [*left, *(f"{path_text(each.path)}: {each.message}" for each in findings)]
        left += [_words(document, place, finding) for place, finding in first.items()]
        # The last come first, so that the indexes of the others stay right.
        for *above, last in sorted(first, key=_order, reverse=True):
            del _at(document, tuple(above))[last]
    return left


def _findings(document: Mapping[str, Any]) -> list[Finding]:
    if _SECTION not in document:
        return []
    part = {name: document[name] for name in (*_HEAD, _SECTION)}
    # Nobody wrote what was observed, and each object is deleted that no manifest can have.
    findings = check(part, most=sys.maxsize)
    findings += check_sections(read_sections(part, findings))
    return findings


def _object_of(path: Path) -> Path:
    """Return the path of the object to delete: a service, a server, or a setting."""
    return path[:5] if path[3:4] == (_SERVERS,) and len(path) > 4 else path[:3]


def _order(path: Path) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (0, step) for step in path]


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _words(document: Mapping[str, Any], place: Path, finding: Finding) -> str:
    """Name an object by the first field of each object around it, and the field that is wrong."""
    around = [_at(document, place[: depth + 1]) for depth, step in enumerate(place) if isinstance(step, int)]
    firsts = [next(iter(each.items())) for each in around]
    names = [f"protocol {name} {value}" if name.isdecimal() else f"{name} {value}" for name, value in firsts]
    below = finding.path[len(place) :]
    # A field can also be wrong because it is missing.
    value = around[-1].get(below[0]) if around and len(below) == 1 else None
    shown = f" {value}" if isinstance(value, str | int) else ""
    return ": ".join((_SECTION, *names, f"{path_text(below or place[-1:])}{shown}", finding.message))

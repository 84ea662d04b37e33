"""Leave out of a document what no manifest can express.

A kernel's tables can hold values that have no notation, and objects that a manifest may not have together.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from reconciler.manifest.check import check_sections
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.place import SERVICES
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check
from reconciler.model.route import DIRECT_TYPES, REJECT_TYPES, TABLE_LOCAL, Route

_SECTION, _SERVERS = "ipvs", "servers"
_HEAD = ("apiVersion", "sandbox", "driver")


def is_expressible(route: Route) -> bool:
    """Return whether a manifest can have a route of this type and table, which selects packets as this one does."""
    if route.type in REJECT_TYPES:
        more = route.mtu or route.metrics or route.scope or route.source or route.pref != "medium"
        return not (route.from_ or more or route.table == TABLE_LOCAL)
    direct = route.type in DIRECT_TYPES
    return not route.from_ and (direct or (route.type == "unicast" and route.table != TABLE_LOCAL))


def leave_out(document: Mapping[str, Any], sections: Collection[str] = (_SECTION,)) -> list[str]:
    """Delete from these sections of a document, in place, what is not valid. Return what was deleted, and why.

    An object with an invalid field is deleted whole, as any other value would be invented; so is what needs it.
    """
    left: list[str] = []
    while findings := _findings(document, sections):
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


def _findings(document: Mapping[str, Any], sections: Collection[str]) -> list[Finding]:
    present = [name for name in document if name in sections]
    if not present:
        return []
    part = {name: document[name] for name in (*_HEAD, *present)}
    # Nobody wrote what was observed, and each object is deleted that no manifest can have.
    findings = check(part, most=sys.maxsize)
    findings += check_sections(read_sections(part, findings))
    return findings


def _object_of(path: Path) -> Path:
    """Return the path of the object to delete: of a list, or a service, a server, or a setting of the IPVS section."""
    if path[0] != _SECTION:
        return path[:2]
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
    return ": ".join((str(place[0]), *names, f"{path_text(below or place[-1:])}{shown}", finding.message))

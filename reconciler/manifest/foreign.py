"""Files in other people's notations → the data of one manifest, with a place for all that is wrong or left out."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reconciler.errors import ManifestError, Problem
from reconciler.formats import keepalived
from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.formats.kata.fields import FieldError
from reconciler.formats.kata.interface import read_interface
from reconciler.formats.kata.route import is_route, read_route
from reconciler.formats.statements import Place
from reconciler.formats.virtual_server import key_words
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import ComposeError, Path, compose, locate
from reconciler.manifest.load import STDIN, read_regular, read_text, reason, syntax_problem, unreadable
from reconciler.manifest.place import Document, of_line, problems, service_lines
from reconciler.manifest.sandbox import read_sections, write
from reconciler.manifest.schema import Finding, check, path_text
from reconciler.model.address import parse_prefix
from reconciler.model.interface import Interface
from reconciler.model.ipvs import Ipvs, Service
from reconciler.model.route import Route
from reconciler.model.sandbox import Sandbox

KATA, IPVSADM, KEEPALIVED = "kata", "ipvsadm", "keepalived"
NOTATIONS = (KATA, IPVSADM, KEEPALIVED)

# The first character that is neither blank nor in a comment, and what each notation has from there on.
_START = re.compile(r"^[ \t]*([^ \t\n#!])", re.MULTILINE)
_BEGINNINGS = {
    KATA: re.compile(r"[\[{]|null\b"),
    IPVSADM: re.compile(r"-|ipvsadm\b"),
    KEEPALIVED: re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?=[\s{]|\Z)|[$@~]"),
}
_NOTHING = {
    KATA: "no interface and no route in it",
    IPVSADM: "no rule in it",
    KEEPALIVED: "no virtual server in it",
}


@dataclass
class Found:
    """What files say, each thing with its place; what is left out of it, and what is wrong. `lines`: of each file."""

    interfaces: list[tuple[Place, Interface]] = field(default_factory=list)
    routes: list[tuple[Place, Route]] = field(default_factory=list)
    services: list[tuple[Place, Service]] = field(default_factory=list)
    left: list[tuple[Place, str]] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, place: Place, message: str, path: str = "") -> None:
        """Add what is wrong on a line."""
        self.wrong.append(of_line(place.file, self.lines[place.file], place.line, path, message))

    def leave(self, place: Place, message: str) -> None:
        """Add what is not taken over."""
        self.left.append((place, message))

    def notes(self) -> list[tuple[Place, str]]:
        """Give what is left out, file by file in the order of reading, and by line."""
        ranks = self._ranks()
        return sorted(self.left, key=lambda each: (ranks[each[0].file], each[0].line))

    def problems(self) -> list[Problem]:
        """Give what is wrong in the same order; files that cannot be read come last."""
        ranks = self._ranks()
        return sorted(self.wrong, key=lambda each: (ranks.get(each.file, len(ranks)), each.line))

    def _ranks(self) -> dict[str, int]:
        return {file: rank for rank, file in enumerate(self.lines)}


def read(files: Iterable[str], notation: str | None = None) -> Found:
    """Read files, `-` is standard input. Without a notation, each file is in the one that it looks like."""
    found = Found()
    for file in dict.fromkeys(files):
        _read_file(file, notation, found)
    return found


def _read_file(file: str, notation: str | None, found: Found) -> None:
    name = "<stdin>" if file == STDIN else file
    try:
        text = read_text(file).replace("\r\n", "\n")
        notation = notation or recognise(text)
    except (OSError, ValueError) as error:
        found.wrong.append(unreadable(name, reason(error)))
        return
    found.lines[name] = text.split("\n")
    before = _count(found)
    if notation == KATA:
        _read_kata(name, text, found)
    elif notation == IPVSADM:
        _read_rules(name, text, found)
    else:
        found.services += keepalived.parse(name, text, partial(_include, found), found.refuse, found.leave)
    if _count(found) == before:
        found.wrong.append(unreadable(name, _NOTHING[notation]))


def _count(found: Found) -> int:
    return len(found.interfaces) + len(found.routes) + len(found.services) + len(found.wrong)


def recognise(text: str) -> str:
    """Tell the notation of a text by its first line that is no comment. ValueError if it is none of them."""
    match = _START.search(text)
    if match is None:
        raise ValueError("is empty")
    for notation, beginning in _BEGINNINGS.items():
        if beginning.match(text, match.start(1)):
            return notation
    raise ValueError(f"is in none of the notations known ({', '.join(NOTATIONS)})")


def _read_kata(name: str, text: str, found: Found) -> None:
    # YAML, unlike JSON, has no tab before the first bracket.
    start = len(text) - len(text.lstrip())
    text = text[:start].replace("\t", " ") + text[start:]
    try:
        documents = compose(text)
    except ComposeError as error:
        found.wrong.append(syntax_problem(name, text, error))
        return
    items = {number: dict(_items(document)) for number, document in enumerate(documents)}
    places = locate(text, {number: each.keys() for number, each in items.items() if each})
    said = []
    for number, each in items.items():
        findings: list[Finding] = []
        for path, item in each.items():
            _read_item(Place(name, places[number][path].value[0] + 1), path, item, findings, found)
        said.append(Document(number, findings))
    found.wrong += problems(name, text, said)


def _items(document: Any) -> Iterator[tuple[Path, Any]]:
    """Give what a document has: an object, or several in an array. `null` is what commands print of none."""
    if isinstance(document, list):
        yield from (((index,), item) for index, item in enumerate(document))
    elif document is not None:
        yield (), document


def _read_item(place: Place, path: Path, item: Any, findings: list[Finding], found: Found) -> None:
    try:
        if not is_route(item):
            found.interfaces.append((place, read_interface(item)))
            return
        route = read_route(item)
        found.routes.append((place, route))
    except FieldError as error:
        findings.append(Finding((*path, error.field) if error.field else path, error.message))
        return
    dest = item["dest"]
    if "/" in dest and parse_prefix(dest) != route.dest:
        found.leave(place, f"dest {dest}: its host bits are cleared, which gives {route.dest}")


def _read_rules(name: str, text: str, found: Found) -> None:
    services = parse_rules(text, lambda line, message: found.refuse(Place(name, line), message))
    # With a line that is wrong nothing is used.
    found.services += [(Place(name, line), each) for line, each in zip(service_lines(text), services, strict=False)]


def _include(found: Found, pattern: str, by: str) -> Iterator[tuple[str, str]]:
    """Give the files that a file includes: a pattern goes from its folder, and means no folders."""
    for file in sorted(glob.glob(os.path.join(os.path.dirname(by), pattern))):
        if os.path.isdir(file):
            continue
        try:
            text = read_regular(file).replace("\r\n", "\n")
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: {reason(error)}") from None
        found.lines[file] = text.split("\n")
        yield file, text


def document(found: Found, head: Sandbox) -> dict[str, Any]:
    """Make the data of a manifest: a sandbox with the sections that were found.

    Raises ManifestError with all that is wrong; what a manifest itself must not have is told where it was found.
    """
    _refuse_twice(found)
    data: dict[str, Any] = {}
    if not found.wrong:
        data = write(_with_sections(found, head))
        findings = check(data)
        findings += check_sections(read_sections(data, findings))
        for finding in findings:
            place, rest = _place(found, finding.path)
            found.refuse(place, finding.message, path_text(rest))
    if found.wrong:
        raise ManifestError(found.problems())
    return data


def _with_sections(found: Found, head: Sandbox) -> Sandbox:
    services = tuple([each for _, each in found.services])
    return replace(
        head,
        interfaces=tuple([each for _, each in found.interfaces]) or None,
        routes=tuple([each for _, each in found.routes]) or None,
        ipvs=Ipvs(services=services) if services else None,
    )


def _refuse_twice(found: Found) -> None:
    """Refuse what is there twice, whether both say the same or not."""
    first: dict[str, tuple[int, Place]] = {}
    for number, (place, names) in enumerate(_names(found)):
        owners = [(name, *first.setdefault(name, (number, place))) for name in names]
        taken = next((each for each in owners if each[1] != number), None)
        if taken:
            found.refuse(place, f"{taken[0]} is there already, at {taken[2]}")


def _names(found: Found) -> Iterator[tuple[Place, Sequence[str]]]:
    """Give what identifies each thing, in words."""
    for place, each in found.interfaces:
        yield place, (f"name {each.name}", f"device {each.device}", f"hwAddr {each.hw_addr}")
    yield from ((place, (f"route to {route.dest}",)) for place, route in found.routes)
    yield from ((place, (key_words(service.key),)) for place, service in found.services)


def _place(found: Found, path: Path) -> tuple[Place, Path]:
    """Find where the thing at a path of the manifest stands; the rest of the path is within it."""
    if path[0] == "ipvs":
        places = [place for place, _ in found.services]
        path = path[1:]
    else:
        places = [place for place, _ in (found.interfaces if path[0] == "interfaces" else found.routes)]
    if len(path) > 1 and isinstance(path[1], int):
        return places[path[1]], path[2:]
    # It is the list as a whole, such as too long a one.
    return places[-1], path[:1]

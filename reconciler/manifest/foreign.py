"""Files in notations of other programs → the data of one manifest, and the position of all that is wrong or skipped."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reconciler.errors import ManifestError, Problem
from reconciler.formats.ipvsadm.rules import PROGRAM, parse_rules, service_lines
from reconciler.formats.kata.fields import FieldError
from reconciler.formats.kata.interface import read_interface
from reconciler.formats.kata.route import is_route, read_route
from reconciler.formats.keepalived import variants
from reconciler.formats.keepalived.expansion import key_words
from reconciler.formats.keepalived.statements import Position
from reconciler.manifest.beneath import Roots, Source, named
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import ComposeError, compose, locate
from reconciler.manifest.files import STDIN, distinct, file_problem, read_text, reason_of
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.load import syntax_problem
from reconciler.manifest.place import DocumentFindings, line_problem, problems
from reconciler.manifest.sandbox import read_sections, write
from reconciler.manifest.schema import TooManyFindingsError, check
from reconciler.model.address import parse_prefix
from reconciler.model.interface import Interface
from reconciler.model.ipvs import LEAVE_TIMEOUTS, Ipvs, Service, Timeouts
from reconciler.model.route import Route
from reconciler.model.sandbox import Sandbox

KATA, IPVSADM, KEEPALIVED = "kata", "ipvsadm", "keepalived"
NOTATIONS = (KATA, IPVSADM, KEEPALIVED)

# The first character that is neither blank nor in a comment, and how each notation begins there.
_START = re.compile(r"^[ \t]*([^ \t\n#!])", re.MULTILINE)
_BEGINNINGS = {
    KATA: re.compile(r"[\[{]|null\b"),
    IPVSADM: re.compile(rf"--?[A-Za-z]|{PROGRAM}\b"),
    KEEPALIVED: re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?=[\s{]|\Z)|[$@~]"),
}
# What is included is part of a file, and may begin with an address or a brace. The file of passwords does not.
_INCLUDED = re.compile(
    r"(?:[ \t]*(?:[#!][^\n]*)?\n)*[ \t]*(?:[A-Za-z_][A-Za-z0-9_]*(?=[\s{]|\Z)|[0-9A-Fa-f:.]+[\s/-]|[{}$@~#!]|\Z)"
)
_NOTHING = {
    KATA: "contains no interface and no route",
    IPVSADM: "contains no rule",
    KEEPALIVED: "contains no virtual server",
}
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


@dataclass
class Imported:
    """What files contain, each thing with its position; the parts that are skipped; and what is wrong.

    `lines`: those of each file, in the order in which the files were read.
    """

    interfaces: list[tuple[Position, Interface]] = field(default_factory=list)
    routes: list[tuple[Position, Route]] = field(default_factory=list)
    services: list[tuple[Position, Service]] = field(default_factory=list)
    timeouts: list[tuple[Position, Timeouts]] = field(default_factory=list)
    skipped: list[tuple[Position, str]] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def add_problem(self, position: Position, message: str, path: str = "") -> None:
        """Add what is wrong on a line."""
        self.wrong.append(line_problem(position.file, self.lines[position.file], position.line, path, message))

    def add_skipped(self, position: Position, message: str) -> None:
        """Add what is not imported."""
        self.skipped.append((position, message))

    def skipped_in_order(self) -> list[tuple[Position, str]]:
        """Return what is not imported, by file in the order of reading, and by line."""
        ranks = self._ranks()
        return sorted(self.skipped, key=lambda each: (ranks[each[0].file], each[0].line))

    def problems(self) -> list[Problem]:
        """Return what is wrong in the same order; files that cannot be read come last."""
        ranks = self._ranks()
        return sorted(self.wrong, key=lambda each: (ranks.get(each.file, len(ranks)), each.line))

    def _ranks(self) -> dict[str, int]:
        return {file: rank for rank, file in enumerate(self.lines)}


def read(files: Iterable[str], notation: str | None = None, config_id: str | None = None) -> Imported:
    """Read files; `-` is standard input. Without a notation, recognise that of each file.

    `config_id`: the ID of a host, for which a keepalived.conf may have lines of its own.
    """
    imported = Imported()
    for file in distinct(map(named, files)):
        _read_file(file, notation, config_id, imported)
    return imported


def _read_file(file: Source, notation: str | None, config_id: str | None, imported: Imported) -> None:
    name = "<stdin>" if file.path == STDIN else file.path
    try:
        text = read_text(file).replace("\r\n", "\n")
        notation = _checked(notation, text) if notation else recognise(text)
    except (OSError, ValueError) as error:
        imported.wrong.append(file_problem(name, reason_of(error)))
        return
    imported.lines[name] = text.split("\n")
    before = _count(imported)
    if notation == KATA:
        _read_kata(name, text, imported)
    elif notation == IPVSADM:
        _read_rules(name, text, imported)
    else:
        _read_keepalived(file, name, text, config_id, imported)
    if _count(imported) == before:
        imported.wrong.append(file_problem(name, _NOTHING[notation]))


def _count(imported: Imported) -> int:
    return len(imported.interfaces) + len(imported.routes) + len(imported.services) + len(imported.wrong)


def recognise(text: str) -> str:
    """Return the notation of a text, recognised by its first line that is no comment. ValueError if it is unknown."""
    match = _START.search(text)
    if match is None:
        raise ValueError("is empty")
    for notation, beginning in _BEGINNINGS.items():
        if beginning.match(text, match.start(1)):
            return notation
    raise ValueError(f"is in no known notation ({', '.join(NOTATIONS)})")


def _checked(notation: str, text: str) -> str:
    """Return the notation that was named for a text. ValueError if it begins as none does: nothing of it is shown."""
    begins = _INCLUDED.match(text) or any(each.match(text.lstrip()) for each in _BEGINNINGS.values())
    if text.strip() and not begins:
        raise ValueError(f"begins as a file in no known notation does ({', '.join(NOTATIONS)})")
    return notation


def _read_kata(name: str, text: str, imported: Imported) -> None:
    # Unlike JSON, YAML allows no tab before the first bracket.
    start = len(text) - len(text.lstrip())
    text = text[:start].replace("\t", " ") + text[start:]
    try:
        documents = compose(text)
    except ComposeError as error:
        imported.wrong.append(syntax_problem(name, text, error))
        return
    items = {number: dict(_items(document)) for number, document in enumerate(documents)}
    locations = locate(text, {number: each.keys() for number, each in items.items() if each})
    by_document = []
    for number, each in items.items():
        findings: list[Finding] = []
        for path, item in each.items():
            _read_item(Position(name, locations[number][path].value[0] + 1), path, item, findings, imported)
        by_document.append(DocumentFindings(number, findings))
    imported.wrong += problems(name, text, by_document)


def _items(document: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the objects of a document: one, or those of an array. `null` has none: commands print it for no object."""
    if isinstance(document, list):
        yield from (((index,), item) for index, item in enumerate(document))
    elif document is not None:
        yield (), document


def _read_item(position: Position, path: Path, item: Any, findings: list[Finding], imported: Imported) -> None:
    try:
        if not is_route(item):
            imported.interfaces.append((position, read_interface(item)))
            return
        route = read_route(item)
        imported.routes.append((position, route))
    except FieldError as error:
        findings.append(Finding((*path, error.field) if error.field else path, error.message))
        return
    dest = item["dest"]
    if "/" in dest and parse_prefix(dest) != route.dest:
        imported.add_skipped(position, f"dest {dest}: imported as {route.dest}, without the host bits")


def _read_rules(name: str, text: str, imported: Imported) -> None:
    services = parse_rules(text, lambda line, message: imported.add_problem(Position(name, line), message))
    # If a line is wrong, nothing is used.
    imported.services += [
        (Position(name, line), each) for line, each in zip(service_lines(text), services, strict=False)
    ]


def _read_keepalived(file: Source, name: str, text: str, config_id: str | None, imported: Imported) -> None:
    find_included = partial(_find_included, imported, file)
    services, timeouts = variants.parse(
        name, text, find_included, imported.add_problem, imported.add_skipped, config_id
    )
    imported.services += services
    if timeouts:
        imported.timeouts.append(timeouts)


def _find_included(imported: Imported, top: Source, pattern: str, by: str) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file that matches a pattern. ValueError if one cannot be read.

    `by`: the file with the `include`; the pattern starts from its folder. What matches is beneath the folder of `top`.
    """
    with Roots() as roots:
        for file in roots.glob(Source(os.path.join(os.path.dirname(by), pattern), top.roots)):
            try:
                mode = roots.stat(file).st_mode
                if stat.S_ISDIR(mode):
                    continue
                text = _read_included(file, mode)
            except (OSError, ValueError) as error:
                raise ValueError(f"{file.path}: {reason_of(error)}") from None
            imported.lines[file.path] = text.split("\n")
            yield file.path, text


def _read_included(file: Source, mode: int) -> str:
    if stat.S_ISREG(mode) and mode & _EXECUTABLE:
        raise ValueError("keepalived does not include a file that can be executed; change its mode")
    text = read_text(file).replace("\r\n", "\n")
    if not _INCLUDED.match(text):
        raise ValueError("does not begin as a part of a keepalived.conf does")
    return text


def document(imported: Imported, head: Sandbox) -> dict[str, Any]:
    """Return the data of a manifest: a sandbox with the sections that were imported.

    ManifestError with all that is wrong, at its position in the files; also with what no manifest may contain.
    """
    _find_duplicates(imported)
    data: dict[str, Any] = {}
    if not imported.wrong:
        data = write(_with_sections(imported, head))
        findings = check(data)
        with suppress(TooManyFindingsError):
            if not findings.more:
                findings += check_sections(read_sections(data, findings))
        for finding in findings:
            position, rest = _position(imported, finding.path)
            imported.add_problem(position, finding.message, path_text(rest))
    if imported.wrong:
        raise ManifestError(imported.problems())
    return data


def _with_sections(imported: Imported, head: Sandbox) -> Sandbox:
    services = tuple([each for _, each in imported.services])
    timeouts = next((each for _, each in imported.timeouts), LEAVE_TIMEOUTS)
    return replace(
        head,
        interfaces=tuple([each for _, each in imported.interfaces]) or None,
        routes=tuple([each for _, each in imported.routes]) or None,
        ipvs=Ipvs(services=services, timeouts=timeouts) if services else None,
    )


def _find_duplicates(imported: Imported) -> None:
    """Add a problem for each thing that is defined twice, even if both definitions are equal."""
    first: dict[str, tuple[int, Position]] = {}
    for number, (position, names) in enumerate(_names(imported)):
        owners = [(name, *first.setdefault(name, (number, position))) for name in names]
        taken = next((each for each in owners if each[1] != number), None)
        if taken:
            imported.add_problem(position, f"{taken[0]} is already defined at {taken[2]}")


def _names(imported: Imported) -> Iterator[tuple[Position, Sequence[str]]]:
    """Yield the position of each thing, and what must be its own, in words."""
    for position, each in imported.interfaces:
        yield position, (f"name {each.name}", f"device {each.device}", f"hwAddr {each.hw_addr}")
    yield from ((position, (f"route to {route.dest}",)) for position, route in imported.routes)
    yield from ((position, (key_words(service.key),)) for position, service in imported.services)
    yield from ((position, ("lvs_timeouts",)) for position, _ in imported.timeouts)


def _position(imported: Imported, path: Path) -> tuple[Position, Path]:
    """Return the position of the thing at a path of the manifest, and the rest of the path within that thing."""
    if path[0] == "ipvs":
        positions = [position for position, _ in imported.services]
        path = path[1:]
    else:
        things = imported.interfaces if path[0] == "interfaces" else imported.routes
        positions = [position for position, _ in things]
    if len(path) > 1 and isinstance(path[1], int):
        return positions[path[1]], path[2:]
    # It is about the list as a whole, for example because that is too long.
    return positions[-1], path[:1]

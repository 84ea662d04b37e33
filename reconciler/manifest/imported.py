"""What was found in files of other programs, with positions, and the manifest that it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from reconciler.errors import ManifestError, Problem
from reconciler.formats.entry import OBJECTS_MAX, REPORTED_MAX, Found, Link, Thing
from reconciler.formats.keepalived.expansion import key_words
from reconciler.formats.keepalived.statements import Position
from reconciler.manifest.check import check_sections
from reconciler.manifest.files import file_problem
from reconciler.manifest.finding import Path, path_text
from reconciler.manifest.place import line_problem, rest_problem
from reconciler.manifest.sandbox import read_sections, write
from reconciler.manifest.schema import TooManyFindingsError, check
from reconciler.model.interface import Interface
from reconciler.model.ipvs import LEAVE_TIMEOUTS, Ipvs, Service, Timeouts
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import TABLE_MAIN, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Sandbox
from reconciler.values import dataclass, field, replace

NOTHING = "contains nothing that a manifest can contain"


@dataclass
class Imported:
    """What files contain, each thing with its position; the parts that are skipped; and what is wrong.

    `links`: what single files say of NICs. `absent`: names of links that are left out → why. `lines`: those of each
    file, in the order in which the files were read. `empty`: the problems of files that contain nothing, which may be
    right beside others. `matched`: names of interfaces → the .network file that networkd takes for them. `listed`: what
    listings of `ip` have, by its key. `more_skipped`: how many parts of a file are skipped that are not listed. `left`:
    how many objects may follow.
    """

    interfaces: list[tuple[Position, Interface]] = field(default_factory=list)
    links: list[tuple[Position, Link]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    neighbours: list[tuple[Position, Neighbour]] = field(default_factory=list)
    routes: list[tuple[Position, Route]] = field(default_factory=list)
    rules: list[tuple[Position, Rule]] = field(default_factory=list)
    services: list[tuple[Position, Service]] = field(default_factory=list)
    timeouts: list[tuple[Position, Timeouts]] = field(default_factory=list)
    skipped: list[tuple[Position, str]] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    empty: list[Problem] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    left: int = OBJECTS_MAX
    listed: dict[Hashable, Thing] = field(default_factory=dict)
    more_skipped: Counter[str] = field(default_factory=Counter)

    def add_problem(self, position: Position, message: str, path: str = "") -> None:
        """Add what is wrong on a line."""
        self.wrong.append(line_problem(position.file, self.lines[position.file], position.line, path, message))

    def add_skipped(self, position: Position, message: str) -> None:
        """Add what is not imported."""
        self.skipped.append((position, message))

    def skipped_in_order(self) -> Iterator[str]:
        """Yield what is not imported, a line each, by file in the order of reading, and by line.

        Of each file, that are REPORTED_MAX lines, and one with the number of the others.
        """
        ranks = self._ranks()
        ordered = sorted(self.skipped, key=lambda each: (ranks[each[0].file], each[0].line))
        listed, more = Counter[str](), Counter(self.more_skipped)
        for position, message in ordered:
            counter = listed if listed[position.file] < REPORTED_MAX else more
            counter[position.file] += 1
            if counter is listed:
                yield f"{position}: {message}"
        for file, count in more.items():
            yield f"{file}: {count:,} more parts that are not imported, which are not listed"

    def problems(self) -> list[Problem]:
        """Return what is wrong in the same order; files that cannot be read come last."""
        ranks = self._ranks()
        return sorted(self.wrong, key=lambda each: (ranks.get(each.file, len(ranks)), each.line))

    def count(self) -> int:
        """Return how many things were found, and how many problems."""
        nics = len(self.interfaces) + len(self.links)
        return nics + len(self.neighbours) + len(self.routes) + len(self.rules) + len(self.services) + len(self.wrong)

    def _ranks(self) -> dict[str, int]:
        return {file: rank for rank, file in enumerate(self.lines)}

    def add_found(self, file: str, found: Found) -> None:
        """Add which links a file leaves out, and how many of its problems and skipped parts are not listed."""
        self.absent |= found.absent
        if found.more["wrong"]:
            self.wrong.append(rest_problem(file, found.more["wrong"]))
        if found.more["skipped"]:
            self.more_skipped[file] += found.more["skipped"]


def document(imported: Imported, head: Sandbox) -> dict[str, Any]:
    """Return the data of a manifest: a sandbox with the sections that were imported.

    ManifestError with all that is wrong, at its position in the files; also with what no manifest may contain.
    """
    _find_duplicates(imported)
    if not imported.wrong and not imported.count():
        imported.wrong += imported.empty or [file_problem(file, NOTHING) for file in imported.lines]
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
        neighbours=tuple([each for _, each in imported.neighbours]) or None,
        routes=tuple([each for _, each in imported.routes]) or None,
        rules=tuple([each for _, each in imported.rules]) or None,
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
    for position, entry in imported.neighbours:
        yield position, (f"{'proxied ' * entry.proxy}neighbour {entry.address} of {entry.device}",)
    yield from ((position, (_route_words(route),)) for position, route in imported.routes)
    yield from ((position, (key_words(service.key),)) for position, service in imported.services)
    yield from ((position, ("lvs_timeouts",)) for position, _ in imported.timeouts)


def _route_words(route: Route) -> str:
    table = f" in table {route.table}" * (route.table != TABLE_MAIN)
    tos = f" with tos {route.tos}" * bool(route.tos)
    metric = f" with metric {route.metric}" * bool(route.metric)
    return f"route to {route.dest}{table}{tos}{metric}"


def _position(imported: Imported, path: Path) -> tuple[Position, Path]:
    """Return the position of the thing at a path of the manifest, and the rest of the path within that thing."""
    section = "services" if path[0] == "ipvs" else path[0]
    path = path[1:] if path[0] == "ipvs" else path
    positions = [position for position, _ in getattr(imported, str(section))]
    if len(path) > 1 and isinstance(path[1], int):
        return positions[path[1]], path[2:]
    # It is about the list as a whole, for example because that is too long.
    return positions[-1], path[:1]

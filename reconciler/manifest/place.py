"""Where what is wrong stands: findings → problems with file, line and column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from reconciler.errors import Problem
from reconciler.manifest.compose import Path, Place, locate
from reconciler.manifest.schema import Finding, path_text
from reconciler.wording import printable

SERVICES: Path = ("ipvs", "services")
RULES: Path = ("ipvs", "rules")
RULES_FILE: Path = ("ipvs", "rulesFile")

_ADDS_SERVICE = re.compile(r"\s*(?:ipvsadm\s+)?(?:-A|--add-service\b)")


class RulesFile(NamedTuple):
    """What a manifest names as its `rulesFile`: the file's name, as a message has it, and its text."""

    name: str
    text: str


class Document(NamedTuple):
    """A document of a file: which one it is, what there is to say of it, and the file of its rules."""

    number: int
    findings: Sequence[Finding]
    rules: RulesFile | None = None


def problems(file: str, text: str, documents: Sequence[Document]) -> list[Problem]:
    """Find the places of all findings in a file, in one pass; document by document, in the order of their places."""
    wanted = {each.number: list(_sought(each.findings)) for each in documents if each.findings}
    found = locate(text, wanted)
    lines = text.splitlines() if wanted else []
    placed: list[Problem] = []
    for each in documents:
        if each.findings:
            places = _Places(file, lines, found[each.number], each.rules)
            own = [places.problem(finding) for finding in each.findings]
            placed += sorted(own, key=lambda problem: (problem.file != file, problem.line, problem.column))
    return placed


def _sought(findings: Iterable[Finding]) -> Iterator[Path]:
    for finding in findings:
        yield finding.path
        if finding.path[:2] == SERVICES:
            # They may be written as rules.
            yield from (RULES, RULES_FILE)


class _Places:
    """The places in one document, and in the rules that stand in it or beside it."""

    def __init__(self, file: str, lines: list[str], places: Mapping[Path, Place], rules: RulesFile | None) -> None:
        self._file, self._lines, self._places, self._rules = file, lines, places, rules
        self._rule_lines = rules.text.split("\n") if rules else []
        literal = places[RULES].literal if RULES in places else None
        text = rules.text if rules else literal
        self._services = [] if text is None else service_lines(text)

    def problem(self, finding: Finding) -> Problem:
        path, line = self._written(finding)
        if line and path == RULES_FILE and self._rules:
            return of_line(self._rules.name, self._rule_lines, line, "", finding.message)
        place = self._find(path)
        if line:
            name = f"{path_text(path)} line {line}"
            if place.literal is not None:
                return of_line(self._file, self._lines, place.value[0] + 1 + line, name, finding.message)
        else:
            name = path_text(path)
        at, column, end = place.value if not finding.at_key or place.key is None else place.key
        return Problem(
            file=self._file,
            line=at + 1,
            column=column + 1,
            path=printable(name),
            message=printable(finding.message),
            excerpt=_nth(self._lines, at),
            width=max(end - column, 1),
        )

    def _written(self, finding: Finding) -> tuple[Path, int]:
        """Give the path of what the author wrote: a service that is not in `services` is a line of the rules."""
        path = finding.path
        if path[:2] != SERVICES or SERVICES in self._places:
            return path, finding.line
        below = RULES_FILE if self._rules else RULES
        index = path[2] if len(path) > 2 else None
        return below, self._services[index] if isinstance(index, int) and index < len(self._services) else 0

    def _find(self, path: Path) -> Place:
        """Find a value; what is missing stands where its mapping stands."""
        while path not in self._places:
            path = path[:-1]
        return self._places[path]


def service_lines(text: str) -> list[int]:
    """Give the line of each service in a text of rules; services are in its order, each on a line of its own."""
    return [number for number, line in enumerate(text.split("\n"), start=1) if _ADDS_SERVICE.match(line)]


def of_line(file: str, lines: list[str], number: int, path: str, message: str) -> Problem:
    """Make the problem of a whole line, counted from 1."""
    excerpt = _nth(lines, number - 1)
    indent = len(excerpt) - len(excerpt.lstrip())
    return Problem(
        file=file,
        line=number,
        column=indent + 1,
        path=path,
        message=printable(message),
        excerpt=excerpt,
        width=max(len(excerpt.strip()), 1),
    )


def _nth(lines: list[str], number: int) -> str:
    return lines[number] if number < len(lines) else ""

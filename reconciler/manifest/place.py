"""Findings → problems with file, line and column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.errors import Problem
from reconciler.manifest.compose import Location, Span, locate
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.schema import Findings
from reconciler.values import NamedTuple
from reconciler.wording import shorten

SERVICES: Path = ("ipvs", "services")
RULES: Path = ("ipvs", "rules")
RULES_FILE: Path = ("ipvs", "rulesFile")


# The most characters of an excerpt, those before the column of the problem, of a path, and of a message.
_EXCERPT, _BEFORE, _PATH, _MESSAGE = 120, 59, 200, 600
# A refusal names a line of the policy, which `manifest.allow` bounds.
_REFUSAL = 3000


class RulesFile(NamedTuple):
    """The `rulesFile` of a manifest: its name, as messages show it, and its text."""

    name: str
    text: str


class DocumentFindings(NamedTuple):
    """The findings in one document of a file: the number of the document from 0, and its `rulesFile`."""

    number: int
    findings: Sequence[Finding]
    rules: RulesFile | None = None

    @property
    def more(self) -> int:
        """Return how many further findings are known, of which nothing else is."""
        return self.findings.more if isinstance(self.findings, Findings) else 0


def problems(file: str, text: str, documents: Sequence[DocumentFindings]) -> list[Problem]:
    """Return the problems of a file, found in one pass: by document, and in the order of the text within each."""
    wanted = {each.number: list(_wanted(each.findings)) for each in documents if each.findings}
    found = locate(text, wanted)
    lines = text.splitlines() if wanted else []
    ordered: list[Problem] = []
    for each in documents:
        if each.findings:
            document = _Document(file, lines, found[each.number], each.rules)
            own = [document.problem(finding) for finding in each.findings]
            ordered += sorted(own, key=lambda problem: (problem.file != file, problem.line, problem.column))
    if more := sum(each.more for each in documents):
        ordered.append(rest_problem(file, more))
    return ordered


def rest_problem(file: str, count: int) -> Problem:
    """Return the problem that stands for others of a file, at least so many."""
    return Problem(file, 0, 0, "", f"at least {count:,} more problems, which are not listed", times=count)


def _wanted(findings: Iterable[Finding]) -> Iterator[Path]:
    for finding in findings:
        yield finding.path
        if finding.path[:2] == SERVICES:
            # The services may be written as rules.
            yield from (RULES, RULES_FILE)


class _Document:
    """The locations in one document, and in the rules that stand in it or in a file of their own."""

    def __init__(
        self, file: str, lines: Sequence[str], locations: Mapping[Path, Location], rules: RulesFile | None
    ) -> None:
        self._file, self._lines, self._locations, self._rules = file, lines, locations, rules
        self._rule_lines = rules.text.split("\n") if rules else []
        literal = locations[RULES].literal if RULES in locations else None
        text = rules.text if rules else literal
        self._services = [] if text is None else _service_lines(text)

    def problem(self, finding: Finding) -> Problem:
        """Return the problem of a finding."""
        return self._problem(finding)._replace(refused=finding.refused)

    def _problem(self, finding: Finding) -> Problem:
        path, line = self._written(finding)
        if line and path == RULES_FILE and self._rules:
            return line_problem(self._rules.name, self._rule_lines, line, "", finding.message)
        location = self._find(path)
        if line:
            name = f"{path_text(path)} line {line}"
            if location.literal is not None:
                return line_problem(self._file, self._lines, location.value[0] + 1 + line, name, finding.message)
        else:
            name = path_text(path)
        at, column, end = location.value if not finding.at_key or location.key is None else location.key
        most = _REFUSAL if finding.refused else _MESSAGE
        return text_problem(self._file, self._lines, (at, column, end), name, finding.message, most)

    def _written(self, finding: Finding) -> tuple[Path, int]:
        """Return the path, and the line of the rules or 0, that the author wrote: services may be written as rules."""
        path = finding.path
        if path[:2] != SERVICES or SERVICES in self._locations:
            return path, finding.line
        below = RULES_FILE if self._rules else RULES
        index = path[2] if len(path) > 2 else None
        return below, self._services[index] if isinstance(index, int) and index < len(self._services) else 0

    def _find(self, path: Path) -> Location:
        """Return the location of a value; of a missing one, that of the mapping that lacks it."""
        while path not in self._locations:
            path = path[:-1]
        return self._locations[path]


def _service_lines(text: str) -> list[int]:
    # Most manifests have no rules.
    from reconciler.formats.ipvsadm.rules import service_lines

    return service_lines(text)


def line_problem(file: str, lines: Sequence[str], number: int, path: str, message: str) -> Problem:
    """Return the problem of a whole line; lines count from 1."""
    line = lines[number - 1] if number <= len(lines) else ""
    indent = len(line) - len(line.lstrip())
    return text_problem(file, lines, (number - 1, indent, len(line.rstrip())), path, message)


def text_problem(file: str, lines: Sequence[str], span: Span, path: str, message: str, most: int = _MESSAGE) -> Problem:
    """Return the problem of a part of a line, with as much of all as a person reads."""
    at, column, end = span
    line = lines[at] if at < len(lines) else ""
    start = max(0, column - _BEFORE)
    return Problem(
        file=file,
        line=at + 1,
        column=column + 1,
        path=shorten(path, _PATH),
        message=shorten(message, most),
        excerpt=line[start : start + _EXCERPT],
        width=max(end - column, 1),
        start=start,
    )

"""Files, folders and standard input → manifests, or all problems of all of them at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.errors import ManifestError, NotAllowedError, Problem, ReconcilerError, RefusedError
from reconciler.manifest import sandbox, warn
from reconciler.manifest.check import check_sections, check_together
from reconciler.manifest.compose import ComposeError, Path, compose
from reconciler.manifest.files import STDIN, distinct, file_problem, find, read_regular, read_text, reason_of
from reconciler.manifest.place import RULES_FILE, DocumentFindings, RulesFile, problems
from reconciler.manifest.schema import Finding, check, path_text
from reconciler.manifest.whereabouts import identify, with_process
from reconciler.model.sandbox import Sandbox, Surroundings


class Manifest(NamedTuple):
    """A sandbox and its source: the name and text of the file, the number of the document, and its `rulesFile`."""

    file: str
    text: str
    document: int
    sandbox: Sandbox
    rules: RulesFile | None = None

    def where(self, path: Path) -> str:
        """Return where a field stands: `web-1.yaml:31:5`."""
        (problem,) = problems(self.file, self.text, [DocumentFindings(self.document, [Finding(path, "")], self.rules)])
        return f"{problem.file}:{problem.line}:{problem.column}"


def explain(manifest: Manifest, error: ReconcilerError) -> list[str]:
    """Return the lines of an error of a manifest's sandbox, with the place and the name of its field, if it has one."""
    if isinstance(error, NotAllowedError):
        found = located([(manifest, [Finding(path, message) for path, message in error.refusals])])
        return [f"{manifest.sandbox.id}: refused: {each}" for each in found]
    refused = "refused: " if isinstance(error, RefusedError) else ""
    place = f"{manifest.where(error.path)}: {path_text(error.path)}: " if error.path else ""
    first, *more = error.lines
    return [f"{manifest.sandbox.id}: {refused}{place}{first}", *more]


class Contents(NamedTuple):
    """What is in a file: its valid manifests, and the problems of the others.

    `texts`: file name → text, of the file itself and of each `rulesFile` in it; None if it could not be read.
    """

    manifests: list[Manifest]
    problems: list[Problem]
    texts: dict[str, str | None]


def load(paths: Sequence[str]) -> list[Manifest]:
    """Read all manifests of files, of folders and of `-`; see `files.find`.

    ManifestError with all problems of all of them if there is any; then none may be used.
    """
    manifests: list[Manifest] = []
    wrong: list[Problem] = []
    found = [find(path) for path in dict.fromkeys(paths)]
    unread = set(distinct(file for each in found for file in each.files))
    for each in found:
        wrong += each.problems
        for file in filter(unread.__contains__, each.files):
            unread.remove(file)
            contents = read_file(file)
            manifests += contents.manifests
            wrong += contents.problems
    wrong += located((manifests[index], findings) for index, findings in clashes(manifests).items())
    if wrong:
        raise ManifestError(wrong)
    return manifests


def clashes(manifests: Sequence[Manifest]) -> dict[int, list[Finding]]:
    """Return the findings of each manifest, by its index, that claims what an earlier manifest claims."""
    found: dict[int, list[Finding]] = {}
    for index, finding in check_together([(each.file, each.sandbox) for each in manifests], identify):
        found.setdefault(index, []).append(finding)
    return found


def warnings(found: Iterable[tuple[Manifest, Surroundings]]) -> list[Problem]:
    """Return what is valid in manifests but will hardly work in their sandboxes."""
    warned = [(manifest, list(warn.warnings(manifest.sandbox, around))) for manifest, around in found]
    return located((manifest, findings) for manifest, findings in warned if findings)


def located(found: Iterable[tuple[Manifest, list[Finding]]]) -> list[Problem]:
    """Return the problems for findings in manifests, with one pass over each file."""
    files: dict[str, tuple[str, list[DocumentFindings]]] = {}
    for manifest, findings in found:
        _, documents = files.setdefault(manifest.file, (manifest.text, []))
        documents.append(DocumentFindings(manifest.document, findings, manifest.rules))
    return [each for file, (text, documents) in files.items() for each in problems(file, text, documents)]


def read_file(file: str) -> Contents:
    """Read one file."""
    name = "<stdin>" if file == STDIN else file
    contents = Contents([], [], {file: None})
    try:
        text = contents.texts[file] = read_text(file)
        documents = compose(text)
    except ComposeError as error:
        contents.problems.append(syntax_problem(name, text, error))
        return contents
    except (OSError, ValueError) as error:
        contents.problems.append(file_problem(name, reason_of(error)))
        return contents
    # An empty document has no effect, as after a last `---`. A file without any other is more likely a mistake.
    numbered = [(number, each) for number, each in enumerate(documents) if each is not None]
    if not numbered:
        message = "is empty; to remove what reconciler created, write empty sections such as `routes: []`"
        contents.problems.append(file_problem(name, message))
        return contents
    findings = [_read_document(file, name, text, number, each, contents) for number, each in numbered]
    contents.problems.extend(problems(name, text, findings))
    return contents


def syntax_problem(name: str, text: str, error: ComposeError) -> Problem:
    """Return the problem of a text that is not acceptable YAML."""
    return Problem(
        file=name,
        line=error.line + 1,
        column=error.column + 1,
        path="",
        message=str(error),
        excerpt=_line(text, error.line),
    )


def _read_document(file: str, name: str, text: str, number: int, document: Any, contents: Contents) -> DocumentFindings:
    """Read one document of a file. Without findings, it is added to the manifests of `contents`."""
    findings = check(document)
    if not isinstance(document, dict):
        return DocumentFindings(number, findings)
    rules = _read_rules(file, document, findings, contents.texts)
    draft = sandbox.read_sections(document, findings, rules.text if rules else None)
    findings += check_sections(draft)
    if not findings:
        complete = with_process(sandbox.complete(document, draft), file)
        contents.manifests.append(Manifest(name, text, number, complete, rules))
    return DocumentFindings(number, findings, rules)


def _read_rules(
    file: str, document: Mapping[str, Any], findings: list[Finding], texts: dict[str, str | None]
) -> RulesFile | None:
    """Read the `rulesFile` of a document and store its text in `texts`. If it cannot be read, that is a finding."""
    section = document.get("ipvs")
    named = section.get("rulesFile") if isinstance(section, dict) else None
    if named is None or any(finding.path == RULES_FILE for finding in findings):
        return None
    path = os.path.join("" if file == STDIN else os.path.dirname(file), named)
    texts[path] = None
    try:
        text = texts[path] = read_regular(path)
        return RulesFile(path, text.replace("\r\n", "\n"))
    except (OSError, ValueError) as error:
        findings.append(Finding(RULES_FILE, f"{path}: {reason_of(error)}"))
        return None


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""

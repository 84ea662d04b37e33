"""Files, folders and standard input → manifests, or all problems of all of them at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.errors import ManifestError, NotAllowedError, Problem, ReconcilerError, RefusedError
from reconciler.manifest import sandbox, warn
from reconciler.manifest.allow import line_for_folder
from reconciler.manifest.beginning import check_beginning
from reconciler.manifest.beneath import OutsideError, Source
from reconciler.manifest.check import check_sections, check_together
from reconciler.manifest.compose import ComposeError, compose
from reconciler.manifest.files import STDIN, distinct, file_problem, find, read_text, reason_of
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.place import RULES_FILE, DocumentFindings, RulesFile, problems, text_problem
from reconciler.manifest.schema import MAX_FINDINGS, TooManyFindingsError, check
from reconciler.manifest.whereabouts import identify, with_process
from reconciler.model.policy import DEFAULTS, Policy
from reconciler.model.sandbox import Sandbox, Surroundings
from reconciler.values import NamedTuple

# The files of one load, and the characters in all of them. 20,000 IPVS rules are 3 MB.
MAX_FILES = 10_000
MAX_CHARACTERS = 256 << 20


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
        found = located([(manifest, [Finding(path, message, refused=True) for path, message in error.refusals])])
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


class Total:
    """What all files of one load have together, which is bounded as well."""

    def __init__(self) -> None:
        self._files = self._characters = 0

    def add(self, contents: Contents) -> None:
        """Count what was read from a file."""
        self._files += 1
        self._characters += sum(len(text) for text in contents.texts.values() if text)

    def refusal(self, file: Source) -> Contents | None:
        """Return what is in a file if nothing more may be read; None if it may."""
        if self._files < MAX_FILES and self._characters < MAX_CHARACTERS:
            return None
        bounds = f"{MAX_FILES:,} files and {MAX_CHARACTERS >> 20} MiB are read"
        return Contents(
            [], [file_problem(file.path, f"is not read: of all files together, {bounds}")], {file.path: None}
        )


def load(paths: Sequence[str], policy: Policy = DEFAULTS) -> list[Manifest]:
    """Read all manifests of files, of folders and of `-`; see `read`.

    ManifestError with all problems of all of them if there is any; then none may be used.
    """
    manifests, wrong = read(paths, policy)
    if wrong:
        raise ManifestError(wrong)
    return manifests


def read(paths: Sequence[str], policy: Policy = DEFAULTS) -> tuple[list[Manifest], list[Problem]]:
    """Return the valid manifests of files, of folders and of `-`, and the problems of the others; see `files.find`.

    `policy`: where a `rulesFile` may be, besides beneath the path of its manifest.
    """
    manifests: list[Manifest] = []
    wrong: list[Problem] = []
    found, total = [find(path) for path in dict.fromkeys(paths)], Total()
    unread = set(distinct(file for each in found for file in each.files))
    for each in found:
        wrong += each.problems
        for file in filter(unread.__contains__, each.files):
            unread.remove(file)
            contents = total.refusal(file) or read_file(file, policy)
            total.add(contents)
            manifests += contents.manifests
            wrong += contents.problems
    wrong += located((manifests[index], findings) for index, findings in clashes(manifests).items())
    return manifests, wrong


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


def read_file(file: Source, policy: Policy = DEFAULTS) -> Contents:
    """Read one file; see `load`."""
    name = "<stdin>" if file.path == STDIN else file.path
    contents = Contents([], [], {file.path: None})
    try:
        text = contents.texts[file.path] = read_text(file)
        check_beginning(text)
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
    reading, found = _Reading(file, name, text, policy, contents), list[DocumentFindings]()
    left = MAX_FINDINGS
    for number, each in numbered:
        found.append(reading.read(number, each, left))
        left -= len(found[-1].findings)
        if found[-1].more:
            break
    contents.problems.extend(problems(name, text, found))
    return contents


def syntax_problem(name: str, text: str, error: ComposeError) -> Problem:
    """Return the problem of a text that is not acceptable YAML."""
    return text_problem(name, text.splitlines(), (error.line, error.column, error.column + 1), "", str(error))


class _Reading(NamedTuple):
    """The reading of one file, with its name in messages. `contents` gets what is read."""

    file: Source
    name: str
    text: str
    policy: Policy
    contents: Contents

    def read(self, number: int, document: Any, most: int) -> DocumentFindings:
        """Read one document of the file. Without findings, it is added to the manifests.

        `most`: how many findings are worth the work; with more of them, the document is not read further.
        """
        findings, rules = check(document, most=most), None
        if findings.more or not isinstance(document, dict):
            return DocumentFindings(number, findings)
        try:
            rules = self._read_rules(document, findings)
            draft = sandbox.read_sections(document, findings, rules.text if rules else None)
            findings += check_sections(draft)
        except TooManyFindingsError:
            return DocumentFindings(number, findings, rules)
        if not findings:
            complete = with_process(sandbox.complete(document, draft), self.file.path)
            self.contents.manifests.append(Manifest(self.name, self.text, number, complete, rules))
        return DocumentFindings(number, findings, rules)

    def _read_rules(self, document: Mapping[str, Any], findings: list[Finding]) -> RulesFile | None:
        """Read the `rulesFile` of a document and store its text. If it cannot be read, that is a finding."""
        section = document.get("ipvs")
        named = section.get("rulesFile") if isinstance(section, dict) else None
        if named is None or any(finding.path == RULES_FILE for finding in findings):
            return None
        # Relative to the folder of the manifest; that of standard input is the working directory.
        path = os.path.join(os.path.dirname(self.file.path), named)
        self.contents.texts[path] = None
        try:
            text = read_text(self.file.beside(path, self.policy.rules_files))
            _check_rules(text)
        except OutsideError as error:
            how = line_for_folder(self.policy, "rulesFiles", os.path.dirname(os.path.realpath(path)))
            findings.append(Finding(RULES_FILE, f"{path}: {error}; {how}", refused=True))
            return None
        except (OSError, ValueError) as error:
            findings.append(Finding(RULES_FILE, f"{path}: {reason_of(error)}"))
            return None
        self.contents.texts[path] = text
        return RulesFile(path, text.replace("\r\n", "\n"))


def _check_rules(text: str) -> None:
    """Raise ValueError unless a text is one of rules, by its beginning."""
    # Most manifests have no rules.
    from reconciler.formats.ipvsadm.rules import is_rules

    if not is_rules(text):
        raise ValueError("does not begin as rules do: `-A …`, or `ipvsadm -A …`")

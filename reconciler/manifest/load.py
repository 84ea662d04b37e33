"""Files, folders and standard input → sandboxes, or every problem of all of them at once."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.errors import ManifestError, Problem
from reconciler.manifest import sandbox
from reconciler.manifest.check import check_sections, check_together
from reconciler.manifest.compose import MAX_BYTES, ComposeError, Path, compose
from reconciler.manifest.place import RULES_FILE, Document, RulesFile, problems
from reconciler.manifest.schema import Finding, check
from reconciler.manifest.sections import SECTIONS
from reconciler.model.sandbox import Sandbox, Surroundings
from reconciler.wording import printable

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


class Manifest(NamedTuple):
    """A sandbox and where it was read: the file's name, its text, which of its documents it is, and its `rulesFile`."""

    file: str
    text: str
    document: int
    sandbox: Sandbox
    rules: RulesFile | None = None

    def where(self, path: Path) -> str:
        """Say where a field stands: `web-1.yaml:31:5`."""
        (problem,) = problems(self.file, self.text, [Document(self.document, [Finding(path, "")], self.rules)])
        return f"{problem.file}:{problem.line}:{problem.column}"


class Contents(NamedTuple):
    """What is in a file: its manifests, and what is wrong with the others.

    `texts`: what was read, of the file itself and of the files of rules that it names; None: it could not be.
    """

    manifests: list[Manifest]
    problems: list[Problem]
    texts: dict[str, str | None]


def load(paths: Sequence[str]) -> list[Manifest]:
    """Read all manifests of files, of folders (below them `*.yaml`, `*.yml`, `*.json`, hidden names left out), and `-`.

    Raises ManifestError with all that is wrong with any of them: then none may be used.
    """
    manifests: list[Manifest] = []
    wrong: list[Problem] = []
    for file in find(paths, wrong):
        contents = read_file(file)
        manifests += contents.manifests
        wrong += contents.problems
    wrong += place((manifests[index], findings) for index, findings in clashes(manifests).items())
    if wrong:
        raise ManifestError(wrong)
    return manifests


def clashes(manifests: Sequence[Manifest]) -> dict[int, list[Finding]]:
    """Give the indexes of the manifests that claim what one before them has, and what that is."""
    found: dict[int, list[Finding]] = {}
    for index, finding in check_together([(each.file, each.sandbox) for each in manifests]):
        found.setdefault(index, []).append(finding)
    return found


def warnings(found: Iterable[tuple[Manifest, Surroundings]]) -> list[Problem]:
    """Return what is right in manifests and will hardly work where they are applied, with its places."""
    said = [
        (manifest, [each for section in SECTIONS for each in section.warn(manifest.sandbox, around)])
        for manifest, around in found
    ]
    return place((manifest, findings) for manifest, findings in said if findings)


def place(said: Iterable[tuple[Manifest, list[Finding]]]) -> list[Problem]:
    """Find the places of what is said of manifests; one pass a file."""
    files: dict[str, tuple[str, list[Document]]] = {}
    for manifest, findings in said:
        _, documents = files.setdefault(manifest.file, (manifest.text, []))
        documents.append(Document(manifest.document, findings, manifest.rules))
    return [each for file, (text, documents) in files.items() for each in problems(file, text, documents)]


def find(paths: Sequence[str], wrong: list[Problem]) -> Iterator[str]:
    """Give the files to read, whether they are there or not; add the folders that give none, or cannot be read."""
    for path in dict.fromkeys(paths):
        if path == STDIN or not os.path.isdir(path):
            yield path
            continue
        known = len(wrong)
        found = list(_below(path, wrong))
        if not found and len(wrong) == known:
            wrong.append(unreadable(path, f"no manifest below this folder ({', '.join(f'*{s}' for s in SUFFIXES)})"))
        yield from found


def _below(folder: str, wrong: list[Problem]) -> Iterator[str]:
    def refused(error: OSError) -> None:
        wrong.append(unreadable(error.filename, reason(error)))

    for parent, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def unreadable(file: str, message: str) -> Problem:
    """Make the problem of a file or a folder as a whole."""
    return Problem(file=file, line=0, column=0, path="", message=message)


def read_file(file: str, *, regular: bool = False) -> Contents:
    """Read a file by itself. `regular`: not if it might keep one waiting, as a pipe does."""
    name = "<stdin>" if file == STDIN else file
    contents = Contents([], [], {file: None})
    try:
        text = contents.texts[file] = read_regular(file) if regular else read_text(file)
        documents = compose(text)
    except ComposeError as error:
        contents.problems.append(syntax_problem(name, text, error))
        return contents
    except (OSError, ValueError) as error:
        contents.problems.append(unreadable(name, reason(error)))
        return contents
    # A file may end with `---`, but one in which nothing is said cannot be meant.
    while len(documents) > 1 and documents[-1] is None:
        documents.pop()
    if documents in ([], [None]):
        message = "is empty; to ask for nothing, write empty sections such as `routes: []`"
        contents.problems.append(unreadable(name, message))
        return contents
    said = [_read_document(file, name, text, number, each, contents) for number, each in enumerate(documents)]
    contents.problems.extend(problems(name, text, said))
    return contents


def syntax_problem(name: str, text: str, error: ComposeError) -> Problem:
    """Make the problem of a text that is no acceptable YAML."""
    return Problem(
        file=name,
        line=error.line + 1,
        column=error.column + 1,
        path="",
        message=printable(str(error)),
        excerpt=_line(text, error.line),
    )


def _read_document(file: str, name: str, text: str, number: int, document: Any, contents: Contents) -> Document:
    """Read one document of a file; it is one of the manifests if nothing is wrong with it."""
    findings = check(document)
    if not isinstance(document, dict):
        return Document(number, findings)
    rules = _read_rules(file, document, findings, contents.texts)
    draft = sandbox.read_sections(document, findings, rules.text if rules else None)
    findings += check_sections(draft)
    if not findings:
        contents.manifests.append(Manifest(name, text, number, sandbox.complete(document, draft), rules))
    return Document(number, findings, rules)


def _read_rules(
    file: str, document: Mapping[str, Any], findings: list[Finding], texts: dict[str, str | None]
) -> RulesFile | None:
    """Read the file that a document names as its rules, into the texts; if it cannot be read, that is a finding."""
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
        findings.append(Finding(RULES_FILE, f"{path}: {reason(error)}"))
        return None


def read_regular(file: str) -> str:
    """Read a text; OSError or ValueError if that is not possible, or might keep one waiting, as a pipe does."""
    with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("not a regular file")
        return _decode(stream.read(MAX_BYTES + 1))


def reason(error: OSError | ValueError) -> str:
    """Say why a file could not be read."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_text(file: str) -> str:
    """Read a text, of standard input for `-`; OSError or ValueError if that is not possible."""
    if file == STDIN:
        return _decode(sys.stdin.buffer.read(MAX_BYTES + 1))
    with open(file, "rb") as stream:
        return _decode(stream.read(MAX_BYTES + 1))


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""

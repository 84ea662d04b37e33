"""Files, folders and standard input → sandboxes, or every problem of all of them at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from reconciler.errors import ManifestError, Problem
from reconciler.manifest import sandbox
from reconciler.manifest.check import check_sections, check_together
from reconciler.manifest.compose import MAX_BYTES, ComposeError, Path, compose, locate
from reconciler.manifest.schema import Finding, check, path_text
from reconciler.model.sandbox import Sandbox
from reconciler.wording import printable

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


class Manifest(NamedTuple):
    """A sandbox and where it was read: the file's name, its text, and which of its documents it is."""

    file: str
    text: str
    document: int
    sandbox: Sandbox

    def where(self, path: Path) -> str:
        """Say where a field stands: `web-1.yaml:31:5`."""
        problem = next(_problems(self.file, self.text, self.document, [Finding(path, "")]))
        return f"{self.file}:{problem.line}:{problem.column}"


def load(paths: Sequence[str]) -> list[Manifest]:
    """Read all manifests of files, of folders (below them `*.yaml`, `*.yml`, `*.json`, hidden names left out), and `-`.

    Raises ManifestError with all that is wrong with any of them: then none may be used.
    """
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for file in _files(paths, problems):
        _load_file(file, manifests, problems)
    for index, finding in check_together([(each.file, each.sandbox) for each in manifests]):
        each = manifests[index]
        problems += _problems(each.file, each.text, each.document, [finding])
    if problems:
        raise ManifestError(problems)
    return manifests


def _files(paths: Sequence[str], problems: list[Problem]) -> Iterator[str]:
    for path in dict.fromkeys(paths):
        if path == STDIN or not os.path.isdir(path):
            yield path
            continue
        found = list(_below(path))
        if not found:
            problems.append(
                _unreadable(path, f"no manifest below this folder ({', '.join(f'*{s}' for s in SUFFIXES)})")
            )
        yield from found


def _below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def _unreadable(file: str, message: str) -> Problem:
    return Problem(file=file, line=0, column=0, path="", message=message)


def _load_file(file: str, manifests: list[Manifest], problems: list[Problem]) -> None:
    name = "<stdin>" if file == STDIN else file
    try:
        text = _read_text(file)
        documents = compose(text)
    except ComposeError as error:
        excerpt = _line(text, error.line)
        problems.append(
            Problem(
                file=name,
                line=error.line + 1,
                column=error.column + 1,
                path="",
                message=printable(str(error)),
                excerpt=excerpt,
            )
        )
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        problems.append(_unreadable(name, reason or str(error)))
        return
    # A file may end with `---`, but one in which nothing is said cannot be meant.
    while len(documents) > 1 and documents[-1] is None:
        documents.pop()
    if documents in ([], [None]):
        problems.append(_unreadable(name, "is empty; to ask for nothing, write empty sections such as `routes: []`"))
        return
    for number, document in enumerate(documents):
        findings = check(document)
        if isinstance(document, dict):
            draft = sandbox.read_sections(document, findings)
            findings += check_sections(draft)
            if not findings:
                read = sandbox.complete(document, draft)
                manifests.append(Manifest(file=name, text=text, document=number, sandbox=read))
        problems += sorted(_problems(name, text, number, findings), key=lambda problem: (problem.line, problem.column))


def _read_text(file: str) -> str:
    if file == STDIN:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with open(file, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


def _problems(file: str, text: str, document: int, findings: Iterable[Finding]) -> Iterator[Problem]:
    """Find the place of each finding; what is missing stands where its mapping stands."""
    findings = list(findings)
    if not findings:
        return
    places = locate(text, document, [finding.path for finding in findings])
    lines = text.splitlines()
    for finding in findings:
        path = finding.path
        while path not in places:
            path = path[:-1]
        place = places[path]
        line, column, end = place.key if finding.at_key and place.key else place.value
        yield Problem(
            file=file,
            line=line + 1,
            column=column + 1,
            path=printable(path_text(finding.path)),
            message=printable(finding.message),
            excerpt=lines[line] if line < len(lines) else "",
            width=max(end - column, 1),
        )

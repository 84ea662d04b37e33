"""Finds the revision of manifests: of which commit their texts are, and whether they were edited since.

git itself is asked, and only when something that a commit changes has changed. Nothing of a work tree counts but the
text that was read: a file may have changed again since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

from reconciler.manifest.load import Manifest
from reconciler.values import NamedTuple
from reconciler.watch.asking import Git
from reconciler.watch.files import Stamp, read_stamp
from reconciler.watch.git import find_tree, first_line, repository

# Seconds that all calls of git have together at one time.
_TIMEOUT = 5.0
# What a text file may begin with, and `Manifest.text` does not.
_BOM = b"\xef\xbb\xbf"


class Revision(NamedTuple):
    """What was applied.

    `commit`: the short hash of the commit that is checked out around a manifest, with `-dirty` if the text of the
    manifest or of its rules is not in that commit; empty if there is no commit. `blob`: the id that git gives the text
    of the manifest (`git hash-object`).
    """

    commit: str = ""
    blob: str = ""


class _Commit(NamedTuple):
    """The commit checked out in a work tree: its full and its short hash, and path → blob of the files asked for."""

    hash: str
    short: str
    blobs: dict[str, str]


class _Source(NamedTuple):
    """A text of a manifest: its work tree, empty if there is none, and its path there."""

    tree: str
    path: str
    text: str


class RevisionFinder:
    """Finds revisions again and again. One thread uses it; another one, or a signal handler, may call `interrupt`."""

    def __init__(self) -> None:
        self._git = Git()
        self._known: dict[str, tuple[tuple[object, ...], _Commit]] = {}

    def interrupt(self) -> None:
        """Let no git be waited for any more."""
        self._git.interrupt()

    def find(self, manifests: Iterable[Manifest]) -> dict[str, Revision]:
        """Return sandbox ID → revision of its manifest."""
        self._git.begin(_TIMEOUT)
        folders: dict[str, tuple[str, str]] = {}
        sources = {each.sandbox.id: [*_sources(each, folders)] for each in manifests}
        paths: dict[str, set[str]] = {}
        for source in (each for of_one in sources.values() for each in of_one):
            paths.setdefault(source.tree, set()).add(source.path)
        commits = {tree: self._commit(tree, wanted) for tree, wanted in paths.items() if tree}
        return {name: _revision(of_one, commits.get(of_one[0].tree)) for name, of_one in sources.items()}

    def _commit(self, tree: str, paths: set[str]) -> _Commit | None:
        """Return the commit checked out in a work tree; None if there is none, or git cannot find it."""
        known = self._known.pop(tree, None)
        if not (stamps := _stamps(tree)):
            return None
        if not known or known[0] != stamps or not paths <= known[1].blobs.keys():
            found = self._ask(tree, sorted(paths))
            known = (stamps, found) if found else None
        if known is None:
            return None
        self._known[tree] = known
        return known[1]

    def _ask(self, tree: str, paths: Sequence[str]) -> _Commit | None:
        hashes = self._git.run(tree, "rev-parse", "HEAD", "--short", "HEAD").split()
        if len(hashes) != 2:
            return None
        # One line each; what is not in the commit is answered by `… missing`.
        names = "".join(f"{hashes[0]}:{path}\n" for path in paths if "\n" not in path)
        answer = self._git.run(tree, "cat-file", "--batch-check=%(objectname)", stdin=names)
        found = iter(answer.splitlines())
        # git cannot be asked for the others: they count as edited.
        blobs = {path: next(found, "") if "\n" not in path else "?" for path in paths}
        return _Commit(hashes[0], hashes[1], blobs) if answer.endswith("\n") and all(blobs.values()) else None


def _sources(manifest: Manifest, folders: dict[str, tuple[str, str]]) -> Iterator[_Source]:
    """Yield the text of a manifest, and that of its rules. `folders`: what is known of folders already."""
    yield _source(manifest.file, manifest.text, folders)
    if manifest.rules:
        yield _source(manifest.rules.name, manifest.rules.text, folders)


def _source(file: str, text: str, folders: dict[str, tuple[str, str]]) -> _Source:
    folder, name = os.path.split(file)
    if os.path.islink(file):
        folder, name = os.path.split(os.path.realpath(file))
    if folder not in folders:
        real = os.path.realpath(folder)
        tree = find_tree(real)
        folders[folder] = tree, os.path.relpath(real, tree) if tree else ""
    tree, below = folders[folder]
    return _Source(tree, os.path.normpath(os.path.join(below, name)), text)


def _stamps(tree: str) -> tuple[object, ...]:
    """Return what differs once another commit is checked out in a work tree; nothing if git must not be asked."""
    try:
        git = repository(tree)
        if not git:
            return ()
        head = first_line(git, "HEAD")
    except OSError:
        return (object(),)
    try:
        common = os.path.join(git, first_line(git, "commondir"))
    except OSError:
        common = git
    names = (head.removeprefix("ref: "), "packed-refs", "reftable/tables.list")
    changing: list[Stamp | None] = [read_stamp(os.path.join(common, name)) for name in names]
    own = [read_stamp(os.path.join(git, name)) for name in ("logs/HEAD", "reftable/tables.list")]
    return (head, *changing, *own)


def _revision(sources: Sequence[_Source], commit: _Commit | None) -> Revision:
    algorithm = "sha256" if commit and len(commit.hash) == 64 else "sha1"
    blob = _blob(sources[0].text.encode(), algorithm)
    if commit is None:
        return Revision("", blob)
    dirty = any(each.tree != sources[0].tree or not _is_in(commit, each, algorithm) for each in sources)
    return Revision(f"{commit.short}-dirty" if dirty else commit.short, blob)


def _is_in(commit: _Commit, source: _Source, algorithm: str) -> bool:
    """Return whether a text is in a commit. It may have lost its byte order mark, or its line ends since."""
    known = commit.blobs[source.path]
    text = source.text.encode()
    ends = (text, text.replace(b"\r\n", b"\n"), text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return any(known == _blob(mark + each, algorithm) for mark in (b"", _BOM) for each in ends)


def _blob(data: bytes, algorithm: str) -> str:
    """Return the id that git gives to a file with these bytes."""
    return hashlib.new(algorithm, b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

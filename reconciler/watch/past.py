"""What manifests said at an earlier time: by the history of the sandbox, or by a revision of git."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress

from reconciler.errors import HostError, ManifestError
from reconciler.history.lines import IN_FORCE
from reconciler.history.reader import Reader, is_complete
from reconciler.manifest.files import STDIN
from reconciler.manifest.finding import Finding
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import complete, read_sections
from reconciler.manifest.schema import check
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox
from reconciler.values import NamedTuple
from reconciler.watch.asking import Git
from reconciler.watch.git import find_tree

# Seconds for git, and bytes of one file and of all files that are read from a commit, and how many these are.
_TIMEOUT = 30.0
_FILE, _ALL, _FILES = 16 << 20, 64 << 20, 10_000
_REGULAR = {"100644", "100755"}


class Past(NamedTuple):
    """What the manifest of a sandbox said: `sandbox`, None if there was none. `note`: what is not known of it."""

    sandbox: Sandbox | None
    note: str = ""


def at_time(name: str, moment: float) -> Past:
    """Return what the manifest of a sandbox said that was in force at a moment (Unix seconds), by the history.

    HostError if the history does not have that, or may not be read.
    """
    found = Reader([name]).read()
    lines = [each for each in found if each.event == IN_FORCE]
    before = [each for each in lines if each.at <= moment]
    if not before:
        if not is_complete(name) and found:
            raise HostError(f"the history goes back to {found[0].time}, and does not say what was in force before")
        begins = f"begins at {found[0].time}" if found else "has nothing about it"
        return Past(None, f"the history {begins}; what was there before counts as nothing")
    last = before[-1]
    data = last.more.get("manifest")
    if not isinstance(data, dict):
        hint = f": --since {last.revision}" if last.revision and not last.revision.endswith("-dirty") else ""
        raise HostError(
            f"the manifest that was in force then ({last.file}, blob {last.blob}) is too large for the history; "
            f"name its revision of git instead{hint}"
        )
    return Past(_read(data))


def _read(data: dict[str, object]) -> Sandbox:
    findings: list[Finding] = [*check(data)]
    draft = read_sections(data, findings) if not findings else None
    if findings or draft is None:
        raise HostError(f"the history has a manifest that cannot be read: {findings[0].message}")
    return complete(data, draft)


def at_revision(paths: Sequence[str], revision: str, policy: Policy) -> dict[str, Sandbox]:
    """Return what all manifests below some paths said in a commit of git: sandbox ID → sandbox.

    HostError if git does not know the commit, or the manifests there are wrong.
    """
    git = Git()
    git.begin(_TIMEOUT)
    with tempfile.TemporaryDirectory(prefix="reconciler-") as folder:
        there = [
            each for number, path in enumerate(paths) for each in _export(git, path, revision, f"{folder}/{number}")
        ]
        try:
            return {each.sandbox.id: each.sandbox for each in (load(there, policy) if there else [])}
        except ManifestError as error:
            words = str(error.problems[0]).replace(f"{folder}/", "")
            raise HostError(f"the manifests of {revision} cannot be compared: {words}") from None


def _export(git: Git, path: str, revision: str, folder: str) -> Iterator[str]:
    """Write what a commit has below a path to a folder, and yield where the path is there; nothing if it was not."""
    if path == STDIN or not os.path.exists(path):
        raise HostError(f"{path}: git has no earlier text of it; --since REVISION needs a file or folder that exists")
    real = os.path.realpath(path)
    within = real if os.path.isdir(real) else os.path.dirname(real)
    tree = find_tree(within)
    if not tree:
        raise HostError(f'{path} is in no work tree of git, so it has no revision "{revision}"')
    commit = git.run(tree, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    if not commit:
        raise HostError(f'git knows no revision "{revision}" in {tree}')
    below = os.path.relpath(within, tree)
    _write(git, tree, _files(git, tree, commit, "" if below == "." else f"{below}/"), folder)
    there = os.path.join(folder, os.path.relpath(real, tree))
    if os.path.exists(there):
        yield there


def _files(git: Git, tree: str, commit: str, below: str) -> dict[str, str]:
    """Return the regular files of a commit below a folder: path → ID of the blob."""
    words = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit]
    found: dict[str, str] = {}
    total = 0
    for each in git.run(tree, *words).split("\0"):
        head, _, path = each.partition("\t")
        fields = head.split()
        if len(fields) != 4 or fields[0] not in _REGULAR or not path.startswith(below):
            continue
        # A tree that git itself would not make must not lead out of the folder.
        if not {"", ".", "..", ".git"}.isdisjoint(path.split("/")) or int(fields[3]) > _FILE:
            continue
        found[path] = fields[2]
        total += int(fields[3])
        if total > _ALL or len(found) > _FILES:
            raise HostError(f"{tree}/{below}: more than {_ALL >> 20} MiB or {_FILES:,} files; name the manifests")
    return found


def _write(git: Git, tree: str, blobs: dict[str, str], folder: str) -> None:
    answer = git.run_bytes(tree, "cat-file", "--batch", stdin="".join(f"{each}\n" for each in blobs.values()))
    at = 0
    for path in blobs:
        end = answer.find(b"\n", at)
        fields = answer[at:end].split()
        if end < 0 or len(fields) != 3:
            raise HostError(f"git cannot read {path} in {tree}")
        size = int(fields[2])
        place = os.path.join(folder, path)
        with suppress(FileExistsError):
            os.makedirs(os.path.dirname(place))
        with open(place, "xb") as file:
            file.write(answer[end + 1 : end + 1 + size])
        at = end + 2 + size

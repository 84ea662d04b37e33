"""Reads all manifests below some paths as one consistent set, each time that they have changed.

Files change one after the other: an editor truncates a file and then writes it, a `git checkout` replaces hundreds. A
set that is read in the middle of this would delete what the next file brings back. So files are read once they settled:

1. Two snapshots of all files, SETTLE seconds apart, are equal. No git is working, and no program is writing a file.
2. Then the files that changed since the last time are read and parsed.
3. A third snapshot, taken after reading, must be equal as well. Otherwise everything starts again.

One bad file does not stop the others. If a manifest cannot be used (it is broken, its folder is gone, or it claims a
device of another sandbox), the last good manifest of that sandbox stays in force.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic, thread_time

from reconciler.errors import Problem, bounded
from reconciler.manifest.beneath import Source
from reconciler.manifest.files import read_text
from reconciler.manifest.finding import Finding, path_text
from reconciler.manifest.load import Contents, Manifest, Total, clashes, located
from reconciler.manifest.whereabouts import names_process
from reconciler.model.policy import DEFAULTS, Policy
from reconciler.values import NamedTuple
from reconciler.watch.files import Snapshot, Stamp, find_git_lock, folders_to_watch, take_snapshot
from reconciler.watch.folders import POLL, Folders
from reconciler.watch.parser import Parser

# Seconds for which the files must not change before they are read.
SETTLE = 0.2
# Seconds after which files that do not settle are reported.
PATIENCE = 60.0
# What is read only because time has passed takes at most this share of a processor.
SHARE = 0.0025

_log = logging.getLogger(__name__)


class ManifestSet(NamedTuple):
    """All manifests in force at one moment, and everything that is wrong with the files.

    `manifests`: sandbox ID → the manifest in force: the last good one if the present text cannot be used. No two claim
    the same ID or device. `broken`: sandbox ID → why its present text is not used; instead of the ID, the name of
    the file if no manifest of it was ever in force. `problems`: all problems of all files. `missing`: the PATHs that do
    not exist or contain no manifest; the manifests read from them before stay in force.
    """

    manifests: Mapping[str, Manifest]
    broken: Mapping[str, str]
    problems: tuple[Problem, ...]
    missing: tuple[str, ...]


class _NotSettledError(Exception):
    """The files cannot be read at this moment. The text is the reason."""


class _File(NamedTuple):
    """What was read from a manifest file, and the stamps of that file and of the files of rules that it names."""

    source: Source
    contents: Contents
    stamps: list[Stamp | None]

    def sources(self, rules_folders: Sequence[str]) -> list[Source]:
        """Return the file, and those of rules."""
        _, *rules = self.contents.texts
        return [self.source, *(self.source.beside(path, rules_folders) for path in rules)]

    def is_unchanged(self, rules_folders: Sequence[str]) -> bool:
        """Return whether it and its rules still have the same texts; False if one could not be read then or now."""
        with suppress(OSError, ValueError):
            texts = zip(self.sources(rules_folders), self.contents.texts.values(), strict=True)
            return all(text is not None and text == read_text(file) for file, text in texts)
        return False


class ManifestReader:
    """Reads the manifests below paths again and again. One thread uses all methods; `wake` is called from another one.

    `rescan`: seconds after which files are read again even if neither stamps nor events show a change; more, if that
    would take more than SHARE of a processor.
    `policy`: as in `manifest.load`; it counts from the next `read` on.
    """

    def __init__(self, paths: Sequence[str], rescan: float = 30.0, policy: Policy = DEFAULTS) -> None:
        self._paths, self.policy = tuple(dict.fromkeys(paths)), policy
        self._rescan, self._next_rescan = rescan, -math.inf
        self._folders: Folders | None = None
        self._files: dict[str, _File] = {}
        self._last_set: ManifestSet | None = None
        # The snapshot of the files that were read last.
        self._read_snapshot: Snapshot | None = None
        # The latest snapshot, and since when all snapshots have been equal to it.
        self._latest: Snapshot | None = None
        self._latest_since = 0.0
        # Since when changed files have not settled, and why; the reason only after PATIENCE seconds.
        self._unsettled_since: float | None = None
        self._unsettled = ""
        # The files that have changed since they were read, and why they were not read again. Other threads read it.
        self._unread: tuple[frozenset[str], str] = (frozenset(), "")
        self._interrupted = False
        self._parser: Parser | None = None

    @property
    def polling(self) -> str:
        """Return why the files are checked periodically; empty if inotify reports all changes."""
        return self._folders.polling if self._folders else ""

    @property
    def latest(self) -> ManifestSet | None:
        """Return what was read last; None before that. Any thread may ask."""
        return self._last_set

    @property
    def unsettled(self) -> str:
        """Return why changed files have not been read for more than PATIENCE seconds.

        Empty if none have waited that long.
        """
        return self._unsettled

    def why_unread(self, manifest: Manifest) -> str:
        """Return why the present text of a manifest has not been read; empty if it has. Any thread may call this."""
        files, reason = self._unread
        changed = manifest.file in files or (manifest.rules is not None and manifest.rules.name in files)
        return reason if changed else ""

    def interrupt(self) -> None:
        """Let a read end soon, without a result. A signal handler may call this."""
        self._interrupted = True
        if parser := self._parser:
            parser.interrupt()

    def start(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever `read` should be called, the first time at once."""
        self._folders = Folders(wake)
        self._folders.wake_within(0)

    def stop(self) -> None:
        """Make no more calls, and end all threads."""
        if self._folders:
            self._folders.stop()
            self._folders = None

    def read(self) -> ManifestSet | None:
        """Return the manifests if they have changed since the last call and have settled.

        Return None otherwise: then `wake` will be called again.
        """
        changed, pause = None, POLL
        try:
            changed = self._read()
        except _NotSettledError as error:
            pause = self._seconds_to_next_try(str(error))
            self._unread = _changed_files(self._read_snapshot, self._latest), str(error)
        else:
            self._unsettled_since, self._unsettled = None, ""
            self._unread = frozenset(), ""
            pause = min(POLL if self.polling else math.inf, self._next_rescan - monotonic())
        finally:
            if self._folders:
                self._folders.wake_within(pause)
        return changed

    def _read(self) -> ManifestSet | None:
        rescan, begun = monotonic() >= self._next_rescan, thread_time()
        snapshot, age = self._take_snapshot()
        self._check_git()
        if self._folders and self._folders.watch(folders_to_watch(self._paths, snapshot.stamps)):
            raise _NotSettledError("the watch on some folders began just now")
        if snapshot == self._read_snapshot and not rescan:
            return None
        if age < self._settle_time:
            raise _NotSettledError(_describe_change(self._read_snapshot, snapshot))
        if path := self._folders and self._folders.find_unfinished(snapshot.stamps.values()):
            raise _NotSettledError(f"a program is still writing {path}")
        self._files = self._read_files(snapshot, rescan=rescan)
        after, _ = self._take_snapshot()
        if after != snapshot:
            raise _NotSettledError(_describe_change(snapshot, after))
        found = self._finish(snapshot)
        self._next_rescan = monotonic() + max(self._rescan, (thread_time() - begun) / SHARE)
        return found

    def _check_git(self) -> None:
        """Raise _NotSettledError if git may be working in the tree of a manifest."""
        try:
            lock = find_git_lock(self._paths)
        except OSError as error:
            raise _NotSettledError(f"whether git is working cannot be found out: {error}") from error
        if lock:
            raise _NotSettledError(f"{lock} exists: git is working, or was killed")

    def _take_snapshot(self) -> tuple[Snapshot, float]:
        """Return a snapshot of all files, and for how many seconds all snapshots have been equal to it."""
        known = [each for file in self._files.values() for each in file.sources(self.policy.rules_files)]
        snapshot = take_snapshot(self._paths, known)
        now = monotonic()
        if snapshot != self._latest:
            self._latest, self._latest_since = snapshot, now
        return snapshot, now - self._latest_since

    @property
    def _settle_time(self) -> float:
        # A network file system shows files as they were some time ago.
        return POLL if self.polling else SETTLE

    def _seconds_to_next_try(self, reason: str) -> float:
        """Return when to try again to read files that have not settled; report it if that has lasted for long."""
        now = monotonic()
        if self._unsettled_since is None:
            self._unsettled_since = now
        if now - self._unsettled_since < PATIENCE:
            return self._settle_time
        if not self._unsettled:
            _log.warning("changed manifests have not been read for %g s: %s", PATIENCE, reason)
        self._unsettled = reason
        return POLL

    def _read_files(self, snapshot: Snapshot, *, rescan: bool) -> dict[str, _File]:
        found, total = dict[str, _File](), Total()
        with Parser() as self._parser:
            for file in snapshot.files:
                if self._interrupted:
                    raise _NotSettledError("the watcher ends")
                if refused := total.refusal(file):
                    found[file.path] = _File(file, refused, _stamps_of(refused, snapshot))
                    continue
                found[file.path] = self._read_file(file, snapshot, self._parser, rescan=rescan)
                total.add(found[file.path].contents)
        return found

    def _read_file(self, file: Source, snapshot: Snapshot, parser: Parser, *, rescan: bool) -> _File:
        """Return the contents of a file: read only if it or its rules may have changed, parsed only if they have."""
        known = self._files.get(file.path)
        if known and known.source == file:
            stamps = _stamps_of(known.contents, snapshot)
            same = stamps == known.stamps
            if (same and not rescan) or (
                (same or not _names_process(known.contents)) and known.is_unchanged(self.policy.rules_files)
            ):
                return known._replace(stamps=stamps)
        contents = parser.read(file, self.policy)
        # A file of rules that is named for the first time is in no snapshot yet. The snapshot after reading contains it
        # and so differs: nothing is used before the rules have settled, too.
        return _File(file, contents, _stamps_of(contents, snapshot))

    def _finish(self, snapshot: Snapshot) -> ManifestSet | None:
        self._read_snapshot = snapshot
        files = {name: file.contents for name, file in self._files.items()}
        found = _combine(snapshot, files, self._last_set.manifests if self._last_set else {})
        if found == self._last_set:
            return None
        self._last_set = found
        return found


def _stamps_of(contents: Contents, snapshot: Snapshot) -> list[Stamp | None]:
    return [snapshot.stamps.get(path) for path in contents.texts]


def _changed_files(before: Snapshot | None, after: Snapshot | None) -> frozenset[str]:
    """Return the files that are different in two snapshots, or missing in one of them."""
    if before is None or after is None:
        return frozenset()
    return frozenset(file for file, _ in before.stamps.items() ^ after.stamps.items())


def _names_process(contents: Contents) -> bool:
    """Return whether the time at which a file was written matters: a pid means the process that had it then."""
    return any(names_process(each.sandbox) for each in contents.manifests)


def _describe_change(before: Snapshot | None, after: Snapshot) -> str:
    """Name a file that differs between two snapshots."""
    stamps = before.stamps if before else {}
    changed = (file for file in after.stamps if after.stamps[file] != stamps.get(file))
    return f"{next(changed, 'the list of files')} changed just now"


def _combine(snapshot: Snapshot, files: Mapping[str, Contents], in_force: Mapping[str, Manifest]) -> ManifestSet:
    """Return which manifests are in force now, from the contents of all files and the manifests in force until now."""
    read = [manifest for contents in files.values() for manifest in contents.manifests]
    retained, broken = _retain(snapshot, files, in_force)
    chosen, rejected = _reject_clashes(retained.values(), read, in_force)
    for manifest, findings in rejected:
        name = manifest.sandbox.id
        is_edit = name in in_force and in_force[name].file == manifest.file
        broken.setdefault(name if is_edit else manifest.file, f"{manifest.file}: {_finding_text(findings[0])}")
    problems = [*snapshot.missing.values(), *snapshot.unreadable]
    problems += [problem for contents in files.values() for problem in contents.problems]
    return ManifestSet(
        manifests=chosen,
        broken=broken,
        problems=tuple(bounded([*problems, *located(rejected)])),
        missing=tuple(snapshot.missing),
    )


def _finding_text(finding: Finding) -> str:
    return f"{path_text(finding.path)}: {finding.message}"


def _retain(
    snapshot: Snapshot, files: Mapping[str, Contents], in_force: Mapping[str, Manifest]
) -> tuple[dict[str, Manifest], dict[str, str]]:
    """Return the manifests in force that stay so although their text could not be read now, and why, as in `broken`."""
    retained: dict[str, Manifest] = {}
    broken: dict[str, str] = {}
    for path, problems in _incomplete(snapshot, files):
        unread = _unread(path, in_force, files)
        retained |= unread
        for name in unread or [path]:
            broken.setdefault(name, str(problems[0]))
    present = {manifest.sandbox.id for contents in files.values() for manifest in contents.manifests}
    for path, problem in snapshot.missing.items():
        lost = {name: manifest for name, manifest in _below(path, in_force) if name not in present}
        retained |= lost
        for name in lost:
            broken.setdefault(name, str(problem))
    return retained, broken


def _incomplete(snapshot: Snapshot, files: Mapping[str, Contents]) -> Iterator[tuple[str, Sequence[Problem]]]:
    """Yield the files and folders that could not be read completely, with their problems."""
    for file, contents in files.items():
        if contents.problems:
            yield file, contents.problems
    for problem in snapshot.unreadable:
        yield problem.file, [problem]


def _unread(path: str, in_force: Mapping[str, Manifest], files: Mapping[str, Contents]) -> dict[str, Manifest]:
    """Return the manifests in force that came from a file, or from below a folder, and could not be read there now."""
    if path not in files:
        return {name: manifest for name, manifest in _below(path, in_force) if manifest.file not in files}
    present = {manifest.sandbox.id for manifest in files[path].manifests}
    return {name: manifest for name, manifest in in_force.items() if manifest.file == path and name not in present}


def _below(path: str, in_force: Mapping[str, Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the manifests in force that came from a path or from below it."""
    folder = os.path.join(path, "")
    for name, manifest in in_force.items():
        if manifest.file == path or manifest.file.startswith(folder):
            yield name, manifest


def _reject_clashes(
    retained: Iterable[Manifest], read: Iterable[Manifest], in_force: Mapping[str, Manifest]
) -> tuple[dict[str, Manifest], list[tuple[Manifest, list[Finding]]]]:
    """Return the manifests by sandbox ID, and those that are rejected as they claim an ID or device of another one.

    A manifest that is in force already wins against a new one; of two new ones, the first in file order wins. If a new
    manifest is rejected, the previous one stays in force, with the devices it claims.
    """

    def is_new(manifest: Manifest) -> bool:
        before = in_force.get(manifest.sandbox.id)
        return before is None or (before.file, before.sandbox) != (manifest.file, manifest.sandbox)

    def has_new_address(manifest: Manifest) -> bool:
        before = in_force.get(manifest.sandbox.id)
        return before is None or before.sandbox.driver != manifest.sandbox.driver

    def objections(candidates: Sequence[Manifest]) -> dict[int, list[Finding]]:
        # If two addresses in force have come to lead to one sandbox, the look at the second one is refused.
        found = {
            index: [each for each in findings if each.path[0] != "driver" or has_new_address(candidates[index])]
            for index, findings in clashes(candidates).items()
        }
        return {index: findings for index, findings in found.items() if findings}

    candidates = [*retained, *sorted(read, key=lambda each: (has_new_address(each), is_new(each)))]
    rejected: list[tuple[Manifest, list[Finding]]] = []
    while found := objections(candidates):
        rejected += [(candidates[index], findings) for index, findings in found.items()]
        left = [each for index, each in enumerate(candidates) if index not in found]
        without_manifest = {candidates[index].sandbox.id for index in found} - {each.sandbox.id for each in left}
        candidates = [*(in_force[name] for name in sorted(without_manifest & in_force.keys())), *left]
    return {each.sandbox.id: each for each in candidates}, rejected

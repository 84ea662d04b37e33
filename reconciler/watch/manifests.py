"""The set of manifests below paths, whenever it has changed, and never one that somebody is in the middle of changing.

A set is read when two looks at all its files, a pause apart, see the same, and so does a third one after reading. What cannot
be used does not keep the others from being used: of its sandbox, the last good manifest goes on.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from reconciler.errors import Problem
from reconciler.manifest.load import Contents, Manifest, clashes, place, read_file, read_regular
from reconciler.manifest.schema import Finding, path_text
from reconciler.watch.files import Look, Stamp, git_lock, look, wanted
from reconciler.watch.folders import POLL, Folders

# The pause between two looks.
SETTLE = 0.2
# A set that does not come to rest for so long is worth a word.
PATIENCE = 60.0

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """All manifests at a moment.

    `manifests`: by sandbox ID, what is to hold; where the present text cannot be used, the last good one. No two clash.
    `broken`: sandbox ID (of a file that never gave one: the file) → why its present text is not used.
    `problems`: all that is wrong. `missing`: PATHs that are gone or give no manifest any more; what they gave still holds.
    `removed`: sandboxes whose manifest is gone although its PATH is there.
    """

    manifests: Mapping[str, Manifest]
    broken: Mapping[str, str]
    problems: tuple[Problem, ...]
    missing: tuple[str, ...]
    removed: tuple[str, ...]


class _Restless(Exception):  # noqa: N818
    """No set can be read now: why."""


class _File(NamedTuple):
    """What was read from a file, and the stamps of all that was read for it."""

    contents: Contents
    stamps: list[Stamp | None]


class Manifests:
    """Reads the manifests below paths again and again. `wake` comes from a thread of its own; all else is for one thread.

    `rescan`: after how many seconds files are read whatever their stamps and events say.
    """

    def __init__(self, paths: Sequence[str], rescan: float = 30.0) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._rescan, self._next_rescan = rescan, -math.inf
        self._folders: Folders | None = None
        self._files: dict[str, _File] = {}
        self._reading: Reading | None = None
        # The look at what was read last; the latest look, and since when all have shown the same.
        self._done: Look | None = None
        self._latest: Look | None = None
        self._latest_since = 0.0
        self._restless_since: float | None = None
        self._unrest = ""

    @property
    def polling(self) -> str:
        """Say why changes are looked for instead of told; empty: they are told."""
        return self._folders.polling if self._folders else ""

    @property
    def unrest(self) -> str:
        """Say why what has changed is not read although that was long ago; empty: there is nothing of the kind."""
        return self._unrest

    def start(self, wake: Callable[[], None]) -> None:
        """Call `wake` when there may be something to read: for the first time at once."""
        self._folders = Folders(wake)
        self._folders.within(0)

    def stop(self) -> None:
        """Call no more, and leave no thread."""
        if self._folders:
            self._folders.stop()
            self._folders = None

    def read(self) -> Reading | None:
        """Read a set; None: it is the same as the last one, or is being changed, and `wake` will be called again."""
        reading, pause = None, POLL
        try:
            reading = self._read()
        except _Restless as restless:
            pause = self._wait(str(restless))
        else:
            self._restless_since, self._unrest = None, ""
            pause = min(POLL if self.polling else math.inf, self._next_rescan - monotonic())
        finally:
            if self._folders:
                self._folders.within(pause)
        return reading

    def _read(self) -> Reading | None:
        if lock := git_lock(self._paths):
            raise _Restless(f"{lock} is there")
        rescan = monotonic() >= self._next_rescan
        seen, age = self._look()
        if self._folders and self._folders.follow(wanted(self._paths, seen.stamps)):
            raise _Restless("some folders are watched only now")
        if seen == self._done and not rescan:
            return None
        if age < self._pause:
            raise _Restless(_difference(seen, self._done))
        if writing := self._folders and self._folders.being_written(seen.stamps.values()):
            raise _Restless(f"{writing} is being written")
        self._files = {file: self._current(file, seen, rescan=rescan) for file in seen.files}
        again, _ = self._look()
        if again != seen:
            raise _Restless(_difference(again, seen))
        return self._finish(seen)

    def _look(self) -> tuple[Look, float]:
        """Look at all files; give how long they have been seen like that, too."""
        seen = look(self._paths, (part for file in self._files.values() for part in file.contents.texts))
        now = monotonic()
        if seen != self._latest:
            self._latest, self._latest_since = seen, now
        return seen, now - self._latest_since

    @property
    def _pause(self) -> float:
        # A network file system shows its files as they were a while ago.
        return POLL if self.polling else SETTLE

    def _wait(self, reason: str) -> float:
        """Take note of unrest; give how long to wait."""
        now = monotonic()
        if self._restless_since is None:
            self._restless_since = now
        if now - self._restless_since < PATIENCE:
            return self._pause
        if not self._unrest:
            _log.warning("what has changed is not read since %g s: %s", PATIENCE, reason)
        self._unrest = reason
        return POLL

    def _current(self, file: str, seen: Look, *, rescan: bool) -> _File:
        """Give what is in a file, read only if it or one of its rules may have changed, and parsed only if it has."""
        known = self._files.get(file)
        if known:
            stamps = _stamps(seen, known.contents)
            if (stamps == known.stamps and not rescan) or _is_current(known.contents):
                return _File(known.contents, stamps)
        contents = read_file(file, regular=True)
        # Rules that are named for the first time are in no look yet: the next one differs, so nothing is used before it.
        return _File(contents, _stamps(seen, contents))

    def _finish(self, seen: Look) -> Reading | None:
        self._done, self._next_rescan = seen, monotonic() + self._rescan
        reading = _judge(seen, {name: file.contents for name, file in self._files.items()}, self._reading)
        if reading == self._reading:
            return None
        self._reading = reading
        return reading


def _stamps(seen: Look, contents: Contents) -> list[Stamp | None]:
    return [seen.stamps.get(part) for part in contents.texts]


def _is_current(contents: Contents) -> bool:
    """Tell whether a file and its rules still say the same; of what could not be read, there may be something else to say."""
    with suppress(OSError, ValueError):
        return all(text is not None and text == read_regular(part) for part, text in contents.texts.items())
    return False


def _difference(seen: Look, done: Look | None) -> str:
    """Name a file that differs in two looks."""
    before = done.stamps if done else {}
    changed = (file for file in seen.stamps if seen.stamps[file] != before.get(file))
    return f"{next(changed, 'the list of files')} has changed just now"


def _judge(seen: Look, files: Mapping[str, Contents], last: Reading | None) -> Reading:
    """Decide what is to hold, now that this is in the files and that held before."""
    held = last.manifests if last else {}
    present = [manifest for contents in files.values() for manifest in contents.manifests]
    broken: dict[str, str] = {}
    kept: dict[str, Manifest] = {}
    for file, problems in _in_doubt(seen, files):
        own = _unread(file, held, files)
        kept |= own
        for name in own or [file]:
            broken.setdefault(name, str(problems[0]))
    elsewhere = {each.sandbox.id for each in present}
    for path in seen.missing:
        kept |= {name: each for name, each in _below(path, held) if name not in elsewhere}
    chosen, refused = _without_clashes(kept.values(), present, held)
    for manifest, findings in refused:
        name = manifest.sandbox.id
        at_home = name in held and held[name].file == manifest.file
        broken.setdefault(name if at_home else manifest.file, f"{manifest.file}: {_text(findings[0])}")
    problems = [*seen.missing.values(), *seen.unreadable]
    problems += [problem for contents in files.values() for problem in contents.problems]
    gone = [*(last.removed if last else ()), *held]
    return Reading(
        manifests=chosen,
        broken=broken,
        problems=(*problems, *place(refused)),
        missing=tuple(seen.missing),
        removed=tuple(dict.fromkeys(name for name in gone if name not in chosen)),
    )


def _text(finding: Finding) -> str:
    return f"{path_text(finding.path)}: {finding.message}"


def _in_doubt(seen: Look, files: Mapping[str, Contents]) -> Iterator[tuple[str, Sequence[Problem]]]:
    """Give files, and folders that could not be searched, of which not all is known."""
    for file, contents in files.items():
        if contents.problems:
            yield file, contents.problems
    for problem in seen.unreadable:
        yield problem.file, [problem]


def _unread(path: str, held: Mapping[str, Manifest], files: Mapping[str, Contents]) -> dict[str, Manifest]:
    """Give what holds of a file, or of all files below a folder, and could not be read there now."""
    if path not in files:
        return {name: each for name, each in _below(path, held) if each.file not in files}
    there = {each.sandbox.id for each in files[path].manifests}
    return {name: each for name, each in held.items() if each.file == path and name not in there}


def _below(path: str, held: Mapping[str, Manifest]) -> Iterator[tuple[str, Manifest]]:
    folder = os.path.join(path, "")
    for name, each in held.items():
        if each.file == path or each.file.startswith(folder):
            yield name, each


def _without_clashes(
    kept: Iterable[Manifest], present: Iterable[Manifest], held: Mapping[str, Manifest]
) -> tuple[dict[str, Manifest], list[tuple[Manifest, list[Finding]]]]:
    """Leave out whatever claims what another one has; what holds already comes first, then the order of the files.

    Of a sandbox that is left without a manifest, the one that held goes on: so do its claims.
    """

    def is_news(manifest: Manifest) -> bool:
        before = held.get(manifest.sandbox.id)
        return before is None or (before.file, before.sandbox) != (manifest.file, manifest.sandbox)

    candidates = [*kept, *sorted(present, key=is_news)]
    refused: list[tuple[Manifest, list[Finding]]] = []
    while found := clashes(candidates):
        refused += [(candidates[index], findings) for index, findings in found.items()]
        left = [each for index, each in enumerate(candidates) if index not in found]
        bereft = {candidates[index].sandbox.id for index in found} - {each.sandbox.id for each in left}
        candidates = [*(held[name] for name in sorted(bereft & held.keys())), *left]
    return {each.sandbox.id: each for each in candidates}, refused

"""Keeps on disk what this host should be like: the last known good manifests, also across restarts without network.

    FOLDER/current        a link to a folder of releases/: what `watch` reads
    FOLDER/releases/…     a folder for each version of what is desired: its files, and `.desired.json`, which says so
    FOLDER/past           the digests of the versions that this host has had, the newest last

A version is built in a folder of its own, each file checked by its digest, and what it was made of is written last.
Then one rename puts the link in its place. Whatever kills this process in between: the link leads to a whole version,
and the next start builds what is missing. Nothing is removed but versions that a newer one has replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import BinaryIO

from reconciler.errors import BusyError, HostError
from reconciler.fleet import records
from reconciler.fleet.blobs import AT_ONCE
from reconciler.fleet.records import Desired
from reconciler.manifest.empty import EMPTY
from reconciler.values import NamedTuple

FOLDER = "/var/lib/reconciler/fleet"
CURRENT = f"{FOLDER}/current"
# What a plan may have: the bounds of `manifest.load`, whose reader is this host's watcher.
MAX_FILES, MAX_DEPTH, MAX_NAME = 10_000, 32, 255
# Bytes of a desired state.
MAX_DESIRED = 8 << 20
_DESIRED = ".desired.json"
# Versions that are remembered.
_REMEMBERED = 500
_OWNER = 0o700
_PART = 16 << 10


# Writes files, which are given by their digests.
Fetch = Callable[[Mapping[str, BinaryIO]], None]


class Version(NamedTuple):
    """What is desired, and the digest of the bytes that say so, which names it between agent and gate."""

    desired: Desired
    digest: str


class UnusableError(ValueError):
    """What the gate sent cannot be used on this host: nothing of it is."""


def read_version(data: bytes) -> Version:
    """Return what the bytes of a desired state say. UnusableError unless all of its paths stay below its folder."""
    try:
        desired = records.decode(Desired, data)
    except ValueError as error:
        raise UnusableError(f"the desired state cannot be read: {error}") from error
    if len(desired.files) > MAX_FILES:
        raise UnusableError(f"the desired state has {len(desired.files):,} files, more than {MAX_FILES:,}")
    for path, digest in desired.files.items():
        _check(path, digest)
    return Version(desired, hashlib.sha256(data).hexdigest())


def _check(path: str, digest: str) -> None:
    parts = path.split("/")
    is_plain = all(each and not each.startswith(".") and len(each.encode()) <= MAX_NAME for each in parts)
    if not is_plain or len(parts) > MAX_DEPTH or not path.isprintable():
        raise UnusableError(f"the desired state names a file that is not plainly below its folder: {path!r:.200}")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise UnusableError(f"the desired state has no digest of {path!r:.200}")


class Cache:
    """The folder. One process has it at a time. HostError if it cannot be used, BusyError if another one has it."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder or FOLDER
        os.makedirs(self._releases, _OWNER, exist_ok=True)
        found = os.stat(self._folder)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostError(f"{self._folder} belongs to another user, or others can write to it; remove it")
        os.chmod(self._folder, _OWNER)
        self._lock = os.open(f"{self._folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BusyError(f"another agent of this host has {self._folder}") from None
        self.version = self._read()
        self._past = self._read_past()

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    @property
    def _releases(self) -> str:
        return f"{self._folder}/releases"

    @property
    def _current(self) -> str:
        return f"{self._folder}/current"

    def begin(self) -> None:
        """Make sure that there is a folder for the watcher, an empty one at first."""
        if not os.path.lexists(self._current):
            self._switch(self._fill("none", {}))

    def is_whole(self) -> bool:
        """Return whether the files of the version are all there and unchanged."""
        if self.version is None:
            return True
        below, files = os.path.realpath(self._current), self.version.desired.files
        return os.path.basename(below) == _name(self.version) and all(
            _digest_of(f"{below}/{path}") == digest for path, digest in files.items()
        )

    def take(self, data: bytes, version: Version, fetch: Fetch) -> None:
        """Make the watcher's folder that of a version, all of it at once. `data`: the bytes of its desired state.

        `fetch` writes at most `blobs.AT_ONCE` files at a time. What it raises ends this, as does OSError: the folder is
        as it was then.
        """
        built = self._fill(_name(version), version.desired.files, fetch, data)
        self._remember(version)
        self._switch(built)
        self.version = version
        self._remove_others(built)

    def had(self, version: Version) -> bool:
        """Return whether this host has had a version and a newer one since.

        Each push, and each rollback, makes a version that was never there. So an older one comes from a store that was
        restored from a backup.
        """
        return version.digest in self._past and (self.version is None or version.digest != self.version.digest)

    def _read_past(self) -> list[str]:
        try:
            with open(f"{self._folder}/past", encoding="ascii") as file:
                return file.read(_REMEMBERED * 70).split()[-_REMEMBERED:]
        except (OSError, ValueError):
            return []

    def _remember(self, version: Version) -> None:
        """Write down that this host gets a version."""
        self._past = [*(each for each in self._past if each != version.digest), version.digest][-_REMEMBERED:]
        with open(f"{self._folder}/past.new", "w", encoding="ascii") as file:
            file.write("".join(f"{each}\n" for each in self._past))
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._folder}/past.new", f"{self._folder}/past")

    def _read(self) -> Version | None:
        """Return what `current` was made of; None if that is unknown, as before the first time."""
        try:
            with open(f"{self._current}/{_DESIRED}", "rb") as file:
                return read_version(file.read(MAX_DESIRED))
        except (OSError, UnusableError):
            return None

    def _fill(
        self,
        name: str,
        wanted: dict[str, str],
        fetch: Fetch | None = None,
        data: bytes = b"",
    ) -> str:
        """Return the folder of a version, with exactly these files. What an interrupted run left in it is used."""
        folder, known = f"{self._releases}/{name}", self._known()
        os.makedirs(folder, _OWNER, exist_ok=True)
        for path in [each for each in _files(folder) if each not in wanted and each != _DESIRED]:
            os.unlink(f"{folder}/{path}")
        # Of several files with the same content, one is fetched, and the others are copies of it.
        missing: dict[str, str] = {}
        copies: list[tuple[str, str]] = []
        for path, digest in wanted.items():
            target = f"{folder}/{path}"
            if _digest_of(target) == digest:
                continue
            os.makedirs(os.path.dirname(target), _OWNER, exist_ok=True)
            if digest in missing or _digest_of(known.get(digest, "")) == digest:
                copies.append((target, digest))
            else:
                missing[digest] = target
        for some in _parts(missing):
            _place(some, fetch)
        for target, digest in copies:
            _place({digest: target}, _copying(missing.get(digest) or known[digest]))
        if not wanted:
            # The watcher takes an empty folder for a mistake otherwise.
            with open(f"{folder}/{EMPTY}", "wb"):
                pass
        if data:
            with open(f"{folder}/{_DESIRED}.part", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{folder}/{_DESIRED}.part", f"{folder}/{_DESIRED}")
        for each, _, _ in os.walk(folder):
            _sync_folder(each)
        _sync_folder(self._releases)
        return folder

    def _known(self) -> dict[str, str]:
        """Return digest → path of the files that the watcher reads now."""
        files = self.version.desired.files if self.version else {}
        return {digest: f"{self._current}/{path}" for path, digest in files.items()}

    def _switch(self, folder: str) -> None:
        link = f"{self._folder}/current.new"
        with suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(os.path.relpath(folder, self._folder), link)
        os.replace(link, self._current)
        _sync_folder(self._folder)

    def _remove_others(self, kept: str) -> None:
        with os.scandir(self._releases) as found:
            others = [each.path for each in found if each.path != kept]
        for each in others:
            with suppress(OSError):
                _remove_tree(each)


def _parts(missing: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield what is missing in parts that can be fetched at once."""
    left = iter(missing.items())
    while part := dict(itertools.islice(left, AT_ONCE)):
        yield part


def _copying(path: str) -> Fetch:
    """Return what writes a copy of a file."""

    def copy(files: Mapping[str, BinaryIO]) -> None:
        (file,) = files.values()
        with open(path, "rb") as source:
            while part := source.read(_PART):
                file.write(part)

    return copy


def _place(targets: Mapping[str, str], fetch: Fetch | None) -> None:
    """Write files: digest → where it is to be. UnusableError if one is not that of its digest.

    If that is interrupted, those that are whole are in their places: the next try needs the others only.
    """
    try:
        with ExitStack() as stack:
            # No manifest ends like this.
            files = {digest: stack.enter_context(open(f"{path}.part", "wb")) for digest, path in targets.items()}
            if fetch:
                fetch(files)
            for each in files.values():
                each.flush()
                os.fsync(each.fileno())
    finally:
        wrong = [digest for digest, path in targets.items() if not _rename(path, digest)]
    if wrong:
        raise UnusableError(f"what was received is not the file of its digest {wrong[0]}")


def _rename(path: str, digest: str) -> bool:
    """Put what was written into its place if it is what it should be; else remove it. Return whether it was."""
    is_right = _digest_of(f"{path}.part") == digest
    if is_right:
        os.replace(f"{path}.part", path)
    else:
        with suppress(OSError):
            os.unlink(f"{path}.part")
    return is_right


def _remove_tree(folder: str) -> None:
    for base, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(f"{base}/{name}")
        for name in folders:
            path = f"{base}/{name}"
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    os.rmdir(folder)


def _name(version: Version) -> str:
    """Return the name of the folder of a version."""
    return version.digest[:32]


def _files(folder: str) -> Iterator[str]:
    for base, folders, names in os.walk(folder):
        below = os.path.relpath(base, folder)
        links = [each for each in folders if os.path.islink(f"{base}/{each}")]
        for name in (*names, *links):
            yield os.path.normpath(f"{below}/{name}")


def _digest_of(path: str) -> str:
    """Return the digest of a regular file; "" if there is none, or it cannot be read."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _open_regular(path: str, flags: int) -> int:
    opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise ValueError


def _sync_folder(path: str) -> None:
    """Let what was created and renamed in a folder outlive a power cut."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

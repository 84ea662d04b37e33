"""A work tree of git whose folders are hosts → what each host should be like, validated as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from reconciler.errors import HostError, ManifestError, Problem, RefusedError
from reconciler.fleet import blobs
from reconciler.fleet.keys import check_host
from reconciler.fleet.records import Plan
from reconciler.fleet.repository import Commit, blob_of, read_commit
from reconciler.manifest.beneath import Roots, Source
from reconciler.manifest.digest import digest
from reconciler.manifest.files import NO_MANIFEST, SUFFIXES, distinct, file_problem, find, reason_of
from reconciler.manifest.load import Contents, Manifest, clashes, located, read_file
from reconciler.values import NamedTuple
from reconciler.wording import plural

# Hosts of one fleet: the release, which names them all, is one value of the store.
MAX_HOSTS = 10_000
# Names of a message.
_LISTED = 10


class HostTree(NamedTuple):
    """The folder of a host.

    `files`: path below the folder → its bytes, of all manifests and rules files. `sandboxes`: ID → digest of its
    manifest. `places`: the same IDs → the file that each is in.
    """

    files: dict[str, bytes]
    sandboxes: dict[str, str]
    places: dict[str, str]


class Tree(NamedTuple):
    """A tree. `commit`: that which is checked out, with `-dirty` if a text is not in it. `hosts`: by their names."""

    path: str
    commit: str
    roots: tuple[str, ...]
    hosts: dict[str, HostTree]


def read_tree(path: str, known: Mapping[str, Plan]) -> Tree:
    """Read a tree. ManifestError with all problems; RefusedError if it is not all of its commit, or has no host.

    `known`: plans that were pushed before. A host that has the files of its plan is not checked once more: most pushes
    change a few of thousands.
    """
    commit = read_commit(path)
    hosts: dict[str, HostTree] = {}
    problems: list[Problem] = []
    for name in _folders(path, problems):
        host, wrong = _read_host(os.path.join(path, name), known.get(name))
        if host:
            hosts[name] = host
            problems += [] if _is_host(name) else [_misnamed(path, name)]
        problems += wrong
    _check_whole(path, commit, hosts)
    problems += _twins(path, hosts)
    if problems:
        raise ManifestError(problems)
    if not hosts:
        raise RefusedError(f"{path} has no folder with a manifest: an empty tree would take everything from every host")
    if len(hosts) > MAX_HOSTS:
        raise HostError(f"{path} has {len(hosts):,} hosts; a fleet has at most {MAX_HOSTS:,}")
    return Tree(path, commit.name + _dirt(commit, hosts), commit.roots, hosts)


def _is_host(name: str) -> bool:
    try:
        return bool(check_host(name))
    except ValueError:
        return False


def _misnamed(path: str, name: str) -> Problem:
    try:
        check_host(name)
    except ValueError as error:
        return file_problem(os.path.join(path, name), str(error))
    raise AssertionError(name)


def _folders(path: str, problems: list[Problem]) -> list[str]:
    """Return the folders that may be hosts, in order. A link is a problem: it could lead to another host's folder."""
    found = []
    with os.scandir(path) as entries:
        for each in sorted(entries, key=lambda entry: entry.name):
            if each.name.startswith(".") or not each.is_dir():
                continue
            if each.is_symlink():
                problems.append(file_problem(each.path, "the folder of a host cannot be a link"))
            else:
                found.append(each.name)
    return found


def _read_host(folder: str, known: Plan | None) -> tuple[HostTree | None, list[Problem]]:
    """Return what is in the folder of a host, and its problems; None if it has no manifest, so it is no host."""
    found = find(folder)
    if not found.files:
        return None, [each for each in found.problems if each.message != NO_MANIFEST]
    if known and not found.problems and (same := _read_same(folder, found.files, known)):
        return same, []
    manifests: list[Manifest] = []
    problems = list(found.problems)
    files: dict[str, bytes] = {}
    for source in distinct(found.files):
        contents = read_file(source)
        manifests += contents.manifests
        problems += contents.problems
        if not contents.problems:
            problems += _read_bytes(folder, source, contents, files)
    problems += located((manifests[index], findings) for index, findings in clashes(manifests).items())
    places = {each.sandbox.id: os.path.relpath(each.file, folder) for each in manifests}
    return HostTree(files, {each.sandbox.id: digest(each) for each in manifests}, places), problems


def _read_same(folder: str, sources: Sequence[Source], known: Plan) -> HostTree | None:
    """Return what is in the folder of a host if it is just what a plan says; None otherwise."""
    if {os.path.relpath(each.path, folder) for each in sources} != set(known.places.values()):
        return None
    files: dict[str, bytes] = {}
    with Roots() as roots:
        for path, digest in known.files.items():
            try:
                files[path] = roots.read(Source(os.path.join(folder, path), (folder,)), blobs.MAX_BYTES + 1)
            except (OSError, ValueError):
                return None
            if blobs.digest(files[path]) != digest:
                return None
    return HostTree(files, known.sandboxes, known.places)


def _read_bytes(folder: str, source: Source, contents: Contents, files: dict[str, bytes]) -> Iterator[Problem]:
    """Add the bytes of a file and of its rules to `files`. They have to be those that were read as text."""
    with Roots() as roots:
        for path, text in contents.texts.items():
            relative = os.path.normpath(os.path.relpath(path, folder))
            try:
                data = roots.read(source if path == source.path else source.beside(path), blobs.MAX_BYTES + 1)
            except (OSError, ValueError) as error:
                yield file_problem(path, reason_of(error))
                continue
            if data.decode("utf-8-sig", errors="replace") != text:
                yield file_problem(path, "was changed while it was read; push again")
            if relative.startswith(("../", "/")):
                yield file_problem(path, "is outside of the folder of its host, which would not get it")
            files[relative] = data


def _twins(path: str, hosts: Mapping[str, HostTree]) -> Iterator[Problem]:
    """Yield the problems of sandboxes that two hosts have."""
    first: dict[str, str] = {}
    for host, found in hosts.items():
        for sandbox, place in found.places.items():
            if (other := first.setdefault(sandbox, host)) != host:
                file = os.path.join(path, other, hosts[other].places[sandbox])
                message = f"sandbox {sandbox} is in {file} already; only one host can have it"
                yield file_problem(os.path.join(path, host, place), message)


def _check_whole(path: str, commit: Commit, hosts: Mapping[str, HostTree]) -> None:
    """Raise RefusedError if manifests of the commit are missing: such a tree was half checked out, or half deleted."""
    there = {f"{host}/{name}" for host, found in hosts.items() for name in found.files}
    missing = [each for each in commit.blobs if _is_manifest(each) and each not in there]
    missing = [each for each in missing if not os.path.lexists(os.path.join(path, each))]
    if missing:
        more = [f"  … and {len(missing) - _LISTED:,} more"] if len(missing) > _LISTED else []
        raise RefusedError(
            f"{path} lacks {len(missing):,} {plural('manifest', len(missing))} of its commit {commit.name[:12]}: "
            "it is half checked out, or files were deleted. Commit the deletion, or check them out:",
            more=[*(f"  {each}" for each in missing[:_LISTED]), *more],
        )


def _is_manifest(path: str) -> bool:
    """Return whether a file of the commit is one of a host's."""
    parts = path.split("/")
    return len(parts) > 1 and path.endswith(SUFFIXES) and not any(each.startswith(".") for each in parts)


def _dirt(commit: Commit, hosts: Mapping[str, HostTree]) -> str:
    """Return `-dirty` if any file is not as the commit has it."""
    for host, found in hosts.items():
        for path, data in found.files.items():
            known = commit.blobs.get(f"{host}/{path}", "")
            if blob_of(data, known or commit.name) != known:
                return "-dirty"
    return ""


def plan_of(host: HostTree, commit: str) -> Plan:
    """Return the plan of a host, of no release yet."""
    digests = {path: blobs.digest(data) for path, data in sorted(host.files.items())}
    return Plan("", commit, dict(sorted(host.sandboxes.items())), digests, dict(sorted(host.places.items())))

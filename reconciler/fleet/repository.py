"""What git knows of a tree: the commit, and which texts belong to it. No program of the repository is run."""

from __future__ import annotations

import hashlib
import os

from reconciler.errors import HostError
from reconciler.values import NamedTuple
from reconciler.watch.asking import Git
from reconciler.watch.git import find_tree

# Seconds that git has for all of it. A repository of 100,000 commits takes a second.
_SECONDS = 60.0


class Commit(NamedTuple):
    """The commit that is checked out.

    `name`: its hash. `roots`: the first commits of its history; none if that is cut off (a shallow clone). `blobs`:
    path below the tree → what git calls its content, of all files that the commit has there.
    """

    name: str
    roots: tuple[str, ...]
    blobs: dict[str, str]


def read_commit(tree: str) -> Commit:
    """Return the commit that is checked out in or around a folder. HostError if there is none."""
    real = os.path.realpath(tree)
    top = find_tree(real)
    if not top:
        raise HostError(
            f"{tree} is in no git work tree, so nobody could say later what was pushed; give a clone of the repository"
        )
    git = Git()
    git.begin(_SECONDS)
    name = git.run(top, "rev-parse", "--verify", "HEAD").strip()
    below = os.path.relpath(real, top)
    listed = git.run_bytes(top, "ls-tree", "-r", "-z", f"{name}:{'' if below == '.' else below}") if name else b""
    shallow = git.run(top, "rev-parse", "--is-shallow-repository").strip()
    if not listed or not shallow:
        raise HostError(f"git finds no commit with files in {tree}; commit them first, or see `git -C {tree} log`")
    roots = () if shallow == "true" else tuple(sorted(git.run(top, "rev-list", "--max-parents=0", name).split()))
    return Commit(name, roots, dict(map(_blob, listed.rstrip(b"\0").split(b"\0"))))


def _blob(entry: bytes) -> tuple[str, str]:
    """Return the path and the content of an entry: `MODE blob HASH<tab>PATH`."""
    head, _, path = entry.partition(b"\t")
    return os.fsdecode(path), head.rpartition(b" ")[2].decode()


def blob_of(data: bytes, like: str) -> str:
    """Return what git calls a content. `like`: the name of another content, for its kind of hash."""
    digest = hashlib.sha1(usedforsecurity=False) if len(like) == 40 else hashlib.sha256()
    digest.update(b"blob %d\0" % len(data))
    digest.update(data)
    return digest.hexdigest()

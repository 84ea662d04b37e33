"""Finds the revision of manifests: the commit that is checked out in the git work tree around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

# Seconds after which git is killed.
_TIMEOUT = 10.0


def find_revisions(files: Iterable[str]) -> dict[str, str]:
    """Return file → the short hash of the commit checked out around it; files outside of any work tree are left out."""
    git = shutil.which("git")
    if git is None:
        return {}
    folders = {file: os.path.dirname(os.path.realpath(file)) for file in files}
    roots = {folder: _root(folder) for folder in set(folders.values())}
    heads = {root: _head(git, root) for root in set(filter(None, roots.values()))}
    return {file: heads[root] for file, folder in folders.items() if (root := roots[folder]) and heads[root]}


def _root(folder: str) -> str:
    """Return the top folder of the work tree around a folder; empty if there is none."""
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == (folder := os.path.dirname(folder)):
            return ""
    return folder


def _head(git: str, folder: str) -> str:
    """Return the short hash of the commit that is checked out in a folder; empty if git cannot find it."""
    # The tree often belongs to another user. This is safe: `rev-parse` runs no program that its configuration names.
    words = [git, "-c", "safe.directory=*", "-C", folder, "rev-parse", "--short", "--verify", "HEAD"]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""

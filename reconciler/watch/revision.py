"""Which commit a manifest is of, where its folder is a git work tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

# Seconds for git.
_TIMEOUT = 10.0


def revisions(files: Iterable[str]) -> dict[str, str]:
    """Give the commit that is checked out around each file, in short; files in no work tree are left out."""
    git = shutil.which("git")
    if git is None:
        return {}
    folders = {file: os.path.dirname(os.path.realpath(file)) for file in files}
    roots = {folder: _root(folder) for folder in set(folders.values())}
    heads = {root: _head(git, root) for root in set(filter(None, roots.values()))}
    return {file: heads[root] for file, folder in folders.items() if (root := roots[folder]) and heads[root]}


def _root(folder: str) -> str:
    """Give the top of the work tree that a folder is in; empty: it is in none."""
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == (folder := os.path.dirname(folder)):
            return ""
    return folder


def _head(git: str, folder: str) -> str:
    # The owner of the tree is often not the one who runs us, and nothing of what it configures is run for this.
    words = [git, "-c", "safe.directory=*", "-C", folder, "rev-parse", "--short", "--verify", "HEAD"]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""

"""Finds the work tree of git around a file, and where git keeps what changes with each commit.

Whoever can write in a repository decides what its `.git` is. So one counts only if it belongs to root, to the user of
this process, or to the owner of the folder that the search began in, and is a regular file or a folder, not a link.
Nothing else there is ever opened.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from reconciler.manifest.beneath import Root, read_regular

# Bytes of a file of git that names something.
_LONGEST = 4096
_NAMES = "gitdir: "


def find_tree(folder: str) -> str:
    """Return the top folder of the work tree around a folder; empty if there is none."""
    owners = _owners(folder)
    while not _is_trusted(os.path.join(folder, ".git"), owners):
        if folder == (folder := os.path.dirname(folder)):
            return ""
    return folder


def repository(tree: str) -> str:
    """Return the folder of the repository of a work tree that `find_tree` found. OSError if that cannot be found out.

    In a linked work tree, such as git-sync creates, `.git` is a file that contains this path. Empty if it contains
    anything else, or that folder belongs to somebody else.
    """
    git = os.path.join(tree, ".git")
    try:
        found = os.lstat(git)
        if stat.S_ISDIR(found.st_mode):
            return git
        line = first_line(tree, ".git")
    except FileNotFoundError:
        return git
    named = os.path.join(tree, line.removeprefix(_NAMES))
    try:
        is_owned = line.startswith(_NAMES) and _is_owned(os.stat(named), {0, os.geteuid(), found.st_uid})
    except (OSError, ValueError):
        return ""
    return named if is_owned else ""


def first_line(folder: str, name: str) -> str:
    """Return the first line of a file of git in a folder; empty if it is no regular file. OSError if it is missing."""
    with Root(folder) as root:
        try:
            found = root.open(os.path.join(folder, name))
        except ValueError:
            return ""
        try:
            data = read_regular(found, _LONGEST)
        except ValueError:
            return ""
        finally:
            os.close(found)
    return os.fsdecode(data).partition("\n")[0]


def _owners(folder: str) -> set[int]:
    """Return the users whose `.git` counts for a folder; of one that is missing, for those above it."""
    owners = {0, os.geteuid()}
    with suppress(OSError):
        owners.add(os.stat(folder).st_uid)
    return owners


def _is_trusted(git: str, owners: set[int]) -> bool:
    try:
        found = os.lstat(git)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _is_owned(found, owners)


def _is_owned(found: os.stat_result, owners: set[int]) -> bool:
    return found.st_uid in owners and (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode))

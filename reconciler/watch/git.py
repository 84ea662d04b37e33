"""Finds the work tree of git around a file, and where git keeps what changes with each commit."""

from __future__ import annotations

import os


def find_tree(folder: str) -> str:
    """Return the top folder of the work tree around a folder; empty if there is none."""
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == (folder := os.path.dirname(folder)):
            return ""
    return folder


def repository(tree: str) -> str:
    """Return the folder of the repository of a work tree. OSError if that cannot be found out.

    In a linked work tree, such as git-sync creates, `.git` is a file that contains this path.
    """
    git = os.path.join(tree, ".git")
    try:
        with open(git, encoding="utf-8", errors="surrogateescape") as stream:
            return os.path.join(tree, stream.readline().removeprefix("gitdir: ").rstrip("\n"))
    except (IsADirectoryError, FileNotFoundError):
        return git

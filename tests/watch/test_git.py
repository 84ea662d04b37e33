"""A `.git` that somebody made who may not be trusted, and what git reads in a repository of an author."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from reconciler.watch.files import find_git_lock
from reconciler.watch.revision import RevisionFinder
from tests.watch.test_revision import commits, git, manifest, tree

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "top/m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", ["top/m/.git", "top/.git"])
@pytest.mark.parametrize(
    "make",
    [
        "mkfifo {}",
        "ln -s /dev/zero {}",
        "ln -s /etc/shadow {}",
        "ln -s ../../away {}",
        "mknod {} c 1 5",
        "echo /etc/shadow > {}",
        "printf 'gitdir: /dev/zero' > {}",
        "truncate -s 1T {}",
        "printf 'gitdir: %04095d' 0 > {}",
        "printf 'gitdir: a\\0b' > {}",
        "printf 'gitdir: /gone' > {}",
    ],
)
@pytest.mark.usefixtures("root")
def test_one_that_is_nothing_of_git(make: str, where: str, folder: Path) -> None:
    (folder / "away").mkdir()
    (folder / "away/index.lock").touch()
    (folder / "top/m/a.yaml").write_text("sandbox: a\n")
    assert os.system(make.format(where)) == 0
    # Neither reads without end, nor waits for a writer.
    assert find_git_lock(["top/m"]) is None
    assert commits("top/m/a.yaml") == {}


@pytest.mark.usefixtures("root")
def test_one_of_somebody_else_above_the_folder(folder: Path) -> None:
    tree(folder / "top")
    (folder / "top/.git/index.lock").touch()
    assert find_git_lock(["top/m"]) == f"{folder}/top/.git/index.lock"
    for path in (folder / "top/.git", *(folder / "top/.git").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (folder / "top/m/a.yaml").write_text("sandbox: a\n")
    assert find_git_lock(["top/m"]) is None
    assert commits("top/m/a.yaml") == {}
    # Of the owner of the folder that was named, it counts.
    os.chown(folder / "top/m", NOBODY, NOBODY)
    assert find_git_lock(["top/m"]) == f"{folder}/top/.git/index.lock"
    assert commits("top/m/a.yaml") != {}


@pytest.mark.usefixtures("root")
def test_one_that_names_the_repository_of_somebody_else(folder: Path) -> None:
    tree(folder / "away")
    (folder / "away/.git/index.lock").touch()
    os.chown(folder / "away/.git", NOBODY, NOBODY)
    (folder / "top/m/.git").write_text("gitdir: ../../away/.git\n")
    (folder / "top/m/a.yaml").write_text("sandbox: a\n")
    assert find_git_lock(["top/m"]) is None
    assert commits("top/m/a.yaml") == {}


def test_no_program_of_a_repository_is_run(folder: Path) -> None:
    head = tree(folder / "one")
    proof, program = folder / "proof", folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    (folder / "one/included").write_text(f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n")
    for name in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "core.gitProxy",
        "diff.external",
        "alias.rev-parse",
    ):
        git(folder / "one", "config", name, f"!{program}" if name.startswith("alias") else str(program))
    git(folder / "one", "config", "core.hooksPath", str(folder))
    git(folder / "one", "config", f"includeIf.gitdir:{folder}/one/.path", str(folder / "one/included"))
    for name in ("post-index-change", "post-checkout", "reference-transaction"):
        (folder / name).symlink_to("program")
        (folder / f"one/.git/hooks/{name}").symlink_to(program)
    proof.unlink(missing_ok=True)
    assert commits("one/a.yaml") == {"one/a.yaml": head}
    assert not proof.exists()


@pytest.mark.parametrize("included", ["fifo", "/dev/zero", "/etc/shadow"])
def test_what_the_configuration_of_a_repository_includes(included: str, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    for name in ("one", "two"):
        tree(folder / name)
    subprocess.run(["git", "-C", "one", "config", "include.path", str(folder / included)], check=True)
    files = [manifest("one/a.yaml"), manifest("two/a.yaml")]
    begin = time.monotonic()
    RevisionFinder().find(files)
    assert time.monotonic() - begin < 60

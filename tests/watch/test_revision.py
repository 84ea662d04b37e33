"""Which commit manifests are of, in real trees of git, and where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.watch import revision
from reconciler.watch.revision import find_revisions

USER = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    ran = subprocess.run(["git", *USER, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def commit(folder: Path) -> str:
    """Commit all that is in a folder; give the commit, in short."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")
    return git(folder, "rev-parse", "--short", "HEAD")


def tree(folder: Path) -> str:
    """Make a tree with manifests in it and below; give its commit."""
    (folder / "below").mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "below/c.yaml"):
        (folder / name).write_text(f"sandbox: {folder.name}\n")
    git(folder, "init", "--quiet")
    return commit(folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_each_file_has_the_commit_of_its_own_tree(folder: Path) -> None:
    one, two = tree(folder / "one"), tree(folder / "two")
    (folder / "plain").mkdir()
    files = ["one/a.yaml", f"{folder}/one/below/c.yaml", "two/b.yaml", "plain/d.yaml", "gone/e.yaml"]
    assert one != two
    assert find_revisions(files) == {files[0]: one, files[1]: one, files[2]: two}


def test_it_is_that_of_what_is_checked_out_now(folder: Path) -> None:
    first = tree(folder / "one")
    second = commit(folder / "one")
    assert find_revisions(["one/a.yaml"]) == {"one/a.yaml": second}
    git(folder / "one", "checkout", "--quiet", first)
    assert find_revisions(["one/a.yaml"]) == {"one/a.yaml": first}


def test_a_file_in_the_folder_we_are_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tree(folder / "one")
    monkeypatch.chdir(folder / "one")
    assert find_revisions(["a.yaml"]) == {"a.yaml": head}


def test_links_are_followed_to_the_tree(folder: Path) -> None:
    one, two = tree(folder / "one"), tree(folder / "two")
    (folder / "current").symlink_to("one")
    (folder / "plain").mkdir()
    (folder / "plain/a.yaml").symlink_to("../two/a.yaml")
    assert find_revisions(["current/a.yaml", "plain/a.yaml"]) == {"current/a.yaml": one, "plain/a.yaml": two}
    (folder / "current").unlink()
    (folder / "current").symlink_to("two")
    assert find_revisions(["current/a.yaml"]) == {"current/a.yaml": two}


def test_a_tree_beside_its_repository(folder: Path) -> None:
    tree(folder / "one")
    git(folder / "one", "worktree", "add", "--quiet", "../two")
    head = commit(folder / "two")
    assert head != git(folder / "one", "rev-parse", "--short", "HEAD")
    assert find_revisions(["two/a.yaml"]) == {"two/a.yaml": head}


@pytest.mark.usefixtures("root")
def test_a_tree_of_somebody_else(folder: Path) -> None:
    head = tree(folder / "one")
    for path in (folder / "one").rglob("*"):
        os.chown(path, 65534, 65534)
    os.chown(folder / "one", 65534, 65534)
    plain = subprocess.run(["git", "-C", "one", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert "dubious ownership" in plain.stderr
    assert find_revisions(["one/a.yaml"]) == {"one/a.yaml": head}


def test_a_tree_without_a_commit_has_none(folder: Path) -> None:
    (folder / "one").mkdir()
    git(folder / "one", "init", "--quiet")
    assert find_revisions(["one/a.yaml"]) == {}


def test_git_is_asked_once_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def head(_: str, at: str) -> str:
        asked.append(at)
        return "" if at.endswith("plain") else "abc1234"

    monkeypatch.setattr(revision, "_head", head)
    for each in ("one", "plain"):
        (folder / each / ".git").mkdir(parents=True)
    files = [f"{each}/{number}.yaml" for number in range(100) for each in ("one", "plain")]
    assert find_revisions(files) == {each: "abc1234" for each in files if each.startswith("one")}
    assert sorted(asked) == [f"{folder}/one", f"{folder}/plain"]


def test_without_git_there_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(folder / "one")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    assert find_revisions(["one/a.yaml"]) == {}


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        ("#!/bin/sh\nexec sleep 60\n", 0o755),
        ("#!/bin/sh\necho abc1234; exit 1\n", 0o755),
        ("#!/gone\n", 0o755),
        ("", 0),
    ],
)
def test_a_git_that_does_not_work_is_none(
    script: str, mode: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(folder / "one")
    (folder / "git").write_text(script)
    (folder / "git").chmod(mode)
    monkeypatch.setattr(shutil, "which", lambda _: f"{folder}/git")
    monkeypatch.setattr(revision, "_TIMEOUT", 0.5)
    assert find_revisions(["one/a.yaml"]) == {}

"""Which commit manifests are of, in real trees of git, and where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.manifest.load import Manifest
from reconciler.manifest.place import RulesFile
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.watch import revision
from reconciler.watch.revision import Revision, RevisionFinder

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
    (folder / "below").mkdir(parents=True, exist_ok=True)
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


def manifest(file: str, rules: str = "", text: str | None = None) -> Manifest:
    """Read a file as a manifest, whose sandbox has the name of the file."""
    if text is None:
        text = Path(file).read_bytes().decode("utf-8-sig") if Path(file).exists() else ""
    found = RulesFile(rules, Path(rules).read_text().replace("\r\n", "\n")) if rules else None
    return Manifest(file, text, 0, Sandbox(id=file, driver=NetnsAddress(name="x")), found)


def commits(*files: str) -> dict[str, str]:
    """Return file → commit, without those that have none."""
    found = RevisionFinder().find(map(manifest, files))
    return {file: each.commit for file, each in found.items() if each.commit}


def test_each_file_has_the_commit_of_its_own_tree(folder: Path) -> None:
    one, two = tree(folder / "one"), tree(folder / "two")
    (folder / "plain").mkdir()
    files = ["one/a.yaml", f"{folder}/one/below/c.yaml", "two/b.yaml", "plain/d.yaml", "gone/e.yaml"]
    assert one != two
    assert commits(*files) == {files[0]: one, files[1]: one, files[2]: two}


def test_it_is_that_of_what_is_checked_out_now(folder: Path) -> None:
    first = tree(folder / "one")
    second = commit(folder / "one")
    finder = RevisionFinder()

    def found() -> str:
        return finder.find([manifest("one/a.yaml")])["one/a.yaml"].commit

    assert found() == second
    git(folder / "one", "checkout", "--quiet", first)
    assert found() == first
    git(folder / "one", "checkout", "--quiet", "-B", "other")
    assert found() == first
    assert (commit(folder / "one"), git(folder / "one", "pack-refs", "--all")) == (found(), "")
    git(folder / "one", "reset", "--quiet", "--hard", second)
    assert found() == second


def test_an_uncommitted_text_is_dirty_and_has_a_blob(folder: Path) -> None:
    one = tree(folder / "one")
    file = folder / "one/a.yaml"
    finder = RevisionFinder()

    def found(text: str | None = None) -> Revision:
        return finder.find([manifest("one/a.yaml", text=text)])["one/a.yaml"]

    committed = git(folder / "one", "rev-parse", "HEAD:a.yaml")
    assert found() == Revision(one, committed)
    file.write_text("edited\n")
    edited = git(folder / "one", "hash-object", "a.yaml")
    assert found() == Revision(f"{one}-dirty", edited)
    # What counts is the text that was applied, not what the file has become since.
    assert found("sandbox: one\n") == Revision(one, committed)
    git(folder / "one", "add", "a.yaml")
    assert found() == Revision(f"{one}-dirty", edited)
    two = commit(folder / "one")
    assert found() == Revision(two, edited)
    assert found("sandbox: one\n") == Revision(f"{two}-dirty", committed)
    # One that git does not know, and one that it knows no more.
    (folder / "one/new.yaml").write_text("new\n")
    assert finder.find([manifest("one/new.yaml")])["one/new.yaml"].commit == f"{two}-dirty"
    git(folder / "one", "rm", "--quiet", "--cached", "a.yaml")
    three = commit_only_index(folder / "one")
    assert found().commit == f"{three}-dirty"


def commit_only_index(folder: Path) -> str:
    git(folder, "commit", "--quiet", "--message", "a change")
    return git(folder, "rev-parse", "--short", "HEAD")


def test_edited_rules_are_dirty_as_well(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one/a.rules").write_bytes(b"-A -t 10.0.0.1:80\r\n")
    head = tree(folder / "one")

    def found() -> str:
        return RevisionFinder().find([manifest("one/a.yaml", "one/a.rules")])["one/a.yaml"].commit

    assert found() == head
    (folder / "one/a.rules").write_text("-A -t 10.0.0.1:81\n")
    assert found() == f"{head}-dirty"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: b\n", b"a: b\r\n", b"", "ä: 日\n".encode()])
def test_a_text_is_that_of_the_commit_whatever_reading_took_away(content: bytes, folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one/x.yaml").write_bytes(content)
    head = tree(folder / "one")
    assert commits("one/x.yaml") == {"one/x.yaml": head}


@pytest.mark.parametrize("name", ["a b.yaml", "ä.yaml", "a:b.yaml", "-x.yaml", 'q"q.yaml', "t\tt.yaml"])
def test_a_name_may_be_strange(name: str, folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one" / name).write_text("a: b\n")
    head = tree(folder / "one")
    assert commits(f"one/{name}", "one/a.yaml") == {f"one/{name}": head, "one/a.yaml": head}


def test_a_name_of_two_lines_hides_no_other(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one/n\nn.yaml").write_text("a: b\n")
    head = tree(folder / "one")
    assert commits("one/n\nn.yaml", "one/a.yaml") == {"one/n\nn.yaml": f"{head}-dirty", "one/a.yaml": head}


def test_a_repository_of_long_hashes(folder: Path) -> None:
    (folder / "one").mkdir()
    git(folder / "one", "init", "--quiet", "--object-format=sha256")
    head = tree(folder / "one")
    found = RevisionFinder().find([manifest("one/a.yaml")])["one/a.yaml"]
    assert found == Revision(head, git(folder / "one", "rev-parse", "HEAD:a.yaml"))
    assert len(found.blob) == 64


def test_outside_of_git_there_is_a_blob(folder: Path) -> None:
    (folder / "a.yaml").write_text("a: b\n")
    blob = git(folder, "hash-object", "a.yaml")
    assert RevisionFinder().find([manifest("a.yaml")]) == {"a.yaml": Revision("", blob)}


def test_a_file_in_the_folder_we_are_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tree(folder / "one")
    monkeypatch.chdir(folder / "one")
    assert commits("a.yaml") == {"a.yaml": head}


def test_links_are_followed_to_the_tree(folder: Path) -> None:
    one, two = tree(folder / "one"), tree(folder / "two")
    (folder / "current").symlink_to("one")
    (folder / "plain").mkdir()
    (folder / "plain/a.yaml").symlink_to("../two/a.yaml")
    assert commits("current/a.yaml", "plain/a.yaml") == {"current/a.yaml": one, "plain/a.yaml": two}
    (folder / "current").unlink()
    (folder / "current").symlink_to("two")
    assert commits("current/a.yaml") == {"current/a.yaml": two}


def test_a_tree_beside_its_repository(folder: Path) -> None:
    tree(folder / "one")
    git(folder / "one", "worktree", "add", "--quiet", "../two")
    head = commit(folder / "two")
    assert head != git(folder / "one", "rev-parse", "--short", "HEAD")
    assert commits("two/a.yaml") == {"two/a.yaml": head}


@pytest.mark.usefixtures("root")
def test_a_tree_of_somebody_else(folder: Path) -> None:
    head = tree(folder / "one")
    for path in (folder / "one").rglob("*"):
        os.chown(path, 65534, 65534)
    os.chown(folder / "one", 65534, 65534)
    plain = subprocess.run(["git", "-C", "one", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert "dubious ownership" in plain.stderr
    assert commits("one/a.yaml") == {"one/a.yaml": head}


def test_a_tree_without_a_commit_has_none(folder: Path) -> None:
    (folder / "one").mkdir()
    git(folder / "one", "init", "--quiet")
    assert commits("one/a.yaml") == {}


def test_git_is_asked_again_only_after_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [tree(folder / name) for name in ("one", "two")]
    asked: list[str] = []
    run = subprocess.Popen

    def counted(command: list[str], **options: Any) -> Any:
        asked.append(command[command.index("-C") + 1])
        return run(command, **options)

    finder = RevisionFinder()
    files = [manifest(f"{each}/{name}.yaml") for name in ("a", "b", "below/c") for each in ("one", "two")]
    monkeypatch.setattr(subprocess, "Popen", counted)
    for _ in range(3):
        assert {each.commit for each in finder.find(files).values()} == set(heads)
    assert sorted(asked) == [f"{folder}/one"] * 2 + [f"{folder}/two"] * 2
    asked.clear()
    monkeypatch.undo()
    third = commit(folder / "two")
    monkeypatch.setattr(subprocess, "Popen", counted)
    monkeypatch.chdir(folder)
    assert {each.commit for each in finder.find(files).values()} == {heads[0], third}
    assert asked == [f"{folder}/two"] * 2


def test_a_git_that_hangs_is_not_waited_for_at_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(folder / "one")
    (folder / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: f"{folder}/git")
    monkeypatch.setattr(revision, "_TIMEOUT", 50.0)
    finder = RevisionFinder()
    timer = threading.Timer(0.5, finder.interrupt)
    timer.start()
    begin = time.monotonic()
    assert finder.find([manifest("one/a.yaml")])["one/a.yaml"].commit == ""
    assert time.monotonic() - begin < 40
    timer.join()


def test_without_git_there_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(folder / "one")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was run"))
    assert commits("one/a.yaml") == {}


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
    assert commits("one/a.yaml") == {}

"""How files are, and which folders decide what is there."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from reconciler.manifest.beneath import Source, named
from reconciler.watch.files import find_git_lock, folders_to_watch, take_snapshot


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestFoldersToWatch:
    def test_a_folder_and_its_name_in_its_parent(self, folder: Path) -> None:
        (folder / "m").mkdir()
        assert folders_to_watch(["m"], ["m/a.yaml"]) == {f"{folder}/m": None, f"{folder}": {"m"}}

    @pytest.mark.parametrize("path", ["m/", "./m", "m/../m", "m/.", "m//"])
    def test_spellings(self, path: str, folder: Path) -> None:
        (folder / "m").mkdir()
        assert folders_to_watch([path], []) == {f"{folder}/m": None, f"{folder}": {"m"}}

    def test_a_file(self, folder: Path) -> None:
        (folder / "a.yaml").touch()
        assert folders_to_watch(["a.yaml"], ["a.yaml"]) == {f"{folder}": {"a.yaml"}}

    def test_each_link_and_what_it_leads_to(self, folder: Path) -> None:
        (folder / "trees/1/m").mkdir(parents=True)
        (folder / "git").mkdir()
        (folder / "git/current").symlink_to("../trees/./latest/")
        (folder / "trees/latest").symlink_to(folder / "trees/1")
        assert folders_to_watch(["git/current/m"], []) == {
            f"{folder}/trees/1/m": None,
            f"{folder}/trees/1": {"m"},
            f"{folder}/git": {"current"},
            f"{folder}/trees": {"latest"},
        }

    def test_what_is_missing_and_where_it_would_be_made(self, folder: Path) -> None:
        assert folders_to_watch(["m/below"], []) == {f"{folder}": {"m"}, f"{folder}/m": {"below"}}

    def test_links_that_lead_nowhere(self, folder: Path) -> None:
        (folder / "a").symlink_to("b")
        (folder / "b").symlink_to("a")
        assert folders_to_watch(["a/m"], [])[f"{folder}"] == {"a", "b"}

    def test_a_path_as_deep_as_the_kernel_takes(self, folder: Path) -> None:
        (folder / "m").mkdir()
        assert folders_to_watch(["m"], ["m/" + "../m/" * 800 + "a.rules"]) == {f"{folder}/m": None, f"{folder}": {"m"}}

    def test_a_tree_within_another_and_a_file_in_both(self, folder: Path) -> None:
        (folder / "m/below").mkdir(parents=True)
        assert folders_to_watch(["m/below", "m"], ["m/below/a.yaml"]) == {f"{folder}/m": None, f"{folder}": {"m"}}

    def test_files_that_are_links_and_rules_elsewhere(self, folder: Path) -> None:
        for name in ("m", "shared", "rules"):
            (folder / name).mkdir()
        (folder / "m/a.yaml").symlink_to("../shared/a.yaml")
        assert folders_to_watch(["m"], ["m/a.yaml", "m/../rules/a.rules"]) == {
            f"{folder}/m": None,
            f"{folder}": {"m"},
            f"{folder}/shared": {"a.yaml"},
            f"{folder}/rules": {"a.rules"},
        }


class TestSnapshots:
    def test_what_is_missing_is_told_apart_from_what_is_there(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        (folder / "m").mkdir()
        (folder / "m/a.yaml").touch()
        seen = take_snapshot(["gone", "m", "empty", "m/a.yaml/below"], [named("a.rules")])
        assert seen.files == (Source("m/a.yaml", ("m",)),)
        assert [str(each) for each in seen.missing.values()] == [
            "gone: No such file or directory",
            "empty: this folder contains no manifest (*.yaml, *.yml, *.json)",
            "m/a.yaml/below: Not a directory",
        ]
        assert (list(seen.stamps), seen.stamps["a.rules"]) == (["m/a.yaml", "a.rules"], None)

    def test_a_changed_file_differs_whatever_its_time_says(self, folder: Path) -> None:
        file = folder / "a.yaml"
        file.write_text("one")
        before, times = take_snapshot(["a.yaml"], []), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        while take_snapshot(["a.yaml"], []).stamps["a.yaml"] == before.stamps["a.yaml"]:
            file.write_text("two")
            os.utime(file, ns=times)
        assert file.stat().st_mtime_ns == times[1]


class TestGitLock:
    def test_of_the_tree_above(self, folder: Path) -> None:
        (folder / "m/below").mkdir(parents=True)
        (folder / ".git").mkdir()
        assert find_git_lock(["m/below"]) is None
        (folder / ".git/index.lock").touch()
        assert (
            find_git_lock(["m/below"])
            == find_git_lock(["gone.yaml"])
            == find_git_lock(["."])
            == f"{folder}/.git/index.lock"
        )

    def test_a_tree_that_cannot_be_looked_at_is_not_one_without_a_lock(self, folder: Path) -> None:
        (folder / ".git").write_text("gitdir: elsewhere\n")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                find_git_lock(["."])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_of_a_tree_beside_its_repository(self, folder: Path) -> None:
        for words in (
            ["init", "-q", "one"],
            ["-C", "one", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
            ["-C", "one", "worktree", "add", "-q", "../two"],
        ):
            subprocess.run(["git", *words], check=True)
        (folder / "link").symlink_to("two")
        assert find_git_lock(["link"]) is None
        (folder / "one/.git/worktrees/two/index.lock").touch()
        assert find_git_lock(["link"]) == f"{folder}/one/.git/worktrees/two/index.lock"

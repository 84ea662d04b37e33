"""Stories of how files and folders are written, replaced and swapped; nothing in between is ever given."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.manifest.beneath import Source
from reconciler.manifest.load import Contents
from reconciler.model.policy import Policy
from reconciler.watch import folders, manifests
from reconciler.watch.manifests import ManifestReader, ManifestSet
from reconciler.watch.parser import Parser
from tests.watch.running import until
from tests.watch.story import Start, Watch, same, text, versions, write


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


class TestEditors:
    """How they save, for a PATH that is a folder, a file, and a link to a file elsewhere."""

    @pytest.fixture(params=["m", "m/s1.yaml", "link.yaml"])
    def watch(self, request: pytest.FixtureRequest, start: Start) -> Watch:
        write("m", [1], 0)
        Path("link.yaml").symlink_to("m/s1.yaml")
        watch = start(request.param)
        watch.until_versions({"s1": 0})
        return watch

    def save(self, watch: Watch, how: Callable[[], object]) -> None:
        readings = watch.run_during(how, 0.0)
        if not readings:
            watch.until_versions({"s1": 1})
        watch.run(0.5)
        assert [versions(each) for each in watch.readings] == [{"s1": 0}, {"s1": 1}]
        assert watch.readings[-1]._replace(manifests={}) == ManifestSet({}, {}, (), ())

    def test_in_place(self, watch: Watch) -> None:
        self.save(watch, lambda: Path("m/s1.yaml").write_text(text(1, 1)))

    def test_rename_over(self, watch: Watch) -> None:
        def save() -> None:
            Path("m/s1.yaml.tmp").write_text(text(1, 1))
            Path("m/s1.yaml.tmp").rename("m/s1.yaml")

        self.save(watch, save)

    def test_vim(self, watch: Watch) -> None:
        # With `backupcopy=no`: the old file becomes the backup, a new one is written.
        def save() -> None:
            Path("m/.s1.yaml.swp").write_bytes(b"b0VIM")
            Path("m/4913").touch()
            Path("m/4913").unlink()
            Path("m/s1.yaml").rename("m/s1.yaml~")
            Path("m/s1.yaml").write_text(text(1, 1))
            Path("m/s1.yaml~").unlink()
            Path("m/.s1.yaml.swp").unlink()

        self.save(watch, save)

    def test_vim_with_a_copy(self, watch: Watch) -> None:
        # With `backupcopy=yes`: the file is copied, and written in place.
        def save() -> None:
            shutil.copy2("m/s1.yaml", "m/s1.yaml~")
            Path("m/s1.yaml").write_text(text(1, 1))
            Path("m/s1.yaml~").unlink()

        self.save(watch, save)

    def test_emacs(self, watch: Watch) -> None:
        def save() -> None:
            Path("m/.#s1.yaml").symlink_to("somebody@host.1234:5678")
            Path("m/#s1.yaml#").write_text(text(1, 7))
            Path("m/s1.yaml").rename("m/s1.yaml~")
            Path("m/s1.yaml").write_text(text(1, 1))
            Path("m/#s1.yaml#").unlink()
            Path("m/.#s1.yaml").unlink()

        self.save(watch, save)

    def test_sed(self, watch: Watch) -> None:
        Path("new").write_text(text(1, 1).removeprefix(text(1, 0)))
        self.save(watch, lambda: subprocess.run(["sed", "-i", "-e", "$r new", "m/s1.yaml"], check=True))

    def test_truncated_and_written_slowly(self, watch: Watch) -> None:
        # After the second pause, this is a manifest that would be right, without routes.
        def save() -> None:
            with Path("m/s1.yaml").open("w") as stream:
                for part in ("", text(1, 0), text(1, 1).removeprefix(text(1, 0))):
                    stream.write(part)
                    stream.flush()
                    time.sleep(0.5)

        self.save(watch, save)


@pytest.mark.parametrize("truncate", [lambda: Path("m/s1.yaml").write_text(""), lambda: os.truncate("m/s1.yaml", 0)])
def test_truncated_for_a_while_and_then_written(
    truncate: Callable[[], None], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # truncate(2) opens no file, so nothing is closed either.
    monkeypatch.setattr(folders, "UNFINISHED", 0.5)
    write("m", [1, 2], 1)
    watch = start("m")
    watch.until_versions({"s1": 1, "s2": 1})
    truncate()
    reading = watch.until(lambda reading: bool(reading.broken))
    assert versions(reading) == {"s1": 1, "s2": 1}
    empty = "m/s1.yaml: is empty; to remove what reconciler created, write empty sections such as `routes: []`"
    assert (reading.broken, list(map(str, reading.problems))) == ({"s1": empty}, [empty])
    write("m", [1], 2)
    assert watch.until(lambda reading: not reading.broken).problems == ()
    assert [versions(each) for each in watch.readings][1:] == [{"s1": 1, "s2": 1}, {"s1": 2, "s2": 1}]


def test_changed_while_it_is_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    write("m", [1, 2], 0)
    watch = start("m")
    watch.until_versions(same([1, 2], 0))
    again = [2]

    class Slow(Parser):
        def read(self, file: Source, policy: Policy) -> Contents:
            contents = super().read(file, policy)
            if again:
                write("m", [1, 2], again.pop())
            return contents

    monkeypatch.setattr(manifests, "Parser", Slow)
    write("m", [1, 2], 1)
    watch.until_versions(same([1, 2], 2))
    assert [versions(each) for each in watch.readings] == [same([1, 2], 0), same([1, 2], 2)]


class TestGit:
    MANY = range(500)

    def test_checkout_of_500_files(self, start: Start) -> None:
        git("init", "-q")
        for version in (0, 1):
            write("m", self.MANY, version)
            git("add", "m")
            git("commit", "-q", "-m", f"version {version}")
            git("branch", f"v{version}")
        watch = start("m")
        watch.until_versions(same(self.MANY, 1))
        for version in (0, 1, 0):
            watch.run_during(lambda version=version: git("checkout", "-q", f"v{version}"), 0.0)  # type: ignore[misc]
            if versions(watch.readings[-1]) != same(self.MANY, version):
                watch.until_versions(same(self.MANY, version))
        assert [versions(each) for each in watch.readings] == [same(self.MANY, each) for each in (1, 0, 1, 0)]
        assert not any(each.missing or each.problems for each in watch.readings)

    def test_checkout_that_takes_its_time(self, start: Start) -> None:
        git("init", "-q")
        write("m", range(5), 0)
        watch = start("m")
        watch.until_versions(same(range(5), 0))

        def checkout() -> None:
            lock = Path(".git/index.lock")
            lock.touch()
            for number in range(5):
                Path(f"m/s{number}.yaml").unlink()
                time.sleep(0.6)
                write("m", [number], 1)
            lock.unlink()

        watch.run_during(checkout, 1.0)
        if len(watch.readings) < 2:
            watch.until_versions(same(range(5), 1))
        assert [versions(each) for each in watch.readings] == [same(range(5), 0), same(range(5), 1)]

    def test_a_lock_that_nobody_takes_away_is_told(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(manifests, "PATIENCE", 0.5)
        monkeypatch.setattr(manifests, "POLL", 0.2)
        git("init", "-q")
        write("m", [1], 0)
        watch = start("m")
        watch.until_versions({"s1": 0})
        lock = Path.cwd() / ".git/index.lock"
        lock.touch()
        write("m", [1], 1)
        until(lambda: watch.run(0.3) == [] and watch.reader.unsettled, "the alarm")
        assert watch.run(0.5) == []
        assert len(watch.readings) == 1
        assert watch.reader.unsettled == f"{lock} exists: git is working, or was killed"
        assert [each.getMessage() for each in caplog.records] == [
            f"changed manifests have not been read for 0.5 s: {watch.reader.unsettled}"
        ]
        lock.unlink()
        watch.until_versions({"s1": 1})
        assert watch.reader.unsettled == ""


class TestLinks:
    MANY = range(20)

    @pytest.mark.parametrize("path", ["git/current/m", "git/current"])
    def test_git_sync(self, path: str, start: Start) -> None:
        write("git/.worktrees/0/m", self.MANY, 0)
        Path("git/current").symlink_to(".worktrees/0")
        watch = start(path)
        watch.until_versions(same(self.MANY, 0))
        for version in range(1, 4):
            write(f"git/.worktrees/{version}/m", self.MANY, version)
            Path("git/next").symlink_to(f".worktrees/{version}")
            Path("git/next").rename("git/current")
            shutil.rmtree(f"git/.worktrees/{version - 1}")
            watch.until_versions(same(self.MANY, version))
        # What the link leads to now is watched, too.
        write("git/.worktrees/3/m", [0], 9)
        watch.until_versions(same(self.MANY, 3) | {"s0": 9})
        assert len(watch.readings) == 5
        assert not any(each.missing or each.problems for each in watch.readings)

    def publish(self, version: int) -> None:
        """Do what a kubelet does with a ConfigMap."""
        write(f"m/..{version}", self.MANY, version)
        Path("m/..data_tmp").symlink_to(f"..{version}")
        Path("m/..data_tmp").rename("m/..data")
        for number in self.MANY:
            if not os.path.lexists(f"m/s{number}.yaml"):
                Path(f"m/s{number}.yaml").symlink_to(f"..data/s{number}.yaml")
        shutil.rmtree(f"m/..{version - 1}", ignore_errors=True)

    @pytest.mark.parametrize("path", ["m", "m/s0.yaml"])
    def test_config_map(self, path: str, start: Start) -> None:
        self.publish(0)
        watch = start(path)
        shown = self.MANY if path == "m" else range(1)
        watch.until_versions(same(shown, 0))
        for version in range(1, 5):
            self.publish(version)
            watch.until_versions(same(shown, version))
        assert [versions(each) for each in watch.readings] == [same(shown, each) for each in range(5)]
        assert not any(each.missing or each.problems for each in watch.readings)

    def test_a_config_map_that_is_published_again_and_again(self, start: Start) -> None:
        self.publish(0)
        watch = start("m")
        watch.until_versions(same(self.MANY, 0))

        def publish() -> None:
            for version in range(1, 20):
                self.publish(version)
                time.sleep(0.02 * (version % 20))

        watch.run_during(publish, 1.0)
        if versions(watch.readings[-1]) != same(self.MANY, 19):
            watch.until_versions(same(self.MANY, 19))
        assert all(len(set(versions(each).values())) == 1 and len(each.manifests) == 20 for each in watch.readings)

    def test_what_a_link_in_a_folder_leads_to(self, start: Start) -> None:
        write("m/.elsewhere", [1], 0)
        Path("m/s1.yaml").symlink_to(".elsewhere/s1.yaml")
        watch = start("m")
        watch.until_versions({"s1": 0})
        write("m/.elsewhere", [1], 1)
        watch.until_versions({"s1": 1})


class TestFolders:
    def test_one_that_vanishes_holds_and_is_read_when_it_is_back(self, start: Start) -> None:
        write("m", [1, 2], 0)
        write("n", [3], 0)
        watch = start("m", "n")
        watch.until_versions(same([1, 2, 3], 0))
        for version in range(1, 4):
            shutil.rmtree("m")
            gone = watch.until(lambda reading: bool(reading.missing))
            assert (gone.missing, set(gone.broken)) == (("m",), {"s1", "s2"})
            assert [str(each) for each in gone.problems] == ["m: No such file or directory"]
            assert versions(gone) == {"s1": version - 1, "s2": version - 1, "s3": 0}
            write("m", [1, 2], version)
            back = watch.until(lambda reading: not reading.missing)
            assert versions(back) == {"s1": version, "s2": version, "s3": 0}
            assert back.problems == ()

    def test_one_whose_parents_are_made_again_one_by_one(self, start: Start) -> None:
        write("a/b/m", [1], 0)
        watch = start("a/b/m")
        watch.until_versions({"s1": 0})
        shutil.rmtree("a")
        watch.until(lambda reading: bool(reading.missing))
        for folder in ("a", "a/b", "a/b/m"):
            Path(folder).mkdir()
            watch.run(0.6)
        write("a/b/m", [1], 1)
        watch.until_versions({"s1": 1})

    def test_one_that_is_swapped_for_another(self, start: Start) -> None:
        write("m", [1], 0)
        write("new", [1], 1)
        watch = start("m")
        watch.until_versions({"s1": 0})
        Path("m").rename("old")
        Path("new").rename("m")
        watch.until_versions({"s1": 1})
        write("m", [1], 2)
        watch.until_versions({"s1": 2})
        assert not any(each.missing for each in watch.readings)

    def test_one_without_manifests_is_missing_too(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        for each in Path("m").iterdir():
            each.unlink()
        gone = watch.until(lambda reading: bool(reading.missing))
        assert (versions(gone), gone.missing) == (same([1, 2], 0), ("m",))

    def test_one_that_is_not_there_at_first(self, start: Start) -> None:
        watch = start("m")
        first = watch.until(lambda _: True)
        assert (first.manifests, first.missing) == ({}, ("m",))
        write("m", [1], 0)
        assert watch.until_versions({"s1": 0}).missing == ()

    @pytest.mark.usefixtures("root")
    def test_below_one_that_cannot_be_searched_all_holds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write("m/below", [1], 0)
        write("m", [2], 0)
        # Every folder above must let somebody else in, who can then search it.
        above = [each for each in (Path.cwd(), *Path.cwd().parents) if each.stat().st_mode & 0o055 != 0o055]
        modes = [(each, each.stat().st_mode & 0o7777) for each in above]
        for each, mode in modes:
            each.chmod(mode | 0o055)
        try:
            reading = self.read_as_somebody_else(ManifestReader(["m"], 0.0))
        finally:
            for each, mode in modes:
                each.chmod(mode)
        assert versions(reading) == same([1, 2], 0)
        assert reading.broken == {"s1": "m/below: Permission denied; run this as root"}
        assert [str(each) for each in reading.problems] == ["m/below: Permission denied; run this as root"]

    def read_as_somebody_else(self, watched: ManifestReader) -> ManifestSet:
        settle(watched)
        Path("m/below").chmod(0o700)
        os.seteuid(65534)
        try:
            return settle(watched)
        finally:
            os.seteuid(0)


def settle(watched: ManifestReader) -> ManifestSet:
    """Read without being woken."""
    end = time.monotonic() + 60
    while (reading := watched.read()) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    return reading

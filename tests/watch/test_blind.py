"""Stories in which not all is told; what has changed is found all the same, and nothing is done for nothing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from reconciler.manifest.beneath import Source
from reconciler.manifest.load import Contents
from reconciler.model.policy import Policy
from reconciler.watch import files, folders, manifests
from reconciler.watch.parser import Parser
from tests.watch.story import Start, Watch, same, write

# A limit of inotify can be set for one user namespace, by its root.
_AS_ROOT = ("unshare", "--user", "--map-root-user")


class TestBlindness:
    """Nothing is told, or not all; what has changed is found all the same."""

    def change(self, watch: Watch, seconds: float = 60.0) -> None:
        watch.until_versions(same([1, 2], 0))
        write("m", [1, 2], 1)
        watch.until_versions(same([1, 2], 1), seconds)
        shutil.rmtree("m")
        watch.until(lambda reading: bool(reading.missing), seconds)
        write("m", [1, 2], 2)
        watch.until_versions(same([1, 2], 2), seconds)

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "POLL", 0.3)
        monkeypatch.setattr(manifests, "POLL", 0.3)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
    def test_at_a_limit(
        self, code: int, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def limited(*_: object, **__: object) -> None:
            raise OSError(code, "limit reached")

        monkeypatch.setattr(BaseObserver, "schedule", limited)
        write("m", [1, 2], 0)
        watch = start("m")
        self.change(watch)
        assert "limit reached" in watch.reader.polling
        assert len(caplog.records) == 1

    @pytest.mark.usefixtures("user_namespaces")
    @pytest.mark.parametrize(("limit", "said"), [("watches", "watch limit"), ("instances", "instance limit")])
    def test_at_the_limit_of_the_kernel(self, limit: str, said: str, start: Start) -> None:
        del start
        write("m", [1], 0)
        story = (
            "from reconciler.watch import folders, manifests\n"
            "from tests.watch.story import Watch, write\n"
            "folders.POLL = manifests.POLL = 0.3\n"
            "watch = Watch('m')\n"
            "watch.until_versions({'s1': 0})\n"
            "write('m', [1], 1)\n"
            "watch.until_versions({'s1': 1})\n"
            "print(watch.reader.polling)\n"
            "watch.reader.stop()\n"
        )
        shell = f'echo 0 > /proc/sys/user/max_inotify_{limit} && exec "$0" -c "$1"'
        ran = subprocess.run(
            [*_AS_ROOT, "sh", "-c", shell, sys.executable, story],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, said in ran.stdout, ran.stderr.count("inotify does not report")) == (0, True, 1), ran

    def test_on_a_network_file_system(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(folders, "find_remote_type", lambda *_: "nfs4")
        monkeypatch.setattr(folders._Folder, "on_any_event", lambda *_: None)
        write("m", [1, 2], 0)
        watch = start("m")
        self.change(watch)
        assert watch.reader.polling.endswith("is on nfs4")
        assert len(caplog.records) == 1

    def test_of_lost_events(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders._Folder, "on_any_event", lambda *_: None)
        write("m", [1, 2], 0)
        watch = start("m", rescan=1.0)
        self.change(watch)
        assert watch.reader.polling == ""

    def test_of_stamps_that_stay_the_same(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        write("m", [1], 0)
        monkeypatch.setattr(files, "_stamp", lambda _: files.Stamp(0, 0, 0, 0, 0))
        watch = start("m", rescan=1.0)
        watch.until_versions({"s1": 0})
        write("m", [1], 1)
        watch.until_versions({"s1": 1})


def test_nothing_is_done_while_nothing_happens(start: Start) -> None:
    write("m", range(50), 0)
    watch = start("m")
    watch.until_versions(same(range(50), 0))
    watch.run(0.5)
    before = time.process_time()
    assert watch.run(2.0) == []
    assert time.process_time() - before < 0.2


def test_only_what_has_changed_is_parsed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    write("m", range(50), 0)
    watch = start("m", rescan=0.5)
    watch.until_versions(same(range(50), 0))
    parsed: list[str] = []

    class Counted(Parser):
        def read(self, file: Source, policy: Policy) -> Contents:
            parsed.append(file.path)
            return super().read(file, policy)

    monkeypatch.setattr(manifests, "Parser", Counted)
    write("m", [7], 1)
    watch.until_versions(same(range(50), 0) | {"s7": 1})
    for each in Path("m").iterdir():
        each.touch()
    assert watch.run(1.5) == []
    assert parsed == ["m/s7.yaml"]


def test_a_save_that_changes_nothing_is_no_reading(start: Start) -> None:
    write("m", [1], 0)
    watch = start("m")
    watch.until_versions({"s1": 0})
    write("m", [1], 0)
    assert watch.run(1.0) == []

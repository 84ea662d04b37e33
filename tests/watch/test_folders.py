"""What of the events in folders matters, where there are none, and what is left afterwards."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from reconciler.watch import folders
from reconciler.watch.files import folders_to_watch, take_snapshot
from reconciler.watch.folders import Folders, find_remote_type
from tests.watch.running import until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watched(calls: threading.Event) -> Iterator[Folders]:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    made = Folders(calls.set)
    yield made
    made.stop()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:52 / /srv/a rw shared:7 master:3 - nfs4 host:/a rw
41 27 0:53 / /srv/b\\040-\\040c rw - fuse.sshfs host:/b rw
42 27 0:54 / /srv/c rw - fusectl none rw
""".splitlines()


@pytest.mark.parametrize(
    ("major", "minor", "kind"), [(254, 0, ""), (0, 52, "nfs4"), (0, 53, "fuse.sshfs"), (0, 54, ""), (9, 9, "")]
)
def test_remote_file_systems_are_known_by_type(major: int, minor: int, kind: str) -> None:
    assert find_remote_type(os.makedev(major, minor), MOUNTS) == kind


class TestEvents:
    @pytest.fixture(autouse=True)
    def tree(self, folder: Path, watched: Folders, calls: threading.Event) -> None:
        for path in ("m/below", "m/.git/objects"):
            (folder / path).mkdir(parents=True)
        (folder / "m/a.yaml").write_text("text")
        assert watched.watch(folders_to_watch(["m"], []))
        assert not watched.watch(folders_to_watch(["m"], []))
        # What was made just now may be told of still.
        while calls.wait(0.3):
            calls.clear()

    @pytest.mark.parametrize(
        "change",
        [
            lambda: Path("m/a.yaml").write_text("more"),
            lambda: os.truncate("m/a.yaml", 0),
            lambda: Path("m/a.yaml").unlink(),
            lambda: Path("m/a.yaml").rename("b.yaml"),
            lambda: Path("m/a.yaml").chmod(0o600),
            lambda: Path("m/below/b.yaml").touch(),
            lambda: Path("m/link").symlink_to("nowhere"),
            lambda: Path("m/new").mkdir(),
            lambda: Path("m/below").rmdir(),
            lambda: Path("m").rename("n"),
        ],
    )
    def test_that_matter(self, change: Callable[[], None], calls: threading.Event) -> None:
        change()
        assert calls.wait(60)

    @pytest.mark.parametrize(
        "change",
        [
            lambda: Path("m/a.yaml").read_text(),
            lambda: os.listdir("m/below"),
            lambda: Path("other").write_text("text"),
            lambda: Path("m/.git/index").write_text("text"),
        ],
    )
    def test_that_do_not(self, change: Callable[[], None], calls: threading.Event) -> None:
        change()
        assert not calls.wait(0.7)

    def test_a_new_folder_is_watched_as_well(self, calls: threading.Event) -> None:
        Path("m/new/below").mkdir(parents=True)
        while calls.wait(0.5):
            calls.clear()
        Path("m/new/below/a.yaml").touch()
        assert calls.wait(60)

    def test_a_file_is_unfinished_until_it_is_closed(self, watched: Folders, calls: threading.Event) -> None:
        stamps = take_snapshot(["m"], []).stamps.values()
        with Path("m/a.yaml").open("a") as stream:
            stream.write("more")
            stream.flush()
            until(lambda: watched.find_unfinished(stamps) == str(Path.cwd() / "m/a.yaml"))
            assert calls.wait(60)
            assert watched.find_unfinished([]) is None
        until(lambda: watched.find_unfinished(stamps) is None)

    def test_a_file_is_not_waited_for_without_end(
        self, watched: Folders, calls: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Path("m/a.yaml").open("a") as stream:
            stream.write("more")
            stream.flush()
            assert calls.wait(60)
            monkeypatch.setattr(folders, "UNFINISHED", 0.0)
            assert watched.find_unfinished(take_snapshot(["m"], []).stamps.values()) is None


def test_a_folder_that_is_made_again_is_watched_again(folder: Path, watched: Folders, calls: threading.Event) -> None:
    for _ in range(5):
        (folder / "m").mkdir()
        while calls.wait(0.2):
            calls.clear()
        assert watched.watch(folders_to_watch(["m"], []))
        (folder / "m/a.yaml").touch()
        assert calls.wait(60)
        (folder / "m/a.yaml").unlink()
        (folder / "m").rmdir()


def test_what_is_not_wanted_any_more_is_left(folder: Path, watched: Folders) -> None:
    (folder / "m").mkdir()
    threads = threading.active_count()
    watched.watch(folders_to_watch(["m"], []))
    assert threading.active_count() == threads + 4
    watched.watch({})
    assert threading.active_count() == threads + 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_at_a_limit_all_is_left_and_said_once(
    code: int, folder: Path, watched: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "m").mkdir()
    threads = threading.active_count()
    schedule = BaseObserver.schedule

    def limited(*arguments: object, **options: object) -> object:
        if arguments[2] == str(folder):
            raise OSError(code, "limit reached")
        return schedule(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BaseObserver, "schedule", limited)
    assert watched.watch(folders_to_watch(["m"], []))
    assert not watched.watch(folders_to_watch(["m"], []))
    assert threading.active_count() == threads
    assert watched.polling == "limit reached (sysctl fs.inotify)"
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
        (
            logging.WARNING,
            f"inotify does not report every change, so the files are checked every 2 s: {watched.polling}",
        )
    ]


def test_a_remote_file_system_is_said_once(
    folder: Path, watched: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folders, "find_remote_type", lambda *_: "nfs4")
    (folder / "m").mkdir()
    watched.watch(folders_to_watch(["m"], []))
    (folder / "n").mkdir()
    watched.watch(folders_to_watch(["m", "n"], []))
    assert watched.polling == f"{folder}/m is on nfs4"
    assert len(caplog.records) == 1


def test_more_folders_than_threads_we_want(
    folder: Path, watched: Folders, calls: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_FOLDERS", 3)
    for number in range(5):
        (folder / f"m{number}").mkdir()
    threads = threading.active_count()
    watched.watch(folders_to_watch([f"m{number}" for number in range(5)], []))
    assert watched.polling == "there are more than 3 folders"
    assert threading.active_count() == threads + 2 + 3
    (folder / "m2/a.yaml").touch()
    assert calls.wait(60)


def test_the_timer_calls_when_asked_and_no_more_often() -> None:
    calls: list[None] = []
    timer = folders.WakeTimer(lambda: calls.append(None))
    pause = threading.Event().wait
    for _ in range(100):
        timer.wake_within(1.0)
    timer.wake_within(600)
    until(lambda: calls)
    pause(0.5)
    assert len(calls) == 1
    timer.wake_within(0)
    until(lambda: len(calls) == 2)
    timer.stop()
    timer.wake_within(0)
    pause(0.1)
    assert len(calls) == 2


def test_whoever_is_called_may_stop_it() -> None:
    calls: list[None] = []
    stopped = threading.Event()

    def call() -> None:
        calls.append(None)
        made.stop()
        stopped.set()

    made = Folders(call)
    made.wake_within(0)
    assert stopped.wait(60)
    assert len(calls) == 1

"""What is read of the history: whole changes, those that were interrupted, and what is added while it is followed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import RefusedError, VerifyError
from reconciler.history import folder as files
from reconciler.history.author import person
from reconciler.history.follower import Follower
from reconciler.history.reader import read
from reconciler.history.record import Record
from reconciler.history.scribe import FAILED, Occasion, Scribe
from reconciler.history.writer import Writer
from reconciler.model.route import Route
from reconciler.operations.route import AddRoute

HAND = Occasion("by hand", {"command": "apply", "uid": 0}, "/m.yaml", "abc", "blob")


def route(number: int) -> AddRoute:
    return AddRoute(route=Route(dest=f"10.{number}.0.0/16", type="blackhole"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(files, "FOLDER", str(tmp_path / "state/history"))
    return tmp_path / "state/history"


@pytest.fixture
def scribe() -> Scribe:
    return Scribe(Writer(), "a", "netns a", lambda: HAND)


def told(records: list[Record]) -> list[tuple[str, str, str]]:
    return [(each.event, each.result, each.reason) for each in records]


def test_a_change_is_one_record(scribe: Scribe) -> None:
    with scribe.change([route(1), route(2)]):
        assert told(read()) == [("change", "running", "")]
    (found,) = read()
    assert (found.sandbox, found.driver, found.cause, found.by) == ("a", "netns a", "by hand", HAND.by)
    assert (found.file, found.revision, found.blob) == ("/m.yaml", "abc", "blob")
    assert (found.result, found.count) == ("verified", 2)
    assert [(each.action, each.command) for each in found.steps] == [
        ("add", "ip route add blackhole 10.1.0.0/16 proto 200"),
        ("add", "ip route add blackhole 10.2.0.0/16 proto 200"),
    ]
    assert found.seconds is not None
    assert found.seconds >= 0


def test_a_change_of_many_operations_has_the_first_and_their_number(scribe: Scribe, folder: Path) -> None:
    with scribe.change([route(each % 250) for each in range(20_000)]):
        pass
    (found,) = read()
    assert (found.count, len(found.steps)) == (20_000, 50)
    assert (folder / "a.jsonl").stat().st_size < 10_000


def test_what_failed_is_recorded_with_its_fates(scribe: Scribe) -> None:
    with scribe.change([route(1), route(2)]) as change:
        change.fail("partly", ValueError("no"), {"failed": [route(1)], "kept": [route(2)]})
    (found,) = read()
    assert (found.result, found.reason, [each.fate for each in found.steps]) == ("partly", "no", ["failed", "kept"])


def test_an_error_is_recorded_once(scribe: Scribe) -> None:
    with pytest.raises(VerifyError), scribe.attempt(), scribe.change([route(1)]):
        raise VerifyError("differs")
    with pytest.raises(RefusedError), scribe.attempt():
        raise RefusedError("too much")
    with pytest.raises(KeyboardInterrupt), scribe.attempt(), scribe.change([route(1)]):
        raise KeyboardInterrupt
    assert told(read()) == [
        ("change", "not verified", "differs"),
        ("refused", "", "too much"),
        ("change", "interrupted", "KeyboardInterrupt"),
    ]


def test_what_has_drained_is_no_drift(scribe: Scribe) -> None:
    for cause in ("drift", "by hand"):
        scribe.occasion = lambda cause=cause: Occasion(cause, {})  # type: ignore[misc]
        for drained in (False, True):
            with scribe.change([route(1)], drained=drained):
                pass
    found = [(each.cause, each.more.get("changed_by")) for each in read()]
    assert found == [("drift", "unknown"), ("drain", None), ("by hand", None), ("by hand", None)]


def test_what_fails_again_and_again_is_recorded_once_and_counted(scribe: Scribe) -> None:
    for reason in ("no", "no", "no", "other"):
        with scribe.change([route(1)]) as change:
            change.fail(FAILED, ValueError(reason))
    with scribe.change([route(1)]):
        pass
    found = read()
    assert told(found) == [("change", "failed", "no"), ("change", "failed", "other"), ("change", "verified", "")]
    assert [each.more.get("tries") for each in found] == [None, 3, 1]


KILLED = """
import os, sys
from reconciler.history import folder as files
files.STATE, files.FOLDER = sys.argv[1], sys.argv[1] + "/history"
from tests.history.test_reader import HAND, route
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
with Scribe(Writer(), "a", "netns a", lambda: HAND).change([route(1)]):
    os.kill(os.getpid(), 9)
"""


def kill_one(folder: Path) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED, str(folder.parent)], check=False).returncode
    assert code == -signal.SIGKILL


def test_a_change_whose_process_was_killed_was_interrupted(scribe: Scribe, folder: Path) -> None:
    kill_one(folder)
    assert told(read()) == [
        ("change", "interrupted", "its process ended meanwhile, and nothing was written about a look since")
    ]
    scribe.settle()
    scribe.settle()
    words = "its process ended meanwhile; the next look found 0 operations left to do"
    assert told(read()) == [("change", "interrupted", words), ("converged", "", "")]
    kill_one(folder)
    with scribe.change([route(1), route(2)]):
        pass
    assert told(read())[2:] == [("change", "interrupted", words.replace("0", "2")), ("change", "verified", "")]


def test_a_change_whose_end_could_not_be_written_is_unknown(scribe: Scribe, folder: Path) -> None:
    with scribe.change([route(1)]):
        (folder / "a.jsonl").chmod(0o666)
    (folder / "a.jsonl").chmod(0o600)
    with scribe.change([route(2)]):
        pass
    assert [(each.event, each.result) for each in read()] == [
        ("change", "unknown"),
        ("missing", ""),
        ("change", "verified"),
    ]


def test_a_follower_reads_what_is_added(scribe: Scribe, folder: Path) -> None:
    follower = Follower(["a", "b*"])
    try:
        assert follower.read() == []
        writer = Writer()
        for name in ("a", "b1", "c"):
            Scribe(writer, name, "").tell("failed", reason="1")
        select.select([follower.fileno()], [], [], 60)
        assert sorted((each.sandbox, each.reason) for each in follower.read()) == [("a", "1"), ("b1", "1")]
        with scribe.change([route(1)]):
            assert follower.read() == []
        assert told(follower.read()) == [("change", "verified", "")]
        kill_one(folder)
        assert [each.result for each in follower.read()] == ["interrupted"]
        assert follower.read() == []
        # Nothing is lost or twice where a file is full.
        seen: list[str] = []
        count = 3 * files.FILE // 1000
        for number in range(count):
            scribe.tell("failed", reason=str(number), file="x" * 900)
            if number % 50 == 0:
                seen += [each.reason for each in follower.read()]
        seen += [each.reason for each in follower.read()]
        assert seen == [str(number) for number in range(count)]
        # Another folder, in place of this one.
        os.rename(folder, f"{folder}.old")
        scribe.tell("failed", reason="new")
        assert [each.reason for each in follower.read()] == ["new"]
        scribe.tell("failed", reason="newer")
        assert [each.reason for each in follower.read()] == ["newer"]
    finally:
        follower.close()


def test_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_USER", "mira\x1b" + "x" * 100)
    found = person("apply")
    assert (found["command"], found["uid"], found["sudo_uid"]) == ("apply", os.getuid(), 1234)
    assert found["sudo_user"].startswith("mira")
    assert len(found["sudo_user"]) == 64
    monkeypatch.setenv("SUDO_UID", "root")
    assert "sudo_uid" not in person("apply")

"""The files of the history: who can read them, what is in them after a crash, and how much they may have."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import HostError
from reconciler.history import folder as files
from reconciler.history.force import last
from reconciler.history.lines import line
from reconciler.history.reader import read
from reconciler.history.record import Record
from reconciler.history.writer import Writer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(files, "FOLDER", str(tmp_path / "state/history"))
    return tmp_path / "state/history"


def note(number: int, sandbox: str = "a", **more: Any) -> dict[str, Any]:
    return line(sandbox, "failed", reason=str(number), **more)


def reasons(sandbox: str = "a") -> list[str]:
    return [each.reason for each in read([sandbox])]


def test_only_its_owner_can_read_it(folder: Path) -> None:
    before = os.umask(0)
    try:
        Writer().write("a", note(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a.jsonl").stat().st_mode) == 0o600
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]


def test_a_line_is_json_that_any_tool_reads(folder: Path) -> None:
    Writer().write("a", note(1, file="\udcff\x1b[31m\u2028\nx"))
    (text,) = (folder / "a.jsonl").read_bytes().splitlines()
    assert text.decode("ascii").isprintable()
    data = json.loads(text)
    assert (data["event"], data["sandbox"], data["file"]) == ("failed", "a", "\udcff\x1b[31m\u2028\nx")


@pytest.mark.parametrize("what", ["link", "folder", "open to others", "fifo", "link to a folder"])
def test_what_another_user_could_have_put_there_is_not_written_to(what: str, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    writer = Writer(said.append)
    writer.write("b", note(0, "b"))
    target = tmp_path / "target"
    match what:
        case "link":
            target.touch()
            (folder / "a.jsonl").symlink_to(target)
        case "folder":
            (folder / "a.jsonl").mkdir()
        case "open to others":
            (folder / "a.jsonl").touch()
            (folder / "a.jsonl").chmod(0o666)
        case "fifo":
            os.mkfifo(folder / "a.jsonl")
        case _:
            target.mkdir()
            shutil.rmtree(folder)
            folder.symlink_to(target)
    writer.write("a", note(1))
    assert len(said) == 1
    assert str(folder) in said[0]
    assert (writer.last("a"), last("a")) == (b"", b"")
    with pytest.raises(HostError, match=str(folder)):
        read()
    assert not target.exists() or not (target.stat().st_size if target.is_file() else list(target.iterdir()))


def test_a_line_that_a_killed_process_began_is_skipped(folder: Path) -> None:
    writer = Writer()
    writer.write("a", note(1))
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b'{"time":"2026-')
    writer.write("a", note(2))
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b'\n[1]\n{"time":1}\n\xff\n' + b"[" * 100_000 + b'\n{"event":"x"}\n')
    writer.write("a", note(3))
    assert reasons() == ["1", "2", "3"]


def test_a_sandbox_has_two_full_files_at_most(folder: Path) -> None:
    writer = Writer()
    count = 3 * files.FILE // 1000
    for number in range(count):
        writer.write("a", note(number, file="x" * 900))
    found = {each.name: each.stat().st_size for each in folder.iterdir() if not each.name.startswith(".")}
    assert found.keys() == {"a.jsonl", "a.jsonl.1"}
    assert max(found.values()) <= files.FILE
    numbers = [int(each) for each in reasons()]
    assert numbers == list(range(numbers[0], count))
    assert len(numbers) > files.FILE // 1100


def test_the_manifest_in_force_stays_however_much_happens(folder: Path) -> None:
    writer = Writer()
    writer.write("a", line("a", "in force", text="0123", manifest={"sandbox": "a"}))
    for number in range(3 * files.FILE // 1000):
        writer.write("a", note(number, file="x" * 900))
    (found,) = (each for each in read(["a"]) if each.event == "in force")
    assert found.more == {"text": "0123", "manifest": {"sandbox": "a"}}


def test_one_noisy_sandbox_costs_no_other_its_history(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ALL", 1 << 20)
    monkeypatch.setattr(files, "SLACK", 64 << 10)
    writer = Writer()
    quiet = [f"quiet{number}" for number in range(40)]
    for each in quiet:
        writer.write(each, note(1, each))
    for number in range(2500):
        for noisy in ("noisy", "hostile"):
            writer.write(noisy, note(number, noisy, file="x" * 900))
    used = sum(each.stat().st_blocks * 512 for each in folder.iterdir())
    assert used <= files.ALL + files.SLACK + 8192
    assert {each.sandbox for each in read()} == {*quiet, "noisy", "hostile"}


def test_sandboxes_that_come_and_go_leave_no_more_than_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ALL", 256 << 10)
    monkeypatch.setattr(files, "SLACK", 32 << 10)
    writer = Writer()
    for number in range(300):
        writer.write(f"s{number}", note(number, f"s{number}"))
    used = sum(each.stat().st_blocks * 512 for each in folder.iterdir())
    assert used <= files.ALL + files.SLACK + 8192
    # The latest ones are there.
    assert reasons("s299") == ["299"]
    assert reasons("s0") == []


def test_many_short_commands_leave_no_more_than_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a writer of its own, and only some count what is there: a folder may have thousands of files."""
    monkeypatch.setattr(files, "ALL", 256 << 10)
    monkeypatch.setattr(files, "SLACK", 32 << 10)
    trims: list[int] = []
    trim = files.trim

    def counted(folder: int) -> None:
        trims.append(folder)
        trim(folder)

    monkeypatch.setattr(files, "trim", counted)
    for number in range(300):
        Writer().write(f"s{number}", note(number, f"s{number}"))
    used = sum(each.stat().st_blocks * 512 for each in folder.iterdir())
    assert used <= files.ALL + files.SLACK + 8192
    # A small file is a block of 4 KiB.
    assert len(trims) <= 1 + 300 // 8
    assert reasons("s299") == ["299"]


def _write_many(number: int, state: str) -> None:
    files.STATE, files.FOLDER = state, f"{state}/history"
    writer = Writer()
    for each in range(150):
        writer.write("a", note(number * 1000 + each, file="x" * 500))


def test_several_processes_write_whole_lines(folder: Path) -> None:
    processes = [multiprocessing.Process(target=_write_many, args=(each, str(folder.parent))) for each in range(4)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    # They are more than one file has, and less than two.
    assert (folder / "a.jsonl.1").exists()
    assert sorted(map(int, reasons())) == [number * 1000 + each for number in range(4) for each in range(150)]


def test_a_folder_that_is_gone_is_made_again(folder: Path) -> None:
    writer = Writer()
    writer.write("a", note(1))
    shutil.rmtree(folder.parent)
    writer.write("a", note(2))
    assert (reasons(), writer.problem) == (["2"], "")


def test_what_could_not_be_written_is_said_once_and_counted(folder: Path) -> None:
    said: list[str] = []
    writer = Writer(said.append)
    writer.write("a", note(1))
    writer.write("b", note(1, "b"))
    (folder / "a.jsonl").chmod(0o666)
    for number in (2, 3):
        writer.write("a", note(number), note(number))
    writer.write("b", note(2, "b"))
    writer.retry()
    assert len(said) == 1
    assert writer.problem == said[0].replace(" 2 lines ", " 4 lines ")
    assert "the history lacks 2 lines since " in said[0]
    (folder / "a.jsonl").chmod(0o600)
    writer.retry()
    assert (said[1:], writer.problem) == ([""], "")
    writer.write("a", note(4))
    found: list[Record] = read(["a"])
    assert [each.event for each in found] == ["failed", "missing", "failed"]
    assert found[1].more["lines"] == 4
    assert "other users can write to it" in found[1].reason
    assert reasons("b") == ["1", "2"]


def test_a_history_of_another_user_is_not_read(folder: Path) -> None:
    Writer().write("a", note(1))
    folder.chmod(0o777)
    with pytest.raises(HostError, match="other users can write to it"):
        read()

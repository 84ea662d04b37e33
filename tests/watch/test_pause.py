"""Pauses are files: they outlive who wrote them, end by themselves, and a broken one is a pause."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.watch import pause
from reconciler.watch.pause import Pause, PauseTracker
from tests.watch.clock import Clock

SCHEMA = json.loads(Path(__file__).parents[2].joinpath("schemas/reconciler-v1.schema.json").read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rundir, "ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(pause, "FOLDER", str(tmp_path / "run/paused"))
    return tmp_path / "run/paused"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pause, "time", made)
    return made


def test_a_pause_is_read_as_it_was_written(folder: Path) -> None:
    assert (pause.read("web-1"), pause.end("web-1")) == (None, False)
    pause.write("web-1", Pause(1060.5, 'says "éa\nb"'))
    assert (pause.read("web-1"), pause.read("web-2")) == (Pause(1060.5, 'says "éa\nb"'), None)
    assert os.listdir(folder) == ["web-1"]


@pytest.mark.usefixtures("folder")
def test_a_pause_is_over_at_its_time(clock: Clock) -> None:
    pause.write("web-1", Pause(1060.0, "why"))
    clock.now = 1059.9
    assert pause.read("web-1") == Pause(1060.0, "why")
    clock.now = 1060.0
    assert pause.read("web-1") is None


def test_a_pause_is_ended_once() -> None:
    pause.write("web-1", Pause(1060.0, "why"))
    assert (pause.end("web-1"), pause.read("web-1"), pause.end("web-1")) == (True, None, False)


def test_a_later_pause_takes_the_place_of_the_one_before(folder: Path) -> None:
    pause.write("web-1", Pause(1060.0, "one"))
    pause.write("web-1", Pause(1030.0, "two"))
    assert (pause.read("web-1"), os.listdir(folder)) == (Pause(1030.0, "two"), ["web-1"])


@pytest.mark.parametrize("other", ["web-1.new", "web-1.tmp", "web-1.json", "new", "web"])
def test_a_pause_leaves_others_alone(other: str) -> None:
    pause.write(other, Pause(1060.0, "theirs"))
    pause.write("web-1", Pause(1060.0, "ours"))
    assert (pause.read(other), pause.read("web-1")) == (Pause(1060.0, "theirs"), Pause(1060.0, "ours"))
    pause.end("web-1")
    assert pause.read(other) == Pause(1060.0, "theirs")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"until": 2000}',
        b'{"until": "soon", "reason": ""}',
        b'{"until": null, "reason": ""}',
    ],
)
def test_a_broken_file_is_a_pause(text: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "web-1").write_bytes(text)
    assert pause.read("web-1") == Pause(4600.0, f"{folder}/web-1 cannot be read, so the sandbox counts as paused")
    assert (folder / "web-1").read_bytes() == text


def test_a_folder_in_its_place_is_a_pause(folder: Path) -> None:
    (folder / "web-1").mkdir(parents=True)
    assert pause.read("web-1") == Pause(4600.0, f"{folder}/web-1 cannot be read, so the sandbox counts as paused")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["until", "reason"]), inner),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=_JSON)
def test_whatever_is_in_a_file_is_a_pause_or_over(data: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "web-1").write_text(json.dumps(data))
    found = pause.read("web-1")
    assert found is None or found.until > 1000.0


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_file_that_could_not_be_read_is_neither_a_pause_nor_none(
    code: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, **_: object) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(HostError) as raised:
        pause.read("web-1")
    assert str(raised.value) == f"{folder}/web-1: {os.strerror(code)}: it is unknown whether the sandbox is paused"


def test_without_a_descriptor_a_pause_is_unknown(folder: Path) -> None:
    pause.write("web-1", Pause(1060.0, "why"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        for name in ("web-1", "web-2"):
            with pytest.raises(HostError, match=f"^{folder}/{name}: Too many open files: it is unknown"):
                pause.read(name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_changes_are_of_the_sandbox_whose_pause_begins_or_ends(folder: Path) -> None:
    tracker = PauseTracker()
    assert tracker.refresh() == []
    pause.write("web-1", Pause(1060.0, "why"))
    pause.write("web-2", Pause(1060.0, "why"))
    assert tracker.refresh() == ["web-1", "web-2"]
    pause.read("web-1")
    assert tracker.refresh() == tracker.refresh() == []
    pause.write("web-1", Pause(1030.0, "why"))
    assert tracker.refresh() == ["web-1"]
    pause.end("web-2")
    assert tracker.refresh() == ["web-2"]
    shutil.rmtree(folder)
    assert (tracker.refresh(), tracker.refresh(), tracker.refresh()) == (["web-1"], [], [])


def test_two_changes_at_the_same_time_are_both_noticed(folder: Path) -> None:
    """The times of files are those of the kernel's tick, of some milliseconds."""
    pause.write("web-1", Pause(1060.0, "why"))
    tracker = PauseTracker()
    os.utime(folder, ns=(7, 7))
    assert tracker.refresh() == []
    pause.write("web-2", Pause(1060.0, "why"))
    os.utime(folder, ns=(7, 7))
    assert tracker.refresh() == ["web-2"]


@settings(deadline=None)
@given(
    text=st.text(alphabet="aZ09_.-é/\n\0 ", max_size=5) | st.text() | st.integers(60, 70).map(lambda size: "a" * size)
)
@example("")
@example("..")
@example("a\n")
@example("٣")
def test_an_id_is_what_the_schema_says(text: str) -> None:
    schema = {"$ref": "#/properties/sandbox", **{key: SCHEMA[key] for key in ("$defs", "properties") if key in SCHEMA}}
    assert pause.is_id(text) == Draft202012Validator(schema).is_valid(text)

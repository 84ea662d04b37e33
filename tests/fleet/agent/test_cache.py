"""The folder of the agent, whatever is sent and wherever the agent is killed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from reconciler.errors import BusyError, HostError
from reconciler.fleet import blobs, records
from reconciler.fleet.agent.cache import Cache, Fetch, UnusableError, Version, read_version
from reconciler.fleet.blobs import AT_ONCE
from reconciler.fleet.records import Desired
from reconciler.manifest.files import find

Files = dict[str, bytes]
FIRST: Files = {"a.yaml": b"a: 1\n", "below/b.yaml": b"b: 1\n"}
SECOND: Files = {"a.yaml": b"a: 2\n", "below/b.yaml": b"b: 1\n", "below/c.yaml": b"c: 1\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fleet"


@pytest.fixture
def cache(folder: Path) -> Iterator[Cache]:
    found = Cache(str(folder))
    found.begin()
    yield found
    found.close()


def desired(files: Files, release: str = "r1") -> tuple[bytes, Version]:
    named = {path: blobs.digest(data) for path, data in files.items()}
    data = records.encode(Desired(release, "c0ffee", files=named))
    return data, read_version(data)


def fetcher(files: Files, fetched: list[str] | None = None) -> Fetch:
    known = {blobs.digest(data): data for data in files.values()}

    def fetch(files: Mapping[str, BinaryIO]) -> None:
        for digest, file in files.items():
            if fetched is not None:
                fetched.append(digest)
            file.write(known[digest])

    return fetch


def take(cache: Cache, files: Files, release: str = "r1", fetched: list[str] | None = None) -> None:
    cache.take(*desired(files, release), fetcher(files, fetched))


def seen(folder: Path) -> Files:
    """Return the files that the watcher reads."""
    current = folder / "current"
    return {
        str(each.relative_to(current)): each.read_bytes()
        for each in current.rglob("*")
        if each.is_file() and not each.name.startswith(".")
    }


def test_a_version_is_there_at_once_and_only_what_is_new_is_fetched(cache: Cache, folder: Path) -> None:
    take(cache, FIRST)
    assert seen(folder) == FIRST
    fetched: list[str] = []
    take(cache, SECOND, "r2", fetched)
    assert seen(folder) == SECOND
    assert sorted(fetched) == sorted(map(blobs.digest, (b"a: 2\n", b"c: 1\n")))
    assert cache.version == desired(SECOND, "r2")[1]
    # What was replaced is gone; nobody but the owner can enter.
    assert len(os.listdir(folder / "releases")) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_empty_version_is_meant_to_be_empty(cache: Cache, folder: Path) -> None:
    assert find(str(folder / "current")) == ([], [])
    take(cache, FIRST)
    take(cache, {}, "r2")
    assert seen(folder) == {}
    assert find(str(folder / "current")) == ([], [])
    (folder / "current" / ".empty").unlink()
    assert find(str(folder / "current")).problems


def test_it_is_as_it_was_after_a_restart(cache: Cache, folder: Path) -> None:
    take(cache, FIRST)
    cache.close()
    again = Cache(str(folder))
    again.begin()
    assert (again.version, again.is_whole(), seen(folder)) == (desired(FIRST)[1], True, FIRST)
    cache._lock = again._lock


def test_one_process_has_it(cache: Cache, folder: Path) -> None:
    with pytest.raises(BusyError, match="another agent of this host has"):
        Cache(str(folder))


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(HostError, match="others can write to it"):
        Cache(str(folder))


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("name", ["replace", "symlink", "fsync", "unlink", "makedirs", "open"])
def test_wherever_it_is_killed_the_folder_is_one_of_both_versions_and_the_next_start_goes_on(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(str(folder))
    cache.begin()
    take(cache, FIRST)
    real: Callable[..., Any] = getattr(os, name)
    steps = 0
    for step in range(60):
        calls = 0

        def killed(*words: Any, step: int = step, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real(*words, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, killed)
            try:
                take(cache, SECOND, "r2")
            except Killed:
                steps += 1
            else:
                break
        assert seen(folder) in (FIRST, SECOND)
        cache.close()
        cache = Cache(str(folder))
        cache.begin()
        # It knows which one it is.
        assert (cache.version, seen(folder)) in ((desired(FIRST)[1], FIRST), (desired(SECOND, "r2")[1], SECOND))
        assert cache.is_whole()
        take(cache, SECOND, "r2")
        assert (seen(folder), cache.is_whole()) == (SECOND, True)
        take(cache, FIRST)
    else:
        pytest.fail("it never came to an end")
    cache.close()
    assert steps


def test_what_is_not_the_file_of_its_digest_changes_nothing(cache: Cache, folder: Path) -> None:
    take(cache, FIRST)

    def fetch(files: Mapping[str, BinaryIO]) -> None:
        for file in files.values():
            file.write(b"something else\n")

    with pytest.raises(UnusableError, match="is not the file of its digest"):
        cache.take(*desired(SECOND, "r2"), fetch)
    assert seen(folder) == FIRST
    assert cache.version == desired(FIRST)[1]


def test_what_was_whole_when_the_gate_left_is_not_fetched_again(cache: Cache, folder: Path) -> None:
    files = {f"{number}.yaml": f"a: {number}\n".encode() for number in range(2 * AT_ONCE)}
    left, asked = AT_ONCE + 5, list[int]()

    def fetch(wanted: Mapping[str, BinaryIO]) -> None:
        asked.append(len(wanted))
        known = {blobs.digest(data): data for data in files.values()}
        for number, (digest, file) in enumerate(wanted.items()):
            if len(asked) == 2 and number == left - AT_ONCE:
                file.write(b"a")
                raise OSError("the gate has left")
            file.write(known[digest])

    with pytest.raises(OSError, match="has left"):
        cache.take(*desired(files), fetch)
    assert seen(folder) == {}
    fetched: list[str] = []
    take(cache, files, fetched=fetched)
    assert (seen(folder), asked) == (files, [AT_ONCE, AT_ONCE])
    assert sorted(fetched) == sorted(blobs.digest(f"a: {number}\n".encode()) for number in range(left, 2 * AT_ONCE))


def test_one_content_in_several_files_is_fetched_once(cache: Cache, folder: Path) -> None:
    files = {"a.yaml": b"a: 1\n", "below/b.yaml": b"a: 1\n", "c.yaml": b"a: 1\n"}
    fetched: list[str] = []
    take(cache, files, fetched=fetched)
    assert (seen(folder), len(fetched)) == (files, 1)
    take(cache, {**files, "d.yaml": b"a: 1\n"}, "r2", fetched)
    assert (len(seen(folder)), len(fetched)) == (4, 1)


def test_what_was_damaged_is_noticed_and_fetched_again(cache: Cache, folder: Path) -> None:
    take(cache, FIRST)
    assert cache.is_whole()
    (folder / "current" / "a.yaml").write_text("a: broken\n")
    assert not cache.is_whole()
    fetched: list[str] = []
    take(cache, FIRST, fetched=fetched)
    assert (seen(folder), fetched) == (FIRST, [blobs.digest(b"a: 1\n")])
    (folder / "current" / "below" / "b.yaml").unlink()
    assert not cache.is_whole()


def test_what_somebody_has_put_there_is_removed(cache: Cache, folder: Path) -> None:
    take(cache, FIRST)
    (folder / "current" / "x.yaml").write_text("x: 1\n")
    (folder / "current" / "l.yaml").symlink_to("/etc/passwd")
    take(cache, FIRST)
    assert seen(folder) == FIRST


@pytest.mark.parametrize(
    "path",
    [
        "../a.yaml",
        "/etc/a.yaml",
        "a/../../b.yaml",
        ".",
        "..",
        "",
        "a//b.yaml",
        "a/",
        ".hidden.yaml",
        "a/.git/config",
        "a\n.yaml",
        "a\0.yaml",
        "\u202ea.yaml",
        "/".join(["a"] * 33),
        "a" * 256,
    ],
)
def test_a_path_that_leads_elsewhere_makes_all_of_it_unusable(path: str) -> None:
    data = records.encode(Desired("r1", "c0ffee", files={"a.yaml": "0" * 64, path: "0" * 64}))
    with pytest.raises(UnusableError):
        read_version(data)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, records.encode(Desired("r", "c", files={"a": "../../x"}))]
)
def test_what_is_no_desired_state_is_unusable(data: bytes) -> None:
    with pytest.raises(UnusableError):
        read_version(data)


def test_too_many_files_are_unusable() -> None:
    data = records.encode(Desired("r1", "c0ffee", files={f"{each}.yaml": "0" * 64 for each in range(10_001)}))
    with pytest.raises(UnusableError, match="10,001 files"):
        read_version(data)

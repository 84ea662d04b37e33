"""Our folder below /run is closed to other users, whatever the umask is and whatever was there before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.rundir import NamedLock

HOLDER = """
import sys
from reconciler import rundir
rundir.ROOT = sys.argv[1]
lock = rundir.NamedLock(sys.argv[2])
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rundir, "ROOT", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_and_locks_are_their_owners_whatever_the_umask_is(umask: None, folder: Path) -> None:
    made = Path(rundir.make(str(folder / "one/two")))
    NamedLock("netns 4:1").close()
    os.close(rundir.open_file(str(folder / "watch.lock")))
    found = {each: mode(each) for each in (folder, made.parent, made, folder / "locks", folder / "watch.lock")}
    assert list(found.values()) == [0o700, 0o700, 0o700, 0o600, 0o600]


def test_a_folder_that_others_could_enter_is_closed(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    (folder / "locks").touch(mode=0o644)
    NamedLock("netns 4:1").close()
    assert (mode(folder), mode(folder / "locks")) == (0o700, 0o600)


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_could_write_to_is_refused(bits: int, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(HostError) as raised:
        rundir.make(str(folder / "devices"))
    assert str(raised.value) == (
        f"{folder}: other users can write to it (mode {bits:04o}), so they may have put there whatever it contains; "
        "remove it, and run the same command again"
    )


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(HostError, match=r"/run is not a folder, but a file or a link; remove it$"):
        rundir.make(str(folder))


def test_a_lock_is_opened_through_no_link_and_waits_for_no_pipe(folder: Path, tmp_path: Path) -> None:
    rundir.make(str(folder))
    (folder / "locks").symlink_to(tmp_path / "made-by-us")
    with pytest.raises(HostError, match=r"/run/locks: Too many levels of symbolic links$"):
        NamedLock("netns 4:1")
    assert not (tmp_path / "made-by-us").exists()
    (folder / "locks").unlink()
    os.mkfifo(folder / "locks")
    with pytest.raises(HostError, match=r"/run/locks is not a regular file; remove it$"):
        NamedLock("netns 4:1")


def test_what_belongs_to_another_user_is_refused(root: None, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(HostError, match=r"/run belongs to user 65534, not to user 0, who runs this; find out who made"):
        rundir.make(str(folder))
    os.chown(folder, 0, 0)
    (folder / "locks").touch(mode=0o600)
    os.chown(folder / "locks", 65534, 65534)
    with pytest.raises(HostError, match="/run/locks belongs to user 65534, not to user 0"):
        NamedLock("netns 4:1")


def test_one_process_has_a_lock_and_others_have_other_locks(folder: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(folder), "netns 4:1"]
    one, other = NamedLock("netns 4:1"), NamedLock("netns 4:10")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        assert (one.acquire(), other.acquire()) == (False, True)
        holder.kill()
    # The kernel ends a lock with its process; the same object may lock again.
    assert (one.acquire(), one.acquire()) == (True, True)
    one.release()
    again = NamedLock("netns 4:1")
    assert again.acquire()
    for each in (one, other, again):
        each.close()


def test_however_much_was_locked_there_is_one_file(folder: Path) -> None:
    for number in range(200):
        lock = NamedLock(f"socket 20:{number}")
        assert lock.acquire()
        lock.close()
    assert [(each.name, each.stat().st_size) for each in folder.iterdir()] == [("locks", 0)]

"""No other user, and no process inside a sandbox, can lock one: what we lock, they cannot open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler import rundir
from reconciler.cli.main import main
from reconciler.guest.connection import Connection
from tests.conftest import Kernel
from tests.system.box import Box, nic

# Holds flock(2) and byte-range locks of everything that it can open among its arguments, until its input ends.
LOCKER = """
import fcntl, os, sys
if sys.argv[1] != "0":
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
held = []
for path in sys.argv[2:]:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            file = os.open(path, flags, 0o666)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(file)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
print(len(held), flush=True)
sys.stdin.read()
"""
NOBODY = "65534"


@contextmanager
def locking(user: str, *paths: str, within: str = "") -> Iterator[int]:
    """Run a process of a user that holds the locks of files during the block. Yield how many it got."""
    enter = ["nsenter", f"--net={within}"] if within else []
    words = [*enter, sys.executable, "-c", LOCKER, user, *paths]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.kill()


def test_an_apply_does_not_wait_for_who_locks_what_is_public(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace, device = f"/run/netns/{box.namespace}", kernel.tap()
    ours = [f"{rundir.ROOT}/{name}" for name in ("", "locks", "watch.lock", "devices", "kata.lock")]
    with ExitStack() as stack:
        # Whoever may see a namespace can lock its file.
        assert stack.enter_context(locking(NOBODY, namespace, *ours)) == 1
        assert main(["apply", box.write(interfaces=[nic(device)])]) == 0
    with ExitStack() as stack:
        # A process inside, even of root of another mount namespace, has the namespace itself.
        assert stack.enter_context(locking(NOBODY, "/proc/self/ns/net", *ours, within=namespace)) == 1
        assert main(["apply", box.write(interfaces=[nic(device)], routes=[])]) == 0
        assert main(["apply", box.write(interfaces=[], routes=[])]) == 0
    assert "another reconciler" not in capsys.readouterr().err


def test_a_machine_whose_folder_belongs_to_another_user_is_reached(root: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "machine"
    folder.mkdir()
    path = str(folder / "agent.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        os.chown(folder, int(NOBODY), int(NOBODY))
        other = tmp_path / "by another name"
        other.symlink_to(folder)
        # Where the lock was before.
        with locking(NOBODY, f"{path}.lock", f"{rundir.ROOT}/locks") as count:
            assert (Path(f"{path}.lock").exists(), count) in {(True, 1), (False, 0)}
            with Connection(path), pytest.raises(Exception, match="another process is connected"):
                Connection(str(other / "agent.sock"))

"""Commands in a real virtual machine; the fixture `guest` of tests/conftest.py is one for all tests of a run."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from glob import glob
from pathlib import Path
from typing import Any, Protocol

from reconciler.guest import command
from reconciler.guest.launch import LaunchedMachine
from reconciler.values import dataclass

# Our command line, which is a `kata-runtime` as well.
PROGRAM = str(Path(sys.executable).with_name("reconciler"))
# Seconds.
_END_TIMEOUT = 60.0


@dataclass
class Ran:
    """What became of a command in the guest."""

    status: int
    stdout: bytes
    stderr: bytes


def run_command(path: str, words: list[str], stdin: bytes = b"") -> Ran:
    """Run a command over the socket of an exec port."""
    stdout, stderr = bytearray(), bytearray()
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        status = command.run(path, words, file.fileno(), stdout.extend, stderr.extend)
    return Ran(status, bytes(stdout), bytes(stderr))


def freeze(pid: int) -> None:
    """Stop a process (SIGSTOP), and wait until each of its threads has. One of a busy host may answer meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _END_TIMEOUT
    while any(_state(Path(task)) != "T" for task in glob(f"/proc/{pid}/task/*/stat")):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        # A thread that has ended.
        return "T"


class Machine(Protocol):
    """What runs commands, and how a manifest names it."""

    @property
    def driver(self) -> dict[str, Any]:
        """Give the field `driver` of a manifest."""

    def run(self, *words: str, stdin: bytes = b"") -> Ran:
        """Run a command."""

    def output(self, *words: str, stdin: bytes = b"") -> str:
        """Run what has to succeed; give what it prints."""


@dataclass
class Guest:
    """A sandbox that runs."""

    sandbox: LaunchedMachine

    @property
    def driver(self) -> dict[str, Any]:
        return {"vm": {"name": self.sandbox.name}}

    def run(self, *words: str, stdin: bytes = b"") -> Ran:
        return run_command(self.sandbox.exec, list(words), stdin)

    def unpack(self, archive: bytes) -> None:
        """Unpack a tar archive, compressed, below the root."""
        ran = self.run("busybox", "tar", "-xzf", "-", "-C", "/", stdin=archive)
        assert (ran.status, ran.stderr) == (0, b""), f"an archive of {len(archive)} bytes cannot be unpacked: {ran}"

    def await_end(self) -> None:
        """Wait until a QEMU that was killed has closed its sockets, which it does last."""
        deadline = time.monotonic() + _END_TIMEOUT
        while self.sandbox.pid() or _is_served(self.sandbox.qmp):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def output(self, *words: str, stdin: bytes = b"") -> str:
        """Run what has to succeed; give what it prints."""
        ran = self.run(*words, stdin=stdin)
        assert (ran.status, ran.stderr) == (0, b""), ran
        return ran.stdout.decode()


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as channel:
        try:
            channel.connect(path)
        except OSError:
            return False
        return True

"""A Linux of its own as a process of this host (User-mode Linux), with what the kernel of this host may lack: IPVS.

A system call takes longer there than on the host. All else is as fast, where a machine without KVM is slow in all. So
our command line runs there on namespaces of a host, and it is a machine of our agent (`tests/uml/machine.py`) for what
needs neither QEMU nor another kernel: Debian's package has one, KERNEL. Its files are those of this host; what is
written there stays in its memory.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copy
from typing import Any

from reconciler.values import dataclass

REPOSITORY = Path(__file__).parents[2]
# What `make setup` unpacks Debian's packages into.
PACKAGES = REPOSITORY / ".uml"
PROGRAM = PACKAGES / "usr/bin/linux.uml"
KERNEL, MEMORY = "6.1", "1G"
# It ends with this process, and all of its own processes end with it.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child")
# Seconds for a command, and for the start and the end of the whole.
TIMEOUT, _END = 240.0, 10.0
# What it makes of a folder, by init.sh: what is written there is seen on the other side.
SHARED = "/run/shared"


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int
    stdout: str
    stderr: str


class Uml:
    """A Linux that runs. It does one thing after the other."""

    def __init__(self, folder: Path) -> None:
        """Start it. `folder`: an empty one of its own, on a file system of this host."""
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is missing: `make setup` unpacks User-mode Linux there")
        self._shared = folder / "shared"
        for name in ("host", "memory", "shared"):
            (folder / name).mkdir()
        copy(PACKAGES / "bin/busybox", folder)
        copy(Path(__file__).with_name("init.sh"), folder / "init")
        self._log = folder / "log"
        self._files = 0
        inside_reads, self._requests = os.pipe()
        self._answers, inside_writes = os.pipe()
        # The lines of the agent there: see tests/uml/machine.py.
        self.line, inside_line = socket.socketpair()
        self.read, inside_read = socket.socketpair()
        words = [
            *_MORTAL,
            str(PROGRAM),
            "quiet",
            f"mem={MEMORY}",
            *("root=/dev/root", "rootfstype=hostfs", f"rootflags={folder}", "ro", "init=/init"),
            *("con=null", "con0=null,fd:1", f"ssl0=fd:{inside_reads},fd:{inside_writes}"),
            *(f"ssl1=fd:{inside_line.fileno()}", f"ssl2=fd:{inside_read.fileno()}", "ssl=null"),
            *(f"PACKAGES={PACKAGES}", f"REPOSITORY={REPOSITORY}", f"PYTHON={sys.executable}"),
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(inside_reads, inside_writes, inside_line.fileno(), inside_read.fileno()),
                start_new_session=True,
            )
        os.close(inside_reads)
        os.close(inside_writes)
        inside_line.close()
        inside_read.close()
        self._partial = bytearray()

    def await_start(self) -> None:
        assert self._line() == b""

    def reconciler(self, *words: str) -> Ran:
        """Run our command line, in a process that has imported it before."""
        return self._ask({"reconciler": words})

    def run(self, *words: str, stdin: str = "") -> Ran:
        return self._ask({"run": words, "stdin": self.file("stdin", stdin) if stdin else os.devnull})

    def output(self, *words: str, stdin: str = "") -> str:
        """Run what has to succeed; give what it prints."""
        ran = self.run(*words, stdin=stdin)
        assert (ran.status, ran.stderr) == (0, ""), ran
        return ran.stdout

    def file(self, name: str, text: str) -> str:
        """Write a file; give its path there.

        It knows a file by its inode, and keeps what it has read. So each file has another inode: those before are kept.
        """
        self._files += 1
        kept, new = (self._shared / f"{self._files}{end}" for end in (".kept", ".new"))
        kept.write_text(text, encoding="utf-8")
        os.link(kept, new)
        new.replace(self._shared / name)
        return f"{SHARED}/{name}"

    def close(self) -> None:
        """End it: its serial line hangs up, and init ends with what reads there."""
        os.close(self._requests)
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._answers)
        self.line.close()
        self.read.close()

    def _ask(self, request: dict[str, Any]) -> Ran:
        os.write(self._requests, json.dumps(request).encode() + b"\n")
        return Ran(*json.loads(self._line()))

    def _line(self) -> bytes:
        """Return the next line that it writes."""
        deadline = time.monotonic() + TIMEOUT
        while b"\n" not in self._partial:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._answers, 1 << 20) if ready else b""
            if not data:
                raise AssertionError(f"no answer of User-mode Linux: {self._log.read_text()[-2000:]}")
            self._partial += data
        line, _, self._partial = self._partial.partition(b"\n")
        return bytes(line)


@contextmanager
def started(folder: Path) -> Iterator[Uml]:
    """Start one; end it afterwards."""
    made = Uml(folder)
    try:
        made.await_start()
        yield made
    finally:
        made.close()

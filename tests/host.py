"""A host of its own, for commands that a reader is shown: they use exact names, of devices, namespaces and files.

Network, processes, /run and /srv are its own, and what is written below /etc is seen by nobody else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import resumed
from tests.machine import run_command

ROOT = Path(__file__).parents[1]
# As that of the fixture `guest`, so that its saved state serves here as well.
KIND = resumed.Kind(processors=1, python=True)
# Seconds.
_TIMEOUT = 240.0
_UNSHARE = (
    "unshare",
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
)
_INIT = """\
set -e
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=0755 tmpfs /srv
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
ip link set dev lo up
echo ready
exec sleep infinity
"""


@dataclass
class Host:
    """Process 1 of a host of its own, by its ID outside."""

    pid: int

    def run(self, *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a program on this host, in a folder; return its output, both streams as one."""
        bin_folder = Path(sys.executable).parent
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", f"--wd={folder}", *words],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT,
            env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        )

    def output(self, *words: str, folder: Path = ROOT) -> str:
        """Run what has to succeed; return what it prints."""
        done = self.run(*words, folder=folder)
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout

    def within(self, machine: str, *words: str) -> str:
        """Run what has to succeed in a machine of this host; return what it prints on standard output."""
        ran = run_command(f"/proc/{self.pid}/root/run/reconciler/sandboxes/{machine}/exec.sock", list(words))
        assert (ran.status, ran.stderr) == (0, b""), (words, ran)
        return ran.stdout.decode()

    def start_machine(self, name: str) -> None:
        """Start a machine as `reconciler sandbox start` does, from a saved state."""
        # Made out here if there is none, as that host reaches no archive of packages.
        resumed.saved(KIND)
        self.output(sys.executable, "-m", "tests.host", name)


@contextmanager
def started(folder: Path) -> Iterator[Host]:
    """Start a host, which may use this empty folder; everything on it ends with it."""
    with subprocess.Popen(
        [*_UNSHARE, "sh", "-c", _INIT, "sh", str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Host(int(child))
        finally:
            process.kill()


if __name__ == "__main__":
    resumed.start(sys.argv[1], KIND)

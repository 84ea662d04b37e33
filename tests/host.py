"""A host of its own, for commands that a reader is shown: they use exact names, of devices, namespaces and files.

Network, processes, /run and /srv are its own, and what is written below /etc is seen by nobody else.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from reconciler.cli.main import main
from reconciler.values import dataclass, field
from tests import resumed
from tests.machine import run_command

ROOT = Path(__file__).parents[1]
# As that of the fixture `guest`, so that its saved state serves here as well.
KIND = resumed.Kind(processors=1)
# Seconds.
_TIMEOUT = 600.0
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
# A process 1 that waits for whatever ends.
sleep infinity &
wait
"""


@dataclass
class Host:
    """Process 1 of a host of its own, by its ID outside."""

    pid: int
    _commands: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a program on this host, in a folder; return its output, both streams as one."""
        return subprocess.run(
            self._words(folder, *words),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT,
            env=self._environment(),
        )

    def _words(self, folder: Path, *words: str) -> list[str]:
        # In a chroot, its own root is another one than that of its namespace of mounts.
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--root", "--net", "--pid"]
        return [*enter, "env", f"--chdir={folder}", *words]

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def reconciler(self, *words: str) -> tuple[int, str]:
        """Run a command of reconciler on this host, in one process for all of them; return its exit code and output."""
        code, printed = self._ask("run", *words)
        return int(code), str(printed)

    def _ask(self, *request: str) -> list[int | str]:
        if not self._commands:
            self._commands.append(self._start_commands())
        process = self._commands[0]
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: list[int | str] = json.loads(process.stdout.readline())
        return answer

    def _start_commands(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._words(ROOT, sys.executable, "-m", "tests.host"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment(),
        )

    def output(self, *words: str, folder: Path = ROOT) -> str:
        """Run what has to succeed; return what it prints."""
        done = self.run(*words, folder=folder)
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout

    def end(self) -> None:
        """End the process that runs commands."""
        for process in self._commands:
            with process:
                process.kill()

    def within(self, machine: str, *words: str) -> str:
        """Run what has to succeed in a machine of this host; return what it prints on standard output."""
        ran = run_command(f"/proc/{self.pid}/root/run/reconciler/sandboxes/{machine}/exec.sock", list(words))
        assert (ran.status, ran.stderr) == (0, b""), (words, ran)
        return ran.stdout.decode()

    def start_machine(self, name: str) -> None:
        """Start a machine as `reconciler sandbox start` does, from a saved state."""
        # Made out here if there is none, as that host reaches no archive of packages.
        resumed.saved(KIND)
        self._ask("start", name)


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
            host = Host(int(child))
            yield host
            host.end()
        finally:
            process.kill()


def serve() -> None:
    """Do what lines of standard input ask for on such a host, and print what became of each."""
    for line in sys.stdin:
        what, *words = json.loads(line)
        printed, code = io.StringIO(), 0
        with redirect_stdout(printed), redirect_stderr(printed):
            if what == "start":
                resumed.start(words[0], KIND)
            else:
                code = main(words)
        print(json.dumps([code, printed.getvalue()]), flush=True)


if __name__ == "__main__":
    serve()

"""Our command line as a process of its own, and ways to end it that it does not choose."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.traffic import killed

TIMEOUT = 100


class Waiting:
    """An apply that waits for servers to drain."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.said = ""

    def listen(self) -> None:
        """Read until it says that something drains."""
        assert self._process.stderr
        for line in self._process.stderr:
            self.said += line
            if " drain" in line and "warning" not in line:
                return
        raise AssertionError(f"it ended with {self._process.wait()}: {self.said}")

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        assert not self.is_over()
        self._process.kill()
        assert self._process.wait(TIMEOUT) == -signal.SIGKILL

    def ends_well(self) -> str:
        """Wait for its end; give what it prints."""
        stdout, stderr = self._process.communicate(timeout=TIMEOUT)
        self.said += stderr
        assert self._process.returncode == 0, self.said
        return stdout

    def dies(self) -> None:
        """Wait until it kills itself, as `killing` says."""
        assert self._process.wait(TIMEOUT) == -signal.SIGKILL


@contextmanager
def waiting(path: str, killing: tuple[str, str] | None = None) -> Iterator[Waiting]:
    """Have an apply that waits, in the background; it kills itself at a moment of killed.py, if one is named."""
    command = [sys.executable, *((killed.__file__, *killing) if killing else ("-m", "reconciler")), "apply", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        made = Waiting(process)
        try:
            made.listen()
            yield made
        finally:
            process.kill()


def kill_at(moment: str, operation: str, path: str) -> None:
    """Run an apply until it kills itself there (killed.py)."""
    command = [sys.executable, killed.__file__, moment, operation, "apply", path]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)
    assert ran.returncode == -signal.SIGKILL, ran

"""Commands on a real terminal: a pty of any size, which says by its environment what it can show."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

# Seconds.
DEADLINE = 60.0
# The environments of terminals that show nothing but ASCII.
ASCII = [{"LC_ALL": "C"}, {"LANG": "POSIX"}, {"TERM": "dumb", "LANG": "C.UTF-8"}, {"LC_CTYPE": "de_DE.ISO-8859-1"}]
UNICODE = [{}, {"LANG": "C.UTF-8"}, {"LC_CTYPE": "en_US.utf8", "LANG": "C"}]


class Terminal:
    """A command that runs on a terminal of its own, which is the one that Ctrl-C is typed at."""

    def __init__(self, words: list[str], columns: int, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns)
        # A terminal that is told nothing shows characters as they are, and the ends of lines as well.
        inherited = {"PATH": os.environ["PATH"], "TERM": "xterm", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=inherited | dict(environment),
            start_new_session=True,
        )
        os.close(slave)
        self.shown = b""

    def resize(self, columns: int, rows: int = 24) -> None:
        """Change the size of the terminal; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type text."""
        os.write(self._master, text.encode())

    def read(self, until: bytes) -> bytes:
        """Return what is shown from now on, until something is in it."""
        begin, end = len(self.shown), time.monotonic() + DEADLINE
        while until not in self.shown[begin:]:
            if not self._read(end):
                pytest.fail(f"not in {DEADLINE} s: {until!r}; shown at last: {self.shown[-1000:]!r}")
        return self.shown[begin:]

    def finish(self) -> tuple[int, bytes]:
        """Wait until the command ends; return its exit code and all that was shown."""
        end = time.monotonic() + DEADLINE
        while self._read(end):
            pass
        return self.process.wait(DEADLINE), self.shown

    def _read(self, end: float) -> bool:
        """Read what is shown next; return False if the command has ended, or the time is over."""
        ready, _, _ = select.select([self._master], [], [], max(end - time.monotonic(), 0))
        try:
            part = os.read(self._master, 65536) if ready else b""
        except OSError:
            # The last process has closed the terminal.
            return False
        self.shown += part
        return bool(part)

    def close(self) -> None:
        """End the command, and close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(*words: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """Run `reconciler` with these words on a terminal during the block."""
    found = Terminal([sys.executable, "-m", "reconciler", *words], columns, environment or {})
    try:
        yield found
    finally:
        found.close()


def shown(*words: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `reconciler` on a terminal to its end; return its exit code and what is shown."""
    with terminal(*words, columns=columns, environment=environment) as found:
        code, data = found.finish()
    return code, data.decode().replace("\r\n", "\n")

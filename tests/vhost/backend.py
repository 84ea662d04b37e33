"""A vhost-user backend: DPDK's testpmd, which passes packets between a socket and a device of the host."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.vhost import testpmd

# Seconds.
_START_TIMEOUT, _END_TIMEOUT = 60.0, 30.0


@dataclass
class Backend:
    """A backend for the socket `path`, with `device` on its other side.

    It takes a whole core for as long as it runs.
    """

    path: Path
    device: str
    queues: int = 1
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def _log(self) -> Path:
        return self.path.with_suffix(".log")

    def start(self) -> None:
        """Start it, and wait until it serves the socket."""
        core = max(os.sched_getaffinity(0))
        words = [
            "stdbuf",
            "-oL",
            *testpmd.command(),
            "--no-huge",
            "-m",
            "256",
            "--no-pci",
            "--no-telemetry",
            f"--file-prefix={self.device}",
        ]
        words += [f"--lcores=0@{core},1@{core}", f"--vdev=net_vhost0,iface={self.path},queues={self.queues}"]
        words += [f"--vdev=net_af_packet0,iface={self.device},qpairs={self.queues}", "--", "--auto-start"]
        words += ["--disable-link-check", f"--rxq={self.queues}", f"--txq={self.queues}", "--total-num-mbufs=8192"]
        # One that was killed leaves its socket, which the next one could not bind to.
        self.path.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            # It ends when its input does.
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _START_TIMEOUT
        while "Press enter to exit" not in self._log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"testpmd did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it, as a backend that dies."""
        if self._process:
            assert self._process.stdin
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_END_TIMEOUT)
            self._process.stdin.close()
            self._process = None


@contextmanager
def running(path: Path, device: str, queues: int = 1) -> Iterator[Backend]:
    """Run a backend for a while."""
    made = Backend(path, device, queues)
    try:
        made.start()
        yield made
    finally:
        made.kill()

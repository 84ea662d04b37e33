"""Processes in namespaces, also with a pid that another process had before."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
_TRIES = 500


def of_machines(watcher: int) -> list[int]:
    """Return the ID of the process in which a watcher keeps its machines, if there is one."""
    found = []
    for children in glob(f"/proc/{watcher}/task/*/children"):
        # Threads and other children end at any time.
        with suppress(FileNotFoundError, ProcessLookupError):
            for each in Path(children).read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if b"machines.inside" in Path(f"/proc/{each}/cmdline").read_bytes():
                        found.append(int(each))
    return found


@contextmanager
def process_in(namespace: str, pid: int | None = None) -> Iterator[int]:
    """Run a process in a namespace during the block; yield its pid, which is `pid` if that is given."""
    process = _start(namespace, pid)
    try:
        _await_entry(process.pid, namespace)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _start(namespace: str, pid: int | None) -> subprocess.Popen[bytes]:
    for _ in range(_TRIES):
        if pid is not None:
            # Another program may fork in between.
            _LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "1000"])
        if pid in (None, process.pid):
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"no process got the pid {pid}")


def _await_entry(pid: int, namespace: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/ns/net", f"/run/netns/{namespace}"):
                return
        time.sleep(0.005)
    raise AssertionError(f"{pid} did not enter {namespace}")

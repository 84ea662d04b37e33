"""Hosts of a fleet with real watchers: each with its own /run/reconciler and /var/lib/reconciler."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from reconciler.fleet.ca import Made
from tests.allowed import FILE
from tests.conftest import Kernel, ip

COMMAND = [sys.executable, "-m", "reconciler"]
_OWN = """\
mkdir -p /run/reconciler /var/lib/reconciler
mount --bind "$1/run" /run/reconciler
mount --bind "$1/lib" /var/lib/reconciler
shift
exec "$@"
"""
ROUTE = "10.1.0.0/16"


class WatchedHost:
    """A host whose watcher is started and killed. Its sandboxes are namespaces of a test."""

    def __init__(self, folder: Path, name: str, certificate: Made, authority: str, ports: list[int]) -> None:
        self.name, self._folder = name, folder / name
        self._words = [*COMMAND, "watch", "--log", "json", "--policy", FILE]
        self._words += ["--cert", certificate.certificate, "--key", certificate.key, "--ca", authority]
        self._words += ["--fleet", *(f"https://127.0.0.1:{each}" for each in ports)]
        for each in ("run", "lib"):
            (self._folder / each).mkdir(parents=True)
            (self._folder / each).chmod(0o700)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            own = ["unshare", "--mount", "sh", "-ec", _OWN, "host", str(self._folder)]
            self.process = subprocess.Popen([*own, *self._words], stderr=log)

    def kill(self) -> None:
        """Kill all of its processes at once."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code

    def log(self) -> list[dict[str, Any]]:
        text = (self._folder / "log").read_text().rpartition("\n")[0]
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def namespaces(kernel: Kernel, count: int) -> list[str]:
    """Make namespaces for sandboxes."""
    found = [kernel.namespace() for _ in range(count)]
    for each in found:
        ip("-n", each, "link", "set", "dev", "lo", "up")
    return found


def manifest(sandbox: str, *dests: str, more: str = "") -> str:
    """Return a manifest with blackhole routes."""
    routes = "".join(f"  - {{dest: {each}, type: blackhole}}\n" for each in dests)
    head = f"apiVersion: reconciler/v1\nsandbox: {sandbox}\ndriver: {{netns: {{name: {sandbox}}}}}\n"
    return f"{head}routes:\n{routes}{more}"


def has(namespace: str, dest: str = ROUTE) -> bool:
    return dest in ip("-n", namespace, "route", "show", "type", "blackhole")


def flush(namespace: str) -> None:
    """Change a sandbox, as another program does."""
    ip("-n", namespace, "route", "flush", "type", "blackhole")

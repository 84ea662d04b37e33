"""A virtual machine as a container's ID names it, and a `kata-runtime` that is our own program."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from reconciler.values import dataclass
from tests.allowed import FILE, command
from tests.machine import Guest

ID = "6ec7a98f0a1b2c3d"
TIMEOUT = 300.0


@dataclass
class Container:
    """A machine, and a folder in which commands for it are run."""

    guest: Guest
    folder: Path

    def install(self) -> None:
        """Write `kata-runtime`: our program, and where it finds the container."""
        program = self.folder / "kata-runtime"
        manifests = shlex.quote(str(self.folder / "sandbox.yaml"))
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@" --manifests {manifests} --policy {FILE}\n')
        program.chmod(0o755)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a command line in a shell."""
        environment = os.environ | {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def output(self, line: str) -> str:
        """Run a command line that has to succeed, and to say nothing else; give what it prints."""
        ran = self.run(line)
        assert (ran.returncode, ran.stderr) == (0, ""), ran
        return ran.stdout

    def show(self) -> str:
        """Say what is in it, and what of that is not ours."""
        return self.output(f"{shlex.join(command())} show -o text sandbox.yaml")

    def json(self, name: str, data: Any) -> None:
        """Write a file of JSON."""
        (self.folder / name).write_text(json.dumps(data, indent=4))

    def empty(self) -> None:
        """Take back all interfaces and routes."""
        for line in json.loads(self.output("kata-runtime kata-network list-ifaces 6ec7a98")) or ():
            self.json("gone.json", line)
            self.output("kata-runtime kata-network del-iface 6ec7a98 gone.json")
        for line in json.loads(self.output("kata-runtime kata-network list-routes 6ec7a98")):
            self.json("gone.json", line)
            self.output("kata-runtime kata-network del-route 6ec7a98 gone.json")

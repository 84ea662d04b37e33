"""One real virtual machine for all tests of a run, named by the process. Elsewhere: `from tests.guest.conftest import guest`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from reconciler.errors import SandboxGoneError
from reconciler.guest import command, launch
from reconciler.guest.launch import Sandbox
from reconciler.guest.relay import Relay


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


@dataclass
class Guest:
    """A sandbox that runs."""

    sandbox: Sandbox

    def run(self, *words: str, stdin: bytes = b"") -> Ran:
        return run_command(self.sandbox.exec, list(words), stdin)

    def output(self, *words: str) -> str:
        """Run what has to succeed; give what it prints."""
        ran = self.run(*words)
        assert (ran.status, ran.stderr) == (0, b""), ran
        return ran.stdout.decode()


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    if os.geteuid() != 0:
        pytest.fail("this test runs a real virtual machine and needs root")
    name = f"test-{os.getpid()}"
    sandbox = launch.start(name)
    yield Guest(sandbox)
    with suppress(SandboxGoneError):
        launch.stop(name)


@pytest.fixture
def relay(guest: Guest) -> Iterator[Relay]:
    with Relay(guest.sandbox.agent) as relay:
        yield relay

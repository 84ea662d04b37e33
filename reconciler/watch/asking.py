"""Asks git about a repository, whoever owns it: nothing in it runs a program, reaches a host, or is waited for long."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from contextlib import suppress
from time import monotonic

# The memory of one git, without the files that it maps. The owner of a repository decides what git reads in it: its
# configuration may include a FIFO or a device.
_MEMORY = 256 << 20
# Neither a hook nor a monitor of the repository is run, and no other repository is reached. The commands that are run
# here start none of these in the first place.
_HARMLESS = (
    "safe.directory=*",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.sshCommand=false",
    "protocol.allow=never",
)


class Git:
    """Runs git. One thread uses it; another one, or a signal handler, may call `interrupt`."""

    def __init__(self) -> None:
        self._git, self._deadline = "", 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def begin(self, seconds: float) -> None:
        """Let all calls from now on have so many seconds together."""
        self._git, self._deadline = shutil.which("git") or "", monotonic() + seconds

    def interrupt(self) -> None:
        """Let no git be waited for any more."""
        self._interrupted = True
        if self._process:
            self._process.kill()

    def run(self, tree: str, *words: str, stdin: str = "") -> str:
        """Return the output of git; empty if it fails, takes too long, or must not be waited for."""
        return os.fsdecode(self.run_bytes(tree, *words, stdin=stdin))

    def run_bytes(self, tree: str, *words: str, stdin: str = "") -> bytes:
        """Return the same as bytes."""
        if self._interrupted or not self._git:
            return b""
        left = self._deadline - monotonic()
        if left <= 0:
            return b""
        # The tree often belongs to another user. This is safe: these commands run no program that its configuration
        # names, and fetch nothing that a partial clone lacks.
        options = [word for each in _HARMLESS for word in ("-c", each)]
        command = [self._git, *options, "-C", tree, *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        # Only this tree, even if its repository is broken.
        clean |= {"GIT_CEILING_DIRECTORIES": os.path.dirname(tree), "GIT_OPTIONAL_LOCKS": "0"}
        try:
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=clean | {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"},
            ) as self._process:
                try:
                    with suppress(ProcessLookupError):
                        resource.prlimit(self._process.pid, resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
                    output, _ = self._process.communicate(os.fsencode(stdin), left)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    return b""
                return output if self._process.returncode == 0 else b""
        except OSError:
            return b""
        finally:
            self._process = None

"""Reads files in a process of its own, so that no file can stall the watcher or use up its memory.

The process begins with the first file of a reading and ends with the reading, so it costs nothing while nothing
changes. If a file takes more than the limits, the process is killed and the next file gets a new one.

What comes back is data, whatever the process has become by reading a hostile file: only the classes of values are
created here, and none of their code is run.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from enum import Enum
from functools import cache
from time import monotonic
from typing import Any, Self

from reconciler.manifest.beneath import Source
from reconciler.manifest.files import file_problem, read_text
from reconciler.manifest.load import Contents
from reconciler.model.policy import Policy
from reconciler.values import is_dataclass

# Bytes of memory, and seconds of a processor, for one file; and seconds after which its process is killed in any case.
# A manifest with 20,000 IPVS rules takes 0.5 s, and one with 100,000 routes 5 s.
MEMORY = 768 << 20
SECONDS = 20
PATIENCE = 60.0
# Bytes of an answer: the texts of a file and of its rules, of 32 MiB each, and what was made of them.
_LONGEST = 256 << 20
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# It begins with nothing of the watcher: no variable, no descriptor, no folder of modules but that of this package.
_COMMAND = (
    # Nothing that it says reaches our log.
    "import os, sys; null = os.open(os.devnull, os.O_WRONLY); os.dup2(null, 2); os.close(null); "
    f"sys.path.insert(0, {_PACKAGE!r}); from reconciler.watch.child import main; main({MEMORY}, {SECONDS})"
)
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
_VALUES = ("reconciler.manifest.load", "reconciler.manifest.place", "reconciler.errors")


class _FailedError(Exception):
    """The process has no answer. The text is why. `again`: another time it may have one."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Parser:
    """Reads files for one reading of the manifests. `interrupt` may be called from anywhere."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def interrupt(self) -> None:
        """End the process, and so the reading of the present file."""
        if process := self._process:
            process.kill()

    def read(self, file: Source, policy: Policy) -> Contents:
        """Return the contents of a file, as `manifest.load.read_file` does."""
        try:
            return self._ask(file, policy)
        except _FailedError as error:
            self._end()
            contents = Contents([], [file_problem(file.path, str(error))], {file.path: None})
            if not error.again:
                # It is read again once its text is another one.
                with suppress(OSError, ValueError):
                    contents.texts[file.path] = read_text(file)
            return contents

    def _ask(self, file: Source, policy: Policy) -> Contents:
        deadline = monotonic() + PATIENCE
        if self._process is None or self._channel is None:
            self._process, self._channel = _start()
        try:
            self._channel.settimeout(PATIENCE)
            # Of the policy, only what decides about files of rules.
            request = [file.path, file.roots, policy.file, dict(policy.lines), policy.rules_files]
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            length = int.from_bytes(_receive(self._channel, 8, deadline), "big")
            if length > _LONGEST:
                raise _FailedError(f"its contents have {length:,} bytes", again=False)
            answer = _receive(self._channel, length, deadline)
        except TimeoutError:
            raise _FailedError(f"reading it takes longer than {PATIENCE:g} s", again=True) from None
        except (ConnectionError, EOFError):
            raise self._failure() from None
        return _contents(answer, file)

    def _failure(self) -> _FailedError:
        """Return why the process ended."""
        assert self._process
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return _FailedError(f"reading it takes more than {SECONDS} s of a processor", again=False)
        if code == -signal.SIGKILL:
            return _FailedError("reading it was interrupted", again=True)
        return _FailedError(
            f"reading it takes more than {MEMORY >> 20} MiB of memory, or is a defect of reconciler (status {code})",
            again=False,
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        channel, self._channel = self._channel, None
        if process and channel:
            process.kill()
            process.wait()
            channel.close()


def _contents(answer: bytes, file: Source) -> Contents:
    """Return the contents of a file from an answer. _FailedError if it is anything else."""
    try:
        contents = _Values(io.BytesIO(answer)).load()
    except (pickle.UnpicklingError, TypeError, ValueError, AttributeError, EOFError, LookupError) as error:
        raise _FailedError(f"what was read from it is no manifest: {error}", again=False) from None
    if not isinstance(contents, Contents) or any(each.file != file.path for each in contents.manifests):
        raise _FailedError("what was read from it is no manifest", again=False)
    return contents


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the process. Return it, and the channel that is its input and output: one descriptor for both."""
    try:
        ours, its = socket.socketpair()
    except OSError as error:
        raise _FailedError(f"no process to read it can be started: {error.strerror}", again=True) from None
    try:
        with its:
            command = [sys.executable, "-I", "-X", "utf8", "-c", _COMMAND]
            end = its.fileno()
            return subprocess.Popen(command, stdin=end, stdout=end, env=_ENVIRONMENT, start_new_session=True), ours
    except OSError as error:
        ours.close()
        raise _FailedError(f"no process to read it can be started: {error.strerror}", again=True) from None


def _receive(channel: socket.socket, count: int, deadline: float) -> bytes:
    """Return so many bytes. EOFError if there are fewer, TimeoutError at the deadline."""
    parts = bytearray()
    while len(parts) < count:
        channel.settimeout(max(1e-3, deadline - monotonic()))
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


class _Values(pickle.Unpickler):
    """Reads values of the model and what surrounds them. Nothing else is imported, called or created."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of values. UnpicklingError if it is anything else."""
        return _find_class(module, name)


@cache
def _find_class(module: str, name: str) -> Any:
    if module in _VALUES or module.startswith("reconciler.model."):
        found = getattr(importlib.import_module(module), name, None)
        if isinstance(found, type) and (is_dataclass(found) or issubclass(found, (tuple, Enum))):
            return found
    raise pickle.UnpicklingError(f"{module}.{name} is no value")

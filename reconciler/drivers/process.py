"""Run a program for a driver: without a shell, in the C locale, with limits for its time and its output."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

from reconciler.errors import ChannelError, HostError, ProtocolError
from reconciler.values import NamedTuple
from reconciler.wording import reason

# The limits: seconds, and bytes each for stdout and stderr.
TIMEOUT = 60.0
LIMIT = 64 << 20


class Completed(NamedTuple):
    """The exit status and the output of a program that has ended."""

    status: int
    stdout: bytes
    stderr: bytes


def run(words: Sequence[str], stdin: bytes = b"") -> Completed:
    """Run a program to its end.

    HostError if it cannot be started, ChannelError if it takes too long, ProtocolError if it prints too much. In the
    last two cases it is killed with its process group, and it is unknown what it has done.
    """
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                words,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"{words[0]}: {reason(error)}") from error
    with process:
        try:
            return _collect(process, words[0])
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _collect(process: subprocess.Popen[bytes], program: str) -> Completed:
    deadline = time.monotonic() + TIMEOUT
    assert process.stdout
    assert process.stderr
    output = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for descriptor in output:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChannelError(f"{program!r} did not end within {TIMEOUT:.0f} s")
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                output[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                if len(output[key.fd]) > LIMIT:
                    raise ProtocolError(f"{program!r} printed more than {LIMIT >> 20} MiB")
    try:
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ChannelError(f"{program!r} did not end within {TIMEOUT:.0f} s") from None
    stdout, stderr = output.values()
    return Completed(status, bytes(stdout), bytes(stderr))

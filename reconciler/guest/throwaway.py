"""Machines for one command, which leave nothing: each is a process of QEMU that ends with the command, however it ends.

QEMU inherits connected sockets in place of files, and prints its console to a file without a name. A machine has a new
network namespace for each who asks, beside the one that it has by itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import IO, Self

from reconciler.errors import ChannelError, HostError, ReconcilerError
from reconciler.guest import agent, command, image, launch, qemu, runner
from reconciler.guest.client import AgentClient
from reconciler.guest.image import Image
from reconciler.netlink.budget import Budget
from reconciler.values import NamedTuple
from reconciler.wording import reason

# The port of the agent in a new namespace; the usual one is that of the agent in the namespace of the machine itself.
_COPY = "reconciler.copy"
_PORTS = (agent.PORT, runner.PORT, _COPY)
# Bytes that QEMU may write to its file, which has the console: what the guest prints.
_OUTPUT_SIZE = 1 << 20
# Runs in place of QEMU until it has made sure that it ends with the thread that has started it: prctl(PR_SET_PDEATHSIG,
# SIGKILL). If that has ended before, nobody would end it.
_PRELUDE = (
    "import ctypes, os, resource, sys; ctypes.CDLL(None).prctl(1, 9); "
    f"resource.setrlimit(resource.RLIMIT_FSIZE, ({_OUTPUT_SIZE}, {_OUTPUT_SIZE})); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)
# In the guest: starts an agent in a new namespace, and prints its process id.
_START = (
    "unshare -n python3.11 -I -S /usr/lib/python3.11/reconciler/guest/agent.pyc "
    f"{_COPY} </dev/null >/dev/console 2>&1 & echo $!"
)
# Seconds until the agent in a new namespace answers; it takes one with TCG.
_AGENT_TIMEOUT = 30.0
# Bytes of the console in the message about a machine that does not start.
_CONSOLE_SIZE = 500


class Room(NamedTuple):
    """A new network namespace of a throwaway machine, and the one that the machine has by itself.

    `inner`, `outer`: the clients of the agents in them, both within `budget`. In the machine, process 1 is in the
    outer one.
    """

    release: str
    inner: AgentClient
    outer: AgentClient
    budget: Budget


class Throwaways:
    """The throwaway machines of a command: one of each kernel series, started when it is needed. For many threads."""

    def __init__(self, report: Callable[[str], None] = lambda _: None) -> None:
        """Start nothing yet. `report` is called with what begins, and with "" when it has ended."""
        self._report = report
        self._lock = threading.Lock()
        self._made: dict[str, _Machine] = {}
        # Why there is none.
        self._errors: dict[str, ReconcilerError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for series in list(self._made):
            self._made.pop(series).close()

    @contextmanager
    def room(self, release: tuple[int, int], name: str) -> Iterator[Room]:
        """Yield a new namespace of a machine whose kernel is nearest to a release. One is used at a time.

        HostError if there is no such machine: QEMU or the image is missing, or it does not start. `name`: of the
        sandbox that it is for.
        """
        with self._lock:
            series = image.nearest(release)
            if series in self._errors:
                raise self._errors[series]
            try:
                machine = self._made.get(series) or self._start(series, name)
                self._report(f"{name}: trying the plan on kernel {series} …")
                with self._dropped_at_an_error(series), machine.room() as found:
                    yield found
            finally:
                self._report("")

    @contextmanager
    def _dropped_at_an_error(self, series: str) -> Iterator[None]:
        """End a machine that does not answer as it should: the next sandbox has another one."""
        try:
            yield
        except BaseException:
            if broken := self._made.pop(series, None):
                broken.close()
            raise

    def _start(self, series: str, name: str) -> _Machine:
        try:
            self._made[series] = _start(series, lambda words: self._report(f"{name}: {words} …"))
        except ReconcilerError as error:
            self._errors[series] = error
            raise
        return self._made[series]


def _start(series: str, report: Callable[[str], None]) -> _Machine:
    if not shutil.which(qemu.PROGRAM):
        raise HostError(
            f"it takes a machine with another kernel, and {qemu.PROGRAM} is missing: "
            "install the Debian package qemu-system-x86"
        )
    report("looking for the image of a machine")
    built = image.find(series)
    if built is None:
        raise HostError(
            f"it takes a machine with kernel {series}, whose image is not built yet: "
            f"`reconciler sandbox start NAME --kernel {series}` builds it once"
        )

    def boot(accelerator: str, timeout: float) -> _Machine:
        try:
            machine = _Machine(built, accelerator)
        except OSError as error:
            raise HostError(f"a throwaway machine cannot be started: {reason(error)}") from error
        try:
            machine.await_agent(timeout)
        except BaseException:
            machine.close()
            raise
        return machine

    return launch.boot_somehow(series, boot, report)


class _Machine:
    """A throwaway machine. It ends with `close`, or with this process. For one thread at a time."""

    def __init__(self, built: Image, accelerator: str) -> None:
        """Start QEMU."""
        self.release = ""
        self._console = tempfile.TemporaryFile()  # noqa: SIM115 it is closed with the machine
        pairs = {name: socket.socketpair() for name in _PORTS}
        self._channels = {name: ours for name, (ours, _) in pairs.items()}
        theirs = {name: its for name, (_, its) in pairs.items()}
        words = qemu.throwaway_command_line(built, accelerator, {name: its.fileno() for name, its in theirs.items()})
        self._process = _Kept(words, theirs, self._console)

    def close(self) -> None:
        """End QEMU."""
        self._process.end()
        for each in self._channels.values():
            each.close()
        self._console.close()

    def await_agent(self, timeout: float) -> None:
        """Wait until the agent answers. ChannelError if it does not within so many seconds."""
        try:
            with self._client(agent.PORT) as client:
                client.greet(timeout)
                self.release = client.kernel_release()
        except ReconcilerError as error:
            self._console.seek(0)
            said = " ".join(self._console.read()[-_CONSOLE_SIZE:].decode(errors="replace").split())
            raise ChannelError(f"a throwaway machine does not start ({error}){': ' if said else ''}{said}") from error

    def _client(self, port: str, budget: Budget | None = None) -> AgentClient:
        # QEMU sees no end when a client is closed, and the next one begins with a greeting.
        return AgentClient(self._channels[port].dup(), budget=budget)

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Yield a new namespace, with an agent in it. It ends with that agent."""
        budget = Budget()
        agent_pid = self._run(_START).strip()
        if not agent_pid.isdecimal():
            raise ChannelError(f"no agent starts in a new namespace of a throwaway machine: {agent_pid[:80]}")
        with ExitStack() as stack:
            stack.callback(self._run, f"kill -9 {agent_pid}")
            inner = stack.enter_context(closing(self._client(_COPY, budget)))
            outer = stack.enter_context(closing(self._client(agent.PORT, budget)))
            inner.greet(_AGENT_TIMEOUT)
            yield Room(self.release, inner, outer, budget)

    def _run(self, line: str) -> str:
        """Run a line of the shell in the machine. Return what it prints."""
        output = bytearray()
        command.run(self._channels[runner.PORT].dup(), ["sh", "-c", line], None, output.extend, output.extend)
        return output.decode(errors="replace")


class _Kept:
    """A process that ends with the thread that keeps it, and so with this process, whatever ends that."""

    def __init__(self, words: list[str], sockets: Mapping[str, socket.socket], output: IO[bytes]) -> None:
        """Start it, with these sockets, which are closed here. OSError if that fails."""
        self._begun = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._keep, args=(words, sockets, output), daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._error:
            raise self._error

    def _keep(self, words: list[str], sockets: Mapping[str, socket.socket], output: IO[bytes]) -> None:
        prelude = [sys.executable, "-I", "-S", "-c", _PRELUDE, str(os.getpid())]
        descriptors = [each.fileno() for each in sockets.values()]
        try:
            self._process = subprocess.Popen(
                [*prelude, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=descriptors
            )
        except OSError as error:
            self._error = error
        finally:
            for each in sockets.values():
                each.close()
            self._begun.set()
        if self._process:
            self._process.wait()

    def end(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
        self._thread.join()

"""Sandboxes of our own: QEMU processes with our image, each with a folder of sockets, and nothing else remembered.

The folder is locked while a sandbox is started or stopped. QEMU outlives the command that started it. A process is
taken for the QEMU of a folder only if its command line names that folder's pid file.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import NamedTuple

from reconciler.errors import BusyError, ChannelError, HostError, ReconcilerError, SandboxGoneError
from reconciler.guest import command, image, qemu
from reconciler.guest.connection import Connection
from reconciler.model.sandbox import SANDBOXES

# Which accelerator boots a guest on this host, found out once after each of its starts.
_ACCELERATOR_FILE = "/run/reconciler/accelerator"
# Seconds until the agent answers: a guest of KVM takes two, one of TCG four on an idle host.
KVM_TIMEOUT, BOOT_TIMEOUT = 8.0, 90.0
# Seconds until QEMU has set itself up, and until it ends when it is asked to.
_SETUP_TIMEOUT, _END_TIMEOUT = 30.0, 3.0
_CONSOLE_LINES = 15
# At most 50 characters, so that the paths of its sockets stay below SOCKET_PATH_MAX of model.machine.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")


class Sandbox(NamedTuple):
    """A sandbox by its name. It need not exist."""

    name: str

    @property
    def folder(self) -> str:
        """Where its sockets are."""
        return os.path.join(SANDBOXES, self.name)

    @property
    def qmp(self) -> str:
        """The monitor for programs; qmp2.sock beside it is for people."""
        return os.path.join(self.folder, "qmp.sock")

    @property
    def agent(self) -> str:
        """The socket for guest.client."""
        return os.path.join(self.folder, "agent.sock")

    @property
    def exec(self) -> str:
        """The socket for guest.command."""
        return os.path.join(self.folder, "exec.sock")

    def pid(self) -> int | None:
        """Give the process of its QEMU, if it runs."""
        with _process(self) as found:
            return found[0] if found else None

    def run(self, words: list[str], stdin: int | None, stdout: command.Sink, stderr: command.Sink) -> int:
        """Run a command in it; see guest.command.run."""
        return command.run(self.exec, words, stdin, stdout, stderr)


class State(NamedTuple):
    """What `list` shows: `uptime` in seconds, of QEMU."""

    name: str
    state: str
    pid: int | None
    uptime: int | None


def find(name: str) -> Sandbox:
    """Give a sandbox that exists. SandboxGoneError if none of that name does."""
    sandbox = _named(name)
    if not os.path.isdir(sandbox.folder):
        raise SandboxGoneError(f"there is no sandbox {name}")
    return sandbox


def states() -> list[State]:
    """List all sandboxes, running or dead, by name."""
    names = sorted(filter(_NAME.fullmatch, os.listdir(SANDBOXES))) if os.path.isdir(SANDBOXES) else []
    found = []
    for name in names:
        pid = Sandbox(name).pid()
        found.append(State(name, "running" if pid else "dead", pid, _uptime(pid) if pid else None))
    return found


def start(name: str, *, kernel: str = "6.1", memory: int = qemu.MEMORY, ports: int = qemu.PORTS) -> Sandbox:
    """Start a sandbox and wait until its agent answers.

    `kernel` is a key of image.KERNELS, `memory` in MiB, `ports` the number of NICs that can be plugged in.
    """
    sandbox = _named(name)
    built = image.prepare(kernel)
    os.makedirs(sandbox.folder, mode=0o700, exist_ok=True)
    with _lock(sandbox):
        if sandbox.pid():
            raise HostError(f"sandbox {name} runs already")
        for accelerator, timeout in _accelerators():
            _clear(sandbox)
            try:
                _boot(sandbox, qemu.command_line(sandbox.folder, built, accelerator, memory, ports), timeout)
            except ReconcilerError:
                _end(sandbox)
                if accelerator != "kvm":
                    _remove(sandbox)
                    raise
            except BaseException:
                _end(sandbox)
                _remove(sandbox)
                raise
            else:
                _remember(accelerator)
                break
    return sandbox


def stop(name: str) -> None:
    """End a sandbox's QEMU and remove its folder."""
    sandbox = find(name)
    with _lock(sandbox):
        _end(sandbox)
        _remove(sandbox)


def _named(name: str) -> Sandbox:
    if not _NAME.fullmatch(name):
        raise HostError(f"{name!r} is no name of a sandbox: 1 to 50 letters, digits, and after the first also _ . -")
    return Sandbox(name)


@contextmanager
def _lock(sandbox: Sandbox) -> Iterator[None]:
    try:
        folder = os.open(sandbox.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SandboxGoneError(f"there is no sandbox {sandbox.name}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(f"sandbox {sandbox.name} is being started or stopped; try again when that is done") from None
    finally:
        os.close(folder)


def _clear(sandbox: Sandbox) -> None:
    for name in os.listdir(sandbox.folder):
        os.unlink(os.path.join(sandbox.folder, name))


def _accelerators() -> list[tuple[str, float]]:
    """Give the accelerators to try. That /dev/kvm can be opened does not mean that a guest gets anywhere."""
    slow = ("tcg", BOOT_TIMEOUT)
    with suppress(OSError), open(_ACCELERATOR_FILE, encoding="ascii") as file:
        return [slow] if file.read() == "tcg" else [("kvm", BOOT_TIMEOUT)]
    return [("kvm", KVM_TIMEOUT), slow] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [slow]


def _remember(accelerator: str) -> None:
    temporary = f"{_ACCELERATOR_FILE}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(accelerator)
    os.replace(temporary, _ACCELERATOR_FILE)


def _boot(sandbox: Sandbox, words: list[str], timeout: float) -> None:
    """Run QEMU, which leaves once it has set itself up, and wait for the agent."""
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=_SETUP_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise HostError(f"{words[0]} is missing: install the Debian package qemu-system-x86") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"QEMU was not set up within {_SETUP_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise HostError(f"QEMU did not start: {done.stderr.strip()[-1000:]}")
    try:
        _await_agent(sandbox, timeout)
    except (ChannelError, SandboxGoneError) as error:
        lines = qemu.console(sandbox.qmp).splitlines()[-_CONSOLE_LINES:]
        shown = "".join(f"\n  {line}" for line in lines) or " (nothing)"
        raise ChannelError(
            f"the guest's agent did not answer within {timeout:.0f} s ({error}). Its console:{shown}"
        ) from error


def _await_agent(sandbox: Sandbox, timeout: float) -> None:
    """Wait until the agent answers; if somebody was quicker and has it, until what runs beside it does."""
    for path in (sandbox.agent, sandbox.exec):
        with suppress(BusyError), Connection(path) as connection:
            connection.greet(time.monotonic() + timeout)
            return
    raise BusyError(f"another process is connected to both ports of sandbox {sandbox.name}")


def _remove(sandbox: Sandbox) -> None:
    """Remove the folder: away first, so that nobody who waits for the sandbox makes anything in it meanwhile."""
    away = os.path.join(SANDBOXES, f".{sandbox.name}.{os.getpid()}")
    os.rename(sandbox.folder, away)
    shutil.rmtree(away)


def _end(sandbox: Sandbox) -> None:
    """End QEMU: ask, then kill. A stopped process hears only the latter."""
    with _process(sandbox) as found:
        if not found:
            return
        _, handle = found
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select([handle], [], [], _END_TIMEOUT)[0]:
                return
    raise HostError(f"the QEMU of sandbox {sandbox.name} does not end")


@contextmanager
def _process(sandbox: Sandbox) -> Iterator[tuple[int, int] | None]:
    """Give the pid of a sandbox's QEMU and a handle of that very process, if it runs."""
    pid_file = qemu.pid_file(sandbox.folder)
    handle = None
    try:
        try:
            with open(pid_file, encoding="ascii") as file:
                pid = int(file.read(20))
            # First the handle, then the look: so what was looked at is what is held.
            handle = os.pidfd_open(pid)
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                ours = os.fsencode(pid_file) in file.read().split(b"\0")
        except (OSError, ValueError):
            ours = False
        yield (pid, handle) if ours and handle is not None else None
    finally:
        if handle is not None:
            os.close(handle)


def _uptime(pid: int) -> int | None:
    """Give the seconds since a process began (proc(5): field 22 of stat, in ticks since the start of the host)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) - started)

"""The machines of `reconciler sandbox`: QEMU processes with our image, each with a folder of sockets in SANDBOXES.

Nothing else remembers them. The folder is locked while its machine is started or stopped. QEMU outlives the command
that started it. A process counts as the QEMU of a folder only if its command line contains the path of that folder's
pid file.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import TypeVar

from reconciler import rundir
from reconciler.errors import BusyError, ChannelError, HostError, ReconcilerError, SandboxGoneError
from reconciler.guest import command, image, qemu
from reconciler.guest.connection import Connection
from reconciler.model.sandbox import SANDBOXES
from reconciler.values import NamedTuple
from reconciler.wording import reason

_T = TypeVar("_T")

# In the cache: which accelerator boots a guest on this host, kvm or tcg, and the boot of the host that it was found out
# in. The first start after each boot finds out.
_ACCELERATOR_FILE = "accelerator"
# Seconds until the agent answers, in the first try of KVM: a guest takes two.
KVM_TIMEOUT = 8.0
# Seconds until the agent answers: under TCG a guest takes four on an idle host.
BOOT_TIMEOUT = 90.0
# Seconds until QEMU has set itself up.
_SETUP_TIMEOUT = 30.0
# Seconds until QEMU ends after SIGTERM, and again after SIGKILL.
_END_TIMEOUT = 3.0
# Lines of the console in the message about a guest that does not boot.
_CONSOLE_LINES = 15
# At most 50 characters, so that the paths of the sockets stay below SOCKET_PATH_MAX of model.machine.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")


class LaunchedMachine(NamedTuple):
    """A machine by its name. It need not exist."""

    name: str

    @property
    def folder(self) -> str:
        """Return the folder of its sockets and its pid file."""
        return os.path.join(SANDBOXES, self.name)

    @property
    def qmp(self) -> str:
        """Return the socket of QEMU's monitor for programs. qmp2.sock beside it is for people."""
        return os.path.join(self.folder, "qmp.sock")

    @property
    def agent(self) -> str:
        """Return the socket for guest.client."""
        return os.path.join(self.folder, "agent.sock")

    @property
    def exec(self) -> str:
        """Return the socket for guest.command."""
        return os.path.join(self.folder, "exec.sock")

    def pid(self) -> int | None:
        """Return the process id of its QEMU; None if that does not run."""
        with _process(self) as found:
            return found[0] if found else None

    def run(self, words: list[str], stdin: int | None, stdout: command.Sink, stderr: command.Sink) -> int:
        """Run a command in it, as guest.command.run does."""
        return command.run(self.exec, words, stdin, stdout, stderr)


class MachineState(NamedTuple):
    """What `reconciler sandbox list` prints. `state` is running or dead; `uptime` is QEMU's, in seconds."""

    name: str
    state: str
    pid: int | None
    uptime: int | None


def find(name: str) -> LaunchedMachine:
    """Return a machine that exists. SandboxGoneError if none has that name."""
    machine = _named(name)
    with _only_root(), suppress(FileNotFoundError):
        os.stat(machine.folder)
        return machine
    raise SandboxGoneError(f"there is no sandbox {name}; `reconciler sandbox list` lists them")


def states() -> list[MachineState]:
    """Return the states of all machines, by name."""
    names: list[str] = []
    with _only_root(), suppress(FileNotFoundError):
        names = sorted(filter(_NAME.fullmatch, os.listdir(SANDBOXES)))
    found = []
    for name in names:
        pid = LaunchedMachine(name).pid()
        found.append(MachineState(name, "running" if pid else "dead", pid, _uptime(pid) if pid else None))
    return found


@contextmanager
def _only_root() -> Iterator[None]:
    """Raise HostError instead of PermissionError: another user cannot know which machines there are."""
    try:
        yield
    except PermissionError as error:
        raise HostError(f"{SANDBOXES}: {reason(error)}") from error


def start(
    name: str,
    *,
    kernel: str = "6.1",
    memory: int = qemu.MEMORY,
    ports: int = qemu.PORTS,
    report: Callable[[str], None] = lambda _: None,
) -> LaunchedMachine:
    """Start a machine, and wait until its agent answers. HostError if it runs already.

    `kernel` is a key of image.KERNELS, `memory` is in MiB, `ports` is the number of NICs that can be plugged in.
    `report` is called with what begins, for a person who waits.
    """
    machine = _named(name)
    # Whoever may not start a machine learns it before an image is built, and so does who has no QEMU.
    rundir.make(SANDBOXES)
    if not shutil.which(qemu.PROGRAM):
        raise HostError(f"{qemu.PROGRAM} is missing: install the Debian package qemu-system-x86")
    built = image.prepare(kernel, report)
    rundir.make(machine.folder)
    with _lock(machine):
        if machine.pid():
            raise HostError(f"sandbox {name} is running already")

        def boot(accelerator: str, timeout: float) -> None:
            _clear(machine)
            try:
                _boot(machine, qemu.command_line(machine.folder, built, accelerator, memory, ports), timeout)
            except BaseException:
                _end(machine)
                raise

        try:
            boot_somehow(kernel, boot, report)
        except BaseException:
            _remove(machine)
            raise
    return machine


def boot_somehow(kernel: str, boot: Callable[[str, float], _T], report: Callable[[str], None]) -> _T:
    """Return what `boot` returns, which gets an accelerator and its timeout: first KVM, then TCG if that fails.

    Only a ReconcilerError is a failure; the last one is raised. The accelerator is remembered until the next boot of
    the host. `report`: as for `start`.
    """
    tried = ""
    for accelerator, timeout in _accelerators():
        report(f"booting kernel {kernel} under {accelerator.upper()}{tried}")
        try:
            booted = boot(accelerator, timeout)
        except ReconcilerError:
            if accelerator != "kvm":
                raise
            tried = ", as no guest boots under KVM here"
        else:
            # Without it, the next one finds out again.
            with suppress(OSError):
                _remember(accelerator)
            return booted
    raise AssertionError("the last accelerator is TCG")


def stop(name: str) -> None:
    """End a machine's QEMU, and delete its folder. SandboxGoneError if there is none."""
    machine = find(name)
    with _lock(machine):
        _end(machine)
        _remove(machine)


def _named(name: str) -> LaunchedMachine:
    if not _NAME.fullmatch(name):
        raise HostError(
            f"{name!r} cannot be the name of a sandbox: it must have 1 to 50 letters, digits, '_', '.' and '-', "
            "and begin with a letter or digit"
        )
    return LaunchedMachine(name)


@contextmanager
def _lock(machine: LaunchedMachine) -> Iterator[None]:
    try:
        folder = os.open(machine.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SandboxGoneError(f"there is no sandbox {machine.name}; `reconciler sandbox list` lists them") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(f"sandbox {machine.name} is being started or stopped; try again when that is done") from None
    finally:
        os.close(folder)


def _clear(machine: LaunchedMachine) -> None:
    """Delete what an earlier start left in the folder."""
    for name in os.listdir(machine.folder):
        os.unlink(os.path.join(machine.folder, name))


def _accelerators() -> list[tuple[str, float]]:
    """Return the accelerators to try, each with its timeout. KVM may accept a guest that then does not boot."""
    slow = ("tcg", BOOT_TIMEOUT)
    with suppress(OSError), open(os.path.join(image.cache_folder(), _ACCELERATOR_FILE), encoding="ascii") as file:
        known = file.read()
        if known == _known("tcg"):
            return [slow]
        if known == _known("kvm"):
            return [("kvm", BOOT_TIMEOUT)]
    return [("kvm", KVM_TIMEOUT), slow] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [slow]


def _known(accelerator: str) -> str:
    """Return the text of the file if an accelerator boots guests since this boot of the host."""
    return f"{accelerator} {rundir.boot_id()}\n"


def _remember(accelerator: str) -> None:
    path = os.path.join(image.cache_folder(), _ACCELERATOR_FILE)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(_known(accelerator))
    os.replace(temporary, path)


def _boot(machine: LaunchedMachine, words: list[str], timeout: float) -> None:
    """Run QEMU, whose command ends when QEMU is set up, and wait until the agent answers."""
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=_SETUP_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"QEMU did not set up sandbox {machine.name} within {_SETUP_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise HostError(f"QEMU did not start sandbox {machine.name}: {done.stderr.strip()[-1000:]}")
    try:
        _await_agent(machine, timeout)
    except (ChannelError, SandboxGoneError) as error:
        lines = qemu.console(machine.qmp).splitlines()[-_CONSOLE_LINES:]
        raise ChannelError(
            f"the agent in sandbox {machine.name} did not answer within {timeout:.0f} s ({error}). Its console:"
            + ("" if lines else " (nothing)"),
            more=[f"  {line}" for line in lines],
        ) from error


def _await_agent(machine: LaunchedMachine, timeout: float) -> None:
    """Wait until the agent answers. If another process is connected to it already, wait for the runner instead."""
    for path in (machine.agent, machine.exec):
        with suppress(BusyError), Connection(path) as connection:
            connection.greet(time.monotonic() + timeout)
            return
    raise BusyError(f"another process is connected to both ports of sandbox {machine.name}")


def _remove(machine: LaunchedMachine) -> None:
    """Delete the folder. Rename it first, so that it is gone at once."""
    renamed = os.path.join(SANDBOXES, f".{machine.name}.{os.getpid()}")
    os.rename(machine.folder, renamed)
    shutil.rmtree(renamed)


def _end(machine: LaunchedMachine) -> None:
    """End QEMU, by SIGTERM and then by SIGKILL, because a stopped process obeys only the latter."""
    with _process(machine) as found:
        if not found:
            return
        _, handle = found
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select([handle], [], [], _END_TIMEOUT)[0]:
                return
    raise HostError(f"the QEMU process of sandbox {machine.name} does not end, even after SIGKILL")


@contextmanager
def _process(machine: LaunchedMachine) -> Iterator[tuple[int, int] | None]:
    """Yield the process id of a machine's QEMU and a handle of that process (pidfd); None if it does not run."""
    pid_file = qemu.pid_file(machine.folder)
    handle = None
    try:
        try:
            with open(pid_file, encoding="ascii") as file:
                pid = int(file.read(20))
            # The handle comes first, so that the process whose command line is read is the one of the handle.
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
    """Return the seconds since a process began (proc(5): field 22 of stat, in ticks since the boot of the host)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) - started)

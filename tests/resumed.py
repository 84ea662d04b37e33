"""Virtual machines for tests, resumed from a saved state: a second instead of a boot, and an eighth of its CPU time.

The first test run with new packages, sources or QEMU boots a machine of each kind once, saves its state, and keeps it
beside the images. Whatever tests the start itself (tests/guest/test_sandbox.py) boots.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler.errors import SandboxGoneError
from reconciler.guest import agent, image, launch, qemu, throwaway
from reconciler.guest.client import AgentClient
from reconciler.guest.image import Image
from reconciler.guest.qmp import Monitor
from reconciler.guest.throwaway import Throwaways
from tests.machine import Guest

# Seconds. Nobody needs a state that no test run has used for so long.
_SAVE_TIMEOUT, _UNUSED = 120.0, 7 * 86400.0


class Kind(NamedTuple):
    """What a machine is made of.

    That is arguments of launch.start, the chipset, processors, and more words for QEMU.
    """

    kernel: str = os.environ.get("GUEST_KERNEL", "6.1")
    memory: int = qemu.MEMORY
    ports: int = qemu.PORTS
    chipset: str = "q35"
    processors: int = 2
    more: tuple[str, ...] = ()


USUAL = Kind()


def start(name: str, kind: Kind = USUAL) -> Guest:
    """Start a machine as launch.start does, from its saved state."""
    return _start(name, kind, ("-incoming", f"exec:cat {saved(kind)}"))


@contextmanager
def started(name: str, kind: Kind = USUAL) -> Iterator[Guest]:
    """Start a machine; stop it at the end, unless that was done."""
    made = start(name, kind)
    try:
        yield made
    finally:
        with suppress(SandboxGoneError):
            launch.stop(name)


def _start(name: str, kind: Kind, more: tuple[str, ...] = ()) -> Guest:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(qemu, "command_line", lambda *given: [*_command_line(kind, *given), *more])
        return Guest(launch.start(name, kernel=kind.kernel, memory=kind.memory, ports=kind.ports))


def command_line(folder: str, kind: Kind = USUAL) -> list[str]:
    """Return the command that resumes a machine whose sockets are in a folder, for who changes its words."""
    built, accelerator = image.prepare(kind.kernel), launch._accelerators()[0][0]
    words = _command_line(kind, folder, built, accelerator, kind.memory, kind.ports)
    return [*words, "-incoming", f"exec:cat {saved(kind)}"]


# Instructions that TCG takes longest over, and programs use where they find them. Without: a seventh less CPU time.
_SIMPLER = "max,-avx,-avx2,-fma,-f16c,-erms"
# With TCG the time stamp counters of all processors agree. Linux does not believe it, and would read a slow clock. What
# it does against faults of real processors, and to find its own, takes time as well. And what a program was translated
# to serves its next process only if that one is at the same addresses: half of the time of an `ip`.
_FASTER = " tsc=reliable mitigations=off init_on_alloc=0 nowatchdog norandmaps"
# As it was before it was replaced.
_usual_command_line = qemu.command_line


def _command_line(kind: Kind, folder: str, built: Image, accelerator: str, memory: int, ports: int) -> list[str]:
    words = _faster(_usual_command_line(folder, built, accelerator, memory, ports), accelerator)
    words[words.index("-smp") + 1] = str(kind.processors)
    return [word.replace("q35,", f"{kind.chipset},", 1) for word in words] + [*kind.more]


def _faster(words: list[str], accelerator: str) -> list[str]:
    if accelerator == "tcg":
        words[words.index("-cpu") + 1] = _SIMPLER
        words[words.index("-append") + 1] += _FASTER
    return words


@cache
def saved(kind: Kind) -> Path:
    """Return the file with the state of a machine of this kind; make it if there is none."""
    accelerator = launch._accelerators()[0][0]
    words = _command_line(kind, "", image.prepare(kind.kernel), accelerator, kind.memory, kind.ports)
    return _kept(words, lambda file: _save(kind, file))


def _kept(words: list[str], save: Callable[[Path], None]) -> Path:
    """Return the file with the state of a machine that these words start; have it saved if there is none.

    Its name is of all that it depends on: QEMU, its command line, and the image, whose path changes with what is in it.
    """
    program = os.stat(shutil.which(qemu.PROGRAM) or qemu.PROGRAM)
    accelerators = [name for name, _ in launch._accelerators()]
    text = repr((program.st_size, program.st_mtime_ns, accelerators, words))
    folder = Path(image.cache_folder(), "states")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        if file.exists():
            os.utime(file)
        else:
            _remove_unused(folder)
            save(file)
    return file


def _remove_unused(folder: Path) -> None:
    for file in folder.iterdir():
        if time.time() - file.stat().st_mtime > _UNUSED:
            file.unlink()


def _save(kind: Kind, file: Path) -> None:
    """Boot a machine, and save its state while it waits for requests."""
    name = f"saved-{os.getpid()}"
    guest = _start(name, kind)
    try:
        # The other agent is there as well.
        guest.output("true")
        migrate(guest.sandbox.qmp, file)
    finally:
        launch.stop(name)


def migrate(monitor_path: str, file: Path, timeout: float = _SAVE_TIMEOUT) -> None:
    """Write the state of a machine to a file, which is there once all of it is. `timeout`: seconds."""
    with Monitor(monitor_path, timeout) as monitor:
        monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        monitor.execute("migrate-set-parameters", **{"max-bandwidth": 0})
        monitor.execute("migrate", uri=f"exec:cat >{file}.new")
        ended = monitor.await_event("MIGRATION", lambda data: data["status"] in {"completed", "failed"}, timeout)
        assert ended, f"the state of a machine was not saved in {timeout:.0f} s"
        assert monitor.execute("query-migrate")["status"] == "completed", monitor.execute("query-migrate")
    os.replace(f"{file}.new", file)


@contextmanager
def throwaways(kernel: str = USUAL.kernel) -> Iterator[Throwaways]:
    """Start throwaway machines of this process from a saved state; that of a command of its own boots."""
    usual, built = qemu.throwaway_command_line, image.prepare(kernel)

    def words(built: Image, accelerator: str, ports: Mapping[str, int]) -> list[str]:
        return _faster(usual(built, accelerator, ports), accelerator)

    accelerator = launch._accelerators()[0][0]
    numbers = dict.fromkeys(throwaway._PORTS, 0)
    file = _kept(
        words(built, accelerator, numbers),
        lambda file: _save_throwaway(lambda ports: words(built, accelerator, ports), file),
    )

    def resuming(*given: Any) -> list[str]:
        return [*words(*given), "-incoming", f"exec:cat {file}"]

    with pytest.MonkeyPatch.context() as patched, Throwaways() as made:
        patched.setattr(qemu, "throwaway_command_line", resuming)
        yield made


def _save_throwaway(words: Callable[[Mapping[str, int]], list[str]], file: Path) -> None:
    """Boot what has no monitor of its own with one, and save its state while its agent waits for requests."""
    pairs = {name: socket.socketpair() for name in throwaway._PORTS}
    numbers = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        monitor = f"{folder}/qmp.sock"
        process = subprocess.Popen(
            [*words(numbers), "-qmp", f"unix:{monitor},server=on,wait=off"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=numbers.values(),
        )
        try:
            with AgentClient(pairs[agent.PORT][0].dup()) as client:
                client.greet(_SAVE_TIMEOUT)
            migrate(monitor, file)
        finally:
            process.kill()
            process.wait()
            for each in itertools.chain.from_iterable(pairs.values()):
                each.close()

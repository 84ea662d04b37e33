"""The life of a sandbox, by the command line's own functions."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.cli import sandbox as command_line
from reconciler.errors import BusyError, ChannelError, HostError, ReconcilerError, SandboxGoneError
from reconciler.guest import agent, image, launch, qemu
from reconciler.guest.archive import write_archive
from reconciler.guest.client import AgentClient
from reconciler.guest.connection import Connection
from reconciler.guest.image import Image
from reconciler.guest.launch import LaunchedMachine
from reconciler.model.sandbox import SANDBOXES
from tests.watch.running import until


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command_line.configure(parser)
    return command_line.run(parser.parse_args(words))


@pytest.fixture
def name(root: None) -> Iterator[str]:
    """A name, and no sandbox of it afterwards."""
    made = f"life-{os.getpid()}"
    yield made
    with suppress(SandboxGoneError):
        launch.stop(made)


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert call("list", "-o", "json") == 0
    (found,) = [each for each in json.loads(capsys.readouterr().out)["sandboxes"] if each["name"] == name]
    return dict(found)


def is_gone(sandbox: LaunchedMachine) -> bool:
    try:
        AgentClient(sandbox.agent).close()
    except (SandboxGoneError, ChannelError) as error:
        return isinstance(error, SandboxGoneError)
    return False


def has_ended(pid: int) -> bool:
    """Return whether a process has ended. Its parent may not have read its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_life_of_a_sandbox(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("start", name, "--memory", "256") == 0
    sandbox = LaunchedMachine(name)
    pid = sandbox.pid()
    assert pid
    assert os.getsid(pid) != os.getsid(0)
    entry = shown(name, capfd)
    assert entry.pop("uptime") in range(600)
    assert entry == {"name": name, "state": "running", "pid": pid}
    assert call("exec", name, "--", "sh", "-c", "echo $1 $2; exit 3", "sh", "--", "-x") == 3
    assert capfd.readouterr().out == "-- -x\n"
    with pytest.raises(HostError, match="is running already"):
        call("start", name)
    assert sandbox.pid() == pid

    os.kill(pid, signal.SIGKILL)
    while sandbox.pid():
        time.sleep(0.01)
    assert shown(name, capfd) == {"name": name, "state": "dead", "pid": None, "uptime": None}
    # A process that was killed closes its sockets a moment later.
    until(lambda: is_gone(sandbox), "its sockets are closed")

    # What is dead is started anew, and a machine that hangs is stopped all the same.
    assert call("start", name, "--kernel", "6.12") == 0
    with AgentClient(sandbox.agent) as client:
        assert client.kernel_release().startswith("6.12.")
        client.request(agent.MODPROBE, b"ip_vs_wlc")
    again = sandbox.pid()
    assert again
    os.kill(again, signal.SIGSTOP)
    assert call("stop", name) == 0
    assert not os.path.exists(sandbox.folder)
    until(lambda: has_ended(again), "the process ends")
    with pytest.raises(SandboxGoneError, match=f"^there is no sandbox {name}; `reconciler sandbox list` lists them$"):
        call("stop", name)
    with pytest.raises(SandboxGoneError):
        call("exec", name, "true")


def test_a_power_off_is_an_end(name: str) -> None:
    sandbox = launch.start(name, ports=0)
    with suppress(ChannelError):
        sandbox.run(["poweroff", "-f"], None, print, print)
    deadline = time.monotonic() + 60
    while sandbox.pid() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sandbox.pid() is None


def test_a_guest_that_does_not_boot_shows_its_console(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = image.prepare().kernel
    (tmp_path / "root").mkdir()
    with open(tmp_path / "initramfs", "wb") as file:
        write_archive(str(tmp_path / "root"), file)
    monkeypatch.setattr(image, "prepare", lambda *_: Image(kernel, str(tmp_path / "initramfs")))
    await_agent, console, shown = launch._await_agent, qemu.console, ""

    def await_panic_and_agent(machine: LaunchedMachine, timeout: float) -> None:
        nonlocal shown
        deadline = time.monotonic() + 60
        while "Kernel panic" not in shown:
            assert time.monotonic() < deadline
            time.sleep(0.2)
            shown += console(machine.qmp)
        await_agent(machine, timeout)

    # Whoever gives up before the panic sees a console without it; and what was read is not there to be read again.
    monkeypatch.setattr(launch, "_await_agent", await_panic_and_agent)
    monkeypatch.setattr(qemu, "console", lambda _: shown)
    monkeypatch.setattr(launch, "_accelerators", lambda: [("tcg", 1.0)])
    with pytest.raises(ChannelError, match=r"(?s)did not answer within 1 s .*Its console:.*Kernel panic"):
        launch.start(name)
    assert not os.path.exists(LaunchedMachine(name).folder)


def test_an_accelerator_that_gets_nowhere_is_given_up(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even a machine of this name exists: what kvm does on a host where it fails.
    monkeypatch.setattr(launch, "_ACCELERATOR_FILE", str(tmp_path / "accelerator"))
    monkeypatch.setattr(launch, "_accelerators", lambda: [("kvm,no-such-option=1", 8.0), ("tcg", 90.0)])
    with pytest.raises(HostError, match="no-such-option"):
        launch.start(name)
    monkeypatch.setattr(launch, "_accelerators", lambda: [("kvm", 0.5), ("tcg", 90.0)])
    assert launch.start(name).pid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert (tmp_path / "accelerator").read_text() == f"tcg {boot}"


def test_qemu_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image.prepare()
    monkeypatch.setattr(image, "prepare", lambda *_: made)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="install the Debian package qemu-system-x86"):
        launch.start(name)
    assert not os.path.exists(LaunchedMachine(name).folder)


def test_two_at_one_sandbox(name: str) -> None:
    os.makedirs(LaunchedMachine(name).folder)
    with launch._lock(LaunchedMachine(name)), pytest.raises(BusyError, match="is being started or stopped"):
        launch.stop(name)


@pytest.mark.parametrize("wrong", ["", ".", "..", "a/b", "-x", "a" * 51, "a\n"])
def test_names(wrong: str) -> None:
    with pytest.raises(HostError, match="cannot be the name of a sandbox"):
        launch.find(wrong)


def test_a_process_that_only_has_the_number_is_left_alone(name: str) -> None:
    sandbox = LaunchedMachine(name)
    os.makedirs(sandbox.folder)
    Path(sandbox.folder, "pid").write_text(f"{os.getpid()}\n")
    assert sandbox.pid() is None
    launch.stop(name)
    assert not os.path.exists(sandbox.folder)


def test_somebody_who_waits_for_the_machine_keeps_it_neither_from_starting_nor_from_going(name: str) -> None:
    """As a watch does, which takes the agent's socket as soon as it is there."""
    stop, held = threading.Event(), threading.Event()

    def wait() -> None:
        while not stop.is_set():
            with suppress(ReconcilerError), Connection(LaunchedMachine(name).agent):
                held.set()
                stop.wait(120)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        sandbox = launch.start(name, memory=256)
        assert held.wait(60)
        with pytest.raises(BusyError):
            AgentClient(sandbox.agent)
        stop.set()
        thread.join()
        stop.clear()
        thread = threading.Thread(target=wait)
        thread.start()
        launch.stop(name)
        assert not os.path.exists(sandbox.folder)
        assert [each for each in os.listdir(SANDBOXES) if name in each] == []
    finally:
        stop.set()
        thread.join()

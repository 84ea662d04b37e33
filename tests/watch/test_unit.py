"""The systemd unit: our command line takes what it starts, and its words to the manager are said."""

from __future__ import annotations

import configparser
import os
import shlex
import socket
from pathlib import Path

import pytest

from reconciler.cli.main import _parser
from reconciler.history import folder
from tests.conftest import Kernel
from tests.watch.running import Kept, watching

UNIT = Path("examples/reconciler.service")


def read_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    return unit


def test_the_command_of_the_unit_is_one_of_ours() -> None:
    words = shlex.split(read_unit()["Service"]["ExecStart"])
    assert Path(words[0]).name == "reconciler"
    arguments = _parser(words[1:]).parse_args(words[1:])
    assert (arguments.command, arguments.log, arguments.paths) == ("watch", "json", ["/etc/reconciler/manifests"])


def test_the_unit_can_write_the_history() -> None:
    service = read_unit()["Service"]
    assert f"/var/lib/{service['StateDirectory']}" == folder.STATE
    assert service["StateDirectoryMode"] == "0700"


def test_the_unit_waits_longer_for_the_end_than_the_watch_does() -> None:
    from reconciler.watch.watcher import STOP_TIMEOUT

    assert float(read_unit()["Service"]["TimeoutStopSec"]) > STOP_TIMEOUT


def test_the_manager_is_told(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        Kept(kernel, tmp_path / "manifests", 0)
        with watching(tmp_path / "manifests") as running:
            heard = await_words(manager, "READY=1")
            heard = await_words(manager, "WATCHDOG=1")
            running.signal(1)
            heard = await_words(manager, "RELOADING=1")
            assert any(line.startswith("MONOTONIC_USEC=") for line in heard)
            await_words(manager, "READY=1")
            assert running.stop() == 0
            await_words(manager, "STOPPING=1")


def await_words(manager: socket.socket, word: str) -> list[str]:
    """Return the lines of the first message that contains this one."""
    while True:
        lines = os.fsdecode(manager.recv(4096)).splitlines()
        if word in lines:
            return lines

"""What the service manager is told, over a real socket, and that it never keeps us from our work."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.watch import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(60)
        yield made


def test_words_are_lines_of_one_message(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify.send("READY=1")
    notify.send("RELOADING=1", "STATUS=3 sandboxes")
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"RELOADING=1\nSTATUS=3 sandboxes"]


def test_an_abstract_address(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"reconciler-test-{os.getpid()}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify.send("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_there_is_no_socket(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    notify.send("READY=1")


@pytest.mark.parametrize("name", ["gone", "file", "x" * 200])
def test_a_manager_that_does_not_listen_is_no_failure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
    descriptors = os.listdir("/proc/self/fd")
    notify.send("READY=1")
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_manager_that_does_not_read_is_not_waited_for(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for number in range(2000):
        notify.send(f"STATUS={number}")
    manager.setblocking(False)
    got = []
    while True:
        try:
            got.append(manager.recv(100))
        except BlockingIOError:
            break
    assert got == [f"STATUS={number}".encode() for number in range(len(got))]
    assert 0 < len(got) < 2000


@pytest.mark.parametrize(
    ("microseconds", "pid", "period"),
    [
        (None, None, None),
        ("", None, None),
        ("20000000", None, 10.0),
        ("20000000", "own", 10.0),
        ("20000000", "1", None),
        ("500000", "own", 0.25),
        ("soon", "own", None),
        ("-5", "own", None),
        ("1.5", "own", None),
    ],
)
def test_signs_of_life_are_asked_for_by_the_manager(
    microseconds: str | None, pid: str | None, period: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = str(os.getpid()) if pid == "own" else pid
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_period() == period

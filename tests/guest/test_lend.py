"""A port that is held is lent: to one at a time, for as long as that one lives."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import BusyError, HostError
from reconciler.guest import lend
from reconciler.guest.connection import Connection
from reconciler.guest.relay import Relay
from reconciler.watch.wake import Wake

DYING = """
import os, sys
from reconciler.guest.relay import Relay
relay = Relay(sys.argv[1])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[str]:
    """Serve a socket as QEMU does, and say nothing."""
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield path


@pytest.fixture
def wake() -> Iterator[Wake]:
    made = Wake()
    yield made
    made.close()


def is_readable(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


@contextmanager
def holder(path: str, wake: Wake, count: int = 1) -> Iterator[list[bool]]:
    """Hold a port in a thread, and lend it so many times; give whether it was given back each time."""
    given_back: list[bool] = []
    held = threading.Event()

    def hold() -> None:
        for _ in range(count):
            with Connection(path), lend.Lender(path, wake.fileno()) as lender:
                held.set()
                while (asker := lender.asker()) is None:
                    is_readable(lender.fileno())
            with asker:
                given_back.append(lend.lend(asker, wake.fileno()))

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    try:
        yield given_back
    finally:
        thread.join(5)
        assert not thread.is_alive()


def test_a_port_is_lent_until_it_is_given_back(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back, Relay(port):
        # Who has borrowed it holds it as anybody does, and lends nothing.
        with pytest.raises(BusyError, match="another process is connected"):
            Relay(port)
        assert given_back == []
    assert given_back == [True]
    with Connection(port):
        pass


def test_a_borrower_that_is_killed_keeps_nothing(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        ran = subprocess.run([sys.executable, "-c", DYING, port], check=False)
        assert ran.returncode == -signal.SIGKILL
    assert given_back == [True]


def test_who_lends_is_woken(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        loan = lend.borrow(port)
        assert loan
        wake.set()
        while not given_back:
            pass
        assert given_back == [False]
        loan.close()


def test_what_wakes_who_holds_it(port: str, wake: Wake) -> None:
    with lend.Lender(port, wake.fileno()) as lender:
        assert (is_readable(lender.fileno()), lender.asker()) == (False, None)
        wake.set()
        assert (is_readable(lender.fileno()), lender.asker()) == (True, None)
        wake.clear()
        assert not is_readable(lender.fileno())
        assert os.stat(f"{port}.lend").st_mode & 0o777 == 0o600
    assert not Path(f"{port}.lend").exists()


def test_nobody_lends(port: str, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lend, "TIMEOUT", 0.1)
    assert lend.borrow(port) is None
    with Connection(port):
        with pytest.raises(BusyError):
            Relay(port)
        # One that is at something else for too long.
        with lend.Lender(port, wake.fileno()), pytest.raises(BusyError):
            Relay(port)
    # One that was killed leaves its socket, which the next takes.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{port}.lend")
    assert lend.borrow(port) is None
    with holder(port, wake), Relay(port):
        pass


def test_a_folder_that_is_gone(tmp_path: Path, wake: Wake) -> None:
    with pytest.raises(HostError, match=r"nowhere/agent\.sock\.lend: No such file or directory"):
        lend.Lender(str(tmp_path / "nowhere" / "agent.sock"), wake.fileno())

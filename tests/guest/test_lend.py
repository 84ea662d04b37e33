"""A port that is held is lent: to one at a time, for as long as that one lives."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import BusyError, HostError, SandboxGoneError
from reconciler.guest import lend
from reconciler.guest.client import AgentClient
from reconciler.guest.connection import Connection
from reconciler.guest.lend import Lender
from reconciler.watch.wake import Wake

DYING = """
import os, sys
from reconciler.guest.client import AgentClient
client = AgentClient(sys.argv[1], borrow=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lend, "PATIENCE", 0.2)


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


def is_readable(descriptor: int, seconds: float = 0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


@contextmanager
def holder(path: str, wake: Wake, count: int = 1) -> Iterator[list[bool]]:
    """Hold a port in a thread, and lend it so many times; give whether it was given back each time."""
    given_back: list[bool] = []
    held = threading.Event()

    def hold() -> None:
        for _ in range(count):
            with Connection(path), Lender(path, wake.fileno()) as lender:
                held.set()
                while (asker := lender.asker()) is None:
                    is_readable(lender.fileno(), 60)
            with asker:
                lend.lend(asker)
                given_back.append(lend.is_back(asker, wake.fileno()))

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        yield given_back
    finally:
        thread.join(60)
        assert not thread.is_alive()


def test_a_port_is_lent_until_it_is_given_back(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back, AgentClient(port, borrow=True):
        # Who has borrowed it holds it as anybody does, and lends nothing.
        for borrow in (False, True):
            with pytest.raises(BusyError, match="another process is connected"):
                AgentClient(port, borrow=borrow)
        assert given_back == []
    assert given_back == [True]
    with Connection(port):
        pass


def test_who_does_not_ask_is_not_lent_to(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        with pytest.raises(BusyError):
            AgentClient(port)
        assert given_back == []
        AgentClient(port, borrow=True).close()


def test_several_ask_at_once(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lend, "PATIENCE", 60.0)
    count = 4
    inside: list[int] = []

    def borrow(number: int) -> None:
        with AgentClient(port, borrow=True):
            inside.append(number)
            time.sleep(0.05)

    with Connection(port):
        threads = [threading.Thread(target=borrow, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(inside) == list(range(count))


def test_who_comes_as_a_watcher_begins_waits_for_it(port: str, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lend, "PATIENCE", 60.0)
    with Connection(port):
        thread = threading.Thread(target=lambda: AgentClient(port, borrow=True).close())
        thread.start()
        time.sleep(0.2)
        with Lender(port, wake.fileno()) as lender:
            assert is_readable(lender.fileno(), 60)
            asker = lender.asker()
            assert asker
    with asker:
        lend.lend(asker)
        assert lend.is_back(asker, wake.fileno())
    thread.join(60)
    assert not thread.is_alive()


def test_a_borrower_that_is_killed_keeps_nothing(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        ran = subprocess.run([sys.executable, "-c", DYING, port], check=False)
        assert ran.returncode == -signal.SIGKILL
    assert given_back == [True]


def test_a_borrower_that_has_left_has_given_it_back(wake: Wake) -> None:
    one, other = socket.socketpair()
    other.close()
    with one:
        lend.lend(one)
        assert lend.is_back(one, wake.fileno())


def test_who_lends_is_woken(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        connection, loan = lend.borrow(port)
        assert loan
        wake.set()
        while not given_back:
            time.sleep(0.01)
        assert given_back == [False]
        connection.close()
        loan.close()


def test_what_wakes_who_holds_it(port: str, wake: Wake) -> None:
    with Lender(port, wake.fileno()) as lender:
        assert (is_readable(lender.fileno()), lender.asker()) == (False, None)
        wake.set()
        assert (is_readable(lender.fileno()), lender.asker()) == (True, None)
        wake.clear()
        assert not is_readable(lender.fileno())
        socket_of_it = Path(lend._name(port))
        assert stat.S_IMODE(socket_of_it.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket_of_it.parent.stat().st_mode) == 0o700
    assert not socket_of_it.exists()
    assert [each.name for each in Path(port).parent.iterdir()] == ["agent.sock"]


@pytest.mark.parametrize("name", ["agent.sock", "a" * 100])
def test_a_port_of_the_longest_path_is_lent_too(name: str, tmp_path: Path, wake: Wake) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    path = str(folder / name)
    Path(path).touch()
    with Lender(path, wake.fileno()) as lender:
        thread = threading.Thread(target=lend._ask, args=(path,))
        thread.start()
        assert is_readable(lender.fileno(), 60)
        asker = lender.asker()
        assert asker
        asker.close()
        thread.join(60)
    assert [each.name for each in folder.iterdir()] == [name]


def test_nobody_lends(port: str, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lend, "TIMEOUT", 0.1)
    with Connection(port):
        with pytest.raises(BusyError):
            AgentClient(port, borrow=True)
        # One that is at something else for too long.
        with Lender(port, wake.fileno()) as lender:
            with pytest.raises(BusyError):
                AgentClient(port, borrow=True)
            while asker := lender.asker():
                asker.close()
    # One that was killed leaves its socket, which the next takes.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(lend._name(port))
    with Connection(port), pytest.raises(BusyError):
        AgentClient(port, borrow=True)
    with holder(port, wake), AgentClient(port, borrow=True):
        pass


def test_what_is_lent_and_gone(port: str, wake: Wake) -> None:
    with holder(port, wake) as given_back:
        loan = lend._ask(port)
        assert loan
        os.unlink(port)
        with pytest.raises(SandboxGoneError, match="no QEMU serves"):
            AgentClient(port, borrow=True)
        loan.close()
    assert given_back == [True]


def test_there_can_be_no_socket(tmp_path: Path, port: str, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = str(tmp_path / "nowhere" / "agent.sock")
    with pytest.raises(SandboxGoneError, match=r"no QEMU serves .*nowhere/agent\.sock"):
        Lender(nowhere, wake.fileno())

    def none() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Lender(port, wake.fileno()) as lender:
        monkeypatch.setattr(
            lender, "_socket", type("Closed", (), {"accept": lambda _: none(), "close": lender._socket.close})()
        )
        with pytest.raises(HostError, match=r"cannot lend .* to another process: Too many open files"):
            lender.asker()
    monkeypatch.setattr(select, "epoll", none)
    with pytest.raises(HostError, match=r"cannot lend .* to other processes: Too many open files"):
        Lender(port, wake.fileno())

"""The metrics are answered, and the watcher goes on, whatever clients do; over real HTTP."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import chain, repeat
from pathlib import Path

import pytest

from reconciler.watch import metrics
from reconciler.watch.metrics import CLIENTS, REQUEST, MetricsServer
from tests.conftest import Kernel
from tests.watch.running import Kept, until, watching
from tests.watch.test_report import get, pages

SILENT = 200


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1", 0, pages(lambda: "well 1\n"))
    yield made
    made.close()


def connected(stack: ExitStack, port: int, count: int = SILENT) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(count)]


def ended(client: socket.socket) -> bool:
    """Return whether the server has closed a connection without an answer, or with one that names an error."""
    client.settimeout(60)
    try:
        return not client.recv(1) or b" 200 " not in client.recv(100)
    except ConnectionResetError:
        return True


def test_who_says_nothing_takes_a_bounded_number_of_descriptors_and_threads(server: MetricsServer) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        connected(stack, server.port)
        assert get(server.port, "/metrics")[0] == 200
        # Our own ends are descriptors as well.
        assert len(os.listdir("/proc/self/fd")) - descriptors - SILENT <= CLIENTS
        assert threading.active_count() - threads <= CLIENTS


@pytest.mark.parametrize("words", [b"", b"GET /metrics HTTP/1.1\r\nX: "])
def test_who_takes_too_long_has_to_leave(words: bytes, monkeypatch: pytest.MonkeyPatch, server: MetricsServer) -> None:
    monkeypatch.setattr(metrics, "TIMEOUT", 0.5)
    with ExitStack() as stack:
        (client,) = connected(stack, server.port, 1)
        begin = time.monotonic()
        with suppress(ConnectionError):
            # A byte now and then does not give more time.
            for each in chain(words, repeat(ord("x"))):
                client.sendall(bytes((each,)))
                time.sleep(0.02)
                assert time.monotonic() - begin < 60
        assert ended(client)


@pytest.mark.parametrize("line", [b"GET /" + b"x" * 2 * REQUEST, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * REQUEST])
def test_a_request_is_small(line: bytes, server: MetricsServer) -> None:
    with ExitStack() as stack:
        (client,) = connected(stack, server.port, 1)
        with suppress(ConnectionError):
            client.sendall(line)
        assert ended(client)


def test_without_descriptors_nothing_is_lost_but_time(server: MetricsServer) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        clients = connected(stack, server.port, CLIENTS)
        # The server accepts them a moment later; its ends are descriptors as well.
        until(lambda: len(os.listdir("/proc/self/fd")) >= descriptors + 2 * CLIENTS)
        # Clients alone never use up what is left.
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + CLIENTS, limits[1]))
        try:
            clients += connected(stack, server.port, CLIENTS // 2)
            Path("/proc/self/stat").read_text()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert get(server.port, "/metrics")[0] == 200


@pytest.mark.parametrize(("host", "is_public"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)])
def test_who_can_connect(host: str, is_public: bool) -> None:
    server = MetricsServer(host, 0, {})
    assert server.is_public is is_public
    server.close()


def test_a_watch_goes_on_beside_clients_that_say_nothing(kernel: Kernel, tmp_path: Path) -> None:
    kept = Kept(kernel, tmp_path / "manifests", 0)
    with watching(tmp_path / "manifests", "--metrics", "0") as running, ExitStack() as stack:
        running.await_state("converged", kept.name)
        (event,) = running.events("metrics")
        assert (event["host"], event["level"]) == ("127.0.0.1", "info")
        files = Path(f"/proc/{running.process.pid}/fd")
        before, memory = len(list(files.iterdir())), resident(running.process.pid)
        for _ in range(3):
            connected(stack, event["port"])
            kept.ip("route", "del", "10.8.0.0/16")
            running.until(kept.has, "a repair")
            assert running.state(kept.name)
            assert get(event["port"], "/metrics")[0] == 200
            assert len(list(files.iterdir())) <= before + CLIENTS + 5
        assert resident(running.process.pid) < memory + 20_000


def resident(pid: int) -> int:
    """Return the memory of a process, in KB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

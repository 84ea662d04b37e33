"""The status socket and the metrics, over a real socket and real HTTP, also with clients that behave badly."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import HostError
from reconciler.watch import client, report
from reconciler.watch.client import read_status
from reconciler.watch.metrics import Answer, MetricsServer, Pages
from reconciler.watch.report import StatusSocket, format_age
from tests.watch.clock import Clock

NO_WATCHER = "no watcher runs on this host; `reconciler watch PATH…` starts one"
# More than a socket takes by itself.
LARGE = {"sandboxes": ["x" * 1000] * 5000}

Serve = Callable[[Callable[[], dict[str, Any]]], StatusSocket]


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    return tmp_path / "watch.sock"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start status sockets; at the end, nothing of them is left."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    started: list[StatusSocket] = []

    def start(data: Callable[[], dict[str, Any]]) -> StatusSocket:
        started.append(StatusSocket(lambda _: data()))
        return started[-1]

    yield start
    for each in started:
        each.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


def connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))
    return made


def test_who_asks_is_told_what_is_known_then(serve: Serve) -> None:
    count = iter(range(10))
    serve(lambda: {"count": next(count), "words": 'é"\n\udcff'})
    assert [read_status(), read_status()] == [{"count": 0, "words": 'é"\n\udcff'}, {"count": 1, "words": 'é"\n\udcff'}]


def test_a_large_answer_is_whole(serve: Serve) -> None:
    serve(lambda: LARGE)
    assert read_status() == LARGE


def test_many_may_ask_at_once(serve: Serve) -> None:
    serve(lambda: LARGE)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(read_status() == LARGE)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20


def test_only_root_may_ask(serve: Serve, path: Path) -> None:
    serve(dict)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_watcher_that_is_said(serve: Serve, path: Path) -> None:
    with pytest.raises(HostError) as raised:
        read_status()
    assert str(raised.value) == NO_WATCHER
    serve(dict).close()
    assert not path.exists()
    with pytest.raises(HostError) as raised:
        read_status()
    assert str(raised.value) == NO_WATCHER


def test_what_a_killed_watcher_left_is_no_watcher_and_in_nobodys_way(serve: Serve, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    with pytest.raises(HostError) as raised:
        read_status()
    assert str(raised.value) == NO_WATCHER
    serve(lambda: {"alive": True})
    assert read_status() == {"alive": True}


def test_a_socket_that_cannot_be_made_is_an_error_of_the_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = os.listdir("/proc/self/fd")
    monkeypatch.setattr(client, "SOCKET", f"{path}/below/watch.sock")
    path.mkdir()
    (path / "below").touch()
    with pytest.raises(HostError) as raised:
        StatusSocket(lambda _: {})
    assert str(raised.value) == f"{path}/below is not a folder, but a file or a link; remove it"
    assert os.listdir("/proc/self/fd") == descriptors


def test_who_leaves_without_reading_keeps_nobody_waiting(serve: Serve, path: Path) -> None:
    serve(lambda: LARGE)
    for _ in range(10):
        connect(path).close()
    assert read_status() == LARGE


def test_who_stays_without_reading_does_so_for_a_while_only(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def answer() -> dict[str, Any]:
        begun.set()
        return LARGE

    monkeypatch.setattr(client, "TIMEOUT", 0.5)
    serve(answer)
    with connect(path):
        assert begun.wait(60)
        monkeypatch.setattr(client, "TIMEOUT", 60.0)
        assert read_status() == LARGE


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_in_one_answer_is_not_the_end_of_all(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 1.0)
    answers: Iterator[dict[str, Any]] = iter([{"fit for JSON": object()}, {"well": True}])
    serve(lambda: next(answers))
    with pytest.raises(HostError, match="the watcher does not answer"):
        read_status()
    monkeypatch.setattr(client, "TIMEOUT", 60.0)
    assert read_status() == {"well": True}


def test_a_lack_of_descriptors_is_not_the_end_of_all(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 60.0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def answer() -> dict[str, Any]:
        # What is open stays so; there is none for whoever asks next.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        return {"well": True}

    serve(answer)
    try:
        assert read_status() == {"well": True}
        threading.Event().wait(0.3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    try:
        assert read_status() == {"well": True}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"", "Expecting value"), (b'{"sandboxes": [', "Expecting value"), (b"\xff", "codec can't decode")],
)
def test_an_answer_that_is_none_is_an_error(answer: bytes, said: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(100)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HostError, match=f"^the watcher does not answer: .*{said}"):
            read_status()
        thread.join()


def test_a_watcher_that_hangs_is_not_waited_for_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(HostError) as raised:
            read_status()
    assert str(raised.value) == "the watcher does not answer: timed out"


def pages(text: Callable[[], str]) -> Pages:
    """Return `/metrics` with a text."""
    return {"/metrics": lambda _: Answer(200, "text/plain", text().encode())}


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    count = iter(range(10))
    made = MetricsServer("127.0.0.1", 0, pages(lambda: f"é {next(count)}\n"))
    yield made
    made.close()


def get(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1", accept: str = "*/*"
) -> tuple[int, str | None, bytes]:
    """Return the status, the content type and the body of an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request(method, path, headers={"Accept": accept})
    with connection.getresponse() as response:
        found = response.status, response.getheader("Content-Type"), response.read()
    connection.close()
    return found


def test_each_scrape_is_told_what_is_known_then(server: MetricsServer, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "text/plain"
    assert [get(server.port, "/metrics") for _ in range(2)] == [
        (200, kind, "é 0\n".encode()),
        (200, kind, "é 1\n".encode()),
    ]
    assert capsys.readouterr() == ("", "")


def test_a_defect_in_one_page_is_said_and_is_not_the_end_of_all(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[Answer | None] = iter([None, Answer(503, "text/plain", b"bad\n")])

    def page(accept: str) -> Answer:
        if (answer := next(answers)) is None:
            raise ValueError(accept)
        return answer

    server = MetricsServer("127.0.0.1", 0, {"/a": page})
    try:
        assert get(server.port, "/a", accept="mine")[0] == 500
        assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["mine"]
        assert get(server.port, "/a?b=c") == (503, "text/plain", b"bad\n")
    finally:
        server.close()


def test_a_lack_of_descriptors_costs_no_processor(server: MetricsServer) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            client.connect(("127.0.0.1", server.port))
            before = time.process_time()
            time.sleep(1.0)
            assert time.process_time() - before < 0.2
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert get(server.port, "/metrics")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 501)]
)
def test_all_else_is_refused(
    method: str, path: str, code: int, server: MetricsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get(server.port, path, method)[0] == code
    assert capsys.readouterr() == ("", "")


def test_who_is_slow_keeps_nobody_waiting(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET /metr")
        assert get(server.port, "/metrics")[0] == 200


def test_who_leaves_in_the_middle_is_not_worth_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left, ended = threading.Event(), threading.Event()

    def text() -> str:
        left.wait(60)
        return "x" * 10_000_000

    server = MetricsServer("127.0.0.1", 0, pages(text))
    shutdown = server._server.shutdown_request

    def end(request: Any) -> None:
        shutdown(request)
        ended.set()

    monkeypatch.setattr(server._server, "shutdown_request", end)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        # Closed with a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left.set()
    assert ended.wait(60)
    server.close()
    assert capsys.readouterr() == ("", "")


def test_an_address_of_ipv6() -> None:
    server = MetricsServer("::1", 0, pages(lambda: "text"))
    try:
        assert get(server.port, "/metrics", host="::1")[::2] == (200, b"text")
    finally:
        server.close()


def test_a_port_that_is_taken_is_an_error_of_the_host(server: MetricsServer) -> None:
    with pytest.raises(HostError) as raised:
        MetricsServer("127.0.0.1", server.port, {})
    assert str(raised.value) == f"metrics on 127.0.0.1:{server.port}: Address already in use"


def test_after_the_end_nobody_answers_and_nothing_is_left() -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    server = MetricsServer("127.0.0.1", 0, {})
    port = server.port
    server.close()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/metrics")
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s ago"),
        (0, "0 s ago"),
        (1.9, "1 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7199, "119 min ago"),
        (7200, "2 h ago"),
        (2 * 86400 - 1, "47 h ago"),
        (2 * 86400, "2 d ago"),
        (400 * 86400, "400 d ago"),
    ],
)
def test_an_age_is_in_whole_units(seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "time", Clock(1_700_000_000.0))
    assert format_age(1_700_000_000.0 - seconds) == said


def test_the_age_of_what_never_was_is_none() -> None:
    assert format_age(0.0) == "-"

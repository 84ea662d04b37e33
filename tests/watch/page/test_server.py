"""What clients get, and what they can take: over real sockets, by bytes."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPResponse
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import HostError
from reconciler.watch.page import feed, server
from reconciler.watch.page.address import PageAddress
from reconciler.watch.page.board import CHUNK
from reconciler.watch.page.server import CLIENTS, REQUEST, STREAMS, PageServer
from reconciler.watch.state import SandboxState
from tests.watch.page.conftest import Serve, Watched
from tests.watch.running import until

TOKEN = "mRTAJwGbHBCGnvDyBRLdTrkyhrUqXhHm"
FILES = ("/", "/index.html", "/page.js", "/table.js", "/feed.js", "/detail.js", "/words.js", "/page.css", "/icon.svg")


def connect(made: PageServer) -> socket.socket:
    if made.url.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(made.url.removeprefix("unix:"))
    else:
        client = socket.create_connection(("127.0.0.1", port(made)), 60)
    client.settimeout(60)
    return client


def port(made: PageServer) -> int:
    return int(made.url.rpartition(":")[2].rstrip("/"))


def ask(made: PageServer, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> HTTPResponse:
    """Return the answer to a request; `body` of it is read."""
    connection = HTTPConnection("localhost", timeout=60)
    connection.sock = connect(made)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    return answer


class Stream:
    """An open page: reads events."""

    def __init__(self, made: PageServer, last: str = "") -> None:
        self.socket = connect(made)
        more = f"Last-Event-ID: {last}\r\n" if last else ""
        self.socket.sendall(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode("latin-1"))
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def events(self) -> Iterator[tuple[str, str, Any]]:
        """Yield the name, id and data of each event."""
        body, fields = b"", {"event": "", "id": "", "data": "null"}
        while size := int(self.file.readline() or b"0", 16):
            body += self.file.read(size + 2)[:-2]
            *lines, body = body.split(b"\n")
            for line in lines:
                name, _, value = line.decode().partition(": ")
                fields[name] = value
                if not name and fields["event"]:
                    yield fields["event"], fields["id"], json.loads(fields["data"])
                    fields["event"] = ""

    def update(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Return the id of the next update, its rows by their IDs, and its end."""
        rows: dict[str, Any] = {}
        for name, position, data in self.events():
            if name == "rows":
                rows |= {each["sandbox"]: each for each in data["rows"]}
            elif name == "end":
                return position, rows, data
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def made(serve: Serve) -> PageServer:
    return serve()


def test_each_answer_has_the_headers_of_a_page_that_trusts_nobody(made: PageServer) -> None:
    for path in (*FILES, "/nothing", "/sandboxes/none"):
        answer = ask(made, path)
        assert answer.status == (200 if path in FILES else 404)
        policy = dict(each.split(" ", 1) for each in (answer.headers["Content-Security-Policy"] or "").split("; "))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == (
            "'none'",
            "'self'",
            "'none'",
        )
        assert "unsafe" not in str(policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_no_file_has_code_within_or_names_another_host(made: PageServer) -> None:
    for path in FILES:
        text: str = ask(made, path).text  # type: ignore[attr-defined]
        assert "innerHTML" not in text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert " style=" not in text
        assert " onclick=" not in text


def test_it_is_read_only(made: PageServer) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        for path, body in (("/", b""), ("/", b"a" * 1000), ("/events", b""), ("/sandboxes/web-1", b"{}")):
            answer = ask(made, path, method, body)
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head(made: PageServer, watched: Watched) -> None:
    watched.add("web-1")
    for path in ("/", "/events", "/sandboxes/web-1"):
        answer = ask(made, path, "HEAD")
        assert (answer.status, answer.text) == (200, "")  # type: ignore[attr-defined]


OURS = ("localhost", "127.0.0.1", "127.0.0.1:9180", "localhost:22", "[::1]:9180", "LOCALHOST")
THEIRS = (
    "evil.example",
    "evil.example:9180",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "192.0.2.1",
    "0.0.0.0",
)


@pytest.mark.parametrize("path", ["/", "/events", "/sandboxes/web-1"])
def test_only_names_of_this_server_are_answered(path: str, made: PageServer, watched: Watched) -> None:
    watched.add("web-1")
    for host in OURS:
        assert ask(made, path, "HEAD", host=host).status == 200
    for host in (*THEIRS, "", "localhost@evil.example", "[::2]", "localhost:x", "a b"):
        assert ask(made, path, "HEAD", host=host).status in {400, 421}, host


def test_pages_of_other_sites_get_nothing(made: PageServer) -> None:
    """What a browser says about who asks: a link from elsewhere is followed, anything else is refused."""
    for site in ("cross-site", "same-site", "x", ""):
        for path in ("/", "/events", "/page.js", "/sandboxes/web-1"):
            assert ask(made, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
            assert (
                ask(made, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe").status == 403
            )
        assert ask(made, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document").status == 200
    for site in ("none", "same-origin"):
        assert ask(made, "/page.js", Sec_Fetch_Site=site, Sec_Fetch_Mode="cors").status == 200


def test_without_or_with_two_names(made: PageServer) -> None:
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: evil.example\r\nHost: localhost\r\n"):
        with closing(connect(made)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
    with closing(connect(made)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 421"


def token_file(folder: Path, text: str = TOKEN, mode: int = 0o600) -> str:
    path = folder / "token"
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return str(path)


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"any:{token}".encode()).decode()


def test_a_token(tmp_path: Path, serve: Serve, watched: Watched) -> None:
    watched.add("web-1")
    made = serve(token_file=token_file(tmp_path))
    for path in ("/", "/page.js", "/events", "/sandboxes/web-1", "/nothing"):
        for wrong in ("", "Basic", "Basic =", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", basic(""), TOKEN, "Bearer é"):
            answer = ask(made, path, authorization=wrong)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (
                401,
                'Basic realm="reconciler", charset="UTF-8"',
            )
            assert "web-1" not in answer.text  # type: ignore[attr-defined]
        for right in (f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)):
            assert ask(made, path, "HEAD", authorization=right).status == (404 if path == "/nothing" else 200)
    assert ask(made, host="evil.example", authorization=basic(TOKEN)).status == 421


def test_what_is_no_token_file(tmp_path: Path, serve: Serve) -> None:
    for text, mode, reason in (
        (TOKEN, 0o644, "other users can read or replace it"),
        (TOKEN, 0o620, "other users can read or replace it"),
        ("short", 0o600, "expected one word of 16 to 256 printable characters of ASCII"),
        ("two words of the token", 0o600, "expected one word"),
        ("x" * 257, 0o600, "expected one word"),
        ("schlüssel-schlüssel", 0o600, "expected one word"),
    ):
        with pytest.raises(HostError, match=reason):
            serve(token_file=token_file(tmp_path, text, mode))
    with pytest.raises(HostError, match="No such file"):
        serve(token_file=str(tmp_path / "none"))
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(HostError, match="is not a regular file"):
        serve(token_file=str(tmp_path / "fifo"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_where_others_can_connect_a_token_is_needed(host: str, tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(HostError) as raised:
        serve(host=host)
    assert str(raised.value).startswith(
        f"--ui {PageAddress(host)}: other hosts reach this address, so the page needs a"
    )
    made = serve(host=host, token_file=token_file(tmp_path))
    assert made.is_public
    for name, status in (("192.0.2.7:80", 200), ("[2001:db8::7]", 200), ("localhost", 200), ("evil.example", 421)):
        assert ask(made, host=name, authorization=basic(TOKEN)).status == status


def test_an_address_that_is_taken(made: PageServer, serve: Serve) -> None:
    with pytest.raises(HostError) as raised:
        serve(port=port(made))
    assert str(raised.value) == f"--ui 127.0.0.1:{port(made)}: Address already in use"


def test_a_unix_socket(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "page.sock"
    made = serve(path=str(path))
    assert (stat.S_IMODE(path.stat().st_mode), made.url, made.is_public) == (0o600, f"unix:{path}", False)
    assert ask(made).status == 200
    assert ask(made, host="evil.example").status == 421
    with closing(Stream(made)) as stream:
        assert stream.update()[2]["all"]
    with pytest.raises(HostError, match="Address already in use"):
        serve(path=str(path))
    made.close()
    assert not path.exists()


def test_what_is_at_the_path_of_the_socket(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "page.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert ask(serve(path=str(path))).status == 200
    (tmp_path / "file").write_text("precious")
    with pytest.raises(HostError, match="Address already in use"):
        serve(path=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_page_gets_only_what_has_changed(made: PageServer, watched: Watched) -> None:
    for number in range(20):
        watched.add(f"web-{number}")
    with closing(Stream(made)) as stream:
        first, rows, end = stream.update()
        assert rows == {each["sandbox"]: each for each in watched.to_data()["sandboxes"]}
        assert (end["all"], end["gone"], end["about"]["alarms"]) == (True, [], [])
        with watched.lock:
            watched.standings["web-7"].status.set_state(SandboxState.FAILED, "why")
        _, rows, end = stream.update()
        assert (list(rows), end["all"], end["about"]) == (["web-7"], False, None)
        with watched.lock:
            watched.about = watched.about | {"alarms": ["one"]}
            del watched.standings["web-3"]
        last, rows, end = stream.update()
        assert (rows, end["gone"], end["about"]["alarms"]) == ({}, ["web-3"], ["one"])
    # Whoever was away gets what happened meanwhile; who saw another watcher gets everything.
    for position, expected in ((first, {"web-7"}), (last, set()), ("0badc0de-1", set(rows_of(watched)))):
        watched.add("web-99", SandboxState.NEW)
        with closing(Stream(made, position)) as stream:
            _, rows, end = stream.update()
            assert set(rows) - {"web-99"} == expected - {"web-99"}
            assert end["all"] is (position == "0badc0de-1")


def rows_of(watched: Watched) -> list[str]:
    return [each["sandbox"] for each in watched.to_data()["sandboxes"]]


def test_a_position_that_is_none_gets_everything(made: PageServer, watched: Watched) -> None:
    watched.add("web-1")
    with closing(Stream(made)) as stream:
        board = stream.update()[0].partition("-")[0]
    for last in ("-", "x", "-1", "1" * 5000, f"{board}-99999999", f"{board}-1e9", "\xff"):
        with closing(Stream(made, last)) as stream:
            assert stream.update()[2]["all"]


def test_a_beat_only_if_the_status_could_be_read(
    made: PageServer, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BEAT", 0.3)
    monkeypatch.setattr(feed, "PERIOD", 0.1)
    with closing(Stream(made)) as stream:
        stream.update()
        events = stream.events()
        assert next(events)[0] == "beat"
        monkeypatch.setattr(watched, "to_data", lambda: 1 / 0)
        monkeypatch.setattr(watched, "about", None)
        stream.socket.settimeout(1.5)
        # What was on its way may still come.
        with suppress(TimeoutError):
            heard = [next(events) for _ in range(20)]
            pytest.fail(f"still heard: {heard}")


def test_who_says_nothing_takes_a_bounded_number_of_descriptors(made: PageServer) -> None:
    ask(made)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(made))) for _ in range(3 * CLIENTS)]
        assert ask(made).status == 200
        assert len(os.listdir("/proc/self/fd")) - descriptors - len(clients) <= CLIENTS
        assert threading.active_count() - threads <= 1


def test_who_takes_too_long_has_to_leave(made: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TIMEOUT", 0.5)
    for words in (
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    ):
        with closing(connect(made)) as client:
            begin = time.monotonic()
            with suppress(ConnectionError):
                # A byte now and then does not give more time.
                for each in chain(words, repeat(ord("x"))):
                    client.sendall(bytes((each,)))
                    time.sleep(0.02)
                    assert time.monotonic() - begin < 60
            answer = b""
            with suppress(ConnectionResetError):
                answer = client.recv(12)
            assert answer in {b"", b"HTTP/1.1 405"}


@pytest.mark.parametrize(
    "words", [b"GET /" + b"x" * 2 * REQUEST, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * REQUEST]
)
def test_a_request_is_small(words: bytes, made: PageServer) -> None:
    with closing(connect(made)) as client, suppress(ConnectionError):
        client.sendall(words)
        assert client.recv(12) in {b"HTTP/1.1 400", b"HTTP/1.1 431", b""}


def test_a_large_body_is_not_read(made: PageServer) -> None:
    for length in ("1000000000", "x", "-1", "9" * 40):
        with closing(connect(made)) as client:
            client.sendall(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
            assert client.recv(12) in {b"HTTP/1.1 405", b"HTTP/1.1 400"}


def test_a_connection_has_one_request(made: PageServer) -> None:
    with closing(connect(made)) as client:
        client.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        answer = b""
        with suppress(ConnectionResetError):
            while data := client.recv(1 << 16):
                answer += data
        assert answer.count(b"HTTP/1.1 200") == 1


def test_so_many_pages_can_be_open(made: PageServer, watched: Watched) -> None:
    watched.add("web-1")
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(Stream(made))) for _ in range(STREAMS)]
        assert {each.status for each in streams} == {200}
        with closing(Stream(made)) as more:
            assert more.status == 503
        assert ask(made).status == 200
        streams[0].close()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with closing(Stream(made)) as again:
                if again.status == 200:
                    return
    pytest.fail("no place becomes free")


def test_a_page_that_does_not_read_has_to_leave(
    made: PageServer, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who reads is never so slow, on a busy machine either.
    monkeypatch.setattr(server, "TIMEOUT", 2.0)
    for number in range(3000):
        watched.add(f"web-{number}", detail="x" * 4000)
    with closing(Stream(made)) as slow, closing(Stream(made)) as quick:
        opened = len(os.listdir("/proc/self/fd"))
        assert len(quick.update()[1]) == 3000
        until(lambda: len(os.listdir("/proc/self/fd")) < opened, "the server closes its end")
        data = b""
        with suppress(ConnectionResetError):
            while part := slow.socket.recv(1 << 20):
                data += part
        # The kernel has some of it, and the server had no more than a piece.
        assert len(data) < 3000 * 4000 - CHUNK
        assert b"event: end" not in data


def test_whoever_asks_for_much_waits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WORK", 0.001)
    monkeypatch.setattr(server, "WORK_SHARE", 0.001)
    made = serve()
    begin = time.monotonic()
    for _ in range(8):
        assert ask(made, "/page.js").status == 200
    # Each one computes for more than a tenth of a millisecond.
    assert time.monotonic() - begin > 0.3


def test_the_end_does_not_wait_for_open_pages(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    made = serve()
    # Whoever says nothing has so long.
    monkeypatch.setattr(server, "TIMEOUT", 60.0)
    threads = threading.active_count()
    with closing(Stream(made)) as stream, closing(connect(made)):
        stream.update()
        begin = time.monotonic()
        made.close()
        assert time.monotonic() - begin < server.TIMEOUT
        assert threading.active_count() == threads - 1

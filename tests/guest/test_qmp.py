"""QEMU's monitor: against a server that lies, drips and floods, and a real one."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import (
    BusyError,
    ChannelError,
    HostError,
    ProtocolError,
    ReconcilerError,
    SandboxGoneError,
)
from reconciler.guest.qmp import Monitor, QmpError
from reconciler.netlink.budget import BYTES, OBJECTS
from tests.examples import examples
from tests.guest.peer import Script, peer, wait_for_end
from tests.machine import Guest, freeze

GREETING = {
    "QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": []}
}
# Deeper than Python's own stack.
DEEP = b'{"return":' + b"[" * 200_000
LINE_SIZE = 1 << 20
TOO_MANY = f"the sandbox sent more than {OBJECTS:,} objects in answer to one look"
# Seconds for an answer in these tests, and those in which all must be over.
SHORT, SOON = 0.3, 60.0

Send = Callable[..., None]


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\r\n"


def read_command(channel: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        more = channel.recv(1)
        if not more:
            raise OSError("the client left")
        data += more
    command: dict[str, Any] = json.loads(data)
    return command


def reply(channel: socket.socket, **fields: Any) -> dict[str, Any]:
    """Read a command and answer it; give the command."""
    command = read_command(channel)
    channel.sendall(line(**fields, id=command.get("id")))
    return command


def greet(channel: socket.socket) -> None:
    channel.sendall(line(**GREETING))
    assert reply(channel, **{"return": {}})["execute"] == "qmp_capabilities"


def answering(*lines: bytes) -> Script:
    """Answer the first command with these bytes; ID in them stands for its id."""

    def script(channel: socket.socket) -> None:
        greet(channel)
        id_ = json.dumps(read_command(channel)["id"]).encode()
        for data in lines:
            channel.sendall(data.replace(b"ID", id_))
        wait_for_end(channel)

    return script


def saying(data: bytes) -> Script:
    """Return a script that sends this instead of a greeting."""

    def script(channel: socket.socket) -> None:
        channel.sendall(data)
        wait_for_end(channel)

    return script


def repeating(data: bytes, pause: float = 0.0, *, greets: bool = True) -> Script:
    """Send the same without end."""

    def script(channel: socket.socket) -> None:
        if greets:
            greet(channel)
            read_command(channel)
        with suppress(OSError):
            while True:
                channel.sendall(data)
                time.sleep(pause)

    return script


def ask(path: str, timeout: float = SHORT) -> Any:
    with Monitor(path, timeout) as monitor:
        return monitor.execute("query-status")


@contextmanager
def soon(least: float = 0.0) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < SOON


def event(name: str, **data: Any) -> bytes:
    return line(event=name, data=data, timestamp={"seconds": 1, "microseconds": 2})


def test_it_says_what_it_asks_and_gives_what_is_returned() -> None:
    asked: list[dict[str, Any]] = []

    def script(channel: socket.socket) -> None:
        greet(channel)
        asked.append(reply(channel, **{"return": {"running": True}}))
        asked.append(reply(channel, **{"return": "text\r\n"}))
        wait_for_end(channel)

    with peer(script) as path, Monitor(path) as monitor:
        assert monitor.execute("query-status", all=True, name="ä") == {"running": True}
        assert monitor.human("info network") == "text\r\n"
    assert [(each["execute"], each["arguments"]) for each in asked] == [
        ("query-status", {"all": True, "name": "ä"}),
        ("human-monitor-command", {"command-line": "info network"}),
    ]


def test_nobody_there(tmp_path: Path) -> None:
    path = tmp_path / "qmp.sock"
    with pytest.raises(SandboxGoneError, match=f"no QEMU serves {path}: the sandbox is not running"):
        Monitor(str(path))
    path.write_text("no socket")
    with pytest.raises(SandboxGoneError, match=f"no QEMU serves {path}: the sandbox is not running"):
        Monitor(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
    with pytest.raises(SandboxGoneError, match=f"no QEMU serves {path}: the sandbox is not running"):
        Monitor(str(path))


def test_a_socket_that_cannot_be_a_monitor_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(HostError, match="wrong type"):
            Monitor(path)
    with pytest.raises(HostError, match="too long"):
        Monitor(f"/{'x' * 200}")


def test_a_backlog_that_is_full_is_busy(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with soon(), pytest.raises(BusyError, match=f"QEMU did not accept a connection to {path} within {SHORT:g} s"):
            Monitor(path, SHORT)


@pytest.mark.parametrize(
    "script",
    [
        wait_for_end,
        repeating(b" ", 0.02, greets=False),
        repeating(b" ", 0.0002, greets=False),
        saying(json.dumps(GREETING).encode()),
    ],
    ids=["silence", "a drip", "a steady drip", "a line that does not end"],
)
def test_without_a_greeting_it_is_busy(script: Script) -> None:
    with soon(SHORT), peer(script) as path, pytest.raises(BusyError) as caught:
        Monitor(path, SHORT)
    reasons = "another client uses it, QEMU hangs, or it is the socket of another program"
    assert str(caught.value) == f"QEMU does not answer on {path}: {reasons}"


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (b'{"hello": "world"}\n', "is not a monitor"),
        (b"220 mail.example.com ESMTP\r\n", "not a JSON object"),
        (b"\x16\x03\x01\xff\xff\n", "not a JSON object"),
        (b"[]\n", "not a JSON object"),
        (DEEP + b"\n", "not a JSON object"),
    ],
)
def test_what_is_no_monitor_is_told(greeting: bytes, expected: str) -> None:
    with soon(), peer(saying(greeting)) as path, pytest.raises(ProtocolError, match=expected):
        Monitor(path, SHORT)


def test_a_second_client_is_busy_until_the_first_leaves() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        wait_for_end(channel)

    with peer(script) as path, Monitor(path), soon(SHORT), pytest.raises(BusyError, match="another client uses it"):
        Monitor(path, SHORT)


def test_one_that_leaves_at_once_is_gone() -> None:
    with peer(lambda channel: channel.close()) as path, pytest.raises(SandboxGoneError, match="QEMU is gone"):
        Monitor(path, SHORT)


def test_a_failed_greeting_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with peer(saying(b"[]\n")) as path:
        with pytest.raises(ProtocolError):
            Monitor(path, SHORT)
        # The listener of `peer`, and its end of the connection.
        assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("DeviceNotFound", "Device 'nope' not found", "QEMU: query-status: Device 'nope' not found"),
        ("GenericError", "bad\x1b[31m\nred", "QEMU: query-status: bad\x1b[31m\nred"),
        ("CommandNotFound", "\ud800", "QEMU: query-status: \ud800"),
    ],
)
def test_a_refusal_has_its_class_and_its_words(kind: str, words: str, expected: str) -> None:
    answer = json.dumps({"error": {"class": kind, "desc": words}})[:-1].encode() + b', "id": ID}\n'
    with peer(answering(answer)) as path, pytest.raises(QmpError) as caught:
        ask(path)
    assert (caught.value.kind, str(caught.value)) == (kind, expected)
    assert isinstance(caught.value, HostError)


def test_after_a_refusal_it_goes_on() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        reply(channel, error={"class": "GenericError", "desc": "no"})
        reply(channel, **{"return": 7})
        wait_for_end(channel)

    with peer(script) as path, Monitor(path) as monitor:
        with pytest.raises(QmpError):
            monitor.execute("x")
        assert monitor.execute("y") == 7


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\n",
        b"\n",
        b"{\n",
        b"[]\n",
        b'[{"return": {}}]\n',
        b"7\n",
        b"null\n",
        b'"return"\n',
        b"\xff\xfe{}\n",
        b'{"return": "\xff"}\n',
        b"\0\n",
        b"1" * 5000 + b"\n",
        DEEP + b"\n",
        DEEP + b"]" * 200_000 + b"}\n",
        b'{"a":' * 100_000 + b"\n",
        b'{"error": [], "id": ID}\n',
        b'{"error": null, "id": ID}\n',
        b'{"error": "no", "id": ID}\n',
    ],
    ids=lambda answer: ascii(answer[:20]),
)
def test_what_qmp_forbids_is_refused(answer: bytes) -> None:
    with soon(), peer(answering(answer)) as path, pytest.raises(ProtocolError):
        ask(path, 50)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}\n",
        b'{"return": {}}\n',
        b'{"return": {}, "id": null}\n',
        b'{"return": {}, "id": {"ID": [ID]}}\n',
        b'{"error": {"class": "GenericError", "desc": "another\'s"}, "id": 0}\n',
        b'{"id": ID}\n',
        b'{"event": []}\n{"event": {"event": 1}}\n{"event": "STOP", "data": 7}\n',
        b'{"return": {}, "id": ID}',
    ],
)
def test_what_is_no_answer_ends_at_the_deadline(answer: bytes) -> None:
    with soon(SHORT), peer(answering(answer)) as path, pytest.raises(ChannelError) as caught:
        ask(path)
    assert str(caught.value) == f"QEMU did not answer query-status within {SHORT:g} s"


@pytest.mark.parametrize(
    "script",
    [
        repeating(b" ", 0.02),
        repeating(b" ", 0.0002),
        repeating(event("RTC_CHANGE", offset=1)),
        repeating(event("RTC_CHANGE", offset=1) * 1000),
        repeating(line(**{"return": {}}, id="another's") * 1000),
        repeating(b"{}\n"),
    ],
    ids=["a drip", "a steady drip", "events", "events in bulk", "answers to others", "nothing"],
)
def test_neither_drip_nor_flood_moves_the_deadline(script: Script) -> None:
    with soon(), peer(script) as path, pytest.raises((ChannelError, ProtocolError)) as caught:
        ask(path)
    assert str(caught.value) in {f"QEMU did not answer query-status within {SHORT:g} s", TOO_MANY}


@pytest.mark.parametrize("size", [30, 200_000])
def test_what_comes_while_an_answer_is_awaited_is_bounded(size: int) -> None:
    sent = 0
    data = event("RTC_CHANGE", words="x" * size)
    flood = data * (65536 // len(data) + 1)

    def script(channel: socket.socket) -> None:
        nonlocal sent
        greet(channel)
        read_command(channel)
        with suppress(OSError):
            while True:
                channel.sendall(flood)
                sent += len(flood)

    with soon(), peer(script) as path, pytest.raises(ProtocolError, match="in answer to one look"):
        ask(path, 50)
    assert sent < BYTES + (2 << 20)


@pytest.mark.parametrize("greets", [True, False])
def test_a_line_without_end_is_too_long(greets: bool) -> None:
    sent = 0

    def script(channel: socket.socket) -> None:
        nonlocal sent
        if greets:
            greet(channel)
            read_command(channel)
        with suppress(OSError):
            while True:
                channel.sendall(b"x" * 65536)
                sent += 65536

    with soon(), peer(script) as path, pytest.raises(ProtocolError, match=f"more than {LINE_SIZE} bytes"):
        ask(path, 50)
    assert sent < LINE_SIZE + (2 << 20)


def test_a_long_line_is_an_answer() -> None:
    answer = b'{"return": "' + b"x" * (LINE_SIZE - 100) + b'", "id": ID}\n'
    with peer(answering(answer)) as path:
        assert len(ask(path, 50)) == LINE_SIZE - 100


@pytest.mark.parametrize("data", [b"", b'{"return": {', event("RESUME")])
def test_one_that_leaves_in_an_answer_is_gone(data: bytes) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_command(channel)
        channel.sendall(data)

    with (
        soon(),
        peer(script) as path,
        pytest.raises(SandboxGoneError, match=r"QEMU is gone \(.*: it closed the connection\)"),
    ):
        ask(path, 50)


def test_one_that_left_between_commands_is_gone() -> None:
    with peer(greet) as path, Monitor(path, 5) as monitor:
        time.sleep(0.1)
        with soon(), pytest.raises(SandboxGoneError, match="QEMU is gone"):
            monitor.execute("x")


def test_one_that_does_not_read_ends_at_the_deadline() -> None:
    done = threading.Event()

    def script(channel: socket.socket) -> None:
        greet(channel)
        done.wait(60)

    with peer(script) as path, Monitor(path, SHORT) as monitor:
        with soon(SHORT), pytest.raises(ChannelError) as caught:
            monitor.execute("x", data="x" * (2 << 20))
        done.set()
    assert str(caught.value) == f"QEMU did not read the command x within {SHORT:g} s"


def test_a_late_answer_is_no_other_commands() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        first = read_command(channel)
        second = read_command(channel)
        channel.sendall(line(**{"return": "late"}, id=first["id"]))
        channel.sendall(line(error={"class": "GenericError", "desc": "late as well"}, id=first["id"]))
        channel.sendall(line(**{"return": "in time"}, id=second["id"]))
        wait_for_end(channel)

    with peer(script) as path, Monitor(path, SHORT) as monitor:
        with pytest.raises(ChannelError):
            monitor.execute("first")
        assert monitor.execute("second") == "in time"


def deleted(device: str) -> Callable[[Any], bool]:
    return lambda data: bool(data.get("device") == device)


def test_events_that_come_with_an_answer_are_kept_in_order() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        command = read_command(channel)
        channel.sendall(event("NIC_RX_FILTER_CHANGED") + event("DEVICE_DELETED", path="/machine/x"))
        channel.sendall(event("DEVICE_DELETED", device="a") + line(**{"return": {}}, id=command["id"]))
        channel.sendall(event("DEVICE_DELETED", device="b"))
        reply(channel, **{"return": 7})
        wait_for_end(channel)

    with peer(script) as path, Monitor(path, 5) as monitor, soon():
        monitor.execute("device_del", id="a")
        assert monitor.await_event("DEVICE_DELETED", deleted("a"), 0)
        assert monitor.await_event("DEVICE_DELETED", deleted("b"), 1)
        assert not monitor.await_event("DEVICE_DELETED", deleted("a"), 0.05)
        assert monitor.execute("x") == 7


def test_an_event_of_another_name_or_device_is_not_taken() -> None:
    others = event("DEVICE_UNPLUG_GUEST_ERROR", device="a") + event("DEVICE_DELETED", device="b")
    odd = b'{"event": "DEVICE_DELETED", "data": [1]}\n{"event": "DEVICE_DELETED"}\n{"event": ["DEVICE_DELETED"]}\n'
    with peer(answering(others + odd + b'{"return": {}, "id": ID}\n' + odd)) as path, Monitor(path, 5) as monitor:
        monitor.execute("device_del", id="a")
        with soon(SHORT):
            assert not monitor.await_event("DEVICE_DELETED", deleted("a"), SHORT)


@pytest.mark.parametrize(
    "data",
    [event("RTC_CHANGE", offset=1) * 1000, b" ", b'{"return": {}, "id": 1}\n'],
    ids=["events", "drip", "answers"],
)
def test_no_flood_moves_the_deadline_of_an_event(data: bytes) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        with suppress(OSError):
            while True:
                channel.sendall(data)

    with peer(script) as path, Monitor(path, 5) as monitor, soon(), suppress(ProtocolError):
        assert not monitor.await_event("DEVICE_DELETED", deleted("a"), SHORT)


def test_an_event_of_one_that_leaves_is_not_waited_for() -> None:
    with peer(greet) as path, Monitor(path, 5) as monitor, soon(), pytest.raises(SandboxGoneError):
        monitor.await_event("DEVICE_DELETED", deleted("a"), 10)


def test_events_wait_within_bounds() -> None:
    count = 9_000
    flood = event("RTC_CHANGE", offset=1) * (count // 100)

    def script(channel: socket.socket) -> None:
        greet(channel)
        command = read_command(channel)
        for _ in range(100):
            channel.sendall(flood)
        channel.sendall(line(**{"return": {}}, id=command["id"]))
        wait_for_end(channel)

    with peer(script) as path, Monitor(path, 20) as monitor:
        monitor.execute("x")
        assert len(monitor._events) <= 1000


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
KEYS = st.sampled_from(["return", "error", "event", "data", "id", "QMP", "class"])
LINES = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda fields: json.dumps(fields).encode() + b"\n"),
    st.binary(max_size=40),
    st.sampled_from([b'{"return": 7, "id": ID}\n', b'{"error": {"class": "X", "desc": "x"}, "id": ID}\n', b"\n"]),
)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(LINES, max_size=6))
def test_any_answer_is_an_answer_or_one_of_our_errors(lines: list[bytes]) -> None:
    with soon(), peer(answering(*lines)) as path, suppress(ReconcilerError), Monitor(path, 0.05) as monitor:
        monitor._timeout = 0.05
        assert monitor.execute("x") == 7
        monitor.await_event("DEVICE_DELETED", deleted("a"), 0.01)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(LINES, max_size=4))
def test_any_greeting_is_one_of_our_errors(lines: list[bytes]) -> None:
    with soon(), peer(saying(b"".join(lines))) as path, pytest.raises(ReconcilerError):
        Monitor(path, 0.05)


def test_a_real_one_answers(guest: Guest) -> None:
    with Monitor(guest.sandbox.qmp) as monitor:
        assert monitor.execute("query-status")["running"] is True
        assert "info network" not in monitor.human("info network")
        for command, kind in (("device_del", "DeviceNotFound"), ("nonsense", "CommandNotFound")):
            with pytest.raises(QmpError) as caught:
                monitor.execute(command, id="nope")
            assert caught.value.kind == kind
        with pytest.raises(QmpError, match="unexpected") as caught:
            monitor.execute("query-status", nonsense=1)
        assert caught.value.kind == "GenericError"


def test_a_real_one_is_busy_for_a_second_client_until_the_first_leaves(guest: Guest) -> None:
    with Monitor(guest.sandbox.qmp), soon(SHORT), pytest.raises(BusyError, match="another client uses it"):
        Monitor(guest.sandbox.qmp, SHORT)
    with Monitor(guest.sandbox.qmp) as monitor:
        assert monitor.execute("query-status")["running"] is True


def test_events_of_a_real_one(guest: Guest) -> None:
    with Monitor(guest.sandbox.qmp) as monitor:
        monitor.execute("stop")
        monitor.execute("cont")
        assert monitor.await_event("STOP", lambda _: True, 0)
        assert monitor.await_event("RESUME", lambda _: True, 1)
        assert not monitor.await_event("RESUME", lambda _: True, 0.05)


def test_a_real_one_that_hangs_is_an_error_in_time_and_answers_the_next_client_afterwards(guest: Guest) -> None:
    pid = guest.sandbox.pid()
    assert pid
    with Monitor(guest.sandbox.qmp, SHORT) as monitor:
        freeze(pid)
        try:
            with soon(SHORT), pytest.raises(ChannelError, match=f"QEMU did not answer query-status within {SHORT:g} s"):
                monitor.execute("query-status")
            with soon(SHORT), pytest.raises(BusyError, match="QEMU hangs, or"):
                Monitor(guest.sandbox.qmp, SHORT)
        finally:
            os.kill(pid, signal.SIGCONT)
    # The answer to the client that is gone is not for this one.
    with Monitor(guest.sandbox.qmp) as monitor:
        assert monitor.human("info name") == ""
        assert monitor.execute("query-status")["running"] is True

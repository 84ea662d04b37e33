"""The client of QEMU's guest agent, against hostile peers; tests/vm/test_stock.py has a real one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, SandboxGoneError
from reconciler.guest import guest_agent, push
from reconciler.guest.guest_agent import GuestAgent, GuestCommandError

Answer = Callable[[dict[str, Any]], bytes]
_EXEC = {"supported_commands": [{"name": name, "enabled": True} for name in ("guest-exec", "guest-exec-status")]}


@contextmanager
def peer(folder: Path, answer: Answer, before: bytes = b"") -> Iterator[str]:
    """Serve one client: send `before`, then the answer to each command."""
    path = str(folder / "ga.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        try:
            channel, _ = listener.accept()
            with channel, channel.makefile("rb") as lines:
                channel.sendall(before)
                for line in lines:
                    command = json.loads(line.removeprefix(b"\xff"))
                    sync = command["execute"] == "guest-sync-delimited"
                    number = b'{"return": %d}\n'
                    channel.sendall(b"\xff" + number % command["arguments"]["id"] if sync else answer(command))
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        listener.close()
        thread.join(5)


def returned(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def refused(words: str) -> bytes:
    return json.dumps({"error": {"class": "GenericError", "desc": words}}).encode() + b"\n"


@pytest.mark.parametrize(
    "before", [b"", b'{"return": {"pid": 1}}\n', b"\xff", b'\xff{"return": 1}\n', b'{"ret', b'\xff[[[\n{"return": 9}\n']
)
def test_what_an_earlier_client_left_is_discarded(tmp_path: Path, before: bytes) -> None:
    with peer(tmp_path, lambda command: returned(command["execute"]), before) as path, GuestAgent(path) as guest:
        assert guest.execute("guest-ping") == "guest-ping"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    busy = pytest.raises(BusyError, match="another process uses the guest agent at")
    with peer(tmp_path, lambda _: returned({})) as path, GuestAgent(path), busy:
        GuestAgent(path)


def test_an_agent_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "SYNC_TIMEOUT", 0.1)
    with pytest.raises(SandboxGoneError, match="no QEMU serves"):
        GuestAgent(str(tmp_path / "missing.sock"))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        with pytest.raises(
            BusyError, match=r"no guest agent answers at .*: the guest is starting, or no qemu-guest-agent"
        ):
            GuestAgent(str(tmp_path / "silent.sock"))


_LIES: dict[str, tuple[Answer, type[Exception], str]] = {
    "an endless line": (lambda _: b"x" * (2 << 20), ProtocolError, "more than 1 MiB"),
    "no JSON": (lambda _: b"}{\n", ProtocolError, "something that is no answer"),
    "deep JSON": (lambda _: b"[" * 100_000 + b"\n", ProtocolError, "something that is no answer"),
    "no object": (lambda _: b"[]\n", ProtocolError, "something that is no answer"),
    "an error that is none": (lambda _: b'{"error": 1}\n', ProtocolError, "something that is no answer"),
    "a long refusal": (lambda _: refused("x" * 9000), GuestCommandError, "refused guest-info: x{400,500}"),
    "no list of commands": (lambda _: returned({"supported_commands": 1}), ProtocolError, "without a list of commands"),
    "strange commands": (lambda _: returned({"supported_commands": [1, {}]}), HostError, "guest-exec is disabled"),
}


@pytest.mark.parametrize("lie", _LIES)
def test_a_lie_is_an_error_of_ours(tmp_path: Path, lie: str) -> None:
    answer, error, words = _LIES[lie]
    with peer(tmp_path, answer) as path, GuestAgent(path) as guest, pytest.raises(error, match=words) as raised:
        push.look(guest)
    assert len(str(raised.value)) < 1000


_LIES_OF_EXEC: dict[str, tuple[object, object, str]] = {
    "no process": ({"pid": "1"}, None, "without a process"),
    "no status": ({"pid": 1}, [], "something that is no status"),
    "no base64": ({"pid": 1}, {"exited": True, "out-data": "%"}, "out-data that is not base64"),
    "a number for output": ({"pid": 1}, {"exited": True, "out-data": 1}, "out-data that is not base64"),
}


@pytest.mark.parametrize("lie", _LIES_OF_EXEC)
def test_a_lie_about_a_program(tmp_path: Path, lie: str) -> None:
    started, status, words = _LIES_OF_EXEC[lie]
    answers = {"guest-info": _EXEC, "guest-exec": started, "guest-exec-status": status}
    lies = peer(tmp_path, lambda each: returned(answers[each["execute"]]))
    with lies as path, GuestAgent(path) as guest, pytest.raises(ProtocolError, match=words):
        push.look(guest)


def test_a_program_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "RUN_TIMEOUT", 0.2)
    answers = {"guest-info": _EXEC, "guest-exec": {"pid": 1}, "guest-exec-status": {"exited": False}}
    lies = peer(tmp_path, lambda each: returned(answers[each["execute"]]))
    with lies as path, GuestAgent(path) as guest, pytest.raises(ChannelError, match="did not end"):
        push.look(guest)


# As RHEL and SELinux say it.
_REFUSALS = {
    "Command guest-exec has been disabled: the command is not allowed": "may not execute programs (Command guest-exec",
    "Failed to execute child process “/bin/sh” (Permission denied)": (
        "the guest does not let its guest agent execute programs (Failed to execute child process “/bin/sh” "
        "(Permission denied)), as SELinux does by default; put the agent into the image instead: `reconciler agent "
    ),
}


@pytest.mark.parametrize("text", _REFUSALS)
def test_a_guest_that_blocks_exec_says_which_way(tmp_path: Path, text: str) -> None:
    def answer(command: dict[str, Any]) -> bytes:
        return returned(_EXEC) if command["execute"] == "guest-info" else refused(text)

    with peer(tmp_path, answer) as path, GuestAgent(path) as guest, pytest.raises(HostError) as raised:
        push.look(guest)
    assert _REFUSALS[text] in str(raised.value)


def test_the_agent_fits_into_one_argument() -> None:
    """The unit has it as the value of a property, which systemd-run gets as one word."""
    assert len(push.source()) * 4 / 3 < push.MOST

"""Commands over a port: with the real runner on this host, and against guests that lie."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError
from reconciler.guest import agent, command, runner
from tests.examples import examples
from tests.guest.peer import frame, greet, peer, read_request, wait_for_end
from tests.machine import Ran, run_command

SERVE = (
    "import sys; from reconciler.guest import agent, runner; "
    "agent.serve(runner.Runner(agent.Port(lambda: int(sys.argv[1]))))"
)


@contextmanager
def serving() -> Iterator[str]:
    """Yield the path of a socket at whose other end a real runner serves one host."""

    def script(channel: socket.socket) -> None:
        channel.setblocking(False)
        arguments = [sys.executable, "-c", SERVE, str(channel.fileno())]
        with subprocess.Popen(arguments, pass_fds=[channel.fileno()]) as process:
            done.wait(300)
            process.kill()

    done = threading.Event()
    with peer(script) as path:
        try:
            yield path
        finally:
            done.set()


def run(*words: str, stdin: bytes = b"") -> Ran:
    with serving() as path:
        return run_command(path, list(words), stdin)


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_that_of_the_command(status: int) -> None:
    assert run("sh", "-c", f"exit {status}") == Ran(status, b"", b"")


def test_a_signal_is_a_status_as_in_a_shell() -> None:
    assert run("sh", "-c", "kill -9 $$") == Ran(137, b"", b"")


def test_streams_stay_apart() -> None:
    assert run("sh", "-c", "echo out; echo error >&2") == Ran(0, b"out\n", b"error\n")


def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder that this user cannot search would make it "Permission denied".
    monkeypatch.setenv("PATH", os.defpath)
    assert run("no-such-command", "x") == Ran(127, b"", b"no-such-command: No such file or directory\n")


def test_a_file_that_is_no_command() -> None:
    assert run("/etc/passwd") == Ran(126, b"", b"/etc/passwd: Permission denied\n")


def test_words_are_bytes_as_they_are() -> None:
    words = ["a b", "", "ü\n", "'", os.fsdecode(b"\xff")]
    assert run("printf", "%s|", *words).stdout == b"a b||\xc3\xbc\n|'|\xff|"


def test_a_large_input_comes_back() -> None:
    data = os.urandom(3 << 20)
    assert run("cat", stdin=data) == Ran(0, data, b"")


def test_input_that_holds_the_mark_comes_back() -> None:
    data = (agent.MAGIC + b"x") * 3 + agent.MAGIC[:-1] + agent.MAGIC * 2
    assert run("cat", stdin=data) == Ran(0, data, b"")


def test_input_that_nobody_reads_does_not_stop_it() -> None:
    assert run("sh", "-c", "exec <&-; sleep 0.2; echo done", stdin=b"x" * (2 << 20)) == Ran(0, b"done\n", b"")
    assert run("sh", "-c", "sleep 0.5; echo done", stdin=b"x" * (2 << 20)) == Ran(0, b"done\n", b"")


def test_both_outputs_at_once() -> None:
    script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"
    ran = run("sh", "-c", script)
    assert (ran.status, len(ran.stdout), len(ran.stderr)) == (0, 1_000_000, 1_000_000)


def test_what_it_leaves_running_does_not_hold_it() -> None:
    started = time.monotonic()
    assert run("sh", "-c", "sleep 60 & echo here") == Ran(0, b"here\n", b"")
    assert time.monotonic() - started < 30


def test_a_silent_command_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SILENCE", agent.TICK + 5)
    assert run("sleep", str(agent.TICK + 7)).status == 0


def test_a_sink_that_is_slow_loses_nothing() -> None:
    taken = bytearray()

    def sink(data: bytes) -> None:
        time.sleep(0.005)
        taken.extend(data)

    with serving() as path:
        assert command.run(path, ["head", "-c", "3000000", "/dev/zero"], None, sink, sink) == 0
    assert len(taken) == 3_000_000


def test_a_host_that_leaves_kills_its_command(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def leave(_: bytes) -> None:
        raise KeyboardInterrupt

    with serving() as path:
        with pytest.raises(KeyboardInterrupt):
            command.run(path, ["sh", "-c", f"echo $$ >{file}; echo; exec sleep 100"], None, leave, leave)
        pid = int(file.read_text())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _runs(pid):
            time.sleep(0.02)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_one_host_at_a_time() -> None:
    def sink(_: bytes) -> None:
        with pytest.raises(BusyError):
            command.run(path, ["true"], None, sink, sink)

    with serving() as path:
        assert command.run(path, ["echo"], None, sink, sink) == 0


@pytest.mark.parametrize("words", [[], ["a\0b"]])
def test_words_that_cannot_be_sent(words: list[str]) -> None:
    with pytest.raises(HostError):
        command.run("/nowhere", words, None, print, print)


def test_a_guest_that_is_silent_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SILENCE", 0.2)

    def script(channel: socket.socket) -> None:
        greet(channel)
        wait_for_end(channel)

    with peer(script) as path, pytest.raises(ChannelError):
        run_command(path, ["true"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (frame(2, runner.EXIT, b"\0" * 4), ProtocolError),
        (frame(1, runner.EXIT, b"\0" * 3), ProtocolError),
        (frame(1, runner.CREDIT), ProtocolError),
        (frame(1, 99), ProtocolError),
        (frame(1, agent.FAILED, b"\0\1no"), ChannelError),
        (b"", ChannelError),
    ],
)
def test_what_the_protocol_forbids_is_refused(answer: bytes, expected: type[Exception]) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        channel.sendall(answer)
        if answer:
            # What the host has yet to send is not to fail before it has read that.
            wait_for_end(channel)

    with peer(script) as path, pytest.raises(expected):
        run_command(path, ["true"])


def test_credit_does_not_grow_beyond_the_window() -> None:
    taken = 0

    def script(channel: socket.socket) -> None:
        nonlocal taken
        greet(channel)
        channel.sendall(frame(1, runner.CREDIT, runner.CREDIT_BODY.pack(0xFFFFFFFF)) * 100)
        channel.settimeout(2)
        with suppress(OSError):
            while data := channel.recv(65536):
                taken += len(data)
        channel.sendall(frame(1, runner.EXIT, runner.EXIT_BODY.pack(0)))

    with peer(script) as path:
        assert run_command(path, ["cat"], b"x" * (4 << 20)).status == 0
    assert runner.WINDOW <= taken < 3 * runner.WINDOW


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([0, 1]), st.sampled_from([*range(48, 53), 35, 99]), st.binary(max_size=8)).map(
                lambda each: frame(*each)
            ),
            st.binary(max_size=30),
        ),
        max_size=6,
    )
)
def test_any_answer_is_a_status_or_one_of_two_errors(answer: list[bytes]) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        channel.sendall(b"".join(answer))

    with peer(script) as path:
        try:
            status = run_command(path, ["true"]).status
        except (ProtocolError, ChannelError):
            return
    assert 0 <= status <= 255


def test_a_command_hears_of_a_broken_pipe() -> None:
    assert run("sh", "-c", "yes | head -n 1 >/dev/null; echo ok") == Ran(0, b"ok\n", b"")
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN

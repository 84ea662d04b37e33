"""Events in systemd's journal: a real journald takes them, and journalctl finds them by their fields."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.watch import journal, log
from reconciler.watch.state import SandboxState
from tests import packages
from tests.host import Host
from tests.watch.running import until

# What journald and journalctl are linked to, beside what every Debian has.
_PACKAGES = (
    *("systemd", "libsystemd-shared", "libip4tc2", "libseccomp2", "libkmod2", "libaudit1", "libcap-ng0", "libacl1"),
    *("libmount1", "libblkid1", "libpam0g", "liblz4-1", "libgcrypt20", "libgpg-error0", "libselinux1", "libpcre2-8-0"),
)
# What the journal itself means by these names; those that begin with `_` are its own, and no letter of ours.
_RESERVED = (
    r"MESSAGE|MESSAGE_ID|PRIORITY|CODE_\w+|ERRNO|INVOCATION_ID|USER_INVOCATION_ID|SYSLOG_\w+|DOCUMENTATION|TID|UNIT"
)

Output = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("restored_log")


@pytest.fixture
def taker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield a socket in place of the journal's, which standard error goes to by its own word."""
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(journal, "receives", lambda _: True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(journal.SOCKET)
        made.settimeout(60)
        yield made


def taken(taker: socket.socket) -> dict[str, str]:
    lines = taker.recv(1 << 20).decode().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def test_an_event_has_its_fields(taker: socket.socket, capsys: Output) -> None:
    log.configure("text")
    log.emit("repaired", level=logging.WARNING, sandbox="wéb", seconds=0.12345, first='ip route add "a"', pruned=False)
    assert taken(taker) == {
        "MESSAGE": r'repaired sandbox=wéb seconds=0.123 first="ip route add \"a\"" pruned=False',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "reconciler",
        "EVENT": "repaired",
        "SANDBOX": "wéb",
        "SECONDS": "0.123",
        "FIRST": 'ip route add "a"',
        "PRUNED": "False",
    }
    assert capsys.readouterr() == ("", "")


def test_json_is_the_message_as_before(taker: socket.socket) -> None:
    log.configure("json")
    log.emit("repaired", sandbox="web-1", operations=2)
    found = taken(taker)
    assert json.loads(found["MESSAGE"]).items() >= {"event": "repaired", "sandbox": "web-1", "operations": 2}.items()
    assert (found["SANDBOX"], found["OPERATIONS"]) == ("web-1", "2")


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.ERROR, "3"), (logging.WARNING, "4"), (logging.INFO, "6"), (log.OPERATION, "7")]
)
def test_priorities(level: int, priority: str, taker: socket.socket) -> None:
    log.configure("text")
    log.emit("alarm", level=level)
    assert taken(taker)["PRIORITY"] == priority


@pytest.mark.parametrize("form", log.FORMS)
def test_no_text_forges_a_field_or_is_obeyed(form: str, taker: socket.socket) -> None:
    log.configure(form)
    hostile = "a\nPRIORITY=0\nSANDBOX=b\x00\x1b[31m\u2028\udcff"
    log.emit("failed", sandbox=hostile, reason=hostile)
    logging.getLogger("reconciler.watch.folders").warning("%s", hostile)
    for event in ("failed", r"a\nPRIORITY=0\nSANDBOX=b\x00\x1b[31m\u2028\udcff"):
        found = taken(taker)
        assert found.keys() <= {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "EVENT", "SANDBOX", "REASON"}
        assert found["EVENT"] == event
        assert all(value.isprintable() for value in found.values())


def test_a_traceback_is_a_field(taker: socket.socket) -> None:
    log.configure("text")
    try:
        int("one")
    except ValueError:
        logging.getLogger("reconciler.watch.worker").exception("defect")
    found = taken(taker)
    assert (found["EVENT"], found["PRIORITY"]) == ("defect", "3")
    assert found["TRACEBACK"].endswith("ValueError: invalid literal for int() with base 10: 'one'")


@pytest.mark.parametrize(("form", "said"), [("text", "<3>alarm reason=b\n"), ("json", '<3>{"time": ')])
def test_without_the_socket_a_line_has_its_priority(form: str, said: str, taker: socket.socket, capsys: Output) -> None:
    log.configure(form)
    os.unlink(journal.SOCKET)
    log.emit("alarm", level=logging.ERROR, reason="b")
    assert capsys.readouterr().err.startswith(said)
    # The journal was started anew.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(journal.SOCKET)
        log.emit("alarm", level=logging.ERROR, reason="c")
        again.settimeout(60)
        assert taken(again)["REASON"] == "c"
    assert capsys.readouterr().err == ""


def test_an_event_that_is_too_large_is_a_line(taker: socket.socket, capsys: Output) -> None:
    log.configure("text")
    log.emit("failed", **dict.fromkeys((f"reason{number}" for number in range(100)), "x" * 4000))  # type: ignore[arg-type]
    assert capsys.readouterr().err.startswith("<6>failed reason0=xxx")


def test_standard_error_is_the_journal_only_if_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "b").open("w") as other:
        found = os.fstat(one.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert (journal.receives(one), journal.receives(other)) == (True, False)
        monkeypatch.setenv("JOURNAL_STREAM", "nonsense")
        assert not journal.receives(one)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not journal.receives(one)
        assert not journal.receives(None)
    assert not journal.receives(one)


def emitted() -> tuple[set[str], set[str]]:
    """Return the names of all events that the watcher logs, and of their fields, as its modules have them."""
    # The agent of a fleet runs in a watch with `--fleet`.
    folders = (Path("reconciler/watch"), Path("reconciler/fleet/agent"))
    trees = [ast.parse(file.read_text()) for folder in folders for file in folder.rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    # What passes the name of an event on is called with one as well.
    passes = {"emit", "exception"}
    for tree in trees:
        passes |= {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and _passes_event(each)}
    events, fields = set[str](), {"event", "traceback"}
    for call in calls:
        if _called(call) in passes:
            events |= {text for each in ast.walk(call.args[0]) if (text := _text(each))}
            fields |= {each.arg for each in call.keywords if each.arg} - {"level"}
    return events, fields


def _called(call: ast.Call) -> str:
    """Return the name of the function or method that is called."""
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _passes_event(function: ast.FunctionDef) -> bool:
    names = {each.arg for each in function.args.args}
    calls = [each for each in ast.walk(function) if isinstance(each, ast.Call) and each.args]
    return any(
        _called(each) == "emit" and isinstance(each.args[0], ast.Name) and each.args[0].id in names for each in calls
    )


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_page_about_the_watch_has_each_event() -> None:
    events, _ = emitted()
    # `state.value` of a failure, as `record.py` has it.
    events |= {each.value for each in (SandboxState.WAITING, SandboxState.REFUSED, SandboxState.FAILED)}
    page = Path("docs/watch.md").read_text()
    rows = page.partition("| log event | meaning |")[2].partition("\n\n")[0]
    named = {
        name for cell in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    }
    assert named == events


def test_no_field_is_one_that_the_journal_has_a_meaning_for() -> None:
    _, fields = emitted()
    assert len(fields) > 20
    for field in fields:
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,63}", field)
        assert not re.fullmatch(_RESERVED, field.upper())


_BEGIN = """\
test -s /etc/machine-id || echo 0123456789abcdef0123456789abcdef >/etc/machine-id
mkdir -p /run/systemd/journal /run/log/journal
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$1/lib/systemd/systemd-journald"
"""
# As a service manager runs it: its standard error is a stream of the journal. This systemd-cat does not say so.
_RUN = """\
root=$1
shift
exec "$root/usr/bin/systemd-cat" sh -c 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"' sh "$@"
"""


def test_journalctl_finds_the_events_of_a_watch(host: Host, tmp_path: Path) -> None:
    root = packages.unpacked("journal", _PACKAGES)
    folders = ("usr/lib/x86_64-linux-gnu/systemd", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "lib/systemd")
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(str(root / folder) for folder in folders)}

    def start(script: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(host._words(Path.cwd(), "sh", "-ec", script, "sh", str(root), *words), env=environment)

    def shown(*words: str) -> list[dict[str, str]]:
        command = host._words(Path.cwd(), str(root / "bin/journalctl"), "--output=json", "--all", *words)
        printed = subprocess.run(command, check=False, capture_output=True, text=True, env=environment).stdout
        return [json.loads(line) for line in printed.splitlines()]

    host.output("ip", "netns", "add", "journal")
    manifest = tmp_path / "web.yaml"
    manifest.write_text(
        "apiVersion: reconciler/v1\nsandbox: web\ndriver: {netns: {name: journal}}\n"
        "routes: [{dest: 198.51.100.0/24, type: blackhole}]\n"
    )
    journald = start(_BEGIN)
    try:
        until(lambda: shown("--lines=1"), "journald")
        watch = start(_RUN, sys.executable, "-m", "reconciler", "watch", "--log", "json", str(manifest))
        try:
            until(lambda: shown("EVENT=converged"), "the watch", more=lambda: str(shown("-n", "20")))
            host.output("ip", "-n", "journal", "route", "del", "blackhole", "198.51.100.0/24")
            until(lambda: shown("SANDBOX=web", "EVENT=repaired"), "the repair")
        finally:
            watch.terminate()
            watch.wait(60)
        # The journal may not have written yet what it was sent.
        operations = ("SANDBOX=web", "EVENT=operation")
        until(lambda: len(shown(*operations)) == 2, "the operations", more=lambda: str(shown("-n", "20")))
        (repaired,) = shown("SANDBOX=web", "EVENT=repaired")
        assert repaired["_TRANSPORT"] == "journal"
        assert (repaired["PRIORITY"], repaired["SYSLOG_IDENTIFIER"], repaired["CAUSE"]) == ("6", "reconciler", "drift")
        assert json.loads(repaired["MESSAGE"])["event"] == "repaired"
        # The operations are below what is usually read.
        commands = [each["COMMAND"] for each in shown(*operations)]
        assert commands == ["ip route add blackhole 198.51.100.0/24 proto 200"] * 2
        assert not [each for each in shown("--priority=info", "SANDBOX=web") if each["EVENT"] == "operation"]
    finally:
        journald.terminate()
        journald.wait(60)
        host.output("ip", "netns", "del", "journal")

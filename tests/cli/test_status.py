"""`status` prints what a watcher says, over its real socket, and tells by its exit code whether all is well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import yaml

from reconciler.cli import overview
from reconciler.cli.main import main
from reconciler.cli.terminal import width
from reconciler.watch import client, report
from reconciler.watch.report import StatusSocket
from reconciler.watch.state import SandboxState
from reconciler.wording import select
from tests.terminal import DEADLINE, Terminal
from tests.watch.clock import Clock
from tests.watch.running import until

NOW = 1_700_000_000.0

Say = Callable[..., None]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Run a watcher that says these sandboxes, alarms and problems; its clock stands still."""
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    monkeypatch.setattr(report, "time", Clock(NOW))
    said: dict[str, Any] = {}

    def answer(named: Sequence[str]) -> dict[str, Any]:
        sandboxes = [each for each in said["sandboxes"] if not named or select(named, [each["sandbox"]])]
        return {**said, "sandboxes": sandboxes}

    server = StatusSocket(answer)

    def change(*sandboxes: dict[str, Any], alarms: list[str] | None = None, problems: list[str] | None = None) -> None:
        said.update(alarms=alarms or [], problems=problems or [], polling="", sandboxes=list(sandboxes))

    yield change
    server.close()


def sandbox(**fields: object) -> dict[str, Any]:
    return {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "revision": "abc1234",
        "blob": "",
        "state": "converged",
        "fresh": True,
        "since": NOW - 100,
        "looked": NOW - 3,
        "full_looked": NOW - 300,
        "took": 0.004,
        "lent": 0.0,
        "drift_1h": 0,
        "drifted": 0.0,
        "repairs": 0,
        "fights": [],
        "detail": "",
        **fields,
    }


def status(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["status", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_line_a_sandbox(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    say(
        sandbox(),
        sandbox(sandbox="a-long-name", driver="vm a", state="failed", drift_1h=12, revision="", detail="gone\n\x1b[1m"),
        sandbox(sandbox="new", state="new", fresh=False, looked=0.0),
        sandbox(sandbox="stale", fresh=False, looked=NOW - 900),
    )
    assert status(capsys) == (
        1,
        (
            "SANDBOX      DRIVER       STATE       LOOKED      DRIFT 1 h  REVISION  DETAIL\n"
            "web-1        netns web-1  converged   3 s ago     0          abc1234\n"
            "a-long-name  vm a         failed      3 s ago     12         -         gone\\n\\x1b[1m\n"
            "new          netns web-1  new         -           -          abc1234\n"
            "stale        netns web-1  converged?  15 min ago  0          abc1234\n"
        ),
        "",
    )


def test_without_a_sandbox_there_is_the_head(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    say()
    assert status(capsys) == (0, "SANDBOX  DRIVER  STATE  LOOKED  DRIFT 1 h  REVISION  DETAIL\n", "")


def test_alarms_and_problems_are_told_apart_from_the_table(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    say(sandbox(), alarms=["m is gone\x1b[1m"], problems=["a.yaml:1:1: bad", "b.yaml: No such file or directory"])
    code, out, err = status(capsys)
    assert (code, len(out.splitlines())) == (1, 2)
    assert err == "m is gone\\x1b[1m\na.yaml:1:1: bad\nb.yaml: No such file or directory\n"


def test_json_is_what_the_watcher_says(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    say(sandbox(detail="é"), alarms=["one"])
    code, out, err = status(capsys, "-o", "json")
    assert (code, err) == (1, "")
    assert json.loads(out) == {
        "alarms": ["one"],
        "problems": [],
        "polling": "",
        "sandboxes": [sandbox(detail="é")],
    }


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("state", SandboxState)
@pytest.mark.parametrize("fresh", [True, False])
def test_the_exit_code_is_that_of_the_worst(
    state: SandboxState, fresh: bool, form: str, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    say(sandbox(), sandbox(sandbox="web-2", state=state.value, fresh=fresh), sandbox(sandbox="web-3"))
    good = fresh and state in {SandboxState.CONVERGED, SandboxState.DRAINING, SandboxState.PAUSED}
    assert status(capsys, "-o", form)[0] == (0 if good else 1)


@pytest.mark.parametrize("wrong", [{"alarms": ["one"]}, {"problems": ["one"]}])
def test_what_is_wrong_with_the_whole_counts_as_well(
    wrong: dict[str, list[str]], say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    say(sandbox(), **wrong)
    assert status(capsys)[0] == 1


def test_without_a_watcher_it_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    words = "reconciler: no watcher runs on this host; `reconciler watch PATH…` starts one\n"
    assert status(capsys) == (2, "", words)
    assert status(capsys, "-o", "json") == (2, "", words)


@pytest.mark.parametrize("words", [["-o", "shell"], ["--all"]])
def test_what_it_does_not_take(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["status", *words])
    assert raised.value.code == 2
    assert words[-1] in capsys.readouterr().err


IPVS = {
    "read": NOW - 2,
    "services": [
        {
            "service": "tcp 172.17.0.7:80",
            "active": 3,
            "inactive": 1,
            "servers": [
                {"server": "172.17.0.4:80", "weight": 100, "active": 3, "inactive": 1},
                {"server": "[2001:db8::1]:80", "weight": 1, "active": None, "inactive": None},
            ],
        }
    ],
    "draining": [
        {"service": "tcp 172.17.0.7:80", "server": "172.17.0.9:80", "connections": 1, "deadline": NOW + 42},
    ],
}


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        still = SimpleNamespace(time=lambda: NOW, strftime=time.strftime, localtime=time.localtime)
        patch.setattr(overview, "time", still)
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_all_about_one(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    fights = ["ip route add default", "ip address add 10.0.0.2/16 dev eth0"]
    say(
        sandbox(
            state="fighting",
            blob="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
            lent=NOW - 12,
            drift_1h=7,
            drifted=NOW - 60,
            repairs=1,
            fights=fights,
            detail="another program reverts",
            ipvs=IPVS,
        ),
        sandbox(sandbox="db-1", ipvs=None),
    )
    assert status(capsys, "web-*") == (
        1,
        """\
web-1
  driver     netns web-1
  state      fighting since 2023-11-14 22:11:40, 100 s ago
  detail     another program reverts
  lent       lent to another command, which began 12 s ago; nothing is looked at meanwhile
  manifest   web-1.yaml
  revision   abc1234, text e69de29bb2d1
  last look  2023-11-14 22:13:17, 3 s ago, it took 0.004 s
  full look  2023-11-14 22:08:20, 5 min ago
  drift      7 in the last hour, the last 2023-11-14 22:12:20, 60 s ago; 1 operation repaired since the watcher started
  fights     ip route add default; ip address add 10.0.0.2/16 dev eth0
  draining   172.17.0.9:80 of tcp 172.17.0.7:80: 1 connection left, deleted in 42 s at the latest (22:14:02)
  IPVS       3 active and 1 inactive connection of 1 service, read 2 s ago
SERVICE, SERVER     WEIGHT  ACTIVE  INACTIVE
tcp 172.17.0.7:80           3       1
  172.17.0.4:80     100     3       1
  [2001:db8::1]:80  1       -       -
""",
        "",
    )


def test_several_are_named_and_each_is_there_once(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    say(*(sandbox(sandbox=each, ipvs=None) for each in ("db-1", "web-1", "web-2")), alarms=["an alarm of the host"])
    code, out, err = status(capsys, "web-2", "web-*", "db-?")
    # An alarm is shown, but the exit code is that of the sandboxes that are asked for.
    assert (code, err) == (0, "an alarm of the host\n")
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == ["db-1", "web-1", "web-2"]
    assert [each["sandbox"] for each in json.loads(status(capsys, "db-*", "-o", "json")[1])["sandboxes"]] == ["db-1"]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["web1"], 'no sandbox "web1"; did you mean "web-1"?'),
        (["web-1", "x*"], 'no sandbox "x*"; expected one of: db-1, web-1'),
        (["WEB-1"], 'no sandbox "WEB-1"; did you mean "web-1"?'),
        (["--watch", "web1"], 'no sandbox "web1"; did you mean "web-1"?'),
        (["--state", "failed", "web1"], 'no sandbox "web1"; did you mean "web-1"?'),
        ([""], 'no sandbox ""; expected one of: db-1, web-1'),
    ],
)
def test_an_unknown_id(say: Say, capsys: pytest.CaptureFixture[str], words: list[str], wrong: str) -> None:
    say(sandbox(sandbox="db-1", ipvs=None), sandbox(ipvs=None))
    for form in ("text", "json"):
        expected = (2, "", f"reconciler: the watcher of this host watches {wrong}\n")
        assert status(capsys, "-o", form, *words) == expected
    say()
    assert status(capsys, *words)[2].endswith("; it watches none at present\n")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("failed", (1, ["f"])),
        ("failed,drifted", (1, ["d", "f"])),
        ("converged", (1, ["c", "s"])),
        ("paused,draining", (0, ["p"])),
        ("bad", (1, ["d", "f", "s"])),
        ("bad,paused", (1, ["d", "f", "p", "s"])),
        ("new", (0, [])),
    ],
)
def test_states(say: Say, capsys: pytest.CaptureFixture[str], states: str, expected: tuple[int, list[str]]) -> None:
    found = {"c": "converged", "d": "drifted", "f": "failed", "p": "paused", "s": "converged"}
    say(*(sandbox(sandbox=name, state=each, fresh=name != "s", ipvs=None) for name, each in found.items()))
    for words in (["--state", states], [f"--state={states}", "*"]):
        code, out, _ = status(capsys, *words, "-o", "yaml")
        assert (code, [each["sandbox"] for each in yaml.safe_load(out)["sandboxes"]]) == expected
    _, *lines = status(capsys, "--state", states)[1].splitlines()
    assert [line.split()[0] for line in lines] == expected[1]


FAKE = """
import sys
from reconciler.cli.main import entry
from reconciler.watch import client
client.SOCKET = sys.argv.pop(1)
entry()
"""


@contextmanager
def on_a_terminal(columns: int, *words: str, **environment: str) -> Iterator[Terminal]:
    command = [sys.executable, "-c", FAKE, client.SOCKET, "status", *words]
    found = Terminal(command, columns, environment)
    try:
        yield found
    finally:
        found.close()


HOSTILE = ["web-1", "中文-тест", "שלום", "e\u0301e\u0301", "a\u202eb", "😀", "·…"]


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}, {"TERM": "dumb"}], ids=str)
@pytest.mark.parametrize("columns", [40, 80, 160])
def test_any_terminal(say: Say, columns: int, environment: dict[str, str]) -> None:
    """Columns are aligned whatever is in them, no line is longer than the terminal, and nothing is left out."""
    details = ["", "a" * 100, "中文" * 40, "netns x does not exist", "", "", "-"]
    say(*(sandbox(sandbox=f"web-{n}", driver=name, detail=details[n]) for n, name in enumerate(HOSTILE)))
    with on_a_terminal(columns, **environment) as terminal:
        code, data = terminal.finish()
    text = data.decode()
    lines = text.replace("\r\n", "\n").splitlines()
    assert code == 0
    assert max(map(width, lines)) <= columns
    assert text.isascii() == bool(environment)
    for number, detail in enumerate(details):
        assert f"web-{number}" in text
        if detail.isascii():
            assert detail in text.replace("\r\n", "").replace("    ", "")
    if columns == 160:
        at = {width(line[: line.index("converged")]) for line in lines if "converged" in line}
        assert len(at) == 1


ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"


def test_the_screen_of_a_terminal_follows(say: Say) -> None:
    say(sandbox(), *(sandbox(sandbox=f"web-{number}") for number in range(2, 60)))
    with on_a_terminal(160, "--watch") as terminal:
        # 24 rows.
        assert terminal.read(b"more lines").startswith(ENTER)
        say(sandbox(state="failed", detail="gone\x1b[2J"), alarms=["an alarm"])
        begin = time.monotonic()
        terminal.read(b"an alarm")
        assert time.monotonic() - begin < DEADLINE
        if b"gone\\x1b[2J" not in terminal.shown:
            terminal.read(b"gone\\x1b[2J")
        terminal.resize(40)
        terminal.read(b"    gone")
        frame = terminal.shown.decode().rpartition("\x1b[H")[2].replace("\x1b[K", "").replace("\x1b[J", "")
        assert max(map(width, frame.splitlines())) <= 40
        terminal.type("\x03")
        code, shown = terminal.finish()
    assert (code, shown.endswith(LEAVE), shown.count(ENTER), shown.count(LEAVE)) == (1, True, 1, 1)
    assert b"Traceback" not in shown
    assert b"interrupted" not in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_screen_is_left_as_it_was(say: Say, number: int) -> None:
    say(sandbox())
    with on_a_terminal(80, "--watch") as terminal:
        terminal.read(b"converged")
        (child,) = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
        os.kill(int(child), number)
        assert terminal.finish()[0] == 0
        assert terminal.shown.endswith(LEAVE)


def test_who_stops_it_gets_the_terminal_back_until_it_goes_on(say: Say) -> None:
    say(sandbox())
    with on_a_terminal(80, "--watch") as terminal:
        terminal.read(b"converged")
        (child,) = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTSTP)
        assert terminal.read(LEAVE).endswith(LEAVE)
        until(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0] == "T", "it stops")
        os.kill(int(child), signal.SIGCONT)
        assert terminal.read(b"converged").startswith(ENTER)
        terminal.type("\x03")
        assert terminal.finish()[0] == 0


def test_a_pipe_gets_what_changes(say: Say) -> None:
    say(sandbox(ipvs=None), sandbox(sandbox="web-2"), sandbox(sandbox="web-3"))
    with follow("--watch") as (process, out):
        assert [out.readline().split()[1:] for _ in range(3)] == [[f"web-{each}", "converged"] for each in (1, 2, 3)]
        # What changes with each look is no news.
        say(sandbox(looked=NOW, took=1.0), sandbox(sandbox="web-2", state="failed", detail="gone\n\x1b[1m"))
        assert [out.readline().split(maxsplit=1)[1] for _ in range(2)] == [
            "web-2 failed: gone\\n\\x1b[1m\n",
            "web-3 gone\n",
        ]
        say(sandbox(fresh=False), sandbox(sandbox="web-2", state="failed", detail="gone\n\x1b[1m"))
        assert out.readline().split()[1:] == ["web-1", "converged?"]
        process.send_signal(signal.SIGINT)
        assert (process.wait(DEADLINE), out.read()) == (1, "")


def test_a_program_gets_a_line_of_json_for_each_change(say: Say) -> None:
    say(sandbox(), sandbox(sandbox="web-2"))
    with follow("--watch", "-o", "json", "--state", "failed,drifted") as (process, out):
        say(sandbox(state="failed"), sandbox(sandbox="web-2"), alarms=["one"])
        changes = [json.loads(out.readline()) for _ in range(2)]
        assert changes == [{"alarms": ["one"], "problems": []}, sandbox(state="failed")]
        # It has left the states that are asked for: that is news, and what comes later is none.
        say(sandbox(), sandbox(sandbox="web-2"), alarms=["one"])
        assert json.loads(out.readline()) == sandbox()
        say(sandbox(detail="new"), sandbox(sandbox="web-2", state="drifted"), alarms=["one"])
        assert json.loads(out.readline()) == sandbox(sandbox="web-2", state="drifted")
        process.terminate()
        process.wait(DEADLINE)


def test_a_watcher_that_is_restarted_is_an_alarm_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    calm: dict[str, Any] = {"alarms": [], "problems": []}
    first = StatusSocket(lambda _: {**calm, "sandboxes": [sandbox()]})
    with follow("--watch", "-o", "json") as (process, out):
        assert json.loads(out.readline()) == sandbox()
        first.close()
        (alarm,) = json.loads(out.readline())["alarms"]
        assert alarm.startswith("no watcher runs on this host")
        second = StatusSocket(lambda _: {**calm, "sandboxes": [sandbox(state="new")]})
        assert [json.loads(out.readline()) for _ in range(2)] == [calm, sandbox(state="new")]
        second.close()
        process.terminate()
        process.wait(DEADLINE)


@contextmanager
def follow(*words: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run `status` with a pipe as its output."""
    command = [sys.executable, "-c", FAKE, client.SOCKET, "status", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

"""`history` prints records as rows and as data, and follows what is added."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.history import folder as files
from reconciler.history.lines import WATCHER, line, timestamp
from reconciler.history.scribe import Occasion, Scribe
from reconciler.history.writer import Writer
from reconciler.model.route import Route
from reconciler.operations.route import AddRoute
from tests.terminal import Terminal

Output = pytest.CaptureFixture[str]
HAND = {"command": "apply", "uid": 0, "user": "root", "login": "mira", "terminal": "pts/3"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(files, "FOLDER", str(tmp_path / "state/history"))
    return tmp_path / "state/history"


def scribe(sandbox: str, cause: str, **more: str) -> Scribe:
    by = HAND if cause == "by hand" else {"command": "watch"}
    return Scribe(Writer(), sandbox, f"netns {sandbox}", lambda: Occasion(cause, by, **more))


def change(which: Scribe, count: int) -> None:
    with which.change([AddRoute(route=Route(dest=f"10.{each}.0.0/16", type="blackhole")) for each in range(count)]):
        pass


def history(capsys: Output, *words: str) -> tuple[int, list[str], str]:
    code = main(["history", *words])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def without_times(lines: list[str]) -> list[str]:
    """Return lines without times, and without how long it took."""
    return [without_seconds(each[27:]) if each[:4].isdigit() else each for each in lines]


def without_seconds(line: str) -> str:
    return re.sub(r" in \d\.\d s\b", " in 0.0 s", line)


@pytest.fixture
def story() -> None:
    Writer().write(WATCHER, line(WATCHER, "watching", sandboxes=2, by={"command": "watch"}))
    change(scribe("web-1", "by hand", file="/a.yaml", revision="3f9c2ab"), 1)
    change(scribe("web-1", "drift", file="/a.yaml"), 8)
    change(scribe("db-1", "manifest", file="/b.yaml", blob="0123456789"), 1)
    scribe("db-1", "drift").tell("failed", reason="a\x1b[31m\u202e\nname\udcff")


@pytest.mark.usefixtures("story")
def test_rows(capsys: Output) -> None:
    code, lines, err = history(capsys)
    assert (code, err) == (0, "")
    assert without_times(lines) == [
        "-      watch                                         watching, sandboxes: 2",
        "web-1  by hand: mira (pts/3, apply) /a.yaml 3f9c2ab  verified, 1 operation in 0.0 s",
        "  + ip route add blackhole 10.0.0.0/16 proto 200",
        "web-1  drift, made by: unknown                       verified, 8 operations in 0.0 s",
        *(f"  + ip route add blackhole 10.{each}.0.0/16 proto 200" for each in range(6)),
        "  + … 2 more; -o json has 8",
        "db-1   manifest /b.yaml 0123456                      verified, 1 operation in 0.0 s",
        "  + ip route add blackhole 10.0.0.0/16 proto 200",
        r"db-1   watch                                         failed: a\x1b[31m\u202e\nname\udcff",
    ]
    assert all(each[10] == "T" and each[19] in "+-" for each in lines if each[:4].isdigit())


@pytest.mark.usefixtures("story")
def test_filters(capsys: Output) -> None:
    assert len(history(capsys, "-n", "2", "-o", "json")[1]) > 2

    def found(*words: str) -> list[tuple[str, str]]:
        code, lines, _ = history(capsys, *words, "-o", "json")
        assert code == 0
        return [(each["sandbox"], each["event"]) for each in json.loads("\n".join(lines))["records"]]

    assert found("-n", "2") == [("db-1", "change"), ("db-1", "failed")]
    assert found("-n", "0") == []
    assert found("web-1") == found("w*") == found("[v-x]??-1") == [("web-1", "change")] * 2
    assert found("web-1", "db-1") == found("*-1") == found()[1:]
    assert found("--since", "1h") == found("--since", "2020-01-01") == found("--since", timestamp(0)) == found()
    assert found("--since", timestamp(time.time() + 60)) == []
    assert found("x*") == []


@pytest.mark.usefixtures("story")
def test_what_is_wrong_is_said(capsys: Output) -> None:
    assert history(capsys, "web-2")[2].splitlines()[0] == (
        'reconciler: nothing is recorded about a sandbox "web-2"; did you mean "web-1"?'
    )
    assert history(capsys, "x*")[2] == "nothing is recorded\n"
    assert history(capsys, "../x")[0] == 2
    assert history(capsys, "--follow", "-o", "yaml")[0] == 2
    for words in (["--since", "1y"], ["-n", "-1"], ["--since", "2026-13-01"]):
        with pytest.raises(SystemExit) as raised:
            main(["history", *words])
        assert raised.value.code == 2
    capsys.readouterr()


def test_nothing_is_recorded(capsys: Output) -> None:
    assert history(capsys) == (0, [], "nothing is recorded\n")
    assert history(capsys, "a")[0] == 2


@pytest.fixture
def following(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = (
        "import sys\nfrom reconciler.history import folder as files\n"
        "files.STATE, files.FOLDER = sys.argv[1], sys.argv[1] + '/history'\n"
        "sys.argv[1:] = ['history', '--follow', '-o', 'json', '-n', '1']\n"
        "from reconciler.cli.main import entry\nentry()"
    )
    change(scribe("a", "drift"), 1)
    change(scribe("a", "drift"), 2)
    words = [sys.executable, "-c", code, str(folder.parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_following_ends_quietly(following: subprocess.Popen[bytes]) -> None:
    assert following.stdout
    assert following.stderr
    assert json.loads(following.stdout.readline())["count"] == 2
    change(scribe("b", "drift"), 3)
    assert json.loads(following.stdout.readline())["count"] == 3
    following.send_signal(signal.SIGINT)
    assert (following.wait(60), following.stderr.read()) == (130, b"")


def test_following_ends_with_its_reader(following: subprocess.Popen[bytes]) -> None:
    assert following.stdout
    assert following.stderr
    following.stdout.readline()
    following.stdout.close()
    assert (following.wait(60), following.stderr.read()) == (0, b"")


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "LC_ALL": "C"}], ids=["unicode", "ascii"])
def test_a_narrow_terminal(folder: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys\nfrom reconciler.history import folder as files\n"
        "files.STATE, files.FOLDER = sys.argv[1], sys.argv[1] + '/history'\n"
        "sys.argv[1:] = ['history']\nfrom reconciler.cli.main import entry\nentry()"
    )
    terminal = Terminal([sys.executable, "-c", code, str(folder.parent)], 40, environment)
    try:
        code_, data = terminal.finish()
    finally:
        terminal.close()
    lines = [without_seconds(each) for each in data.decode().replace("\r\n", "\n").splitlines()]
    assert code_ == 0
    assert max(map(len, lines)) <= 40
    at = next(number for number, each in enumerate(lines) if each.endswith(" web-1"))
    assert lines[at + 1 : at + 6] == [
        "  by hand: mira (pts/3, apply) /a.yaml",
        "    3f9c2ab",
        "  verified, 1 operation in 0.0 s",
        "  + ip route add blackhole 10.0.0.0/16",
        "      proto 200",
    ]
    assert f"  + {'...' if 'LC_ALL' in environment else '…'} 2 more; -o json has 8" in lines

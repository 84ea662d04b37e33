"""`pause` leaves a file that a watcher heeds, and takes it away again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import pause as pause_command
from reconciler.cli import resume
from reconciler.cli.main import main
from reconciler.watch import client, pause
from reconciler.watch.pause import Pause
from reconciler.watch.report import StatusSocket
from reconciler.wording import printable

NOW = 4_000_000_000.0
NOBODY = (
    "web-1: no watcher runs on this host; `reconciler watch PATH…` starts one; it will obey the pause if it watches "
    "this sandbox\n"
)

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pause, "FOLDER", str(tmp_path / "paused"))
    return tmp_path / "paused"


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The sandboxes of a watcher, with their states; it runs once a test asks for `watcher`."""
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    monkeypatch.setattr(pause_command, "PATIENCE", 0.5)
    monkeypatch.setattr(resume, "PATIENCE", 0.5)
    return {}


@pytest.fixture
def watcher(known: dict[str, str]) -> Iterator[None]:
    """Answer as a watcher does that pauses what has a pause; a sandbox in another state than converged stays in it."""

    def describe(name: str, state: str) -> dict[str, Any]:
        if state == "converged" and pause.read(name):
            state = "paused"
        return {"sandbox": name, "state": state, "detail": f"why {state}", "file": f"{name}.yaml", "fresh": True}

    server = StatusSocket(lambda _: {"sandboxes": [describe(*each) for each in known.items()]})
    yield
    server.close()


def run(capsys: Output, *words: str) -> tuple[int, str, str]:
    code = main(["pause", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15min", 900), ("1h", 3600), ("2d", 172800)])
def test_for_a_while(text: str, seconds: float, capsys: Output) -> None:
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW + seconds))
    assert run(capsys, "web-1", "--for", text) == (0, f"web-1: paused until {until}\n", NOBODY)
    assert pause.read("web-1") == Pause(NOW + seconds, "paused by hand")


def test_for_a_reason_and_anew(capsys: Output) -> None:
    assert run(capsys, "web-1", "--for", "1h", "--reason", "a migration")[0] == 0
    assert pause.read("web-1") == Pause(NOW + 3600, "a migration")
    assert run(capsys, "web-1", "--for", "1s")[0] == 0
    assert pause.read("web-1") == Pause(NOW + 1, "paused by hand")


def test_the_end_comes_once(capsys: Output, folder: Path) -> None:
    run(capsys, "web-1", "--for", "1h")
    run(capsys, "web-2", "--for", "1h")
    assert run(capsys, "web-1", "--end") == (0, "web-1: no longer paused\n", "")
    assert run(capsys, "web-1", "--end") == (0, "web-1: was not paused\n", "")
    assert os.listdir(folder) == ["web-2"]


@pytest.mark.usefixtures("watcher")
def test_it_returns_once_the_watcher_obeys(capsys: Output, known: dict[str, str]) -> None:
    known["web-1"] = "converged"
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW + 3600))
    assert run(capsys, "web-1", "--for", "1h") == (0, f"web-1: paused until {until}\n", "")
    assert main(["resume", "web-1"]) == 0
    assert main(["resume", "web-1"]) == 0
    assert capsys.readouterr() == ("web-1: no longer paused\nweb-1: was not paused\n", "")
    # The manifest says paused as well.
    known["web-1"] = "paused"
    assert run(capsys, "web-1", "--for", "1h")[0] == 0
    assert main(["resume", "web-1"]) == 0
    words = "web-1: no longer paused by command; still paused: why paused (web-1.yaml)\n"
    assert capsys.readouterr() == (words, "")


@pytest.mark.usefixtures("watcher")
def test_a_watcher_that_does_not_obey_is_an_error_and_the_pause_stays(capsys: Output, known: dict[str, str]) -> None:
    known["web-1"] = "failed"
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW + 3600))
    said = (
        f"reconciler: web-1: paused until {until}, but the watcher does not say yet that it leaves the sandbox alone "
        "(failed: why failed). `reconciler status` shows when it does\n"
    )
    assert run(capsys, "web-1", "--for", "1h") == (2, "", said)
    assert pause.read("web-1")


@pytest.mark.usefixtures("watcher")
@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_sandbox_is_an_error(command: str, capsys: Output, folder: Path, known: dict[str, str]) -> None:
    how = ["--for", "1h"] if command == "pause" else []
    known.update({"web-1": "converged", "db": "converged"})
    unknown = 'reconciler: the watcher of this host watches no sandbox "wbe-1"; did you mean "web-1"?\n'
    assert main([command, "wbe-1", *how]) == 2
    assert capsys.readouterr() == ("", unknown)
    known.clear()
    assert main([command, "wbe-1", *how]) == 2
    none = 'reconciler: the watcher of this host watches no sandbox "wbe-1"; it watches none at present\n'
    assert capsys.readouterr() == ("", none)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd", "-x", ".a", "a b", "a\n", "a" * 65])
@pytest.mark.parametrize("how", [["--for", "1h"], ["--end"]])
def test_what_is_no_id_is_refused(name: str, how: list[str], capsys: Output, folder: Path) -> None:
    assert run(capsys, *how, "--", name) == (2, "", f'reconciler: "{printable(name)}" is not a valid sandbox ID\n')
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "1", "0s", "1m", "-1s", "forever"])
def test_what_is_no_time_is_refused(text: str, capsys: Output, folder: Path) -> None:
    words = f'reconciler: --for: "{text}" is not a time such as 90s, 15min, 1h or 2d\n'
    assert run(capsys, "web-1", f"--for={text}") == (2, "", words)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "ID"),
        (["web-1"], "one of the arguments --for --end is required"),
        (["web-1", "--for", "1h", "--end"], "argument --end: not allowed with argument --for"),
        (["--end"], "ID"),
        (["web-1", "web-2", "--end"], "unexpected word: web-2"),
    ],
)
def test_one_sandbox_and_one_of_for_and_end(words: list[str], said: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["pause", *words])
    assert raised.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


def test_a_folder_that_cannot_be_written_is_an_error(
    capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(pause, "FOLDER", str(tmp_path / "file/paused"))
    code, out, err = run(capsys, "web-1", "--for", "1h")
    assert (code, out) == (2, "")
    assert err == f"reconciler: {tmp_path}/file/paused is not a folder, but a file or a link; remove it\n"

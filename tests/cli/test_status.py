"""`status` prints what a watcher says, over its real socket, and tells by its exit code whether all is well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.watch import client, report
from reconciler.watch.report import StatusSocket
from reconciler.watch.state import SandboxState
from tests.watch.clock import Clock

NOW = 1_700_000_000.0

Say = Callable[..., None]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Run a watcher that says these sandboxes, alarms and problems; its clock stands still."""
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "watch.sock"))
    monkeypatch.setattr(report, "time", Clock(NOW))
    said: dict[str, Any] = {}
    server = StatusSocket(lambda: said)

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
        "state": "converged",
        "fresh": True,
        "since": NOW - 100,
        "looked": NOW - 3,
        "drift_1h": 0,
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

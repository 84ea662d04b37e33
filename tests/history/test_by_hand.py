"""What people do is recorded, in a real namespace: by whom, by which manifest, and what became of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.history import folder as files
from reconciler.history.lines import timestamp
from reconciler.history.reader import read
from reconciler.history.record import Record
from reconciler.manifest.dump import dump
from reconciler.watch import client, pause
from tests.conftest import Kernel, ip

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com")
Output = pytest.CaptureFixture[str]
Write = Callable[..., None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(files, "FOLDER", str(tmp_path / "state/history"))
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "socket"))
    monkeypatch.chdir(tmp_path)
    for name in ("SUDO_UID", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "state/history"


@pytest.fixture
def name(kernel: Kernel) -> str:
    found = kernel.namespace()
    ip("link", "set", "lo", "up", namespace=found)
    return found


@pytest.fixture
def write(name: str) -> Write:
    def written(*numbers: int, sandbox: str = name, file: str = "a.yaml", **more: Any) -> None:
        routes = [{"dest": f"10.{each}.0.0/16", "type": "blackhole"} for each in numbers]
        head = {"apiVersion": "reconciler/v1", "sandbox": sandbox, "driver": {"netns": {"name": sandbox}}}
        Path(file).write_text(dump([head | {"routes": routes} | more]))

    return written


def git(*words: str) -> str:
    return subprocess.run([*GIT, *words], check=True, capture_output=True, text=True).stdout.strip()


def commands(record: Record) -> list[str]:
    return [each.command for each in record.steps]


def test_an_apply_with_its_revision_and_user(name: str, write: Write, tmp_path: Path) -> None:
    write(1)
    git("init", "-q")
    git("add", "a.yaml")
    git("commit", "-qm", "one")
    assert main(["apply", "a.yaml"]) == 0
    assert main(["apply", "a.yaml"]) == 0
    change, in_force = read([name])
    assert commands(change) == ["ip route add blackhole 10.1.0.0/16 proto 200"]
    assert (change.cause, change.result, change.driver) == ("by hand", "verified", f"netns {name}")
    assert (change.by["command"], change.by["uid"], change.by["user"]) == ("apply", 0, "root")
    assert (change.file, change.revision) == (str(tmp_path / "a.yaml"), git("rev-parse", "--short", "HEAD"))
    assert change.blob == git("hash-object", "a.yaml")
    assert (in_force.event, in_force.blob, in_force.more["manifest"]["sandbox"]) == ("in force", change.blob, name)
    write(1, 2)
    assert main(["apply", "a.yaml"]) == 0
    assert read([name])[2].revision == f"{change.revision}-dirty"


def test_what_fails_and_what_is_refused(name: str, write: Write, capsys: Output) -> None:
    routes = [
        {"dest": "10.1.0.0/16", "type": "blackhole"},
        {"dest": "10.2.0.0/16", "device": "lo", "source": "198.51.100.7"},
    ]
    write(routes=routes)
    assert main(["apply", "a.yaml"]) == 2
    partly = read([name])[-1]
    assert (partly.event, partly.result) == ("change", "partly")
    assert {each.fate for each in partly.steps} == {"failed", "kept"}
    assert "Invalid argument" in partly.reason
    assert main(["apply", "--all-or-nothing", "a.yaml"]) == 2
    assert read([name])[-1].result == "undone"
    write(*range(1, 31))
    assert main(["apply", "a.yaml"]) == 0
    write(1)
    assert main(["apply", "a.yaml"]) == 3
    refused = read([name])[-1]
    assert (refused.event, refused.cause) == ("refused", "by hand")
    assert "29 of 30" in refused.reason
    # A sandbox that does not exist, or that another run has, is no failure of a change.
    count = len(read())
    write(1, sandbox="no-such-one", file="b.yaml")
    assert main(["apply", "b.yaml"]) == 2
    assert len(read()) == count


def test_single_routes_and_pauses(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    write()
    monkeypatch.setattr(pause, "FOLDER", str(tmp_path / "paused"))
    route = {"dest": "10.5.0.0/16", "gateway": "", "device": "lo"}
    for action in ("add-route", "del-route"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(route).encode())))
        assert main(["kata-network", action, name, "--manifests", "a.yaml"]) == 0
    added, deleted = read([name])
    assert (added.by["command"], commands(added)) == (
        "kata-network add-route",
        ["ip route add 10.5.0.0/16 dev lo proto 200"],
    )
    assert (deleted.by["command"], deleted.steps[0].action) == ("kata-network del-route", "delete")
    assert main(["pause", name, "--for", "1h", "--reason", "why"]) == 0
    assert main(["resume", name]) == 0
    assert main(["resume", name]) == 0
    paused, resumed = read([name])[2:]
    assert (paused.event, paused.reason, paused.by["command"]) == ("paused", "why", "pause")
    assert (resumed.event, resumed.by["command"]) == ("resumed", "resume")


def test_an_apply_goes_on_where_nothing_can_be_recorded(name: str, write: Write, folder: Path, capsys: Output) -> None:
    write(1)
    folder.parent.mkdir(0o700)
    folder.touch()
    assert main(["apply", "a.yaml"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{name}: applied 1 operation in ")
    (warning,) = said.err.splitlines()
    assert warning.startswith("reconciler: the history lacks 1 line since ")
    assert warning.endswith(f"{folder} is not a folder, but a file or a link; remove it; the command goes on")


def test_diff_since_a_time(name: str, write: Write, capsys: Output) -> None:
    write(1, 2)
    assert main(["apply", "a.yaml"]) == 0
    then = timestamp(time.time() + 0.001)
    time.sleep(0.01)
    write(2, 3)
    assert main(["apply", "a.yaml"]) == 0
    write(2, 4)
    assert main(["apply", "a.yaml"]) == 0
    capsys.readouterr()
    assert main(["diff", "--since", then, "a.yaml"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{name} · netns {name} · a.yaml, since {then}",
        "  + ip route add blackhole 10.4.0.0/16 proto 200",
        "  - ip route del blackhole 10.1.0.0/16 proto 200",
        "",
        "1 sandbox: 1 to add, 0 to change, 1 to delete.",
    ]
    assert said.err == ""
    write(1, 2)
    assert main(["diff", "--since", then, "a.yaml"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} · netns {name} · a.yaml, since {then}: unchanged\n")
    # Before the history begins.
    assert main(["diff", "--since", "1h", "-o", "json", "a.yaml"]) == 1
    said = capsys.readouterr()
    (found,) = json.loads(said.out)["sandboxes"]
    assert [each["action"] for each in found["operations"]] == ["add", "add"]
    assert "the history begins at " in said.err


def test_diff_since_a_time_of_a_large_manifest(name: str, write: Write, capsys: Output) -> None:
    write(
        *range(1, 250), routes=[{"dest": f"10.{a}.{b}.0/24", "type": "blackhole"} for a in range(8) for b in range(250)]
    )
    git("init", "-q")
    git("add", "a.yaml")
    git("commit", "-qm", "one")
    assert main(["apply", "a.yaml"]) == 0
    assert sum(each.stat().st_size for each in Path("state/history").iterdir()) < 40_000
    capsys.readouterr()
    assert main(["diff", "--since", timestamp(time.time()), "a.yaml"]) == 2
    commit = git("rev-parse", "--short", "HEAD")
    assert (
        f"is too large for the history; name its revision of git instead: --since {commit}" in capsys.readouterr().err
    )
    assert main(["diff", "--since", commit, "a.yaml"]) == 0


def test_diff_since_a_revision(name: str, write: Write, capsys: Output, tmp_path: Path) -> None:
    os.makedirs("below/rules")
    git("init", "-q")
    write(1, 2, file="below/a.yaml")
    write(1, sandbox="gone", file="below/gone.yaml")
    ipvs = {"rulesFile": "rules/b.rules"}
    Path("below/rules/b.rules").write_text("-A -t 192.0.2.1:80 -s rr\n")
    write(1, sandbox="b", file="below/b.yaml", ipvs=ipvs)
    os.symlink("/etc/passwd", "below/link.yaml")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    write(2, 3, file="below/a.yaml")
    os.unlink("below/gone.yaml")
    os.unlink("below/link.yaml")
    Path("below/rules/b.rules").write_text("-A -t 192.0.2.1:80 -s wrr\n")
    for path, since in (("below", "v1"), ("below/", "HEAD"), (".", git("rev-parse", "HEAD"))):
        capsys.readouterr()
        assert main(["diff", "--since", since, path]) == 1
        said = capsys.readouterr()
        assert [each for each in said.out.splitlines() if each.startswith("  ")] == [
            "  + ip route add blackhole 10.3.0.0/16 proto 200",
            "  - ip route del blackhole 10.1.0.0/16 proto 200",
            "  ~ ipvsadm -E -t 192.0.2.1:80 -s wrr      # was -t 192.0.2.1:80 -s rr",
        ], said.out
        assert said.err == "gone: its manifest was there then, and is not any more\n"
    for wrong in ("v2", "--help", "HEAD:below", "v1^{tree}", "1y", "2026-13-01", "", "a b"):
        assert main(["diff", f"--since={wrong}", "below"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "--since: git knows no revision" in said.err
    assert main(["diff", "--since", "v1", "/etc/hostname"]) == 2

"""`apply -o json` is one document whatever fails, and what it says of each operation is what the kernel has then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.main import main
from reconciler.converge import apply
from tests.allowed import FILE
from tests.conftest import Kernel
from tests.system.box import Box, make_box, nic
from tests.watch.running import REFUSED

NIC_COMMANDS = 3
TO = {"gateway": "10.0.0.1", "device": "eth0"}
FIELDS = [
    "sandbox",
    "file",
    "result",
    "verified",
    "seconds",
    "fingerprint",
    "operations",
    "error",
    "warnings",
]
STATUSES = {"done", "failed", "unknown", "undone", "not tried"}


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path) -> Box:
    found = make_box(kernel, tmp_path)
    # Nothing is warned of.
    found.ip("link", "set", "lo", "up")
    return found


class Ran:
    """What an apply printed: its exit code, what is said of all, and of each sandbox by its ID."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        capsys.readouterr()
        self.code = main(["apply", "-o", "json", *words])
        out, self.err = capsys.readouterr()
        data = json.loads(out)
        assert list(data) == ["sandboxes", "problems", "error"]
        self.problems, self.error = data["problems"], data["error"]
        self.sandboxes = {each["sandbox"]: each for each in data["sandboxes"]}
        for each in self.sandboxes.values():
            assert list(each) == FIELDS
            assert {operation["status"] for operation in each["operations"]} <= STATUSES

    @property
    def box(self) -> dict[str, Any]:
        return dict(self.sandboxes["box"])

    def by_status(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self.box["operations"]:
            found.setdefault(each["status"], []).append(each["command"])
        return found


def has(box: Box, dest: str) -> bool:
    """Return whether the kernel has a route, by other eyes than ours."""
    return bool(json.loads(box.ip("-j", "route", "show", dest)))


def test_what_was_done_and_then_nothing(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    file = box.write(interfaces=[nic(kernel.tap())], routes=[{"dest": "10.8.0.0/16", **TO}])
    first = Ran(capsys, file)
    assert (first.code, first.problems, first.error) == (0, [], [])
    assert (first.box["result"], first.box["verified"], first.box["error"]) == ("applied", True, [])
    assert [list(first.by_status()), len(first.by_status()["done"])] == [["done"], NIC_COMMANDS + 1]
    assert 0 < first.box["seconds"] < 60
    assert has(box, "10.8.0.0/16")
    again = Ran(capsys, file)
    assert (again.code, again.box["result"], again.box["operations"]) == (0, "in sync", [])
    # The text form has the same.
    assert main(["apply", file]) == 0
    assert capsys.readouterr().out == "box: in sync\n"
    assert main(["apply", file, "-o", "yaml"]) == 0
    (data,) = yaml.safe_load(capsys.readouterr().out)["sandboxes"]
    assert {**data, "seconds": 0} == {**again.box, "seconds": 0}


@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_what_failed(box: Box, kernel: Kernel, all_or_nothing: bool, capsys: pytest.CaptureFixture[str]) -> None:
    nics = [nic(kernel.tap())]
    box.apply(interfaces=nics)
    routes = [{"dest": "10.8.0.0/16", **TO}, REFUSED, {"dest": "10.9.0.0/16", **TO}]
    ran = Ran(capsys, *["--all-or-nothing"] * all_or_nothing, box.write(interfaces=nics, routes=routes))
    assert (ran.code, ran.box["verified"], ran.error) == (2, True, [])
    (failed,) = [each for each in ran.box["operations"] if each["status"] == "failed"]
    assert (failed["action"], failed["operation"]) == ("add", "AddRoute")
    assert failed["reason"] == "the kernel: Invalid argument: Invalid prefsrc address"
    assert "192.168.9.0/24" in failed["command"]
    assert "".join(f"{line}\n" for line in ran.box["error"]) in ran.err
    statuses = {each["command"].split()[3]: each["status"] for each in ran.box["operations"]}
    kept = {dest: has(box, dest) for dest in ("10.8.0.0/16", "10.9.0.0/16")}
    if all_or_nothing:
        assert ran.box["result"] == "undone"
        assert kept == {"10.8.0.0/16": False, "10.9.0.0/16": False}
        assert {statuses["10.8.0.0/16"], statuses["10.9.0.0/16"]} <= {"undone", "not tried"}
    else:
        assert ran.box["result"] == "partly applied"
        assert (kept, {statuses[dest] for dest in kept}) == ({"10.8.0.0/16": True, "10.9.0.0/16": True}, {"done"})


def test_what_was_refused(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    nics = [nic(kernel.tap())]
    box.apply(interfaces=nics, routes=[{"dest": f"10.{number}.0.0/16", **TO} for number in range(1, 40)])
    ran = Ran(capsys, box.write(interfaces=nics, routes=[]))
    assert (ran.code, ran.box["result"], ran.box["verified"]) == (3, "refused", False)
    assert [*ran.by_status()] == ["not tried"]
    assert len(ran.box["operations"]) == 39
    assert ran.box["error"][0].startswith("box: refused: ")
    assert has(box, "10.39.0.0/16")


@pytest.mark.parametrize(
    ("words", "code"), [(["--expect", "0000-0000-0000"], 3), (["--only", "bxo"], 2), (["--policy", "/nowhere"], 2)]
)
def test_nothing_was_begun(
    box: Box, kernel: Kernel, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, box.write(interfaces=[nic(kernel.tap())]), *words)
    assert (ran.code, {each["result"] for each in ran.sandboxes.values()} - {"not begun"}) == (code, set())
    assert len(ran.error) == 1
    assert ran.error[0] in ran.err


def test_a_wrong_manifest(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, box.write(interfaces=[{"name": "eth0"}]))
    assert (ran.code, ran.sandboxes, ran.error) == (2, {}, [])
    assert {each["file"] for each in ran.problems} == {str(box.file)}
    assert "interfaces[0].mtu" in {each["path"] for each in ran.problems}


def test_some_of_several(
    box: Box, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is applied, one does not exist, one has a defect, and of those that are not chosen nothing is touched."""
    text = Path(box.write(interfaces=[nic(kernel.tap())], routes=[{"dest": "10.8.0.0/16", **TO}])).read_text()
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "box.yaml").write_text(text)
    head = "apiVersion: reconciler/v1\nsandbox: {0}\ndriver: {{netns: {{name: {1}}}}}\nroutes: []\n"
    there = kernel.namespace()
    for name, namespace in {"gone": "no-such", "broken": there, "other-1": "no-such-1", "other-2": "no-such-2"}.items():
        (folder / f"{name}.yaml").write_text(head.format(name, namespace))

    def breaking(driver: Any, desired: Any, **options: Any) -> Any:
        if desired.id == "broken":
            raise KeyError("defect")
        return apply(driver, desired, **options)

    monkeypatch.setattr("reconciler.cli.apply.apply", breaking)
    ran = Ran(capsys, str(folder), "--only", "b*", "--only", "gone")
    assert {name: each["result"] for name, each in ran.sandboxes.items()} == {
        "box": "applied",
        "broken": "failed",
        "gone": "failed",
    }
    assert ran.code == 2
    assert "a defect of reconciler" in ran.sandboxes["broken"]["error"][0]
    assert "does not exist" in ran.sandboxes["gone"]["error"][0]
    assert has(box, "10.8.0.0/16")
    # All manifests are checked together nevertheless.
    (folder / "other-1.yaml").write_text("sandbox: other-1\n")
    assert Ran(capsys, str(folder), "--only", "box").code == 2


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("bxo", 'did you mean "box"?'), ("web-*", "expected one of: box"), ("BOX", 'did you mean "box"?'), ("", "box")],
)
def test_only_what_is_there(box: Box, pattern: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = box.write(routes=[])
    for command in ("diff", "apply"):
        assert main([command, file, "--only", "box", "--only", pattern]) == 2
        out, err = capsys.readouterr()
        assert (out, err.startswith(f'reconciler: --only: no manifest is of a sandbox "{pattern}"; ')) == ("", True)
        assert hint in err


def test_only_what_is_chosen_is_locked_and_has_a_fingerprint(
    box: Box, kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(box.write(routes=[{"dest": "10.8.0.0/16", "type": "blackhole"}])).read_text()
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "box.yaml").write_text(text)
    (folder / "gone.yaml").write_text(text.replace("sandbox: box", "sandbox: gone").replace(box.namespace, "no-such"))
    assert main(["diff", "--only", "b?x", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert (out.count("netns"), err) == (1, "")
    fingerprint = out.split()[-1]
    assert main(["apply", "--only", "box", "--expect", fingerprint, str(folder)]) == 0


WAITS = """
import os, time
from reconciler.netlink import execute
from reconciler.cli import apply
before = apply.apply
def waits(*words, **options):
    accept = options.pop("accept")
    def waiting(found):
        accept(found)
        # In one piece: two of them write at the same time.
        os.write(2, b"begun\\n")
        time.sleep(60)
    return before(*words, accept=waiting, **options)
apply.apply = waits
from reconciler.cli.main import entry
entry()
"""


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c(box: Box, kernel: Kernel, tmp_path: Path, count: int) -> None:
    text = Path(box.write(routes=[{"dest": "10.8.0.0/16", "type": "blackhole"}])).read_text()
    files = [str(box.file)]
    if count == 2:
        files.append(str(tmp_path / "other.yaml"))
        Path(files[1]).write_text(
            text.replace("sandbox: box", "sandbox: other").replace(box.namespace, kernel.namespace())
        )
    words = [sys.executable, "-c", WAITS, "apply", "-o", "json", "--policy", FILE, *files]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        begun = 0
        while begun < count:
            line = process.stderr.readline()
            assert line, process.communicate()
            begun += line == "begun\n"
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in err) == (130, True)
    data = json.loads(out)
    assert data["error"] == ["interrupted"]
    assert [each["result"] for each in data["sandboxes"]] == ["interrupted"] * count
    assert {each["status"] for sandbox in data["sandboxes"] for each in sandbox["operations"]} == {"unknown"}
    assert all(0 < each["seconds"] < 60 for each in data["sandboxes"])

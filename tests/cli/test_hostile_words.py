"""Whatever words come from outside, each command prints only lines that a terminal shows, and the same exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import COMMANDS
from reconciler.watch.log import FORMS
from tests.allowed import write_policy
from tests.drivers.test_kata import PROGRAM
from tests.hostile import NAME, WORDS, check, read, run
from tests.watch.running import until

HEAD = {"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": {"netns": {"name": "no-such-namespace"}}}
GOOD = {**HEAD, "routes": []}
# Commands by what they take.
WITH_PATHS = ("validate", "diff", "apply", "show", "watch")
# What is wrong with a manifest, at every place where a message repeats its words.
BROKEN = {
    "sandbox": {**GOOD, "sandbox": WORDS},
    "key": {**GOOD, WORDS: 1},
    "driver": {**GOOD, "driver": {WORDS: {}}},
    "name": {**GOOD, "driver": {"netns": {"name": WORDS}}},
    "path": {**GOOD, "driver": {"netns": {"path": f"/{WORDS}"}}},
    "paths": {**GOOD, "driver": {"vm": {"qmp": f"/run/{WORDS}", "agent": f"/run/{WORDS}2"}}},
    "runtime": {**GOOD, "driver": {"kata": {"id": "a", "runtime": f"/{WORDS}"}}},
    "device": {**GOOD, "interfaces": [{"name": "eth0", "device": WORDS, "hwAddr": WORDS, "addresses": [WORDS]}]},
    "route": {**GOOD, "routes": [{"dest": WORDS, "device": WORDS, "gateway": WORDS, WORDS: WORDS}]},
    "sysctl": {**GOOD, "sysctls": {f"net.ipv4.{WORDS}": 1, WORDS: WORDS}},
    "rules": {**GOOD, "ipvs": {"rules": f"-A -t 10.0.0.1:80 -s {WORDS}\n-A -t 10.0.0.1:80 -{WORDS}\n"}},
    "rules file": {**GOOD, "ipvs": {"rulesFile": WORDS}},
    "paused": {**HEAD, "paused": WORDS, "routes": [WORDS]},
}


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_every_command_is_tried() -> None:
    assert {
        *WITH_PATHS,
        "init",
        "explain",
        "doctor",
        "status",
        "history",
        "pause",
        "resume",
        "import",
        "sandbox",
        "agent",
        "fleet",
        "kata-network",
        "kata-ipvs",
    } == {*COMMANDS}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_words_of_the_command_line(command: str) -> None:
    paths = ([f"--x={WORDS}"], [WORDS, WORDS, f"--{NAME}"], ["--", f"-{NAME}", NAME])
    # A watch waits for paths that do not exist.
    for words in [["--look", WORDS, "x"], ["--mode", WORDS]] if command == "watch" else [["-o", WORDS], *paths]:
        code, out, _ = run(command, *words)
        assert (code, out) == (2, "")


@pytest.mark.parametrize("command", WITH_PATHS[:-1])
def test_names_of_files_and_of_folders(command: str, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    code, out, err = run(command, NAME, f"missing{NAME}")
    assert (code, out) == (2, "")
    assert r"\x1b[31mred" in err
    assert r"\udcff" in err
    write(folder, f"{NAME}.yaml", "sandbox: [")
    write(folder, "good.yaml", json.dumps(GOOD))
    code, out, err = run(command, NAME)
    assert code == 2
    assert err.count(r"\udcff") >= 2
    (folder / f"{NAME}.yaml").write_text(json.dumps(GOOD))
    (folder / "good.yaml").unlink()
    code, _, err = run(command, NAME)
    assert code == (0 if command == "validate" else 2), err


@pytest.mark.parametrize("place", BROKEN)
@pytest.mark.parametrize("as_json", [True, False], ids=["escaped", "raw"])
def test_words_of_a_manifest(place: str, as_json: bool, tmp_path: Path) -> None:
    file = write(tmp_path, "bad.yaml", json.dumps(BROKEN[place], ensure_ascii=as_json))
    assert run("apply", str(file))[0] == 2
    for form in ("json", "yaml"):
        code, out, err = run("validate", "-o", form, str(file))
        assert (code, err) == (2, "")
        (found,) = [read(form, out)] if form == "json" else read(form, out)
        assert found["problems"]


# What a string of YAML in quotes can have.
WRITABLE = "\x1b[31m \x9b\u202e\u2028\x7f ünï\n"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_data_for_programs_are_complete(form: str) -> None:
    file = write(Path(), "bad\x1b\u202e.yaml", json.dumps({**GOOD, "sandbox": WRITABLE}))
    _, out, _ = run("validate", "-o", form, str(file))
    (found,) = [read(form, out)] if form == "json" else read(form, out)
    (problem,) = found["problems"]
    assert problem["file"] == "bad\x1b\u202e.yaml"
    assert WRITABLE in problem["message"]


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_where_the_locale_is_not_utf_8(locale: str) -> None:
    file = write(Path(), f"ünï{NAME}.yaml", json.dumps({**GOOD, "sandbox": WRITABLE}, ensure_ascii=True))
    ran = subprocess.run(
        [sys.executable, "-m", "reconciler", "validate", "-o", "json", file],
        capture_output=True,
        check=False,
        env={"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )
    assert (ran.returncode, ran.stderr) == (2, b"")
    (problem,) = json.loads(check(ran.stdout))["problems"]
    assert WRITABLE in problem["message"]


@pytest.mark.parametrize(
    "text",
    [
        f"-A -t 10.0.0.1:80 -s {WORDS}\n",
        f"virtual_server {WORDS} {{\n}}\n{WORDS} {{\n}}\nvirtual_server 10.0.0.1 80 {{\n {WORDS}\n}}\n",
        f"include {WORDS}\n",
        json.dumps({"name": WORDS, "device": WORDS, "mac": WORDS, WORDS: WORDS}),
        json.dumps([{"dest": WORDS, "device": WORDS}]),
        WORDS,
    ],
)
def test_words_of_files_of_other_tools(text: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"{NAME}.conf", text)
    for notation in ([], ["--from", "ipvsadm"], ["--from", "keepalived"], ["--from", "kata"]):
        code, _, err = run("import", "--sandbox", "web-1", "--netns", "web-1", *notation, str(file))
        assert code in {0, 2}
        assert err


@pytest.mark.parametrize(
    "answer", [{"err": WORDS, "status": 1}, {"out": WORDS}, {"out": json.dumps([{"name": WORDS}])}]
)
@pytest.mark.parametrize("command", ["diff", "apply", "show"])
def test_words_of_a_runtime(command: str, answer: dict[str, Any], root: None, tmp_path: Path) -> None:
    runtime = write(tmp_path, "kata-runtime", PROGRAM)
    runtime.chmod(0o755)
    write(tmp_path, "answers", json.dumps({"list-ifaces": answer, "list-routes": answer}))
    driver = {"kata": {"id": "web-1", "runtime": str(runtime)}}
    file = write(tmp_path, "web.yaml", json.dumps({**HEAD, "driver": driver, "interfaces": [], "routes": []}))
    # The operator's policy speaks of it with the same words.
    assert run(command, str(file))[0] == 3
    policy = write_policy(tmp_path / "policy.yaml", runtimes=[str(runtime)])
    code, _, err = run(command, "--policy", policy, str(file))
    assert code == 2
    assert err.startswith("web-1: ")
    # The commands of kata-runtime find their sandbox in manifests as well.
    for words in (("kata-network", "list-ifaces"), ("kata-ipvs", "ipvsadm", "--parameters", f"-L {WORDS}")):
        assert run(*words, "--policy", policy, "--manifests", str(file), "web-1")[0] == 2


def test_words_for_the_commands_of_kata_runtime(root: None) -> None:
    for text in (WORDS, json.dumps({"name": WORDS}), json.dumps({"dest": WORDS}), "[" * 10_000):
        for action in ("add-iface", "del-iface", "add-route", "del-route"):
            code, out, _ = run("kata-network", action, "web-1", "-", stdin=text.encode())
            assert code == 2
            json.loads(out)
        assert run("kata-ipvs", "ipvsadm", "--restore", "-", "web-1", stdin=text.encode())[0] == 2


FAKE = """
import json, socket, sys
from reconciler.watch import client, report
client.SOCKET = sys.argv[1]
from reconciler.cli.main import main
from reconciler import rundir
server = report.StatusSocket(lambda _: json.loads(sys.argv[2]))
code = main(sys.argv[3:])
server.close()
sys.exit(code)
"""
SERVER = {"server": WORDS, "weight": 1, "active": 1, "inactive": 0}
COUNTS = {
    **dict.fromkeys(("since", "full_looked", "took", "lent", "drift_1h", "drifted", "repairs"), 1),
    "fights": [WORDS],
    "ipvs": {
        "read": 1,
        "services": [{"service": WORDS, "active": 1, "inactive": 0, "servers": [SERVER]}],
        "draining": [{"server": WORDS, "service": WORDS, "connections": 1, "deadline": 1}],
    },
}
TOLD: dict[str, Any] = {
    "alarms": [WORDS],
    "problems": [WORDS],
    "polling": WORDS,
    "sandboxes": [
        dict.fromkeys(("sandbox", "driver", "file", "revision", "blob", "state", "detail"), WORDS)
        | {"sandbox": "web-1", "fresh": True, "looked": 1}
        | COUNTS,
        dict.fromkeys(("sandbox", "driver", "file", "revision", "blob", "state", "detail"), WORDS)
        | {"fresh": True, "looked": 0}
        | COUNTS,
    ],
}


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "web-1"],
        ["status", "-o", "json"],
        ["doctor"],
        ["pause", "web-2", "--for", "1h"],
        ["resume", "web-2"],
        ["resume", WORDS],
    ],
)
def test_words_of_a_watcher(words: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FAKE, str(tmp_path / "watch.sock"), json.dumps(TOLD), *words],
        capture_output=True,
        check=False,
        timeout=60,
    )
    out, err = check(ran.stdout), check(ran.stderr)
    assert ran.returncode in {1, 2}, err
    if words == ["status"]:
        # One line for each sandbox, whatever it says.
        assert (out.count("\n"), err.count("\n")) == (3, 2)
    if words == ["status", "web-1"]:
        # Two sandboxes with a line for each fact, and a table of a service and a server; between them an empty line.
        assert (out.count("\n"), err.count("\n")) == (2 * 16 + 1, 2)
    if words == ["status", "-o", "json"]:
        assert json.loads(out) == TOLD


@contextmanager
def watching(folder: Path, form: str, log: Path) -> Iterator[Callable[[], str]]:
    """Run a watcher during the block. Yield what reads its log, which must be harmless."""
    policy = write_policy(log.with_name("policy.yaml"), runtimes=[str(log.with_name("kata-runtime"))])
    words = [sys.executable, "-m", "reconciler", "watch", "--policy", policy, "--log", form, str(folder)]
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, stdout=file) as process:
        try:
            yield lambda: check(log.read_bytes().rpartition(b"\n")[0])
        finally:
            process.terminate()


@pytest.mark.parametrize("form", FORMS)
def test_a_log_has_one_line_for_each_event(form: str, root: None, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    runtime = write(tmp_path, "kata-runtime", PROGRAM)
    runtime.chmod(0o755)
    # A line of the log is short, whatever is told.
    write(tmp_path, "answers", json.dumps({"list-routes": {"err": WORDS, "status": 1}}))
    write(folder, f"{NAME}.yaml", json.dumps({**GOOD, WORDS * 1000: 1}))
    driver = {"kata": {"id": "web-1", "runtime": str(runtime)}}
    write(folder, f"good{NAME}.yaml", json.dumps({**GOOD, "driver": driver, "paused": None} | {"routes": []}))
    write(folder, f"kata{NAME}.yaml", json.dumps({**GOOD, "sandbox": "web-2", "driver": driver}))
    with watching(folder, form, tmp_path / "log") as text:
        until(lambda: "web-2" in text() and "kata-network list-routes" in text(), "a failure", more=text)
        lines = text().splitlines()
    assert max(map(len, lines)) < 20_000
    if form == "json":
        assert all(json.loads(each)["event"] for each in lines)


@pytest.mark.parametrize("command", ["validate", "diff", "apply", "show"])
def test_words_of_a_policy(command: str, root: None, tmp_path: Path) -> None:
    file = write(tmp_path, "web.yaml", json.dumps(GOOD))
    written = (write_policy(tmp_path / "policy.yaml", **{WRITABLE: [WRITABLE]}), f"missing{NAME}")
    for policy in (*written, write_policy(tmp_path / f"{NAME}.yaml", runtimes=[WRITABLE])):
        code, _, err = run(command, "--policy", policy, str(file))
        assert code in {2, 3}
        assert err

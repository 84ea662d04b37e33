"""Each mistake on the command line has one message that tells what to do. The usage above it is argparse's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.cli.main import main
from tests.mistakes.manifest import GRADES, MANIFEST


class Row(NamedTuple):
    """Words of a command line, in a folder with manifests and other files; the message and its grade."""

    name: str
    grade: str
    words: str
    message: str


COMMANDS = (
    "init, explain, validate, diff, apply, watch, doctor, status, history, pause, resume, show, import, sandbox, "
    "agent, fleet, kata-network, kata-ipvs"
)
NO_MANIFEST = (
    "is not a manifest: that begins with `apiVersion: reconciler/v1`, or another of its fields; `reconciler import` "
    "converts files of other tools"
)
ROWS = [
    Row("no command", "good", "", f"reconciler: error: a command is missing; expected one of: {COMMANDS}"),
    Row(
        "command misspelt",
        "excellent",
        "aply web.yaml",
        'reconciler: error: unknown command "aply"; did you mean "apply"?',
    ),
    Row(
        "command of another program",
        "excellent",
        "plan web.yaml",
        'reconciler: error: unknown command "plan"; `reconciler diff` shows what `apply` would do',
    ),
    Row(
        "option misspelt",
        "excellent",
        "apply --alow-delete all web.yaml",
        'reconciler apply: error: unknown option --alow-delete; did you mean "--allow-delete"?',
    ),
    Row(
        "option of another program",
        "excellent",
        "apply --dry-run web.yaml",
        "reconciler apply: error: unknown option --dry-run; `reconciler diff` shows what `apply` would do",
    ),
    Row("no path", "good", "apply", "reconciler apply: error: the following arguments are required: PATH"),
    Row(
        "no value",
        "good",
        "apply web.yaml --expect",
        "reconciler apply: error: argument --expect: expected one argument",
    ),
    Row(
        "value that is no choice",
        "excellent",
        "diff -o xml web.yaml",
        'reconciler diff: error: -o/--output: "xml" is no choice; expected one of: text, json, yaml, shell',
    ),
    Row(
        "no fingerprint",
        "excellent",
        "apply --expect abc web.yaml",
        'reconciler apply: error: argument --expect: "abc" is not a fingerprint such as 41de-7f3a-91c2; '
        "`reconciler diff` prints it in its last line",
    ),
    Row(
        "word for a number of deletions",
        "excellent",
        "apply --allow-delete many web.yaml",
        'reconciler apply: error: argument --allow-delete: "many" is not a number such as 20, a percentage up to 100%, '
        'or "all"',
    ),
    Row(
        "more than all deletions",
        "excellent",
        "apply --allow-delete 200% web.yaml",
        'reconciler apply: error: argument --allow-delete: "200%" is not a number such as 20, a percentage up to 100%, '
        'or "all"',
    ),
    Row(
        "two manifests of one sandbox",
        "excellent",
        "validate web.yaml twin.yaml",
        "twin.yaml:2:10: sandbox: sandbox web-1 has a manifest already, in web.yaml; a sandbox has one",
    ),
    Row(
        "two sandboxes of one namespace",
        "good",
        "validate web.yaml same.yaml",
        "same.yaml:4:3: driver: /run/netns/web-1 is the namespace of sandbox web-1 already, in web.yaml",
    ),
    Row(
        "one device in two sandboxes",
        "good",
        "validate web.yaml thief.yaml",
        "thief.yaml:7:13: interfaces[0].device: tap0 is the device of sandbox web-1 already, in web.yaml",
    ),
    Row("file is missing", "good", "validate none.yaml", "none.yaml: No such file or directory"),
    Row(
        "folder without manifests",
        "good",
        "validate empty",
        "empty: this folder contains no manifest (*.yaml, *.yml, *.json)",
    ),
    Row("file of something else", "excellent", "validate text", f"text: {NO_MANIFEST}"),
    Row("saved state is missing", "good", "diff --observed none.yaml web.yaml", "none.yaml: No such file or directory"),
    Row(
        "saved state of another sandbox",
        "good",
        "diff --observed other.yaml web.yaml",
        "web-1: the saved state does not contain this sandbox; expected one of: db",
    ),
    Row("saved state of something else", "good", "diff --observed text web.yaml", f"text: {NO_MANIFEST}"),
    Row(
        "policy is missing",
        "good",
        "validate --policy /etc/reconciler/none.yaml web.yaml",
        "reconciler: /etc/reconciler/none.yaml: the policy cannot be read: No such file or directory",
    ),
    Row(
        "time without a unit",
        "excellent",
        "watch --full-look 10 web.yaml",
        'reconciler watch: error: argument --full-look: "10" is not a time such as 90s, 15min, 1h or 2d',
    ),
    Row(
        "port as a word",
        "good",
        "watch --metrics abc web.yaml",
        'reconciler watch: error: argument --metrics: "abc" is not HOST:PORT or PORT',
    ),
    Row(
        "unknown field",
        "excellent",
        "explain routes.gatewy",
        'reconciler: routes.gatewy: unknown field; did you mean "routes.gateway"?',
    ),
    Row(
        "action that is none",
        "excellent",
        "sandbox run web-1",
        'reconciler sandbox: error: unknown action "run"; expected one of: start, list, exec, stop',
    ),
    Row(
        "driver of an import is missing",
        "good",
        "import --sandbox web-1 text",
        "reconciler import: error: one of the arguments --netns --vm --libvirt is required",
    ),
    Row(
        "notation that is none",
        "excellent",
        "import --from lvs --netns web-1 text",
        'reconciler import: error: --from: "lvs" is no choice; expected one of: kata, ipvsadm, keepalived, ip, '
        "netplan, networkd, nmstate",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web.yaml").write_text(MANIFEST)
    Path("other.yaml").write_text(MANIFEST.replace("sandbox: web-1", "sandbox: db"))
    Path("twin.yaml").write_text(MANIFEST)
    Path("same.yaml").write_text("".join(MANIFEST.replace("sandbox: web-1", "sandbox: db").partition("interfaces:")[0]))
    Path("thief.yaml").write_text(MANIFEST.replace("web-1", "db").replace("20:6f:a3:69", "20:6f:a3:70"))
    Path("text").write_text("hello\n")
    Path("empty").mkdir()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_mistake_has_one_message(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    assert row.grade in GRADES
    try:
        code = main(row.words.split())
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if not line.startswith((" ", "usage: ", "1 problem "))]
    assert (code, out, said) == (2, "", [row.message])

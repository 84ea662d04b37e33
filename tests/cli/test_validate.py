"""`validate` says what is wrong and where, counts it, and tells it by its exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from reconciler.cli.main import main
from tests.manifest.texts import manifest, with_nic, with_route

ID = "a sandbox ID or name: 1 to 64 letters, digits, '_', '-' and '.', the first a letter or digit"
LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Give the exit code, what is on stdout and what is on stderr."""
    code = main(["validate", *words])
    out, err = capsys.readouterr()
    return code, out, err


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def other(number: int) -> str:
    return manifest(f"sandbox: s{number}", f"driver: {{netns: {{pid: {number}}}}}")


def test_one_manifest_that_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web-1.yaml").write_text(with_route())
    assert validate(capsys, "web-1.yaml") == (0, "1 manifest valid\n", "")


def test_manifests_of_files_folders_and_documents(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["a.yaml", "f/b.yml", "f/g/c.json", "f/.d.yaml", "f/.h/e.yaml", "f/i.txt"], start=1):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(other(number) + "---\n" + other(number + 100))
    assert validate(capsys, "a.yaml", "f") == (0, "6 manifests valid\n", "")


def test_problems_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    text = with_nic("mtu: 9601", "  queue: 5 # one each".strip()).replace("name: eth0", "# NIC\n  name: 'eth 0'")
    Path("web-1.yaml").write_text(text)
    Path("web-2.yaml").write_text("sandbox: web-2")
    expected = f"""\
web-1.yaml:6:9: interfaces[0].name: "eth 0" is not valid; expected {LINK}
    6 |   name: 'eth 0'
      |         ^^^^^^^
web-1.yaml:9:8: interfaces[0].mtu: 9601 is above the maximum of 9600
    9 |   mtu: 9601
      |        ^^^^
web-1.yaml:11:3: interfaces[0].queue: unknown field; did you mean "queues"?
   11 |   queue: 5 # one each
      |   ^^^^^
web-2.yaml:1:1: apiVersion: missing; expected reconciler/v1
    1 | sandbox: web-2
      | ^
web-2.yaml:1:1: driver: missing; expected one driver and its address, such as {{netns: {{name: web-1}}}}
    1 | sandbox: web-2
      | ^
5 problems in 2 files.
"""
    assert validate(capsys, "web-1.yaml", "web-2.yaml") == (2, "", expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            manifest("sandbox:", "driver: {netns: {pid: 1}}"),
            f"""\
bad.yaml:2:9: sandbox: nothing is given; expected {ID}
    2 | sandbox:
      |         ^
""",
        ),
        (
            "routes: [",
            "bad.yaml:2:1: a value is missing before the end\n",
        ),
        (
            f"{{apiVersion: reconciler/v1, driver: {{netns: {{name: {'n' * 100}}}}}, sandbox: s, color: {'r' * 100}}}",
            f"""\
bad.yaml:1:168: color: unknown field; \
expected one of: apiVersion, sandbox, driver, sysctls, interfaces, neighbours, routes, rules, ipvs, checks, paused
    1 | {"n" * 43}}}}}, sandbox: s, color: {"r" * 54}
      | {" " * 59}^^^^^
""",
        ),
        (
            manifest(f"sandbox: '{'a' * 300}'"),
            f"""\
bad.yaml:2:10: sandbox: "{"a" * 37}…" (300 characters) is not valid; expected {ID}
    2 | sandbox: '{"a" * 110}
      |          {"^" * 111}
""",
        ),
        (
            'sandbox: "\\e[31m\\r"\n' + manifest("sandbox"),
            f"""\
bad.yaml:1:10: sandbox: "\\x1b[31m\\r" is not valid; expected {ID}
    1 | sandbox: "\\e[31m\\r"
      |          ^^^^^^^^^^
""",
        ),
    ],
    ids=["nothing", "behind the end", "long line", "long value", "letters a terminal obeys"],
)
def test_how_one_problem_looks(text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(text)
    assert validate(capsys, "bad.yaml") == (2, "", f"{expected}1 problem in 1 file.\n")


@pytest.mark.parametrize("letter", ["\x1b", "\x9b", "\x07", "\u202e"])
def test_no_letter_that_a_terminal_obeys_gets_there(letter: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(manifest(f"sandbox: 'a{letter}b' # {letter}"))
    code, out, err = validate(capsys, "bad.yaml")
    assert (code, out, [each for each in err if not each.isprintable()]) == (2, "", ["\n"] * 4)


def test_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "nothing.yaml: No such file or directory\n1 problem in 1 file.\n"
    assert validate(capsys, "nothing.yaml") == (2, "", expected)


def test_problems_as_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web-1.yaml").write_text(with_nic("mtu: 9601"))
    expected = {
        "problems": [
            {
                "file": "web-1.yaml",
                "line": 8,
                "column": 8,
                "path": "interfaces[0].mtu",
                "message": "9601 is above the maximum of 9600",
                "excerpt": "  mtu: 9601",
                "width": 4,
            },
            {
                "file": "nothing.yaml",
                "line": 0,
                "column": 0,
                "path": "",
                "message": "No such file or directory",
                "excerpt": "",
                "width": 1,
            },
        ],
        "warnings": [],
    }
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        code, out, err = validate(capsys, "-o", form, "web-1.yaml", "nothing.yaml")
        assert (code, read(out), err) == (2, expected, "")


@pytest.mark.parametrize(
    ("form", "expected"),
    [("json", '{\n  "problems": [],\n  "warnings": []\n}\n'), ("yaml", "problems: []\nwarnings: []\n")],
)
def test_no_problems_as_data(form: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("web-1.yaml").write_text(manifest())
    assert validate(capsys, "-o", form, "web-1.yaml") == (0, expected, "")


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, manifest())
    assert validate(capsys, "-") == (0, "1 manifest valid\n", "")
    stdin(monkeypatch, manifest("sandbox: -1"))
    expected = """\
<stdin>:2:10: sandbox: -1 is below the minimum of 0
    2 | sandbox: -1
      |          ^^
1 problem in 1 file.
"""
    assert validate(capsys, "-") == (2, "", expected)


def test_standard_input_beside_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("web-1.yaml").write_text(manifest())
    stdin(monkeypatch, manifest("driver: {netns: {pid: 7}}"))
    expected = """\
<stdin>:2:10: sandbox: sandbox web-1 has a manifest already, in web-1.yaml; a sandbox has one
    2 | sandbox: web-1
      |          ^^^^^
1 problem in 1 file.
"""
    assert validate(capsys, "web-1.yaml", "-") == (2, "", expected)


@pytest.mark.parametrize("words", [[], ["-o", "xml", "a.yaml"], ["--unknown", "a.yaml"]])
def test_wrong_words_are_an_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["validate", *words])
    assert (caught.value.code, capsys.readouterr().out) == (2, "")

"""What is shown on real terminals: of any width, with Unicode or without, with colours or without."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconciler.cli import terminal
from tests.terminal import ASCII, UNICODE, Terminal, shown

MANIFEST = """
apiVersion: reconciler/v1
sandbox: web-1
driver: {netns: {name: web-1}}
routes:
"""
SAVED = "routes: []\n"
# Seven routes are folded to three, and `…`.
ROUTES = "".join(f"  - {{dest: 10.{number}.0.0/16, type: blackhole}}\n" for number in range(7))
BAD = """
apiVersion: reconciler/v1
sandbox: web-1
driver: {netns: {name: web-1}}
interfaces: [{name: eth0, device: 中文-tap-中文, mtu: big, hwAddr: "02:00:00:00:00:01", addresses: []}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wéb.yaml").write_text(MANIFEST + ROUTES)
    (tmp_path / "saved.yaml").write_text(MANIFEST.removesuffix("routes:\n") + SAVED)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


DIFF = ("diff", "--no-color", "--observed", "saved.yaml", "wéb.yaml")
PLAN = """web-1 · netns web-1 · wéb.yaml
  + ip route add blackhole 10.0.0.0/16 proto 200
  + ip route add blackhole 10.1.0.0/16 proto 200
  + ip route add blackhole 10.2.0.0/16 proto 200
  + … 4 more `ip route add` (-v prints them)
"""


@pytest.mark.parametrize("environment", UNICODE, ids=str)
def test_a_terminal_with_unicode(folder: Path, environment: dict[str, str]) -> None:
    code, text = shown(*DIFF, environment=environment)
    assert (code, text.partition("\n\n")[0] + "\n") == (1, PLAN)


@pytest.mark.parametrize("environment", ASCII, ids=str)
def test_a_terminal_without_unicode(folder: Path, environment: dict[str, str]) -> None:
    code, text = shown(*DIFF, environment=environment)
    plain = PLAN.replace("·", "-").replace("…", "...").replace("é", "\\u00e9")
    assert (code, text.partition("\n\n")[0] + "\n") == (1, plain)


def test_data_on_a_terminal_without_unicode_is_the_same_data(folder: Path) -> None:
    plan = yaml.safe_load(shown(*DIFF, "-o", "yaml")[1])
    for form, read in ("json", json.loads), ("yaml", yaml.safe_load):
        code, text = shown("validate", "-o", form, "bad.yaml", environment={"LC_ALL": "C"})
        assert (code, text.isascii()) == (2, True)
        excerpts = {each["excerpt"] for each in read(text)["problems"]}
        assert BAD.splitlines()[4] in excerpts
        assert read(shown(*DIFF, "-o", form, environment={"LC_ALL": "C"})[1]) == plan


@pytest.mark.parametrize("environment", [*ASCII, *UNICODE], ids=str)
def test_a_pipe_gets_utf_8_whatever_the_locale_is(folder: Path, environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "reconciler", *DIFF]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    ran = subprocess.run(words, env=path | environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout.decode().partition("\n\n")[0] + "\n") == (1, PLAN)


@pytest.mark.parametrize(
    ("environment", "words", "colored"),
    [
        ({}, (), True),
        ({"NO_COLOR": ""}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"TERM": "dumb"}, (), False),
        ({}, ("--no-color",), False),
        ({"LC_ALL": "C"}, (), True),
    ],
    ids=str,
)
def test_colour(folder: Path, environment: dict[str, str], words: tuple[str, ...], colored: bool) -> None:
    for command in (["diff", "--observed", "saved.yaml", "wéb.yaml"], ["validate", "bad.yaml"]):
        assert ("\x1b[" in shown(*words, *command, environment=environment)[1]) == colored


@pytest.mark.parametrize("columns", [40, 80, 300])
@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}], ids=str)
def test_marks_are_below_what_they_are_about(folder: Path, columns: int, environment: dict[str, str]) -> None:
    text = shown("--no-color", "validate", "bad.yaml", columns=columns, environment=environment)[1].splitlines()
    places = [number for number, line in enumerate(text) if line.strip(" |^") == "" and "^" in line]
    assert len(places) == 2
    marked = []
    for number in places:
        line, marks = text[number - 1], text[number]
        assert max(terminal.width(line), terminal.width(marks)) <= columns
        # The columns of a character that takes two are these two.
        cells = [cell for each in line for cell in [each, *[""] * (terminal.width(each) - 1)]]
        marked.append("".join(cells[marks.index("^") : len(marks)]))
    tap = "中文-tap-中文" if not environment else "\\u4e2d\\u6587-tap-\\u4e2d\\u6587"
    # What does not fit is cut.
    assert [tap[: len(marked[0])], "big"] == marked
    assert len(marked[0]) == len(tap) or (columns == 40 and environment)
    assert len(marked[0]) >= 9


def stream(*, unicode: bool) -> io.TextIOWrapper:
    found = io.TextIOWrapper(io.BytesIO())
    if unicode:
        found.reconfigure(encoding="utf-8", errors="backslashreplace")
    else:
        found.isatty = lambda: True  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(terminal, "_environment", lambda: {"LC_ALL": "C"})
            terminal.adapt(found)
    return found


@pytest.mark.parametrize(
    ("text", "aligned", "width", "plain"),
    [
        ("web-1", "web-1", 5, "web-1"),
        ("a\tb\x1b", "a\\tb\\x1b", 8, "a\\tb\\x1b"),
        ("中文", "中文", 4, "\\u4e2d\\u6587"),
        ("é", "é", 1, "\\u00e9"),
        ("e\u0301", "e\\u0301", 7, "e\\u0301"),
        ("שלום", "\\u05e9\\u05dc\\u05d5\\u05dd", 24, "\\u05e9\\u05dc\\u05d5\\u05dd"),
        ("\u202eweb", "\\u202eweb", 9, "\\u202eweb"),
        ("😀", "😀", 2, "\\ud83d\\ude00"),
        ("a\u200d·…", "a\\u200d·…", 9, "a\\u200d-..."),
    ],
)
def test_columns_of_text(text: str, aligned: str, width: int, plain: str) -> None:
    found = terminal.aligned(text, stream(unicode=True))
    assert (found, terminal.width(found)) == (aligned, width)
    assert terminal.aligned(text, stream(unicode=False)) == plain
    for most in range(12):
        cut = terminal.cut(text, most, stream(unicode=True))
        assert aligned.startswith(cut)
        assert most - 1 <= terminal.width(cut) <= most or cut == aligned


PROGRESS = """
from reconciler.cli.progress import Progress
from reconciler.cli.main import main
import sys
from reconciler.cli.terminal import adapt
adapt(sys.stderr)
found = Progress("n" * 50)
found(300, 1000)
found.clear()
"""


@pytest.mark.parametrize(
    ("columns", "environment", "expected"),
    [
        (
            120,
            {},
            f"{'n' * 50}  applying  ██████░░░░░░░░░░░░░░  300 / 1,000 operations  0.0 s",
        ),
        (120, {"LC_ALL": "C"}, f"{'n' * 50}  applying  ######..............  300 / 1,000 operations  0.0 s"),
        (40, {}, f"300 / 1,000  0.0 s  {'n' * 19}"),
        (40, {"TERM": "dumb"}, None),
    ],
    ids=str,
)
def test_progress_is_one_row(columns: int, environment: dict[str, str], expected: str | None) -> None:
    found = Terminal([sys.executable, "-c", PROGRESS], columns, environment)
    code, data = found.finish()
    found.close()
    erase = "\r\x1b[K"
    # However long it takes to begin.
    text = re.sub(r"  \d\.\d s", "  0.0 s", data.decode())
    assert (code, text) == (0, f"{erase}{expected}{erase}" if expected else "")

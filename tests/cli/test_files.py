"""What is no regular file is a problem of its own in every command that reads files, and no command waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.manifest.texts import manifest
from tests.special import SPECIAL, reason, special

COMMANDS = {
    "validate": ("validate",),
    "diff": ("diff",),
    "apply": ("apply",),
    "show": ("show",),
    "import": ("import", "--sandbox", "a", "--netns", "a"),
    "saved": ("diff", "a.yaml", "--observed"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reconciler(*words: str, **options: object) -> tuple[int, str]:
    """Run a command; return its exit code and what is on stderr."""
    ran = subprocess.run(
        [sys.executable, "-m", "reconciler", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )  # type: ignore[call-overload]
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("kind", SPECIAL)
def test_it_is_named(kind: str, command: tuple[str, ...]) -> None:
    Path("a.yaml").write_text(manifest())
    with special(kind, Path("b.yaml")):
        assert reconciler(*command, "b.yaml") == (2, f"b.yaml: is {kind}, not a regular file\n1 problem in 1 file.\n")


@pytest.mark.parametrize("kind", SPECIAL)
def test_in_a_folder(kind: str) -> None:
    Path("m").mkdir()
    with special(kind, Path("m/b.yaml")):
        assert reconciler("apply", "m") == (2, f"m/b.yaml: {reason(kind, 'm')}\n1 problem in 1 file.\n")


@pytest.mark.parametrize("command", [("kata-network", "add-route", "a"), ("kata-ipvs", "ipvsadm", "a", "--restore")])
def test_input_of_kata_runtime(command: tuple[str, ...]) -> None:
    Path("a.yaml").write_text(manifest("sandbox: a"))
    with special("a FIFO", Path("b")):
        code, err = reconciler(command[0], *command[1:], "b", "--manifests", "a.yaml")
    assert (code, err) == (2, "reconciler: b: is a FIFO, not a regular file\n")


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_a_pipe_of_the_shell_is_read(path: str) -> None:
    assert reconciler("validate", path, input=manifest()) == (0, "")


@pytest.mark.parametrize("path", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_pipe_of_the_shell_cannot_be_watched(path: str) -> None:
    code, err = reconciler("watch", path, input=manifest())
    assert (code, err) == (
        2,
        "reconciler: standard input cannot be watched; name files or folders instead\n",
    )


def test_imported_files_by_two_paths_are_one_file() -> None:
    Path("saved").write_text("-A -t 10.0.0.1:80 -s rr\n")
    os.link("saved", "link")
    assert reconciler("import", "--sandbox", "a", "--netns", "a", "saved", "./saved", "link") == (0, "")

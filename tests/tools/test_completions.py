"""Completions work in the real shells: what is typed, followed by a tab, is a whole command line."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import whole_parser
from tests.conftest import Kernel
from tools import completions, generate

DEADLINE = 60.0
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"`make shells` installs {name}"))
    for name in completions.FILES
]
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
# The command is a function that prints its words. What a person types has no `<` in it.
SETUP = {
    "bash": "reconciler() { printf '<%s>' \"$@\"; echo; }; bind 'set bell-style none'; source {file}",
    "zsh": (
        "fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; unsetopt BEEP; "
        "reconciler() { printf '<%s>' \"$@\"; echo }"
    ),
    "fish": "function reconciler; printf '<%s>' $argv; echo; end; source {file}",
}
# What is typed before the tab → the words that the command gets.
TYPED = {
    "reconciler val\t": "<validate>",
    "reconciler explain ipvs.tim\t": "<explain><ipvs.timeouts>",
    "reconciler explain interfaces.sysctls.ipv4.forw\t": "<explain><interfaces.sysctls.ipv4.forwarding>",
    "reconciler diff --adop\t": "<diff><--adopt>",
    "reconciler diff -o she\t": "<diff><-o><shell>",
    "reconciler apply --all-or\t ": "<apply><--all-or-nothing>",
    "reconciler watch --log-level warn\t": "<watch><--log-level><warning>",
    "reconciler sandbox sta\t": "<sandbox><start>",
    "reconciler sandbox list -o js\t": "<sandbox><list><-o><json>",
    "reconciler kata-network list-r\t": "<kata-network><list-routes>",
    "reconciler diff manif\t": "<diff><manifest-of-web-1.yaml>",
    "reconciler --no-color dif\t": "<--no-color><diff>",
    "reconciler --no-col\t": "<--no-color>",
    "reconciler -v diff --adop\t": "<-v><diff><--adopt>",
    "reconciler --policy policy-of-host.yaml diff manif\t": (
        "<--policy><policy-of-host.yaml><diff><manifest-of-web-1.yaml>"
    ),
    "reconciler apply --policy polic\t": "<apply><--policy><policy-of-host.yaml>",
}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        # A shell is interactive only on the terminal that controls it.
        words = ["setsid", "--ctty", "--wait", *START[name]]
        self._process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str, until: str) -> str:
        """Type a line, and return what is shown until a text is in it."""
        os.write(self._master, text.encode())
        self.seen = ""
        end = time.monotonic() + DEADLINE
        while until not in self.seen:
            ready, _, _ = select.select([self._master], [], [], max(end - time.monotonic(), 0))
            if not ready:
                pytest.fail(f"not in {DEADLINE} s: {until!r} after {text!r}; shown: {self.seen!r}")
            self.seen += os.read(self._master, 65536).decode(errors="replace")
        return self.seen

    def close(self) -> None:
        # The shell ends when its terminal does.
        os.close(self._master)
        self._process.wait(DEADLINE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate.main(folder)
    return folder


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Iterator[Shell]:
    name: str = request.param
    for each in ("manifest-of-web-1.yaml", "policy-of-host.yaml"):
        (tmp_path / each).touch()
    started = Shell(name, tmp_path)
    file = built / "completions" / completions.FILES[name]
    setup = SETUP[name].replace("{file}", str(file)).replace("{folder}", str(file.parent))
    started.type(f"{setup}\r", "")
    started.type("reconciler ready\r", "<ready>")
    yield started
    started.close()


def test_what_is_typed_is_completed(shell: Shell) -> None:
    for typed, expected in TYPED.items():
        shell.type(f"{typed}\r", expected)


@pytest.mark.parametrize("shell_name", list(completions.FILES))
def test_every_command_and_option_is_in_them(shell_name: str) -> None:
    text = completions.write(shell_name)
    for name, command in whole_parser().commands().items():
        assert name in text
        assert [each for each in command.options() if each.startswith("--") and each.lstrip("-") not in text] == []


def test_names_of_this_host_are_completed(shell: Shell, kernel: Kernel) -> None:
    name = kernel.namespace()
    shell.type(f"reconciler init --netns {name[:-1]}\t\r", f"<init><--netns><{name}>")

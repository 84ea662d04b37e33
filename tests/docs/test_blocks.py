"""Every block of commands that a reader is shown is run as it stands, or says why not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, doubts, pages
from tests.docs.commands import commands, differences, script
from tests.host import Host
from tests.watch.running import until

# The page is the first thing that people see, and has a test of its own.
RUN_ELSEWHERE = {"README.md": "tests/system/test_readme.py"}
RUN = [page for page in pages() if page.name not in RUN_ELSEWHERE and commands(page)]
MACHINE = "pages"
# A start costs as much as all commands of a page, so one machine serves all of them, and is emptied when it is stopped.
PROGRAM = """\
#!/bin/sh
case "$1 $2" in
"sandbox start") exec ln -s {machine} /run/reconciler/sandboxes/"$3" ;;
"sandbox stop")
    rm /run/reconciler/sandboxes/"$3"
    set -- sandbox exec {machine} -- sh -c \
        'ipvsadm -C; ip address flush dev lo scope global; sysctl -qw net.ipv4.ip_forward=0' ;;
esac
exec {program} "$@"
"""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    assert doubts(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nreconciler diff a.yaml\n```\n", "1: is ``` commands (sh), output or data?"),
        ("text\n\n```bash\nls\n```\n", "3: is ```bash commands (sh), output or data?"),
        ("~~~console\n$ ls\n~~~\n", "1: is ```console commands (sh), output or data?"),
        ("```text\n# ip link\n```\n", "1: this looks like commands"),
        ("```text\n$ reconciler diff\n```\n", "1: this looks like commands"),
        ("```sh\n$ ls\n```\n", "1: a `sh` block is for pasting"),
        ("```output\nok\n```\n", "1: an `output` block follows"),
        ("<!-- not run: it is long -->\n```sh\nmake soak\n```\n\n```output\nok\n```\n", "6: an `output` block follows"),
        ("<!-- not run:  -->\n```console\nmake soak\n```\n", "2: is ```console commands"),
        ("Run\n\n    reconciler diff\n", "3: a block needs a fence"),
        ("- Run:\n\n  ```\n  ls\n  ```\n", "3: is ``` commands"),
    ],
)
def test_what_is_neither_is_found(text: str, problem: str) -> None:
    (found,) = doubts(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nls\n```\n\n```output\na\n```\n",
        "<!-- not run: it takes an hour -->\n```sh\nmake soak\n```\n",
        "```yaml\n# ip netns add a\na: b\n```\n\n```text\na --> b\n```\n",
        "- one\n\n    more of it\n",
    ],
)
def test_what_is_clear_is_no_doubt(text: str) -> None:
    assert doubts(text) == []


def test_each_page_that_is_run_elsewhere_is_run_there() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def machine(host: Host) -> None:
    """Start the machine of all pages. Each page leaves nothing behind on its host, as it shows the reader how to."""
    host.start_machine(MACHINE)


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_shows(
    host: Host, page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, work, programs = tmp_path / "run", tmp_path / "work", tmp_path / "bin"
    for each in (folder, work, programs):
        each.mkdir()
    program = programs / "reconciler"
    program.write_text(PROGRAM.format(machine=MACHINE, program=Path(sys.executable).with_name("reconciler")))
    program.chmod(0o755)
    run = commands(page)
    if any("sandbox start" in each.text for each in run):
        request.getfixturevalue("machine")
    before = state(host)
    done = host.run("bash", "-c", f"PATH={programs}:$PATH\n{script(run, folder)}", "bash", str(folder), folder=work)
    printed = "".join(file.read_text() for file in sorted(folder.glob("*.out")))
    assert done.returncode == 0, done.stdout + printed
    assert differences(run, folder) == []
    # The kernel removes what was in a deleted namespace a moment later.
    until(lambda: state(host) == before, "nothing is left", more=lambda: str(state(host)))


def state(host: Host) -> list[str]:
    """Return what a page could leave behind on a host."""
    links = host.output("ip", "-brief", "link").splitlines()
    names = [line.split()[0] for line in links]
    processes = host.output("ps", "-eo", "args=").splitlines()
    left = [line for line in processes if re.search("reconciler|qemu", line)]
    return sorted([*names, *host.output("ip", "netns").split(), *left])

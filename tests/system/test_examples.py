"""Everything a reader is shown works as shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.main import COMMANDS, main
from tests.fields import names
from tests.host import Host
from tests.system.eyes import seen, wanted
from tests.watch.running import until

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
NUMBERED = [path for path in EXAMPLES if path.name[0].isdigit()]
# tests/vhost/test_vhost.py applies the one that is left, with a vhost-user backend.
IN_NAMESPACES = [path for path in EXAMPLES if "netns: {" in path.read_text()]
IN_MACHINES = [path for path in EXAMPLES if "vm: {name: " in path.read_text()]
BEHIND_KATA = [path for path in EXAMPLES if "kata: {" in path.read_text()]
MACHINE = "example"
# Our own program in the place of kata-runtime, for the container of a manifest.
INSTALL_KATA = r"""
mkdir /srv/upper /srv/work
mount -t overlay -o "lowerdir=/usr/bin,upperdir=/srv/upper,workdir=/srv/work" overlay /usr/bin
cat >/usr/bin/kata-runtime <<end
#!/bin/sh
exec $(command -v reconciler) "\$@" --manifests $1/container.yaml
end
chmod 755 /usr/bin/kata-runtime
ip tuntap add dev tap-kata mode tap
ip link set dev tap-kata up
"""


@pytest.fixture(scope="module")
def machine(host: Host) -> None:
    """Start the machine of all examples that need one."""
    host.start_machine(MACHINE)


def succeed(host: Host, *words: str) -> str:
    """Run a command of reconciler that has to succeed; return what it prints."""
    code, printed = host.reconciler(*words)
    assert code == 0, printed
    return printed


def preparation(example: Path) -> str:
    """Return the commands in the comment at the beginning of an example."""
    return "".join(line[4:] for line in example.read_text().splitlines(keepends=True) if line.startswith("#   "))


def documents(example: Path) -> list[dict[str, Any]]:
    """Return the manifests of an example, as another reader of YAML reads them."""
    found = list(yaml.safe_load_all(example.read_text()))
    for each in found:
        if rules := each.get("ipvs", {}).get("rulesFile"):
            each["ipvs"]["rules"] = (example.parent / rules).read_text()
    return found


def test_each_feature_has_an_example_whose_first_line_says_what_it_shows() -> None:
    assert len(NUMBERED) >= 15
    assert [int(path.name[:2]) for path in NUMBERED] == list(range(1, len(NUMBERED) + 1))
    firsts = {path.name: path.read_text().splitlines()[0] for path in EXAMPLES}
    assert [name for name, first in firsts.items() if not re.fullmatch(r"# [A-Z].{30,}\.", first)] == []
    assert len(set(firsts.values())) == len(firsts)


def test_all_examples_together_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(ROOT / "examples")]) == 0
    count = sum(len(documents(path)) for path in EXAMPLES)
    assert capsys.readouterr() == (f"{count} manifests valid\n", "")


def test_the_examples_name_every_field_of_a_manifest() -> None:
    used = set[str]()
    for path in EXAMPLES:
        used |= set(re.findall(r"[\w.]+(?=:(?: |$))", path.read_text(), re.MULTILINE))
    schema = json.loads((ROOT / "schemas" / "reconciler-v1.schema.json").read_text())
    assert sorted(names(schema) - used) == []


def test_examples_apply_to_real_namespaces(host: Host) -> None:
    """All of them at once, as `reconciler apply examples` would."""
    files = [str(path.relative_to(ROOT)) for path in IN_NAMESPACES]
    host.output("sh", "-ec", "".join(map(preparation, IN_NAMESPACES)))
    applied = succeed(host, "apply", *files)
    manifests = [each for path in IN_NAMESPACES for each in documents(path)]
    assert re.findall(r"^(\S+): applied \d+ operations? in .* s, verified$", applied, re.MULTILINE) == [
        each["sandbox"] for each in manifests
    ]
    # Examples that are numbered carry packets: nothing is warned about.
    assert re.findall(r"examples/\d.*", applied) == []
    assert f"{len(manifests)} sandboxes: nothing to do." in succeed(host, "diff", *files)
    for document in manifests:
        address = document["driver"]["netns"]
        name = address.get("name") or address["path"].rpartition("/")[2]
        run = partial(host.output, "ip", "netns", "exec", name)
        assert (document["sandbox"], seen(run, document)) == (document["sandbox"], wanted(document))
    assert "1 received" in host.output("ip", "netns", "exec", "red", "ping", "-c1", "-W9", "10.13.0.2")


def test_the_example_of_kata_runtime_applies_to_a_container(host: Host, machine: None, tmp_path: Path) -> None:
    """Our own program is its kata-runtime, and the machine of the test before its container."""
    (example,) = BEHIND_KATA
    (document,) = documents(example)
    driver = {"vm": {"name": MACHINE}}
    manifest = {"apiVersion": "reconciler/v1", "sandbox": document["driver"]["kata"]["id"], "driver": driver}
    (tmp_path / "container.yaml").write_text(json.dumps(manifest))
    host.output("sh", "-ec", INSTALL_KATA, "sh", str(tmp_path))
    file = str(example.relative_to(ROOT))
    assert "verified" in succeed(host, "apply", file)
    assert "1 sandbox: nothing to do." in succeed(host, "diff", file)
    assert seen(partial(host.within, MACHINE), document) == wanted(document)


def test_examples_apply_to_a_real_machine(host: Host, machine: None) -> None:
    """One after the other to one machine, which has the names of all; each takes the NIC of the one before away."""
    run = partial(host.within, MACHINE)
    for path in IN_MACHINES:
        (document,) = documents(path)
        name = document["driver"]["vm"]["name"]
        start, *others = preparation(path).splitlines(keepends=True)
        assert start == f"reconciler sandbox start {name}\n"
        host.output("sh", "-ec", f"ln -s {MACHINE} /run/reconciler/sandboxes/{name}\n{''.join(others)}")
        file = str(path.relative_to(ROOT))
        applied = succeed(host, "apply", "--allow-delete", "all", file)
        assert re.search(rf"^{name}: applied \d+ operations in .* s, verified$", applied, re.MULTILINE), applied
        assert ": warning: " not in applied
        assert "1 sandbox: nothing to do." in succeed(host, "diff", file)
        assert (name, seen(run, document)) == (name, wanted(document))


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a program whose output goes to a terminal; return its exit code and what is seen there."""
    ours, theirs = os.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, "PATH": path}
    ) as process:
        os.close(theirs)
        seen = bytearray()
        # The end of the last program on a terminal is an error there.
        with suppress(OSError):
            while part := os.read(ours, 1 << 16):
                seen += part
        os.close(ours)
    return process.returncode, seen.decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("root")
def test_the_demo() -> None:
    code, seen = on_terminal("bash", str(ROOT / "examples" / "demo.sh"))
    assert code == 0, seen
    shown = [
        "first: in sync",
        "repaired sandbox=first cause=drift",
        "vm-1: booting kernel 6.1 under ",
        "vm-1: running, pid ",
        "vm-1: applied 11 operations in ",
        # The progress.
        "19,997 operations  ",
        "vm-1: applied 19,997 operations in ",
        "vm-1: applied 1 operation in ",
        "\nbefore the flush\n",
        "172.16.0.3:12345   172.16.0.4:808",
        "repaired sandbox=vm-1 cause=drift operations=",
        "\n20000\n",
        "\nafter the flush\n",
        "export PATH=",
    ]
    # In this order.
    assert re.search(".*".join(map(re.escape, shown)), seen, re.DOTALL), seen
    assert seen.count("1 received") == 2
    assert re.findall("warning|demo:", seen) == []
    assert "sh -c 'tail -n +4 /proc/net/ip_vs | wc -l'\n" in seen


@pytest.fixture
def demo(open_checkout: None) -> Iterator[str]:
    """The demo where another user can read it, who may not see the checkout."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "examples", Path(name, "examples"))
        Path(name).chmod(0o755)
        yield f"{name}/examples/demo.sh"


def as_another_user(*words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )


def test_the_demo_without_root_shows_the_part_that_needs_none(demo: str, user_namespaces: None) -> None:
    done = as_another_user("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", demo)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "first: applied 4 operations in " in done.stdout
    assert "repaired sandbox=first cause=drift" in done.stdout
    assert "Left out: the virtual machine, its NIC and its 20,000 IPVS rules.\nRun `make demo` as root" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_demo_that_is_ended_leaves_nothing(demo: str, user_namespaces: None) -> None:
    # The folder of the examples, which other users can reach.
    scratch = Path(demo).parents[1] / "scratch"
    scratch.mkdir()
    os.chown(scratch, 65534, 65534)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch),
    }
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", demo]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env, cwd="/") as process:
        assert process.stdout
        while "watch=" not in (line := process.stdout.readline()):
            assert line
        assert len(list(scratch.iterdir())) == 1
        process.terminate()
    assert process.returncode == 1
    assert list(scratch.iterdir()) == []
    list_all = ["ps", "-eo", "args="]
    # The kernel ends the processes of a namespace, and does not wait for that.
    until(
        lambda: str(scratch) not in subprocess.run(list_all, check=True, capture_output=True, text=True).stdout,
        "its processes end",
    )


def test_the_demo_says_what_it_needs_where_users_have_no_namespaces(demo: str) -> None:
    # As in a chroot: user_namespaces(7).
    words = "mount --rbind / /mnt; exec chroot --userspec=65534:65534 /mnt bash $0"
    done = as_another_user("unshare", "--mount", "sh", "-c", words, demo)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "unshare: unshare failed: Operation not permitted",
        "demo: here, this user may have no namespaces (see above): run `make demo` as root",
    ]


def test_the_manifests_of_the_readme_are_valid(tmp_path: Path) -> None:
    manifests = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "readme.yaml").write_text("---\n".join(manifests))
    assert main(["validate", str(tmp_path / "readme.yaml")]) == 0


def test_help_and_readme_name_the_same_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert shown == list(COMMANDS)
    named = re.findall(r"^\| `reconciler ([a-z-]+)[ `]", (ROOT / "README.md").read_text(), re.MULTILINE)
    # Of `watch`, a second line says what it does in a fleet.
    assert list(dict.fromkeys(named)) == shown


def test_make_help_names_every_target_of_the_readme() -> None:
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], check=True, capture_output=True, text=True).stdout
    listed = re.findall(r"^  make ([a-z]+)", shown, re.MULTILINE)
    assert {"demo", "test", "lint", "bench", "help"} <= set(listed)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= set(listed)

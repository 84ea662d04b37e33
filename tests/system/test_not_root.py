"""Beside root, another user runs every command: it says what is root's alone, and nothing that root sees is denied."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import COMMANDS, main
from reconciler.manifest.dump import dump
from reconciler.values import dataclass
from tests.allowed import write_policy
from tests.conftest import Kernel
from tests.machine import Guest
from tests.processes import process_in
from tests.system.box import nic
from tests.watch.running import watching

ROOT = Path(__file__).parents[2]
NOBODY = 65534
RUN = "/run/reconciler"
# What a message may not say of what is there, and works for root.
DENIALS = re.compile(
    r"dead|missing|no such|no QEMU|not running|not exist|not found|there is no|no watcher|no sandbox|"
    r"not answer|no answer|not a program|is gone|not JSON",
    re.IGNORECASE,
)


@dataclass
class World:
    """Sandboxes of all drivers that root sees alive, manifests of them, and files that only root can read."""

    folder: Path
    names: dict[str, str]

    def words(self, text: str) -> list[str]:
        return [self.fill(word) for word in text.split("·")] if "·" in text else self.fill(text).split()

    def fill(self, text: str) -> str:
        return re.sub(r"@(\w+)", lambda found: self.names[found[1]], text)


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def world(kernel: Kernel, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as name, process_in(kernel.namespace()) as pid:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        secret = folder / "secret"
        secret.mkdir(0o700)
        runtime = secret / "kata-runtime"
        runtime.write_text("#!/bin/sh\necho '[]'\n")
        runtime.chmod(0o755)
        for each in ("agent", "qmp"):
            (secret / each).symlink_to(getattr(guest.sandbox, each))
        policy = write_policy(folder / "policy", sockets=["/run", str(secret)], runtimes=[str(runtime)])
        monkeypatch.setattr("reconciler.manifest.policy.POLICY_FILE", policy)
        (folder / "closed").write_text("drivers: [netns]\n")
        (folder / "closed").chmod(0o600)
        found = World(folder, {"net": kernel.namespace(), "vm": guest.sandbox.name, "pid": str(pid), "at": str(secret)})
        _write_manifests(found, kernel)
        assert main(["apply", "net.yaml"]) == 0
        with watching(folder / "watched") as running:
            running.await_state("converged", "net")
            yield found


def _write_manifests(world: World, kernel: Kernel) -> None:
    (world.folder / "watched").mkdir(0o755)
    head: dict[str, Any] = {"apiVersion": "reconciler/v1"}
    secret = world.names["at"]
    drivers = {
        "net": {"netns": {"name": world.names["net"]}},
        "pid": {"netns": {"pid": int(world.names["pid"])}},
        "vm": {"vm": {"name": world.names["vm"]}},
        "sockets": {"vm": {"agent": f"{secret}/agent", "qmp": f"{secret}/qmp"}},
        "kata": {"kata": {"id": "c1", "runtime": f"{secret}/kata-runtime"}},
    }
    interfaces = [nic(kernel.tap())]
    for name, driver in drivers.items():
        sections = {"interfaces": interfaces} if name == "net" else {"routes": []}
        text = dump([head | {"sandbox": name, "driver": driver} | sections])
        for file in (
            world.folder / f"{name}.yaml",
            *([world.folder / "watched" / "net.yaml"] if name == "net" else []),
        ):
            file.write_text(text)
            file.chmod(0o644)
    for name in ("mine.yaml", "rules", "policy"):
        (world.folder / "secret" / name).write_text("-A -t 192.0.2.1:80\n")
    rules = head | {"sandbox": "rules", "driver": {"vm": {"name": "x"}}, "ipvs": {"rulesFile": "closed.rules"}}
    (world.folder / "rules.yaml").write_text(dump([rules]))
    (world.folder / "closed.rules").write_text("-A -t 192.0.2.1:80\n")
    (world.folder / "closed.rules").chmod(0o600)


def as_root(words: list[str], capsys: pytest.CaptureFixture[str]) -> Said:
    capsys.readouterr()
    code = main(words)
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def as_nobody(words: list[str]) -> Said:
    """Run a command in a process of another user. All that it imports should be there: root ran the same before."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        try:
            code = main(words)
        except BaseException as error:  # noqa: BLE001 the parent shows it
            code = repr(error)  # type: ignore[assignment]
        with os.fdopen(write, "w") as answer:
            json.dump([code, sys.stdout.getvalue(), sys.stderr.getvalue()], answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return Said(*json.loads(text))


DENIED = "Permission denied; run this as root"
ENTERING = "entering a network namespace needs root (CAP_SYS_ADMIN)"
ASK = f"reconciler: only root can ask the watcher of this host ({RUN}/watch.sock: {DENIED})"
HISTORY = f"reconciler: /var/lib/reconciler/history: {DENIED}"
MACHINES = f"reconciler: {RUN}/sandboxes: {DENIED}"
OURS = f"reconciler: {RUN}: {DENIED}"
# The forms of no answer.
NOTHING = {"", "null\n", "#!/bin/sh\nset -e\n"}
# Actions that would change what other rows need, or never end: root does not run them.
ONLY_NOBODY = {
    "status --watch",
    "history --follow",
    "sandbox stop @vm",
    "kata-ipvs·ipvsadm·--restore·secret/rules·@vm",
}
# A command → the one line that it says to another user; empty: it does its work, as for root.
ROWS = {
    "explain routes": "",
    "validate net.yaml pid.yaml vm.yaml kata.yaml": "",
    "validate sockets.yaml": "",
    "validate secret": f"secret: {DENIED}",
    "validate secret/mine.yaml": f"secret/mine.yaml: {DENIED}",
    "validate rules.yaml": f"rules.yaml:5:19: ipvs.rulesFile: closed.rules: {DENIED}",
    "validate --policy closed net.yaml": f"reconciler: closed: the policy cannot be read: {DENIED}",
    "diff --observed net.yaml net.yaml": "",
    "diff net.yaml": f"net: net.yaml:4:3: driver: {ENTERING}",
    "diff pid.yaml": f"pid: pid.yaml:4:3: driver: netns of pid @pid: /proc/@pid/ns/net: {DENIED}",
    "diff vm.yaml": f"vm: vm.yaml:4:3: driver: cannot connect to {RUN}/sandboxes/@vm/agent.sock: {DENIED}",
    "diff sockets.yaml": f"sockets: sockets.yaml:4:3: driver: cannot connect to @at/agent: {DENIED}",
    "diff kata.yaml": f"kata: kata.yaml:4:27: driver.kata.runtime: @at/kata-runtime: {DENIED}",
    "diff -o json net.yaml": f"net: net.yaml:4:3: driver: {ENTERING}",
    "diff -o shell vm.yaml": f"vm: vm.yaml:4:3: driver: cannot connect to {RUN}/sandboxes/@vm/agent.sock: {DENIED}",
    "apply -o json net.yaml": f"net: net.yaml:4:3: driver: {ENTERING}",
    "apply net.yaml": f"net: net.yaml:4:3: driver: {ENTERING}",
    "apply vm.yaml": f"vm: vm.yaml:4:3: driver: cannot connect to {RUN}/sandboxes/@vm/agent.sock: {DENIED}",
    "show net.yaml": f"net: net.yaml:4:3: driver: {ENTERING}",
    "show -o text kata.yaml": f"kata: kata.yaml:4:27: driver.kata.runtime: @at/kata-runtime: {DENIED}",
    "status": ASK,
    "status -o json": ASK,
    "history": HISTORY,
    "history net": HISTORY,
    "history --follow": f"reconciler: /var/lib/reconciler: {DENIED}",
    "diff --since 1h net.yaml": f"net: /var/lib/reconciler/history: {DENIED}",
    "diff --since 1h -o json net.yaml": f"net: /var/lib/reconciler/history: {DENIED}",
    "status net": ASK,
    "status --watch": ASK,
    "pause net --for 1s": OURS,
    "pause net --end": f"reconciler: {RUN}/paused/net: {DENIED}",
    "resume net": f"reconciler: {RUN}/paused/net: {DENIED}",
    "watch net.yaml": f"reconciler: {RUN}/paused: {DENIED}",
    "confirm net": f"reconciler: {RUN}/pending/waiting/net: {DENIED}",
    "agent unit": "",
    "agent cloud-init": "",
    "sandbox list": MACHINES,
    "sandbox list -o json": MACHINES,
    "sandbox start @vm": OURS,
    "sandbox exec @vm -- true": MACHINES,
    "sandbox stop @vm": MACHINES,
    "kata-network list-ifaces @vm": MACHINES,
    "kata-network list-routes --manifests net.yaml net": f"reconciler: {ENTERING}",
    "kata-network add-iface @vm secret/mine.yaml": f"reconciler: secret/mine.yaml: {DENIED}",
    "kata-ipvs·ipvsadm·--parameters·-Ln·@vm": MACHINES,
    "kata-ipvs·ipvsadm·--restore·secret/rules·@vm": MACHINES,
    "import --sandbox x --vm y closed.rules": f"closed.rules: {DENIED}",
}


def is_no_answer(said: Said) -> bool:
    """Return whether standard output has nothing but the error, for programs."""
    if said.out in NOTHING:
        return True
    data = json.loads(said.out)
    errors = data["errors"] if "errors" in data else data["sandboxes"]
    return [each["error"] for each in errors] == [said.err.splitlines()]


def test_another_user_is_told_what_only_root_can(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    # The tests below run the other ones, but those of a fleet, which touch nothing of this host.
    assert {row.replace("·", " ").split()[0] for row in ROWS} == set(COMMANDS) - {"doctor", "init", "fleet"}
    wrong = []
    for row, expected in ROWS.items():
        words = world.words(row)
        root = as_root(words, capsys) if row not in ONLY_NOBODY else None
        other = as_nobody(words)
        if expected:
            first, *_ = other.err.splitlines() or [""]
            good = (other.code, first) == (2, world.fill(expected)) and "root" in first
            # An answer for programs has its usual form.
            good = good and is_no_answer(other) and not DENIALS.search(other.out + other.err)
        else:
            good = root == other and other.code in {0, 1}
        wrong += [] if good else [(row, expected, root, other)]
    assert not wrong


def test_a_manifest_to_begin_with_says_what_it_could_not_read(world: World, open_checkout: None) -> None:
    for row, reason in (("init --netns @net", "needs root"), ("init --vm @vm", DENIED)):
        other = as_nobody(world.words(row))
        said = " ".join(other.out.replace("\n#", "").split())
        assert (other.code, other.err) == (0, "")
        assert " now could not be read: " in said
        assert reason in said
        assert not DENIALS.search(said), said


def test_what_a_doctor_cannot_see_is_unknown(world: World) -> None:
    for name in ("net", "pid", "vm", "sockets", "kata"):
        other = as_nobody(["doctor", "-o", "json", f"{name}.yaml"])
        said = json.loads(other.out)
        unknown = {(each["about"], each["what"]) for each in said["unknown"]}
        assert (name, "the inside of the sandbox") in unknown
        assert ("watcher", "whether a watcher runs, and what it says") in unknown
        # Of the host itself, everybody sees something; nothing is said of what only root sees.
        assert [each for each in said["findings"] if each["about"] != "host"] == []
        assert not DENIALS.search(json.dumps(said["unknown"]))


def test_a_process_that_is_hidden_is_not_gone(world: World, open_checkout: None) -> None:
    words = ["mount -t proc -o hidepid=2 proc /proc", f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"]
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{" && ".join(words)} "$0" -m reconciler diff pid.yaml', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    pid = world.names["pid"]
    where = f"pid: pid.yaml:4:3: driver: netns of pid {pid}: /proc/{pid}/ns/net"
    assert (ran.returncode, ran.stderr) == (2, f"{where}: this process is hidden; run this as root\n")


def test_make_finds_what_a_user_does_not_look_for(root: None) -> None:
    """Programs of root are in folders that the PATH of a user lacks; on this host, nothing is missing."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "Makefile").write_text((ROOT / "Makefile").read_text())
        words = [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "make",
            "-s",
            "-C",
            name,
            "system",
        ]
        env = {**os.environ, "PATH": "/usr/bin:/bin"}
        env.pop("MAKEFLAGS", None)
        ran = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        # What is missing indeed is named, with the command that installs it.
        ran = subprocess.run(
            [*words, "SYSTEM=no-such-program:no-such-package"], capture_output=True, text=True, check=False, env=env
        )
        assert ran.returncode == 2
        assert ran.stderr.splitlines()[0] == (
            "make: the Debian package no-such-package is missing: as root, apt-get install no-such-package"
        )
        ran = subprocess.run([*words[:-1], "bench"], capture_output=True, text=True, check=False, env=env)
        needs = "make: bench needs root: namespaces, devices and virtual machines"
        assert (ran.returncode, ran.stdout, ran.stderr.splitlines()[0]) == (2, "", needs)

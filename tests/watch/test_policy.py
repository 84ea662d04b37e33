"""A watcher and the operator's policy: what it does not allow stays one sandbox's problem, and it is read anew."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.manifest.dump import dump
from tests.allowed import script, write_policy
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import MACS
from tests.watch.running import COMMAND, END, Kept, Running, put, until, watching


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    return made


@pytest.fixture
def kept(kernel: Kernel, folder: Path) -> Kept:
    return Kept(kernel, folder, 0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Return a policy that allows what the defaults do."""
    return Path(write_policy(tmp_path / "policy.yaml", rulesFiles=[]))


@pytest.fixture
def running(kept: Kept, folder: Path, policy: Path) -> Iterator[Running]:
    with watching(folder, "--policy", str(policy), "--look", "0.5s") as running:
        running.await_state("converged", kept.name)
        yield running


def write(file: Path, driver: dict[str, Any]) -> None:
    put(file, dump([{"apiVersion": "reconciler/v1", "sandbox": file.stem, "driver": driver, "routes": []}]))


def reload(running: Running, times: int) -> None:
    running.signal(signal.SIGHUP)
    running.until(lambda: len(running.events("reload")) == times, "reload")


def test_a_refused_manifest_is_that_sandboxs_problem_until_the_operator_allows_it(
    kept: Kept, folder: Path, policy: Path, running: Running
) -> None:
    trace = folder / "trace"
    program = script(folder / "kata-runtime", "sh", "-c", f"touch {trace}")
    write(folder / "evil.yaml", {"kata": {"id": "a", "runtime": program}})
    write(folder / "own.yaml", {"netns": {"path": "/proc/self/ns/net"}})
    write(folder / "first.yaml", {"netns": {"pid": 1}})
    index = folder / ".git" / "index"
    index.parent.mkdir()
    index.touch()
    write(folder / "git.yaml", {"vm": {"agent": str(index), "qmp": "/run/none/qmp.sock"}})
    status = running.await_state("refused", "evil", "own", "first", "git")
    detail = str(status.sandboxes["evil"]["detail"])
    line = f"runtimes: [/usr/bin/kata-runtime, {program}]"
    assert f"{program} may not be run as kata-runtime; to allow it, add to {policy}: {line}" in detail
    assert str(status.sandboxes["git"]["detail"]).count("no socket in") == 1
    # The others are kept as ever.
    kept.ip("route", "del", "10.8.0.0/16")
    running.until(kept.has, "the repair")
    assert not trace.exists()
    assert [each.name for each in index.parent.iterdir()] == ["index"]
    # Nothing changes until the operator says so.
    policy.write_text(f"{policy.read_text()}{line}\n")
    running.await_quiet()
    assert not trace.exists()
    reload(running, 1)
    until(trace.exists, "the program that is allowed now is run")
    running.await_state("converged", kept.name)


def test_a_policy_that_is_wrong_does_not_replace_the_one_in_force(kept: Kept, policy: Path, running: Running) -> None:
    for times, text in enumerate(("driver: [netns]\n", "drivers: [vm\n", ""), start=1):
        policy.write_text(text)
        reload(running, times)
        running.until(
            lambda: any(f"{policy} is not used, and the policy before" in each for each in running.status().alarms),
            "the alarm",
        )
        running.until(lambda: running.events("alarm"), "the alarm in the log")
        kept.ip("route", "del", "10.8.0.0/16")
        running.until(kept.has, "the repair")
    policy.write_text("drivers: [netns]\n")
    policy.chmod(0o666)
    reload(running, 4)
    running.until(lambda: "another user can" in str(running.status().alarms) or running.status().alarms, "the alarm")
    policy.chmod(0o644)
    reload(running, 5)
    running.until(lambda: not running.status().alarms, "no alarm")
    running.await_state("converged", kept.name)


def test_what_is_no_longer_allowed_is_left_alone(kept: Kept, policy: Path, running: Running) -> None:
    write_policy(policy, drivers=["vm"])
    reload(running, 1)
    running.await_state("refused", kept.name)
    kept.ip("route", "del", "10.8.0.0/16")
    running.await_quiet()
    assert not kept.has()
    write_policy(policy, drivers=["netns"])
    reload(running, 2)
    running.until(kept.has, "the repair")
    # Its events are heard again as well.
    running.await_state("converged", kept.name)
    running.await_quiet()
    kept.ip("route", "del", "10.8.0.0/16")
    running.until(kept.has, "the repair")


def test_while_an_edit_is_refused_the_manifest_before_stays_in_force(
    kernel: Kernel, kept: Kept, policy: Path, running: Running
) -> None:
    write_policy(policy, devices={"*": [kept.device]})
    reload(running, 1)
    running.await_state("converged", kept.name)
    other = {"name": "eth1", "device": kernel.tap(), "hwAddr": MACS[1], "mtu": 1500}
    before = kept.sections["interfaces"]
    kept.write(interfaces=[*before, other])
    running.await_state("refused", kept.name)
    kept.ip("route", "del", "10.8.0.0/16")
    running.until(kept.has, "the repair")
    assert str(other["device"]) in ip("link", "show")
    kept.write(interfaces=before)
    running.await_state("converged", kept.name)


def test_a_machine_that_is_no_longer_allowed_is_let_go(guest: Guest, folder: Path, policy: Path) -> None:
    write(folder / "web.yaml", {"vm": {"name": guest.sandbox.name}})
    with watching(folder, "--policy", str(policy)) as running:
        running.await_state("converged", "web")
        write_policy(policy, sockets=["/run/elsewhere"])
        reload(running, 1)
        running.await_state("refused", "web")
        # Others can have it.
        assert guest.run("true").status == 0
        ran = subprocess.run([*COMMAND, "diff", str(folder / "web.yaml")], check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran
        write_policy(policy, sockets=["/run"])
        reload(running, 2)
        running.await_state("converged", "web")


def test_without_a_valid_policy_no_watch_begins(root: None, folder: Path, policy: Path) -> None:
    write(folder / "web.yaml", {"netns": {"name": "none"}})

    def begin(file: str) -> tuple[int, str]:
        words = [*COMMAND, "watch", "--policy", file, str(folder)]
        ran = subprocess.run(words, check=False, capture_output=True, text=True, timeout=END)
        return ran.returncode, ran.stderr

    policy.write_text("driver: [netns]\n")
    assert begin(str(policy))[0] == 2
    assert f"{policy}:1:1: driver: unknown field" in begin(str(policy))[1]
    assert begin(f"{policy}.none")[0] == 2
    write_policy(policy, drivers=["netns"])
    policy.chmod(0o666)
    assert begin(str(policy))[0] == 3


def test_what_is_pruned_is_allowed(kernel: Kernel, kept: Kept, folder: Path, policy: Path) -> None:
    """A device that the policy no longer allows comes home; a sandbox that it no longer allows stays as it is."""
    other = Kept(kernel, folder, 1)
    with watching(folder, "--prune", "--policy", str(policy)) as running:
        running.await_state("converged", kept.name, other.name)
        write_policy(policy, devices={"*": [other.device]})
        reload(running, 1)
        running.await_state("refused", kept.name)
        kept.file.unlink()
        running.await_event("pruned", sandbox=kept.name)
        assert kept.device in ip("link", "show")
        write_policy(policy, drivers=["vm"])
        reload(running, 2)
        running.await_state("refused", other.name)


def test_files_of_rules_are_allowed_by_a_reload(root: None, folder: Path, policy: Path) -> None:
    rules = folder.parent / "rules"
    rules.write_text("-A -t 10.0.0.1:80 -s rr\n")
    head = {"apiVersion": "reconciler/v1", "sandbox": "web", "driver": {"netns": {"name": "none"}}}
    put(folder / "web.yaml", dump([head | {"ipvs": {"rulesFile": "../rules"}}]))
    with watching(folder, "--policy", str(policy)) as running:
        (problem,) = running.status().problems
        line = f"rulesFiles: [{folder.parent}]"
        assert problem.endswith(f"; to allow it, change line 1 of {policy} to: {line}")
        policy.write_text(f"{line}\n")
        reload(running, 1)
        running.until(lambda: not running.status().problems, "the rules are read")
        write_policy(policy, rulesFiles=[])
        reload(running, 2)
        running.until(lambda: running.status().problems, "the rules are refused")

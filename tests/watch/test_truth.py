"""What a watcher says is so: no good state for a sandbox that is not as its folder says now, or was not looked at."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.watch import pause
from reconciler.watch.pause import Pause
from tests.conftest import ip
from tests.watch.running import OTHER, REFUSED, ROUTE, Keep, Running, at_once, put, reconciler, watching


def test_a_sandbox_whose_manifest_is_broken_is_outdated(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with watching(folder, "--metrics", "127.0.0.1:0") as watcher:
        watcher.await_state("converged", kept.name, other.name)
        assert watcher.metric("converged", kept.name) == 1
        good = kept.file.read_text()
        put(kept.file, good.replace("mtu: 1500", "mtu: many"))
        answer = watcher.await_state("outdated", kept.name)
        assert answer.code == 1
        assert answer.sandboxes[other.name]["state"] == "converged"
        watcher.await_event("manifest")
        assert "manifest not used: " in watcher.status().sandboxes[kept.name]["detail"]
        assert (watcher.metric("converged", kept.name), watcher.metric("manifest_refused", kept.name)) == (0, 1)
        assert (watcher.metric("converged", other.name), watcher.metric("manifest_refused", other.name)) == (1, 0)
        # Drift from the last good one is still repaired, and that is no good state either.
        kept.ip("route", "del", "10.8.0.0/16")
        watcher.await_event("repaired", sandbox=kept.name)
        assert watcher.state(kept.name) == "outdated"
        put(kept.file, good)
        watcher.await_state("converged", kept.name)
        watcher.await_good()


def test_a_sandbox_whose_changed_manifest_is_not_read_is_outdated(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    (folder / ".git").mkdir()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name, other.name)
        lock = folder / ".git/index.lock"
        lock.touch()
        kept.write(routes=[ROUTE, OTHER])
        answer = watcher.await_state("outdated", kept.name)
        words = f"the manifest has changed and was not read yet: {lock} exists: git is working, or was killed"
        assert (answer.code, answer.sandboxes[kept.name]["detail"]) == (1, words)
        assert answer.sandboxes[other.name]["state"] == "converged"
        other.file.unlink()
        watcher.await_state("outdated", other.name)
        lock.unlink()
        watcher.await_state("converged", kept.name)
        assert kept.has("10.9.0.0/16")
        watcher.await_event("released", sandbox=other.name)
        watcher.await_good()


def test_what_has_been_read_and_is_not_applied_yet_is_not_called_good(
    folder: Path, tmp_path: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading and the change lies git, which is asked for the revision, and may take its time."""
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 1\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    edited, broken, deleted = all_kept = [keep() for _ in range(3)]
    names = {kept.name for kept in all_kept}
    with at_once(folder):
        pass
    with watching(folder) as watcher:
        watcher.await_state("converged", *names)
        with at_once(folder):
            edited.write(routes=[ROUTE, OTHER])
            put(broken.file, "broken: [")
            deleted.file.unlink()
            watcher.await_state("outdated", *names)

        def is_done() -> bool:
            known = {name: each["state"] for name, each in watcher.status().sandboxes.items()}
            done = edited.has("10.9.0.0/16")
            good = {name for name, state in known.items() if state == "converged"}
            assert good <= ({edited.name} if done else set()), (known, done)
            return done and deleted.name not in known

        watcher.until(is_done, "what was read is applied")
        assert watcher.await_state("converged", edited.name).sandboxes[broken.name]["state"] == "outdated"


def test_sandboxes_whose_folder_is_gone_are_outdated(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        away = folder.with_name("away")
        folder.rename(away)
        answer = watcher.await_state("outdated", kept.name)
        assert answer.code == 1
        away.rename(folder)
        watcher.await_good()


def test_what_waits_behind_a_stopped_rollout_is_pending(folder: Path, keep: Keep) -> None:
    bad, waiting, good = keep(), keep(), keep()
    with watching(folder, "--at-once", "1", "--stop-after-failures", "1", "--metrics", "127.0.0.1:0") as watcher:
        watcher.await_state("converged", bad.name, waiting.name, good.name)
        with at_once(folder):
            bad.write(routes=[ROUTE, REFUSED])
            waiting.write(routes=[ROUTE, OTHER])
            new = keep()
        watcher.await_event("alarm", rollout="stopped")
        answer = watcher.await_state("pending", waiting.name, new.name)
        words = f"the changed manifest is not applied yet: the rollout stopped because {bad.name} failed"
        assert {answer.sandboxes[name]["detail"] for name in (waiting.name, new.name)} == {words}
        assert answer.code == 1
        assert answer.sandboxes[good.name]["state"] == "converged"
        assert (watcher.metric("converged", waiting.name), watcher.metric("manifest_refused", waiting.name)) == (0, 1)
        assert watcher.metric("converged", new.name) == 0
        # What it says is what it was before.
        with at_once(folder):
            waiting.write(routes=[ROUTE])
        watcher.await_state("converged", waiting.name)
        bad.write(routes=[ROUTE])
        watcher.await_state("converged", bad.name, waiting.name, good.name, new.name)
        watcher.await_good()


def test_a_change_that_is_being_applied_is_pending(folder: Path, keep: Keep) -> None:
    kept = keep(veth=True)
    ip("link", "set", "dev", kept.peer, "up")
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        # It is through when duplicate address detection is, here after five seconds.
        slower = "net.ipv6.conf.eth0.dad_transmits=5"
        subprocess.run(["ip", "netns", "exec", kept.name, "sysctl", "-qw", slower], check=True)
        (interface,) = kept.sections["interfaces"]
        kept.write(interfaces=[interface | {"addresses": ["10.0.0.2/16", "fd00::2/64"]}])
        # The kernel's own link-local address is another one.
        shown = ("address", "show", "dev", "eth0", "to", "fd00::2")
        said: list[tuple[str, int]] = []

        def found() -> bool:
            """Ask for the status between two looks that both find the address tentative."""
            if "tentative" not in kept.ip(*shown):
                return False
            answer = watcher.status()
            said[:] = [(answer.sandboxes[kept.name]["state"], answer.code)]
            return "tentative" in kept.ip(*shown)

        watcher.until(found, "an address that is not usable yet")
        assert said == [("pending", 1)]
        watcher.await_state("converged", kept.name)
        assert "tentative" not in kept.ip(*shown)


@contextmanager
def without_descriptors(running: Running) -> Iterator[None]:
    """Let the watcher open nothing during the block."""
    pid = running.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


GOOD = {"converged", "draining", "paused"}


def test_without_descriptors_nothing_is_called_good_and_afterwards_all_is_done(folder: Path, keep: Keep) -> None:
    replaced, disturbed, edited, stopped, gone = all_kept = [keep() for _ in range(5)]
    with watching(folder) as watcher:
        watcher.await_state("converged", *(kept.name for kept in all_kept))
        watcher.await_quiet()
        logged = len(watcher.lines())
        with without_descriptors(watcher):
            replaced.end()
            replaced.begin()
            pause.write(stopped.name, Pause(4e9, "maintenance"))
            try:
                stopped.ip("route", "del", "10.8.0.0/16")
                disturbed.ip("route", "del", "10.8.0.0/16")
                edited.write(routes=[ROUTE, OTHER])
                gone.end()
                watcher.await_event("failed", sandbox=stopped.name)
                watcher.await_event("failed", sandbox=disturbed.name)
                watcher.await_event("alarm", missing=str(folder))
            finally:
                before = watcher.lines()[logged:]
        try:
            assert not [each for each in before if each["event"] in GOOD | {"repaired", "applied"}]
            (event,) = (each for each in before if each["event"] == "failed" and each["sandbox"] == stopped.name)
            reason = f"{pause.FOLDER}/{stopped.name}: Too many open files: it is unknown whether the sandbox is paused"
            assert event["reason"] == reason
            # Until it is looked at, the last look at it is that before.
            watcher.until(replaced.is_as_written, "the namespace that was replaced")
            watcher.await_state("converged", replaced.name, disturbed.name, edited.name)
            watcher.await_state("waiting", gone.name)
            watcher.await_state("paused", stopped.name)
            assert (disturbed.has(), edited.has("10.9.0.0/16"), stopped.has()) == (True, True, False)
            # Changes in what was replaced are noticed.
            replaced.ip("route", "del", "10.8.0.0/16")
            watcher.until(replaced.has, "a repair of it")
        finally:
            pause.end(stopped.name)


def test_sandboxes_that_cannot_be_watched_have_failed_until_they_can(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        files = [Path(f"/proc/{watcher.process.pid}/fd/{each}") for each in range(200)]
        # Enough for reading the manifests and for a look, not for more sandboxes than a few.
        opened = sum(each.is_symlink() for each in files)
        limits = resource.prlimit(watcher.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(watcher.process.pid, resource.RLIMIT_NOFILE, (opened + 6, limits[1]))
        with at_once(folder):
            new = [keep() for _ in range(12)]
        watcher.await_event("failed", sandbox=new[-1].name)
        answer = watcher.await_state("failed", new[-1].name)
        assert "Too many open files" in answer.sandboxes[new[-1].name]["detail"]
        resource.prlimit(watcher.process.pid, resource.RLIMIT_NOFILE, limits)
        states = {each["state"] for each in watcher.await_good().sandboxes.values()}
        assert states == {"converged"}


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_revision_is_that_of_what_was_applied(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    for words in ("init --quiet", "add .", "commit --quiet --message one"):
        git(folder, *words.split())
    one = git(folder, "rev-parse", "--short", "HEAD")
    with watching(folder) as watcher:
        answer = watcher.await_state("converged", kept.name, other.name)
        first = git(folder, "rev-parse", f"HEAD:{kept.file.name}")
        assert (answer.sandboxes[kept.name]["revision"], answer.sandboxes[kept.name]["blob"]) == (one, first)
        kept.write(routes=[ROUTE, OTHER])
        event = watcher.await_event("applied", sandbox=kept.name, cause="manifest")
        blob = git(folder, "hash-object", kept.file.name)
        assert (event["revision"], event["blob"]) == (f"{one}-dirty", blob)
        answer = watcher.await_state("converged", kept.name)
        assert answer.sandboxes[kept.name]["revision"] == f"{one}-dirty"
        assert answer.sandboxes[other.name]["revision"] == one
        git(folder, "commit", "--quiet", "--all", "--message", "two")
        two = git(folder, "rev-parse", "--short", "HEAD")
        watcher.until(lambda: watcher.status().sandboxes[kept.name]["revision"] == two, "the commit")
        # One that is broken has not been applied: the revision stays that of the text in force.
        put(kept.file, "broken: [")
        git(folder, "commit", "--quiet", "--all", "--message", "three")
        three = git(folder, "rev-parse", "--short", "HEAD")
        watcher.until(lambda: watcher.status().sandboxes[other.name]["revision"] == three, "the next commit")
        found = watcher.status().sandboxes[kept.name]
        assert (found["state"], found["revision"], found["blob"]) == ("outdated", two, blob)


def test_every_operation_is_in_the_log_at_a_level_of_its_own(folder: Path, keep: Keep) -> None:
    kept = keep()
    dests = [f"10.{number}.0.0/16" for number in range(20, 30)]
    kept.write(routes=[ROUTE | {"dest": dest} for dest in dests])
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        (applied,) = watcher.events("applied")
        operations = watcher.events("operation")
        assert len(operations) == applied["operations"] > 10
        assert {each["level"] for each in operations} == {"operation"}
        routes = [each["command"] for each in operations if " route add " in each["command"]]
        assert routes == [f"ip route add {dest} via 10.0.0.1 dev eth0 proto 200" for dest in dests]
        # Each once: a flush would begin anew with what is repaired meanwhile.
        ip("-batch", "-", namespace=kept.name, stdin="".join(f"route del {dest}\n" for dest in dests))
        watcher.await_event("repaired")
        watcher.until(lambda: len(watcher.events("operation")) == len(operations) + len(dests), "the repairs")
    with watching(folder, "--log-level", "info") as watcher:
        watcher.await_state("converged", kept.name)
        kept.ip("route", "flush", "proto", "200")
        watcher.await_event("repaired")
        watcher.await_quiet()
        assert not watcher.events("operation")


def test_pause_returns_when_the_sandbox_is_left_alone_and_resume_ends_it(folder: Path, keep: Keep) -> None:
    kept, absent = keep(), keep()
    absent.end()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_state("waiting", absent.name)
        ran = reconciler("pause", f"{kept.name}x", "--for", "1h")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert f'no sandbox "{kept.name}x"; did you mean "{kept.name}"?' in ran.stderr
        for name in (kept.name, absent.name):
            ran = reconciler("pause", name, "--for", "1h")
            assert (ran.returncode, ran.stderr) == (0, "")
            assert watcher.state(name) == "paused"
        kept.ip("route", "del", "10.8.0.0/16")
        watcher.await_quiet()
        assert not kept.has()
        for name in (kept.name, absent.name):
            ran = reconciler("resume", name)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{name}: no longer paused\n", "")
        watcher.until(kept.has)
        watcher.await_state("waiting", absent.name)
        assert reconciler("resume", f"{kept.name}x").returncode == 2
    ran = reconciler("pause", kept.name, "--for", "1s")
    assert ran.returncode == 0
    assert "no watcher runs on this host" in ran.stderr
